//! Fetching a base from the Hugging Face hub into the cache that its other programs use too.
//!
//! All files come from the commit that the revision names when the fetch begins. A file is taken as whole only when
//! it has the length that the hub announced and, where the hub announced what its content hashes to, that too: the
//! SHA-256 of a large file, the name that git gives a small one. Nothing is written beyond the length that a file of its
//! kind may have, or where the disk has no room for it.

use std::path::PathBuf;

use formats::HubCache;

use crate::base::source::Repository;
use cache::Folder;
use fetch::Fetch;
use requests::Requests;

mod cache;
mod download;
mod error;
mod fetch;
mod listing;
mod requests;

pub use error::FetchError;
pub use fetch::{Fetching, Progress};
pub use requests::Patience;

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// A hub and the cache on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    patience: Patience,
}

impl Hub {
    /// The hub at `HF_ENDPOINT` (huggingface.co without it), and the cache in `HF_HOME`
    /// (`~/.cache/huggingface` without it).
    ///
    /// Fails where neither says where the cache is.
    pub fn from_env() -> Result<Self, FetchError> {
        let cache = HubCache::from_env().ok_or(FetchError::NoHome)?;
        Ok(Self::in_folder(cache.folder().to_owned()))
    }

    /// The hub at `HF_ENDPOINT` (huggingface.co without it), and this folder for what comes from it.
    pub fn in_folder(cache: PathBuf) -> Self {
        Self::new(&given("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()), cache)
    }

    /// The hub at an address, and a folder for what comes from it.
    pub fn new(endpoint: &str, cache: PathBuf) -> Self {
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), cache, patience: Patience::default() }
    }

    /// The folder, or the GGUF file, that an earlier fetch of this revision left; the hub is not asked.
    pub fn cached(&self, repository: &Repository) -> Option<PathBuf> {
        self.fetching(repository).cached()
    }

    /// The same hub, which is waited for as long as this.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The folder, or the GGUF file, that holds a base of the hub; what is not in the cache is fetched.
    ///
    /// Fetches `config.json`, the weights, the tokenizer and what there is of chat template and settings, or the one
    /// GGUF file, and nothing else. Where the hub cannot be reached, what an earlier fetch of the same revision left
    /// is taken. Fails where there is neither, where a file is not what the hub announced, where the hub is silent for too
    /// long, and where `progress` says to stop: what has come by then is gone on from the next time.
    pub fn fetch(&self, repository: &Repository, progress: Progress<'_>) -> Result<PathBuf, FetchError> {
        self.fetching(repository).run(progress)
    }

    fn fetching<'a>(&'a self, repository: &'a Repository) -> Fetch<'a> {
        let requests = Requests::new(&self.endpoint, &self.cache, self.patience);
        let folder = Folder::new(&self.cache, repository.name());
        Fetch { endpoint: &self.endpoint, cache: &self.cache, repository, requests, folder }
    }
}

/// A variable of the environment that says something.
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests;
