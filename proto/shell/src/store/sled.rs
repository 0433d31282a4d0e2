//! A store in a folder, on sled 0.34.7, which needs care.
//!
//! Its own flush is not durable against power loss on Linux, values above some 8 kB become files that are never removed, and it
//! does not open on a full disk. So here each commit is one transaction over all the trees that it touches, flushed and then
//! synced on a handle of our own, together with all commits that wait at the same time (`store/together.rs`); records are at most
//! 4 KiB; one process at a time holds the lock file; and where [`Options`] say so, a ballast file keeps some room for opening.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module waits for an engine that is closing")]

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use proto::files::{self, FileError};
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};

use super::clock::Clock;
use super::engine::{Engine, FillError, Range, Record, Source};
use super::feed::Feed;
use super::together::{Failed, Together};
use super::{Batch, Expected, FREE_SPACE_FLOOR_BYTES, Options, Room, StoreError, Write};

/// Given up when the store has to be opened on a full disk.
const BALLAST_BYTES: u64 = 8 << 20;

/// How often, and how long after another, the engine is opened again while an earlier handle is closing.
const CLOSING_TRIES: usize = 100;
const CLOSING_PAUSE: Duration = Duration::from_millis(20);

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

/// A store in a folder, open.
pub(super) struct Sled {
    // Dropped in this order: the engine closes before the lock is released.
    db: sled::Db,
    log: File,
    path: PathBuf,
    stopped: AtomicBool,
    together: Together,
    floor_bytes: AtomicU64,
    clock: Clock,
    feed: Feed,
    _lock: File,
}

impl fmt::Debug for Sled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sled").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sled {
    pub(super) fn open(path: &Path, Options { cache_bytes, room }: Options) -> Result<Self, StoreError> {
        files::create_folder(path)?;
        let lock = lock(path)?;
        let floor_bytes = match room {
            Room::Kept => {
                keep_ballast(path)?;
                FREE_SPACE_FLOOR_BYTES
            }
            Room::NotKept => 0,
        };
        let db = open_engine(path, cache_bytes)
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
            db,
            log,
            path: path.to_owned(),
            stopped: AtomicBool::new(false),
            together: Together::default(),
            floor_bytes: AtomicU64::new(floor_bytes),
            clock: Clock::default(),
            feed: Feed::default(),
            _lock: lock,
        })
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let names: Vec<&'static str> =
            batch.steps().map(|(tree, ..)| tree).collect::<BTreeSet<_>>().into_iter().collect();
        if names.is_empty() {
            return Ok(());
        }
        let trees = names.iter().map(|name| self.tree(name)).collect::<Result<Vec<_>, _>>()?;
        trees
            .as_slice()
            .transaction(|views| {
                for (tree, key, step) in batch.steps() {
                    let Some((_, view)) = names.iter().zip(views).find(|(name, _)| **name == tree) else {
                        continue;
                    };
                    let holds = match &step.expected {
                        None => true,
                        Some(Expected::Absent) => view.get(key.as_bytes())?.is_none(),
                        Some(Expected::Record(record)) => {
                            view.get(key.as_bytes())?.as_deref() == Some(record.as_slice())
                        }
                    };
                    if !holds {
                        return Err(ConflictableTransactionError::Abort((tree, key.clone())));
                    }
                    match &step.write {
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
                TransactionError::Abort((tree, key)) => StoreError::conflict(tree, key.as_bytes()),
                TransactionError::Storage(source) => self.engine_error(source),
            })
    }

    /// Makes durable all that was applied before. The engine's flush writes its buffers and waits until their bytes have
    /// left for the disk; neither the file's length nor what the disk itself holds back is behind it then, so it is not
    /// enough alone, and the sync of the file is not either, because it knows nothing of the engine's buffers.
    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|source| self.engine_error(source))?;
        self.log.sync_data().map_err(FileError::io("sync", &self.path.join("db")))?;
        Ok(())
    }

    fn tree(&self, name: &str) -> Result<sled::Tree, StoreError> {
        self.db.open_tree(name).map_err(|source| self.engine_error(source))
    }

    fn engine_error(&self, source: sled::Error) -> StoreError {
        StoreError::Engine { path: self.path.clone(), source }
    }

    fn stopped(&self) -> StoreError {
        StoreError::Stopped { path: self.path.clone() }
    }
}

impl Engine for Sled {
    fn place(&self) -> PathBuf {
        self.path.clone()
    }

    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let record = self.tree(tree)?.get(key).map_err(|source| self.engine_error(source))?;
        Ok(record.map(|record| record.to_vec()))
    }

    fn page(&self, tree: &str, range: Range<'_>, most: usize) -> Result<Vec<Record>, StoreError> {
        let items = self.tree(tree)?.range::<&[u8], _>(range).take(most);
        let record = |item: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, record) = item.map_err(|source| self.engine_error(source))?;
            Ok((key.to_vec(), record.to_vec()))
        };
        items.map(record).collect()
    }

    fn trees(&self) -> Result<Vec<String>, StoreError> {
        let names = self.db.tree_names().into_iter().map(|name| {
            let damaged = |error: std::string::FromUtf8Error| {
                let tree = String::from_utf8_lossy(error.as_bytes()).into_owned();
                StoreError::Damaged { tree, key: String::new() }
            };
            String::from_utf8(name.to_vec()).map_err(damaged)
        });
        let mut names = names.collect::<Result<Vec<_>, _>>()?;
        names.sort();
        Ok(names)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.is_stopped() {
            return Err(self.stopped());
        }
        self.check_room()?;
        let result = self.apply(batch).and_then(|()| {
            self.together.sync(|| self.sync()).map_err(|failed| match failed {
                Failed::Here(error) => error,
                Failed::Elsewhere => self.stopped(),
            })
        });
        match result {
            Ok(()) => self.feed.committed(batch),
            Err(StoreError::Engine { .. } | StoreError::File(_) | StoreError::Stopped { .. }) => {
                self.stopped.store(true, Ordering::Release);
            }
            Err(_) => {}
        }
        result
    }

    fn fill(&self, source: &mut Source<'_>) -> Result<u64, FillError> {
        for name in self.trees()? {
            if !self.tree(&name)?.is_empty() {
                return Err(FillError::NotEmpty);
            }
        }
        let mut count = 0;
        loop {
            let records = source().ok_or(FillError::BrokeOff)?;
            if records.is_empty() {
                break;
            }
            // Without a transaction over them all: a store that was not filled to its end is thrown away.
            self.check_room()?;
            for raw in records {
                let tree = self.tree(&raw.tree)?;
                let put = tree.insert(raw.key.as_slice(), raw.record.as_slice());
                put.map_err(|source| self.engine_error(source))?;
                count += 1;
            }
        }
        self.sync()?;
        Ok(count)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        let floor_bytes = self.floor_bytes.load(Ordering::Acquire);
        if floor_bytes == 0 {
            return Ok(());
        }
        let free_bytes = free_bytes(&self.path)?;
        if free_bytes >= floor_bytes {
            return Ok(());
        }
        Err(StoreError::DiskFull { path: self.path.clone(), free_bytes, floor_bytes })
    }

    fn set_free_space_floor(&self, bytes: u64) {
        self.floor_bytes.store(bytes, Ordering::Release);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn now_millis(&self) -> Result<u64, StoreError> {
        Ok(self.clock.now_millis())
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }
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
