//! What is known of a base before its weights are read.

use std::collections::BTreeMap;

use formats::BaseFiles;
use proto::ids::Digest;

use crate::base::error::BaseError;
use crate::base::tensor::{TensorInfo, WeightDtype};
use crate::base::tokenizer::Tokens;
use crate::model::config::{DecoderConfig, RopeScaling};
use crate::model::weights::{EMBEDDING, HEAD, Read, Weights};

/// The divisors of the rotary frequencies in a GGUF file.
pub(super) const DIVISORS: &str = "rope_freqs.weight";

/// A base whose files are open and whose headers fit its config.
pub(super) struct Plan {
    pub(super) config: DecoderConfig,
    pub(super) tokens: Tokens,
    pub(super) files: BaseFiles,
    /// Whether a head of its own that is the embedding all the same is the embedding: the config says that it is tied.
    pub(super) may_be_tied: bool,
    /// What is wanted of each file of weights, in the order in which it is there.
    pub(super) entries: Vec<Vec<TensorInfo>>,
}

/// What a base is made of.
pub(super) struct Parts {
    pub(super) config: DecoderConfig,
    pub(super) weights: Weights,
    pub(super) tokens: Tokens,
    pub(super) digest: Digest,
}

impl Plan {
    /// Bytes that the weights take in memory.
    pub(super) fn held_bytes(&self, dtype: WeightDtype) -> u64 {
        // The divisors of the rotary frequencies become part of the config.
        let entries = self.entries.iter().flatten().filter(|entry| entry.name != DIVISORS);
        entries.fold(0, |sum, entry| sum.saturating_add(entry.held_bytes(dtype)))
    }

    /// Reads the weights.
    pub(super) fn read(self, dtype: WeightDtype) -> Result<Parts, BaseError> {
        let Self { mut config, tokens, files, may_be_tied, entries } = self;
        let (mut found, mut path, mut entries) = (BTreeMap::new(), None, entries.into_iter());
        let digest = files.read(|_, stream| {
            path = Some(stream.path().to_owned());
            for entry in entries.next().into_iter().flatten() {
                let read = entry.read(stream, dtype)?;
                found.insert(entry.name, read);
            }
            Ok::<_, BaseError>(())
        })?;
        let path = path.unwrap_or_default();
        if let Some(Read::Vector(divisors)) = found.remove(DIVISORS) {
            config.rope_scaling = RopeScaling::Divisors(divisors);
            config.check().map_err(|source| BaseError::Config { path: path.clone(), source })?;
        }
        if may_be_tied && is_tied(&found) {
            found.remove(HEAD);
            config.tied = true;
        }
        let weights = Weights::new(&config, found)
            .map_err(|tensor| BaseError::MissingTensor { path: path.clone(), tensor })?;
        Ok(Parts { config, weights, tokens, digest })
    }
}

/// Whether the head is the embedding, number for number.
fn is_tied(found: &BTreeMap<String, Read>) -> bool {
    match (found.get(HEAD), found.get(EMBEDDING)) {
        (Some(Read::Matrix(head)), Some(Read::Matrix(embedding))) => head.has_bits_of(embedding),
        (Some(_) | None, _) => false,
    }
}
