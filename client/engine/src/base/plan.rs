//! What is known of a base before its weights are read.

use std::collections::BTreeMap;

use proto::ids::Digest;

use crate::base::error::BaseError;
use crate::base::files::{Hasher, Opened, Small, Stream};
use crate::base::tensor::{TensorInfo, WeightDtype};
use crate::base::tokenizer::Tokens;
use crate::model::config::{DecoderConfig, RopeScaling};
use crate::model::weights::{Read, Weights};

/// The divisors of the rotary frequencies in a GGUF file.
pub(super) const DIVISORS: &str = "rope_freqs.weight";

/// A base whose files are open and whose headers fit its config.
pub(super) struct Plan {
    pub(super) config: DecoderConfig,
    pub(super) tokens: Tokens,
    /// Hashed before the weights.
    pub(super) before: Vec<Small>,
    pub(super) weights: Vec<WeightFile>,
    /// Hashed after the weights.
    pub(super) after: Vec<Small>,
}

/// A file of weights of which the header was read.
pub(super) struct WeightFile {
    pub(super) opened: Opened,
    /// What is wanted of it, in the order in which it is there.
    pub(super) entries: Vec<TensorInfo>,
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
        let entries =
            self.weights.iter().flat_map(|file| &file.entries).filter(|entry| entry.name != DIVISORS);
        entries.fold(0, |sum, entry| sum.saturating_add(entry.held_bytes(dtype)))
    }

    /// Reads the weights.
    pub(super) fn read(self, dtype: WeightDtype) -> Result<Parts, BaseError> {
        let mut hasher = Hasher::new();
        self.before.iter().for_each(|file| hasher.add(file));
        let (mut found, mut path) = (BTreeMap::new(), None);
        for WeightFile { opened, entries } in self.weights {
            path = Some(opened.path().to_owned());
            let mut stream = Stream::new(opened, &mut hasher);
            for entry in entries {
                let read = entry.read(&mut stream, dtype)?;
                found.insert(entry.name, read);
            }
            stream.finish()?;
        }
        self.after.iter().for_each(|file| hasher.add(file));
        let (mut config, path) = (self.config, path.unwrap_or_default());
        if let Some(Read::Vector(divisors)) = found.remove(DIVISORS) {
            config.rope_scaling = RopeScaling::Divisors(divisors);
            config.check().map_err(|source| BaseError::Config { path: path.clone(), source })?;
        }
        let weights = Weights::new(&config, found)
            .map_err(|tensor| BaseError::MissingTensor { path: path.clone(), tensor })?;
        Ok(Parts { config, weights, tokens: self.tokens, digest: hasher.finish() })
    }
}
