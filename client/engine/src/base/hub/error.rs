//! Why a base could not be fetched.

use std::path::{Path, PathBuf};

/// A base that could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no place for the cache.
    #[error("there is no home folder to keep bases in; name one in HF_HOME")]
    NoHome,
    /// There is no network, or nothing answers.
    #[error(
        "cannot fetch `{base}`: {endpoint} cannot be reached ({reason}), and the base is not in the cache {}; \
         go online, or name a folder or a GGUF file", cache.display()
    )]
    Unreachable {
        /// The base.
        base: String,
        /// The hub.
        endpoint: String,
        /// What went wrong.
        reason: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The network went away during a fetch.
    #[error(
        "the fetch of `{file}` of `{base}` from {endpoint} was interrupted ({reason}); fetch it again, and it goes on from there"
    )]
    Interrupted {
        /// The base.
        base: String,
        /// The hub.
        endpoint: String,
        /// The file.
        file: String,
        /// What went wrong.
        reason: String,
    },
    /// Whoever asked for it said to stop.
    #[error("the fetch of `{base}` was stopped; what has come is gone on from the next time")]
    Stopped {
        /// The base.
        base: String,
    },
    /// The hub knows no such base.
    #[error("there is no `{base}` at {endpoint}, or it is not open to you (HTTP status {status})")]
    NotThere {
        /// The base.
        base: String,
        /// The hub.
        endpoint: String,
        /// The hub's answer.
        status: u16,
    },
    /// The hub's answer cannot be used.
    #[error("cannot fetch `{base}` from {endpoint}: {reason}")]
    Answer {
        /// The base.
        base: String,
        /// The hub.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository holds no base.
    #[error("`{base}` is no base: {reason}")]
    NoBase {
        /// The base.
        base: String,
        /// What is missing.
        reason: String,
    },
    /// A fetched file is not what was announced; it is not kept.
    #[error("`{file}` of `{base}` came damaged and was removed ({reason}); fetch it again")]
    Damaged {
        /// The base.
        base: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is larger than one of its kind is.
    #[error(
        "`{file}` of `{base}` has {}, at most {most} bytes are fetched of such a file; this is no base to use",
        bytes.map_or_else(|| format!("more than {most} bytes"), |bytes| format!("{bytes} bytes"))
    )]
    TooLarge {
        /// The base.
        base: String,
        /// The file.
        file: String,
        /// Its bytes, where the hub says how many.
        bytes: Option<u64>,
        /// The most that are fetched.
        most: u64,
    },
    /// The disk has no room for a file.
    #[error(
        "there is no room for `{file}` of `{base}` in {}: {needed} bytes are missing of it, {available} are free; \
         make room, or name another folder in HF_HOME", cache.display()
    )]
    NoRoom {
        /// The base.
        base: String,
        /// The file.
        file: String,
        /// Bytes that are still to be fetched.
        needed: u64,
        /// Bytes that may be written.
        available: u64,
        /// The cache.
        cache: PathBuf,
    },
    /// Another program fetches the same file into the same cache.
    #[error("another program is fetching `{file}` of `{base}` (it holds {}); wait until it is done", lock.display())]
    Busy {
        /// The base.
        base: String,
        /// The file.
        file: String,
        /// What the other program holds.
        lock: PathBuf,
    },
    /// The cache cannot be used.
    #[error("cannot use the cache {}: {source}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

pub(super) fn unusable(path: &Path, source: std::io::Error) -> FetchError {
    FetchError::Cache { path: path.to_owned(), source }
}
