//! The durable store: named trees of small typed records.
//!
//! It lies on sled 0.34.7, which needs care: its own flush is not durable
//! against power loss on Linux, values above some 8 kB become files that are
//! never removed, and it does not open on a full disk. So here each commit is
//! one transaction over all the trees that it touches, flushed and then synced
//! on a handle of our own, together with all commits that wait at the same time
//! (`store/together.rs`); records are at most 4 KiB, framed with a version and
//! a checksum; one process at a time holds the lock file; and where
//! [`Options`] say so, a ballast file keeps some room for opening. What is
//! larger than a record belongs into a file of its own, and its hash into a
//! record.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module waits for an engine that is closing")]

use std::{
    collections::BTreeSet,
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use proto::files::{self, FileError};
use serde::de::DeserializeOwned;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};

mod archive;
mod batch;
mod frame;
mod together;

pub use archive::{ArchiveError, Check};
pub use batch::{Batch, Key};
/// What the engine says when it fails.
pub use sled::Error as EngineError;

use batch::{Expected, Write};
use together::{Failed, Together};

/// The tree that a store has from the beginning, for whoever needs one only. Its records have a checksum of their own
/// form, see `frame`.
pub const DEFAULT_TREE: &str = "__sled__default";

/// Below this, a store that keeps room takes no more commits.
pub const FREE_SPACE_FLOOR_BYTES: u64 = 32 << 20;

/// Given up when the store has to be opened on a full disk.
const BALLAST_BYTES: u64 = 8 << 20;

/// How often, and how long after another, the engine is opened again while an earlier handle is closing.
const CLOSING_TRIES: usize = 100;
const CLOSING_PAUSE: Duration = Duration::from_millis(20);

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
    /// An earlier commit failed half-way, so nobody knows what is on disk.
    #[error("the store {} stopped after a failed write; restart to recover", path.display())]
    Stopped {
        /// The store's folder.
        path: PathBuf,
    },
}

/// The store, open. Clones are handles of the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped in this order: the engine closes before the lock is released.
    engine: sled::Db,
    log: File,
    path: PathBuf,
    stopped: AtomicBool,
    together: Together,
    floor_bytes: AtomicU64,
    _lock: File,
}

/// The place of a store, kept from whoever would open one there, until this is dropped.
#[derive(Debug)]
pub struct Kept {
    _lock: File,
}

impl Kept {
    /// Keeps a place, which is made where there is none. Fails where a store is open there.
    pub fn new(path: &Path) -> Result<Self, StoreError> {
        files::create_folder(path)?;
        Ok(Self { _lock: lock(path)? })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
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
    pub fn open_with(path: &Path, Options { cache_bytes, room }: Options) -> Result<Self, StoreError> {
        files::create_folder(path)?;
        let lock = lock(path)?;
        let floor_bytes = match room {
            Room::Kept => {
                keep_ballast(path)?;
                FREE_SPACE_FLOOR_BYTES
            }
            Room::NotKept => 0,
        };
        let engine = open_engine(path, cache_bytes)
            .map_err(|source| StoreError::Engine { path: path.to_owned(), source })?;
        let log_path = path.join("db");
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&log_path)
            .map_err(FileError::io("open", &log_path))?;
        log.sync_all().map_err(FileError::io("sync", &log_path))?;
        files::sync_folder(path)?;
        files::sync_folder_of(path)?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                log,
                path: path.to_owned(),
                stopped: AtomicBool::new(false),
                together: Together::default(),
                floor_bytes: AtomicU64::new(floor_bytes),
                _lock: lock,
            }),
        })
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
            .map_err(|_| self.stopped())?
    }

    /// The same as [`Store::commit`], for threads that may block.
    pub fn commit_blocking(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.inner.stopped.load(Ordering::Acquire) {
            return Err(self.stopped());
        }
        self.check_room()?;
        let result = self.apply(batch).and_then(|()| {
            self.inner.together.sync(|| self.sync()).map_err(|failed| match failed {
                Failed::Here(error) => error,
                Failed::Elsewhere => self.stopped(),
            })
        });
        if let Err(StoreError::Engine { .. } | StoreError::File(_) | StoreError::Stopped { .. }) = result {
            self.inner.stopped.store(true, Ordering::Release);
        }
        result
    }

    /// Fails while the disk has too little room for a commit.
    pub fn check_room(&self) -> Result<(), StoreError> {
        let floor_bytes = self.inner.floor_bytes.load(Ordering::Acquire);
        if floor_bytes == 0 {
            return Ok(());
        }
        let free_bytes = free_bytes(&self.inner.path)?;
        if free_bytes >= floor_bytes {
            return Ok(());
        }
        Err(StoreError::DiskFull { path: self.inner.path.clone(), free_bytes, floor_bytes })
    }

    /// Whether a write failed half-way, so that nobody knows what is on disk: then only a restart recovers.
    pub fn is_stopped(&self) -> bool {
        self.inner.stopped.load(Ordering::Acquire)
    }

    /// Changes how much must be free for a commit, so that a test can have a full disk.
    pub fn set_free_space_floor(&self, bytes: u64) {
        self.inner.floor_bytes.store(bytes, Ordering::Release);
    }

    /// The value under a key. Fails when its record is damaged or not a `T`.
    pub fn get<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        key: impl Into<Key>,
    ) -> Result<Option<T>, StoreError> {
        let key = key.into();
        let record = self.tree(tree)?.get(key.as_bytes()).map_err(|source| self.engine_error(source))?;
        record.map(|record| decode(tree, key.as_bytes(), &record)).transpose()
    }

    /// The values of a range of keys, in the order of the keys. An item fails
    /// when its record is damaged or not a `T`.
    pub fn scan<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        range: (Bound<Key>, Bound<Key>),
    ) -> Result<impl Iterator<Item = Result<(Key, T), StoreError>> + use<T>, StoreError> {
        let bounds = (range.0.map(Key::into_bytes), range.1.map(Key::into_bytes));
        let store = self.clone();
        Ok(self.tree(tree)?.range::<Vec<u8>, _>(bounds).map(move |item| store.item(tree, item)))
    }

    /// The values of all keys that begin with `prefix`, in the order of the
    /// keys. An item fails when its record is damaged or not a `T`.
    pub fn scan_prefix<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        prefix: &Key,
    ) -> Result<impl Iterator<Item = Result<(Key, T), StoreError>> + use<T>, StoreError> {
        let store = self.clone();
        Ok(self.tree(tree)?.scan_prefix(prefix.as_bytes()).map(move |item| store.item(tree, item)))
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let names: Vec<&'static str> =
            batch.changes.keys().map(|(tree, _)| *tree).collect::<BTreeSet<_>>().into_iter().collect();
        if names.is_empty() {
            return Ok(());
        }
        let trees = names.iter().map(|name| self.tree(name)).collect::<Result<Vec<_>, _>>()?;
        trees
            .as_slice()
            .transaction(|views| {
                for ((tree, key), change) in &batch.changes {
                    let Some((_, view)) = names.iter().zip(views).find(|(name, _)| *name == tree) else {
                        continue;
                    };
                    let holds = match &change.expected {
                        None => true,
                        Some(Expected::Absent) => view.get(key.as_bytes())?.is_none(),
                        Some(Expected::Record(record)) => {
                            view.get(key.as_bytes())?.as_deref() == Some(record.as_slice())
                        }
                    };
                    if !holds {
                        return Err(ConflictableTransactionError::Abort((*tree, key.clone())));
                    }
                    match &change.write {
                        None => {}
                        Some(Write::Put(record)) => {
                            view.insert(key.as_bytes(), record.as_slice())?;
                        }
                        Some(Write::Remove) => {
                            view.remove(key.as_bytes())?;
                        }
                    }
                }
                Ok(())
            })
            .map_err(|error| match error {
                TransactionError::Abort((tree, key)) => {
                    StoreError::Conflict { tree: tree.to_owned(), key: hex::encode(key.as_bytes()) }
                }
                TransactionError::Storage(source) => self.engine_error(source),
            })
    }

    /// Makes durable all that was applied before. The engine's flush writes its buffers and waits until their bytes have
    /// left for the disk; neither the file's length nor what the disk itself holds back is behind it then, so it is not
    /// enough alone, and the sync of the file is not either, because it knows nothing of the engine's buffers.
    fn sync(&self) -> Result<(), StoreError> {
        self.inner.engine.flush().map_err(|source| self.engine_error(source))?;
        self.inner.log.sync_data().map_err(FileError::io("sync", &self.inner.path.join("db")))?;
        Ok(())
    }

    fn tree(&self, name: &'static str) -> Result<sled::Tree, StoreError> {
        self.inner.engine.open_tree(name).map_err(|source| self.engine_error(source))
    }

    fn item<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        item: sled::Result<(sled::IVec, sled::IVec)>,
    ) -> Result<(Key, T), StoreError> {
        let (key, record) = item.map_err(|source| self.engine_error(source))?;
        Ok((Key::from(key.as_ref()), decode(tree, &key, &record)?))
    }

    fn engine_error(&self, source: sled::Error) -> StoreError {
        StoreError::Engine { path: self.inner.path.clone(), source }
    }

    fn stopped(&self) -> StoreError {
        StoreError::Stopped { path: self.inner.path.clone() }
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

/// Opens the engine. Whoever holds our own lock is the only one who may, but a handle of this process that was dropped a
/// moment ago may still be closing on a thread of the engine's.
fn open_engine(path: &Path, cache_bytes: u64) -> sled::Result<sled::Db> {
    // Each commit is flushed and synced by itself: nothing is left for a thread that would wake a sleeping machine twice a
    // second.
    let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
    for _ in 0..CLOSING_TRIES {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                thread::sleep(CLOSING_PAUSE);
            }
            other => return other,
        }
    }
    config.open()
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let lock_path = path.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(FileError::io("open", &lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(FileError::io("lock", &lock_path)(source).into()),
    }
}

fn free_bytes(path: &Path) -> Result<u64, FileError> {
    fs4::available_space(path).map_err(FileError::io("ask for the free space of", path))
}

fn keep_ballast(path: &Path) -> Result<(), FileError> {
    let ballast = path.join("ballast");
    if free_bytes(path)? < FREE_SPACE_FLOOR_BYTES { give_up_ballast(&ballast) } else { lay_ballast(&ballast) }
}

fn lay_ballast(path: &Path) -> Result<(), FileError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(FileError::io("open", path))?;
    match fs4::FileExt::allocate(&file, BALLAST_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            tracing::warn!("this file system reserves no space, so there is no ballast");
            Ok(())
        }
        other => other.map_err(FileError::io("reserve", path)),
    }
}

fn give_up_ballast(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Ok(()) => {
            tracing::warn!(freed_bytes = BALLAST_BYTES, "disk nearly full, ballast given up");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::io("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests;
