//! What is known of a base before its weights are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Base, BaseError, folder, gguf};
use crate::base::files::{Hasher, Opened, Small, Stream};
use crate::base::held::{Entry, Hold};
use crate::base::tokenizer::Tokens;
use crate::model::config::{DecoderConfig, RopeScaling};
use crate::model::weights::{Read, Weights};

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
    pub(super) entries: Vec<Entry>,
}

impl Plan {
    /// Reads everything of a base but its weights.
    pub(super) fn of(path: &Path) -> Result<Self, BaseError> {
        match gguf_file(path)? {
            Some(file) => gguf::plan(&file),
            None => folder::plan(path),
        }
    }

    /// Bytes that the weights take in memory.
    pub(super) fn held_bytes(&self, hold: Hold) -> u64 {
        // The divisors of the rotary frequencies become part of the config.
        let entries =
            self.weights.iter().flat_map(|file| &file.entries).filter(|entry| entry.name != gguf::DIVISORS);
        entries.fold(0, |sum, entry| sum.saturating_add(entry.held_bytes(hold)))
    }

    /// Reads the weights.
    pub(super) fn read(self, hold: Hold) -> Result<Base, BaseError> {
        let mut hasher = Hasher::new();
        self.before.iter().for_each(|file| hasher.add(file));
        let (mut found, mut path) = (BTreeMap::new(), None);
        for WeightFile { opened, entries } in self.weights {
            path = Some(opened.path().to_owned());
            let mut stream = Stream::new(opened, &mut hasher);
            for entry in entries {
                let read = entry.read(&mut stream, hold)?;
                found.insert(entry.name, read);
            }
            stream.finish()?;
        }
        self.after.iter().for_each(|file| hasher.add(file));
        let (mut config, path) = (self.config, path.unwrap_or_default());
        if let Some(Read::Vector(divisors)) = found.remove(gguf::DIVISORS) {
            config.rope_scaling = RopeScaling::Divisors(divisors);
            config.check().map_err(|source| BaseError::Config { path: path.clone(), source })?;
        }
        let weights = Weights::new(&config, found)
            .map_err(|tensor| BaseError::MissingTensor { path: path.clone(), tensor })?;
        Ok(Base { config, weights, tokens: self.tokens, digest: hasher.finish() })
    }
}

/// The GGUF file that is meant: `path`, or the only one in a folder without a `config.json`.
fn gguf_file(path: &Path) -> Result<Option<PathBuf>, BaseError> {
    let is_gguf =
        |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if is_gguf(path) && !path.is_dir() {
        return Ok(Some(path.to_owned()));
    }
    if path.is_file() {
        return Err(BaseError::Kind(path.to_owned()));
    }
    if path.join("config.json").exists() {
        return Ok(None);
    }
    // A folder that cannot be read has no config either, which is then said.
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = files.filter(|file| is_gguf(file) && file.is_file()).collect();
    match files.len() {
        0 | 1 => Ok(files.pop()),
        count => Err(BaseError::Several { path: path.to_owned(), count }),
    }
}
