//! A few named values that change and outlive a power loss: the device's id,
//! its credential, the version that is installed.
//!
//! They are records of one [store](shell::store), all in its default tree.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use shell::store::{Batch, DEFAULT_TREE, EngineError, Options, Room, Store, StoreError};

use crate::files::FileError;

/// A device has few values, and a full disk stops nothing of it but what it writes.
const OPTIONS: Options = Options { cache_bytes: 4 << 20, room: Room::NotKept };

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
        source: EngineError,
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
    #[error("the value {key:?} takes {bytes} bytes, a record has at most {limit_bytes}")]
    TooLarge {
        /// The value's name.
        key: String,
        /// What the record would take.
        bytes: usize,
        /// What it may take.
        limit_bytes: usize,
    },
    /// An earlier write failed half-way, so nobody knows what is on disk.
    #[error("the state {} stopped after a failed write; restart to recover", path.display())]
    Stopped {
        /// The folder.
        path: PathBuf,
    },
    /// What a state asks of no store: to expect a value, or to keep room.
    #[error(transparent)]
    Store(StoreError),
}

/// The state, open; this process alone has it. Clones are handles of the same state.
#[derive(Clone)]
pub struct State {
    store: Store,
    path: PathBuf,
}

impl State {
    /// Opens the state in a folder, making it where there is none. Fails when
    /// another process has it open.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let store = Store::open_with(path, OPTIONS).map_err(|error| named("", error))?;
        Ok(Self { store, path: path.to_owned() })
    }

    /// Fails where an earlier write failed half-way.
    pub fn check(&self) -> Result<(), StateError> {
        if self.store.is_stopped() {
            return Err(StateError::Stopped { path: self.path.clone() });
        }
        Ok(())
    }

    /// The value of this name. Fails when its record is damaged or not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        self.store.get(DEFAULT_TREE, key).map_err(|error| named(key, error))
    }

    /// Sets the value of this name; when this returns, it outlives a power
    /// loss. Fails when the value is over the limit.
    pub fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.put(DEFAULT_TREE, key, value).map_err(|error| named(key, error))?;
        self.store.commit_blocking(&batch).map_err(|error| named(key, error))
    }

    /// Removes the value of this name, durably.
    pub fn remove(&self, key: &str) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.remove(DEFAULT_TREE, key);
        self.store.commit_blocking(&batch).map_err(|error| named(key, error))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("path", &self.path).field("store", &self.store).finish()
    }
}

/// What the store says of a value, with the value's name instead of the record's place.
fn named(key: &str, error: StoreError) -> StateError {
    let key = key.to_owned();
    match error {
        StoreError::File(error) => StateError::File(error),
        StoreError::InUse { path } => StateError::InUse { path },
        StoreError::Engine { path, source } => StateError::Engine { path, source },
        StoreError::Damaged { .. } => StateError::Damaged { key },
        StoreError::Unreadable { source, .. } | StoreError::Unwritable { source, .. } => {
            StateError::Form { key, source }
        }
        StoreError::TooLarge { bytes, limit_bytes, .. } => StateError::TooLarge { key, bytes, limit_bytes },
        StoreError::Stopped { path } => StateError::Stopped { path },
        StoreError::Conflict { .. } | StoreError::DiskFull { .. } => StateError::Store(error),
    }
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
        assert!(matches!(&error, StateError::InUse { path } if path == folder.path()));
        let expected = format!(
            "the state {} is in use by another process; stop that process first",
            folder.path().display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_value_of_another_form_or_over_four_kibibytes_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.put("installed", &"two").unwrap();
        let error = state.get::<u64>("installed").unwrap_err().to_string();
        assert!(error.starts_with("the value \"installed\" of the state is not of the expected form: "));
        let error = state.put("large", &"x".repeat(4096)).unwrap_err().to_string();
        assert_eq!(error, "the value \"large\" takes 4107 bytes, a record has at most 4096");
        assert_eq!(state.get::<String>("large").unwrap(), None);
    }

    #[test]
    fn a_damaged_value_is_named() {
        let damaged = StoreError::Damaged { tree: DEFAULT_TREE.to_owned(), key: "696e".to_owned() };
        let error = named("installed", damaged).to_string();
        assert_eq!(error, "the value \"installed\" of the state is damaged: its checksum does not hold");
    }
}
