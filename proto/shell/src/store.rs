//! The durable store: named trees of small typed records.
//!
//! [`Store`] is what everybody has: values of Rust in and out, batches that happen together or not at all, expectations. What it lies
//! on is an [`Engine`]: sled in a folder (`store/sled.rs`), memory (`store/memory.rs`), or what another package brings, such as a
//! database. Records are at most 4 KiB, framed with a version and a checksum, the same on all of them. What is larger than a
//! record belongs into a file of its own, and its hash into a record.
//!
//! An engine blocks; threads that must not block use [`Store::commit`], [`Store::read`], [`Store::read_range`],
//! [`Store::read_prefix`], [`Store::now`] and [`Store::changes`].

use std::{
    fmt,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::files::FileError;
use serde::de::DeserializeOwned;

mod archive;
mod batch;
mod clock;
mod engine;
mod feed;
mod frame;
mod memory;
mod sled;
mod together;

pub use self::archive::{ArchiveError, Check};
pub use self::batch::{Batch, Expected, Key, Step, Write};
pub use self::engine::{Engine, FillError, Forward, Range, Raw, Record, Source};
pub use self::feed::{Change, Changes, Feed};
pub use self::sled::Kept;
/// What sled says when it fails.
pub use ::sled::Error as EngineError;

use self::engine::{Pages, beginning_with};
use self::memory::Memory;
use self::sled::Sled;

/// The tree that a store has from the beginning, for whoever needs one only. Its records have a checksum of their own
/// form, see `frame`.
pub const DEFAULT_TREE: &str = "__sled__default";

/// Below this, a store that keeps room takes no more commits.
pub const FREE_SPACE_FLOOR_BYTES: u64 = 32 << 20;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What sled may keep in memory; its own default is a gibibyte.
    pub cache_bytes: u64,
    /// What it needs of the disk.
    pub room: Room,
}

impl Default for Options {
    /// For a store of many records, on which others depend: 64 MiB of memory, and room is kept.
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, room: Room::Kept }
    }
}

/// What a store needs of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A commit needs [`FREE_SPACE_FLOOR_BYTES`], and a ballast file of 8 MiB is given up when the store has to be
    /// opened on a full disk.
    Kept,
    /// Nothing is kept or asked for: a commit fails when the disk does.
    NotKept,
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error(
        "the store {} is in use: another process holds its lock file; stop that process first",
        path.display()
    )]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// A file of the store could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store's engine failed.
    #[error("the store {} failed: {source}", path.display())]
    Engine {
        /// The store's folder.
        path: PathBuf,
        /// What the engine said.
        source: EngineError,
    },
    /// A record's checksum or format is wrong.
    #[error("damaged record in tree {tree}, key {key}: its checksum does not hold")]
    Damaged {
        /// The tree.
        tree: String,
        /// The key, in hex.
        key: String,
    },
    /// A record is whole but not of the type that was asked for.
    #[error("record in tree {tree}, key {key} is not of the expected form: {source}")]
    Unreadable {
        /// The tree.
        tree: String,
        /// The key, in hex.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A value that cannot be written as JSON.
    #[error("value for tree {tree}, key {key} cannot be written: {source}")]
    Unwritable {
        /// The tree.
        tree: String,
        /// The key, in hex.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A value that does not fit into one record.
    #[error("value for tree {tree}, key {key} takes {bytes} bytes, a record has at most {limit_bytes}")]
    TooLarge {
        /// The tree.
        tree: String,
        /// The key, in hex.
        key: String,
        /// What the record would take.
        bytes: usize,
        /// What it may take.
        limit_bytes: usize,
    },
    /// What a batch expected was not what was there; nothing was changed.
    #[error("tree {tree}, key {key} is not as expected; nothing was changed")]
    Conflict {
        /// The tree.
        tree: String,
        /// The key, in hex.
        key: String,
    },
    /// Too little room on the disk to take another commit.
    #[error(
        "{} has {free_bytes} bytes free, a commit needs {floor_bytes}; make room on that disk",
        path.display()
    )]
    DiskFull {
        /// The store's folder.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What must be free.
        floor_bytes: u64,
    },
    /// An earlier commit failed half-way, so nobody knows what is stored.
    #[error("the store {} stopped after a failed write; restart to recover", path.display())]
    Stopped {
        /// The store's folder, or where else it is.
        path: PathBuf,
    },
    /// A database did not take it now, and nothing was changed; the same may succeed later.
    #[error("the store {place} does not answer, or takes nothing, now: {why}")]
    Unavailable {
        /// Where the store is, without secrets.
        place: String,
        /// Why, and what to do.
        why: String,
    },
    /// A database cannot be used as it is, and nothing was changed; somebody has to do something.
    #[error("the store {place} cannot be used: {why}")]
    Refused {
        /// Where the store is, without secrets.
        place: String,
        /// Why, and what to do.
        why: String,
    },
}

impl StoreError {
    /// That something is not as a batch expects.
    pub fn conflict(tree: &str, key: &[u8]) -> Self {
        Self::Conflict { tree: tree.to_owned(), key: hex::encode(key) }
    }
}

/// The store, open. Clones are handles of the same store.
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("engine", &self.engine).finish()
    }
}

impl Store {
    /// Opens the store in a folder, making it where there is none. Fails when
    /// another process (or another handle of this one) has it open, and when
    /// the disk does.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Options::default())
    }

    /// The same as [`Store::open`], with other options.
    pub fn open_with(path: &Path, options: Options) -> Result<Self, StoreError> {
        Ok(Self::over(Arc::new(Sled::open(path, options)?)))
    }

    /// A store in memory: it ends with its last handle.
    pub fn memory() -> Self {
        Self::over(Arc::new(Memory::default()))
    }

    /// A store over another engine.
    pub fn over(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    /// What it lies on: for what is said of all records as bytes.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Where it is, for people.
    pub fn place(&self) -> PathBuf {
        self.engine.place()
    }

    /// Makes a batch durable: when this returns, it outlives a power loss.
    ///
    /// Fails with [`StoreError::Conflict`] and changes nothing when something
    /// is not as the batch expects. After a failed write the store takes no
    /// further commit.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.commit_blocking(&batch))
            .await
            .map_err(|_| StoreError::Stopped { path: self.place() })?
    }

    /// The same as [`Store::commit`], for threads that may block.
    pub fn commit_blocking(&self, batch: &Batch) -> Result<(), StoreError> {
        self.engine.commit(batch)
    }

    /// Fails while a commit would: the disk has too little room, or a database can be read only.
    pub fn check_room(&self) -> Result<(), StoreError> {
        self.engine.check_room()
    }

    /// Whether a write failed half-way, so that nobody knows what is on disk: then only a restart recovers.
    pub fn is_stopped(&self) -> bool {
        self.engine.is_stopped()
    }

    /// Changes how much must be free for a commit, so that a test can have a full disk. A database has no such floor.
    pub fn set_free_space_floor(&self, bytes: u64) {
        self.engine.set_free_space_floor(bytes);
    }

    /// Milliseconds since 1970 by the one clock that all have who share the store: a database's own, where it is one. It never
    /// goes back for one handle and its clones. For leases.
    pub fn now_millis(&self) -> Result<u64, StoreError> {
        self.engine.now_millis()
    }

    /// What is committed to these trees from now on, to all where none is named, by any handle of this store: of this process,
    /// and of every other one where the engine is one that they share.
    pub fn changes(&self, trees: &[&'static str]) -> Changes {
        self.engine.feed().follow(trees)
    }

    /// The value under a key. Fails when its record is damaged or not a `T`.
    pub fn get<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        key: impl Into<Key>,
    ) -> Result<Option<T>, StoreError> {
        let key = key.into();
        let record = self.engine.get(tree, key.as_bytes())?;
        record.map(|record| decode(tree, key.as_bytes(), &record)).transpose()
    }

    /// The values of a range of keys, in the order of the keys, read in pages: whatever others change meanwhile may be among
    /// them or not. An item fails when its record is damaged or not a `T`, and the last one may be that the engine did.
    pub fn scan<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        range: (Bound<Key>, Bound<Key>),
    ) -> Result<impl Iterator<Item = Result<(Key, T), StoreError>> + use<T>, StoreError> {
        self.items(tree, (range.0.map(Key::into_bytes), range.1.map(Key::into_bytes)))
    }

    /// The values of all keys that begin with `prefix`, in the order of the
    /// keys. An item fails when its record is damaged or not a `T`.
    pub fn scan_prefix<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        prefix: &Key,
    ) -> Result<impl Iterator<Item = Result<(Key, T), StoreError>> + use<T>, StoreError> {
        self.items(tree, beginning_with(prefix.as_bytes()))
    }

    fn items<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> Result<impl Iterator<Item = Result<(Key, T), StoreError>> + use<T>, StoreError> {
        let item = move |item: Result<Record, StoreError>| {
            let (key, record) = item?;
            let value = decode(tree, &key, &record)?;
            Ok((Key::from(key.as_slice()), value))
        };
        Ok(Pages::new(Arc::clone(&self.engine), tree, range)?.map(item))
    }

    /// The same as [`Store::get`], for threads that must not block.
    pub async fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        tree: &'static str,
        key: impl Into<Key>,
    ) -> Result<Option<T>, StoreError> {
        let key = key.into();
        self.aside(move |store| store.get(tree, key)).await
    }

    /// All values of a range, as [`Store::scan`] gives them, for threads that must not block. Fails where one is damaged.
    pub async fn read_range<T: DeserializeOwned + Send + 'static>(
        &self,
        tree: &'static str,
        range: (Bound<Key>, Bound<Key>),
    ) -> Result<Vec<(Key, T)>, StoreError> {
        self.aside(move |store| store.scan(tree, range)?.collect()).await
    }

    /// All values of keys that begin with `prefix`, for threads that must not block. Fails where one is damaged.
    pub async fn read_prefix<T: DeserializeOwned + Send + 'static>(
        &self,
        tree: &'static str,
        prefix: Key,
    ) -> Result<Vec<(Key, T)>, StoreError> {
        self.aside(move |store| store.scan_prefix(tree, &prefix)?.collect()).await
    }

    /// The same as [`Store::now_millis`], for threads that must not block.
    pub async fn now(&self) -> Result<u64, StoreError> {
        self.aside(Self::now_millis).await
    }

    async fn aside<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let looked = tokio::task::spawn_blocking(move || look(&store)).await;
        looked.unwrap_or_else(|error| {
            let place = self.place().display().to_string();
            Err(StoreError::Unavailable { place, why: format!("a look into it broke off: {error}") })
        })
    }
}

fn decode<T: DeserializeOwned>(tree: &str, key: &[u8], record: &[u8]) -> Result<T, StoreError> {
    let payload = frame::decode(tree, key, record)
        .ok_or_else(|| StoreError::Damaged { tree: tree.to_owned(), key: hex::encode(key) })?;
    serde_json::from_slice(payload).map_err(|source| StoreError::Unreadable {
        tree: tree.to_owned(),
        key: hex::encode(key),
        source,
    })
}

#[cfg(test)]
mod tests;
