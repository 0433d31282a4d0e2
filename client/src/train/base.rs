//! The frozen base: a Hugging Face folder, read into memory and known by its digest.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use proto::adapter::Module;
use proto::ids::Digest;
use safetensors::SafeTensors;
use serde::Deserialize;

use super::config::{ConfigError, DecoderConfig};
use super::decoder::{Weights, tensor_shapes};
use super::tokens::{EncodeError, Tokens};

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

/// A folder that is no base.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
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
    /// A tensor's numbers are neither f32, f16 nor bf16.
    #[error("{}: tensor `{tensor}` must be F32, F16 or BF16, found {found}", path.display())]
    Dtype {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is there.
        found: String,
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
    weights: Weights,
    tokens: Tokens,
    digest: Digest,
}

impl Base {
    /// Reads a Hugging Face folder: `config.json`, `model.safetensors` (or the shards of
    /// `model.safetensors.index.json`), `tokenizer.json` and, if there, `tokenizer_config.json`.
    ///
    /// Fails with the name of the file, and of the tensor, that is missing or wrong.
    pub fn open(dir: &Path) -> Result<Self, BaseError> {
        let mut hasher = Hasher::new();
        let path = dir.join("config.json");
        let config = DecoderConfig::parse(&hasher.read(&path)?)
            .map_err(|source| BaseError::Config { path, source })?;
        let weights = read_weights(dir, &config, &mut hasher)?;
        let path = dir.join("tokenizer.json");
        let json = hasher.read(&path)?;
        let settings_path = dir.join("tokenizer_config.json");
        let settings = if settings_path.exists() { Some(hasher.read(&settings_path)?) } else { None };
        let tokens = Tokens::parse(&json, settings.as_deref(), config.bos)
            .map_err(|reason| BaseError::Tokenizer { path, reason })?;
        Ok(Self { config, weights, tokens, digest: hasher.finish() })
    }

    /// What names this base everywhere: SHA-256 over `nightshift base v1` and then, for each file read,
    /// its name's length, its name, its length (both lengths as 8 bytes, little-endian) and its bytes.
    ///
    /// The files are `config.json`, the index if there is one, the weights in the order of their names,
    /// `tokenizer.json` and, if there, `tokenizer_config.json`.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The decoder's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
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

    /// The token that opens a document.
    pub fn bos(&self) -> u32 {
        self.tokens.bos()
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    pub(crate) fn tokenizer(&self) -> &tokenizers::Tokenizer {
        self.tokens.tokenizer()
    }
}

fn read_weights(dir: &Path, config: &DecoderConfig, hasher: &mut Hasher) -> Result<Weights, BaseError> {
    let single = dir.join("model.safetensors");
    let index = dir.join("model.safetensors.index.json");
    let (list, files) = if single.exists() || !index.exists() {
        (single.clone(), vec![single])
    } else {
        let files = shards(&index, &hasher.read(&index)?)?;
        (index, files.into_iter().map(|name| dir.join(name)).collect())
    };
    let wanted = tensor_shapes(config);
    let mut found = BTreeMap::new();
    for path in files {
        let bytes = hasher.read(&path)?;
        read_shard(&path, &bytes, &wanted, &mut found)?;
    }
    if let Some(tensor) = wanted.keys().find(|name| !found.contains_key(*name)) {
        return Err(BaseError::MissingTensor { path: list, tensor: tensor.clone() });
    }
    Weights::new(config, &found)
        .ok_or_else(|| BaseError::Damaged { path: list, reason: "incomplete".to_owned() })
}

/// The names of the files in an index, in order and once each.
fn shards(path: &Path, bytes: &[u8]) -> Result<Vec<String>, BaseError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let damaged = |reason| BaseError::Damaged { path: path.to_owned(), reason };
    let index: Index = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    // An index may only name files beside it.
    match files.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(name) => Err(damaged(format!("`{name}` is not the name of a file in this folder"))),
        None => Ok(files),
    }
}

fn read_shard(
    path: &Path,
    bytes: &[u8],
    wanted: &BTreeMap<String, Vec<usize>>,
    found: &mut BTreeMap<String, Tensor>,
) -> Result<(), BaseError> {
    let damaged = |reason| BaseError::Damaged { path: path.to_owned(), reason };
    let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
    for (name, view) in file.iter() {
        let Some(expected) = wanted.get(name) else { continue };
        if view.shape() != expected.as_slice() {
            return Err(BaseError::Shape {
                path: path.to_owned(),
                tensor: name.to_owned(),
                expected: expected.clone(),
                found: view.shape().to_vec(),
            });
        }
        let Some((_, dtype)) = DTYPES.into_iter().find(|(stored, _)| *stored == view.dtype()) else {
            let (tensor, found) = (name.to_owned(), view.dtype().to_string());
            return Err(BaseError::Dtype { path: path.to_owned(), tensor, found });
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, expected, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::F32))
            .map_err(|error| damaged(error.to_string()))?;
        found.insert(name.to_owned(), tensor);
    }
    Ok(())
}

/// What the numbers of a base may be stored as.
const DTYPES: [(safetensors::Dtype, DType); 3] = [
    (safetensors::Dtype::F32, DType::F32),
    (safetensors::Dtype::F16, DType::F16),
    (safetensors::Dtype::BF16, DType::BF16),
];

/// Reads files and hashes them as it goes.
struct Hasher(ring::digest::Context);

impl Hasher {
    fn new() -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(b"nightshift base v1");
        Self(context)
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, BaseError> {
        let fail = |source| BaseError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(fail)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(&bytes);
        Ok(bytes)
    }

    fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}
