//! The frozen base: a Hugging Face folder or a GGUF file, read into memory and known by its digest.

use std::path::Path;
#[cfg(feature = "hub")]
use std::path::PathBuf;

use formats::{BaseLocation, locate};
use proto::adapter::Module;
use proto::ids::Digest;

use crate::base::tokenizer::{DecodeError, EncodeError};
use crate::kernels::error::ShapeError;
use crate::model::config::DecoderConfig;
use crate::model::projection::Projection;
use crate::model::weights;
use plan::{Parts, Plan};
use random::random;

mod dtype;
mod error;
mod folder;
mod gguf;
#[cfg(feature = "hub")]
mod hub;
mod plan;
mod random;
mod source;
mod tensor;
pub mod tokenizer;

pub use error::BaseError;
#[cfg(feature = "hub")]
pub use hub::{FetchError, Fetching, Hub, Patience, Progress};
pub use random::Filled;
pub use source::{Repository, Source, SourceError};
pub use tensor::WeightDtype;
pub use tokenizer::Tokens;

/// How a base is held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BaseOptions {
    /// What its matrices' numbers are held as.
    pub dtype: WeightDtype,
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
    fn of(Parts { config, weights, tokens, digest }: Parts) -> Self {
        Self { config, weights, tokens, digest }
    }

    /// A base of this shape with random weights and no words; fails when the shape cannot be held so.
    pub fn random(config: DecoderConfig, filled: Filled, seed: u64) -> Result<Self, ShapeError> {
        random(config, filled, seed).map(Self::of)
    }

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
        open(path)?.read(options.dtype).map(Self::of)
    }

    /// Where the base of a source is on this machine: [`Self::open_with`] takes what comes back. A base of the hub is
    /// fetched where it is not in the cache, which `progress` hears of.
    #[cfg(feature = "hub")]
    pub fn fetch(source: &Source, hub: &Hub, progress: Progress<'_>) -> Result<PathBuf, FetchError> {
        match source {
            Source::Path(path) => Ok(path.clone()),
            Source::Hub(repository) => hub.fetch(repository, progress),
        }
    }

    /// Bytes that the weights of this base will take in memory, from the headers of its files; fails like
    /// [`Self::open_with`].
    pub fn needed_bytes(path: &Path, options: BaseOptions) -> Result<u64, BaseError> {
        Ok(open(path)?.held_bytes(options.dtype))
    }

    /// What names this base everywhere: a hash over all of its files, as [`formats::BaseFiles::read`] says. How the
    /// weights are held changes nothing of it.
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

    /// What a base says of texts, without its weights: its tokenizer, special tokens and chat template. Takes and fails
    /// for what [`Self::open_with`] does, before it reads any weight.
    pub fn open_tokens(path: &Path) -> Result<Tokens, BaseError> {
        Ok(open(path)?.tokens)
    }

    /// Its tokenizer, special tokens and chat template.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub(crate) fn weights(&self) -> &weights::Weights {
        &self.weights
    }

    /// The tokenizer itself, for what must look at single pieces of a text.
    pub fn tokenizer(&self) -> &tokenizers::Tokenizer {
        self.tokens.tokenizer()
    }
}

/// Reads everything of a base but its weights.
fn open(path: &Path) -> Result<Plan, BaseError> {
    match locate(path)? {
        BaseLocation::Gguf(file) => gguf::plan(&file),
        BaseLocation::Folder(dir) => folder::plan(&dir),
    }
}

#[cfg(test)]
mod tests;
