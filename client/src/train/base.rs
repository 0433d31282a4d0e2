//! The frozen base: a Hugging Face folder or a GGUF file, read into memory and known by its digest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proto::adapter::Module;
use proto::ids::Digest;

use super::config::{ConfigError, DecoderConfig};
use super::tokens::{DecodeError, EncodeError, Tokens};
use super::weights;
use plan::Plan;

mod files;
mod folder;
mod gguf;
mod held;
mod hub;
mod plan;
mod random;
mod source;

pub use held::Hold;
pub use hub::{FetchError, Fetching, Hub, Patience};
pub use random::Filled;
pub use source::{Repository, Source, SourceError};

/// One kind of linear layer in a decoder block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Projection {
    /// `self_attn.q_proj`.
    Q,
    /// `self_attn.k_proj`.
    K,
    /// `self_attn.v_proj`.
    V,
    /// `self_attn.o_proj`.
    O,
    /// `mlp.gate_proj`.
    Gate,
    /// `mlp.up_proj`.
    Up,
    /// `mlp.down_proj`.
    Down,
}

impl Projection {
    /// All seven, in the order of a block's tensors.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The name inside a block, such as `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Rows and columns of the weight: (outputs, inputs).
    pub(crate) fn shape(self, config: &DecoderConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Q => (config.num_heads * config.head_dim, hidden),
            Self::K | Self::V => (config.num_kv_heads * config.head_dim, hidden),
            Self::O => (hidden, config.num_heads * config.head_dim),
            Self::Gate | Self::Up => (inner, hidden),
            Self::Down => (hidden, inner),
        }
    }

    /// The layer's name in the base, such as `model.layers.3.self_attn.q_proj`.
    pub(crate) fn name(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.path())
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        f.write_str(path.split_once('.').map_or(path, |(_, name)| name))
    }
}

/// A word that names no projection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown projection `{0}`; known are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj")]
pub struct UnknownProjection(String);

impl FromStr for Projection {
    type Err = UnknownProjection;

    fn from_str(word: &str) -> Result<Self, UnknownProjection> {
        let bare = word.strip_suffix("_proj").unwrap_or(word);
        let known = |projection: &Self| projection.to_string().strip_suffix("_proj") == Some(bare);
        Self::ALL.into_iter().find(known).ok_or_else(|| UnknownProjection(word.to_owned()))
    }
}

/// How a base is held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BaseOptions {
    /// What its matrices' numbers are held as.
    pub hold: Hold,
}

/// What cannot be opened as a base.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Neither a folder nor a GGUF file.
    #[error("{} is neither a folder nor a file that ends in .gguf", .0.display())]
    Kind(PathBuf),
    /// A folder without a config holds several GGUF files.
    #[error("{} has no config.json and {count} GGUF files; name the one you want", path.display())]
    Several {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The config describes no decoder we can run.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// A file of weights, or their index, is not what it should be.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the config asks for is not there.
    #[error("{} has no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// The file of weights, or their index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the config asks for.
    #[error("{}: tensor `{tensor}` must be {expected:?}, found {found:?}", path.display())]
    Shape {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the config asks for.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<usize>,
    },
    /// A tensor's numbers are of a type that cannot be held.
    #[error("{}: tensor `{tensor}` must be {known}, found {found}", path.display())]
    Dtype {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What can be held.
        known: &'static str,
        /// What is there.
        found: String,
    },
    /// A tensor that no decoder of this kind has.
    #[error("{}: tensor `{tensor}` is not supported, and to leave it out would change the model", path.display())]
    UnknownTensor {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// What a GGUF file says of itself is missing, wrong or not supported.
    #[error("{}: `{key}` {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// The tokenizer cannot be used.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A frozen decoder, its tokenizer and its digest.
#[derive(Debug)]
pub struct Base {
    config: DecoderConfig,
    weights: weights::Weights,
    tokens: Tokens,
    digest: Digest,
}

impl Base {
    /// [`Self::open_with`] the default options: weights are held as they are stored.
    pub fn open(path: &Path) -> Result<Self, BaseError> {
        Self::open_with(path, BaseOptions::default())
    }

    /// Reads a Hugging Face folder: `config.json`, `model.safetensors` (or the shards of
    /// `model.safetensors.index.json`), `tokenizer.json` and, if there, `tokenizer_config.json`,
    /// `chat_template.jinja` and `generation_config.json`. Or a GGUF file, which is itself `path`, or the only one
    /// in a folder without a `config.json`.
    ///
    /// The weights are read a tensor at a time, so that never both the files and what is held are in memory.
    /// Fails with the name of the file, and of the tensor, that is missing or wrong, before it reads any weight.
    pub fn open_with(path: &Path, options: BaseOptions) -> Result<Self, BaseError> {
        Plan::of(path)?.read(options.hold)
    }

    /// Where the base of a source is on this machine: [`Self::open_with`] takes what comes back. A base of the hub is
    /// fetched where it is not in the cache, which `progress` hears of.
    pub fn fetch(
        source: &Source,
        hub: &Hub,
        progress: &mut (dyn FnMut(Fetching) + Send),
    ) -> Result<PathBuf, FetchError> {
        match source {
            Source::Path(path) => Ok(path.clone()),
            Source::Hub(repository) => hub.fetch(repository, progress),
        }
    }

    /// Bytes that the weights of this base will take in memory, from the headers of its files; fails like
    /// [`Self::open_with`].
    pub fn needed_bytes(path: &Path, options: BaseOptions) -> Result<u64, BaseError> {
        Ok(Plan::of(path)?.held_bytes(options.hold))
    }

    /// What names this base everywhere: SHA-256 over `nightshift base v1` and then, for each file read,
    /// its name's length, its name, its length (both lengths as 8 bytes, little-endian) and its bytes.
    ///
    /// The files are `config.json`, the index if there is one, the weights in the order of their names,
    /// `tokenizer.json` and, if there, `tokenizer_config.json`, `chat_template.jinja` and
    /// `generation_config.json`; or the one GGUF file. How the weights are held changes nothing of it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The decoder's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Numbers in all matrices.
    pub fn parameters(&self) -> usize {
        self.weights.parameters()
    }

    /// The layers that an adapter of these projections changes, block by block, in the order given.
    pub fn modules(&self, projections: &[Projection]) -> Vec<Module> {
        let size = |x: usize| u32::try_from(x).unwrap_or(u32::MAX); // `DecoderConfig::check` keeps both below 2³².
        let module = |layer, projection: Projection| {
            let (outputs, inputs) = projection.shape(&self.config);
            Module { name: projection.name(layer), inputs: size(inputs), outputs: size(outputs) }
        };
        let blocks = 0..self.config.num_layers;
        blocks
            .flat_map(|layer| projections.iter().map(move |&projection| module(layer, projection)))
            .collect()
    }

    /// The tokens of a text, without special tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        self.tokens.encode(text)
    }

    /// The text of tokens, without the special ones.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DecodeError> {
        self.tokens.decode(ids)
    }

    /// The token that opens a document: the one that the base names as its first (bos), else
    /// `<|endoftext|>`, else one that ends a text.
    pub fn bos(&self) -> u32 {
        self.tokens.bos()
    }

    /// The tokens that end a text, in order; none where the base names none.
    pub fn eos(&self) -> &[u32] {
        self.tokens.eos()
    }

    /// How the base's tokenizer writes its first token; none where the base has no such token.
    pub fn bos_token(&self) -> Option<&str> {
        self.tokens.bos_token()
    }

    /// How the base's tokenizer writes the token that ends a text; none where the base names none.
    pub fn eos_token(&self) -> Option<&str> {
        self.tokens.eos_token()
    }

    /// The Jinja template that makes one text of a conversation, if the base comes with one.
    pub fn chat_template(&self) -> Option<&str> {
        self.tokens.chat_template()
    }

    pub(crate) fn weights(&self) -> &weights::Weights {
        &self.weights
    }

    pub(crate) fn tokenizer(&self) -> &tokenizers::Tokenizer {
        self.tokens.tokenizer()
    }
}

#[cfg(test)]
mod tests;
