//! A few named values that change and outlive a power loss: the device's id,
//! its credential, the version that is installed.
//!
//! It lies on sled 0.34.7 with the same care as the coordinator's store: one
//! process at a time, records of at most 4 KiB with a version and a checksum,
//! and a sync of our own behind each change.

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use ring::digest::{Context, SHA256};
use serde::{Serialize, de::DeserializeOwned};

use crate::files::{self, FileError};

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const RECORD_LIMIT_BYTES: usize = 4096;

/// What sled may keep in memory; its own default is a gibibyte.
const CACHE_BYTES: u64 = 4 << 20;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process has the state open.
    #[error("the state {} is in use by another process; stop that process first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The engine failed.
    #[error("the state {} failed: {source}", path.display())]
    Engine {
        /// The folder.
        path: PathBuf,
        /// What the engine said.
        source: sled::Error,
    },
    /// A record's checksum or format is wrong.
    #[error("the value {key:?} of the state is damaged: its checksum does not hold")]
    Damaged {
        /// The value's name.
        key: String,
    },
    /// A record is whole but not of the type that was asked for, or a value
    /// cannot be written as JSON.
    #[error("the value {key:?} of the state is not of the expected form: {source}")]
    Form {
        /// The value's name.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A value does not fit into one record.
    #[error("the value {key:?} takes {bytes} bytes, a record has at most {RECORD_LIMIT_BYTES}")]
    TooLarge {
        /// The value's name.
        key: String,
        /// What the record would take.
        bytes: usize,
    },
    /// An earlier write failed half-way, so nobody knows what is on disk.
    #[error("the state {} stopped after a failed write; restart to recover", path.display())]
    Stopped {
        /// The folder.
        path: PathBuf,
    },
}

/// The state, open; this process alone has it.
pub struct State {
    // Dropped in this order: the engine closes before the lock is released.
    engine: sled::Db,
    log: File,
    path: PathBuf,
    stopped: AtomicBool,
    _lock: File,
}

impl State {
    /// Opens the state in a folder, making it where there is none. Fails when
    /// another process has it open.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        files::create_folder(path)?;
        let lock = lock(path)?;
        let engine = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .open()
            .map_err(|source| StateError::Engine { path: path.to_owned(), source })?;
        let log_path = path.join("db");
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&log_path)
            .map_err(FileError::io("open", &log_path))?;
        log.sync_all().map_err(FileError::io("sync", &log_path))?;
        files::sync_folder(path)?;
        files::sync_folder_of(path)?;
        Ok(Self { engine, log, path: path.to_owned(), stopped: AtomicBool::new(false), _lock: lock })
    }

    /// The value of this name. Fails when its record is damaged or not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        let Some(record) = self.engine.get(key).map_err(|error| self.engine_error(error))? else {
            return Ok(None);
        };
        let payload = decode(key, &record).ok_or_else(|| StateError::Damaged { key: key.to_owned() })?;
        serde_json::from_slice(payload)
            .map(Some)
            .map_err(|source| StateError::Form { key: key.to_owned(), source })
    }

    /// Sets the value of this name; when this returns, it outlives a power
    /// loss. Fails when the value is over the limit.
    pub fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let payload =
            serde_json::to_vec(value).map_err(|source| StateError::Form { key: key.to_owned(), source })?;
        let record = encode(key, &payload);
        if record.len() > RECORD_LIMIT_BYTES {
            return Err(StateError::TooLarge { key: key.to_owned(), bytes: record.len() });
        }
        self.write(|engine| engine.insert(key, record).map(|_| ()))
    }

    /// Removes the value of this name, durably.
    pub fn remove(&self, key: &str) -> Result<(), StateError> {
        self.write(|engine| engine.remove(key).map(|_| ()))
    }

    fn write(&self, change: impl FnOnce(&sled::Db) -> sled::Result<()>) -> Result<(), StateError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(StateError::Stopped { path: self.path.clone() });
        }
        let result = change(&self.engine)
            .and_then(|()| self.engine.flush())
            .map_err(|error| self.engine_error(error))
            .and_then(|_| {
                let synced = self.log.sync_data();
                Ok(synced.map_err(FileError::io("sync", &self.path.join("db")))?)
            });
        if result.is_err() {
            self.stopped.store(true, Ordering::Release);
        }
        result
    }

    fn engine_error(&self, source: sled::Error) -> StateError {
        StateError::Engine { path: self.path.clone(), source }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("path", &self.path).finish_non_exhaustive()
    }
}

fn lock(path: &Path) -> Result<File, StateError> {
    let lock_path = path.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(FileError::io("open", &lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(FileError::io("lock", &lock_path)(source).into()),
    }
}

fn encode(key: &str, payload: &[u8]) -> Vec<u8> {
    [&[FORMAT], checksum(key, payload).as_slice(), payload].concat()
}

fn decode<'a>(key: &str, record: &'a [u8]) -> Option<&'a [u8]> {
    let (&format, rest) = record.split_first()?;
    let (stored, payload) = rest.split_at_checked(CHECKSUM_BYTES)?;
    (format == FORMAT && stored == checksum(key, payload)).then_some(payload)
}

fn checksum(key: &str, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(&[FORMAT]);
    context.update(key.as_bytes());
    // No key and no JSON text holds a zero byte.
    context.update(&[0]);
    context.update(payload);
    let mut checksum = [0; CHECKSUM_BYTES];
    for (to, from) in checksum.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.put("device", &[7_u8; 16]).unwrap();
        state.put("installed", &1_u64).unwrap();
        state.put("installed", &2_u64).unwrap();
        state.put("assignment", &"night").unwrap();
        state.remove("assignment").unwrap();
        drop(state);

        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.get("device").unwrap(), Some([7_u8; 16]));
        assert_eq!(state.get("installed").unwrap(), Some(2_u64));
        assert_eq!(state.get::<String>("assignment").unwrap(), None);
    }

    #[test]
    fn a_second_opening_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let _state = State::open(folder.path()).unwrap();
        let error = State::open(folder.path()).unwrap_err();
        assert!(matches!(error, StateError::InUse { path } if path == folder.path()));
    }

    #[test]
    fn a_damaged_value_is_named_and_so_is_one_that_moved() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.put("installed", &1_u64).unwrap();
        let record = state.engine.get("installed").unwrap().unwrap();
        state.engine.insert("moved", record.clone()).unwrap();
        let mut damaged = record.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        state.engine.insert("installed", damaged).unwrap();
        for name in ["installed", "moved"] {
            let error = state.get::<u64>(name).unwrap_err();
            assert!(matches!(error, StateError::Damaged { key } if key == name));
        }
    }

    #[test]
    fn a_value_over_four_kibibytes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let error = state.put("large", &"x".repeat(4096)).unwrap_err();
        assert!(matches!(error, StateError::TooLarge { .. }));
        assert_eq!(state.get::<String>("large").unwrap(), None);
    }
}
