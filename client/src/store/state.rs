//! A few named values that change and outlive a power loss: the device's id,
//! its credential, the version that is installed.
//!
//! They are records of one [store](shell::store), all in its default tree.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use shell::store::{Batch, DEFAULT_TREE, EngineError, Options, Room, Store, StoreError};

use crate::files::FileError;

/// A device has few values, and a full disk stops nothing of it but what it writes.
const OPTIONS: Options = Options { cache_bytes: 4 << 20, room: Room::NotKept };

/// What must be free on the disk for a write: one that has less is full, and a write that is not begun is not left half
/// done.
const LEAST_FREE_BYTES: u64 = 2 << 20;

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
    #[error("the state {} cannot be written since a write failed", path.display())]
    Stopped {
        /// The folder.
        path: PathBuf,
    },
    /// What a state asks of no store: to expect a value, or to keep room.
    #[error(transparent)]
    Store(StoreError),
}

impl StateError {
    /// Whether it may pass: the disk is full or was read-only, or somebody else has the state open.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::File(_) | Self::InUse { .. } | Self::Stopped { .. } => true,
            Self::Engine { source, .. } => matches!(source, EngineError::Io(_)),
            Self::Store(error) => matches!(error, StoreError::DiskFull { .. }),
            Self::Damaged { .. } | Self::Form { .. } | Self::TooLarge { .. } => false,
        }
    }
}

/// The state, open; this process alone has it. Clones are handles of the same state.
#[derive(Clone)]
pub struct State {
    /// None where it could not be opened again after a failed write.
    store: Arc<RwLock<Option<Store>>>,
    path: PathBuf,
    floor_bytes: Arc<AtomicU64>,
}

impl State {
    /// Opens the state in a folder, making it where there is none. Fails when
    /// another process has it open.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let floor_bytes = AtomicU64::new(LEAST_FREE_BYTES);
        let state = Self { store: Arc::default(), path: path.to_owned(), floor_bytes: Arc::new(floor_bytes) };
        state.reopen()?;
        Ok(state)
    }

    /// Fails while the disk has too little room for a write.
    pub(crate) fn check_room(&self) -> Result<(), StateError> {
        self.with("", Store::check_room)
    }

    /// Fails where an earlier write failed half-way.
    pub fn check(&self) -> Result<(), StateError> {
        self.with("", |store| if store.is_stopped() { Err(store_stopped(&self.path)) } else { Ok(()) })
    }

    /// Opens it where it is not open, or where an earlier write failed half-way, so that what is on disk is known. Every
    /// handle has it then.
    pub(crate) fn reopen(&self) -> Result<(), StateError> {
        let mut slot = self.store.write().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|store| !store.is_stopped()) {
            return Ok(());
        }
        // It closes before it opens.
        drop(slot.take());
        let store = Store::open_with(&self.path, OPTIONS).map_err(|error| named("", error))?;
        store.set_free_space_floor(self.floor_bytes.load(Ordering::Acquire));
        *slot = Some(store);
        Ok(())
    }

    /// Changes how much must be free on the disk for a write, so that a test can have a full disk.
    pub(crate) fn set_free_space_floor(&self, bytes: u64) {
        self.floor_bytes.store(bytes, Ordering::Release);
        if let Some(store) = &*self.store.read().unwrap_or_else(PoisonError::into_inner) {
            store.set_free_space_floor(bytes);
        }
    }

    /// The value of this name. Fails when its record is damaged or not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        self.with(key, |store| store.get(DEFAULT_TREE, key))
    }

    /// Sets the value of this name; when this returns, it outlives a power
    /// loss. Fails when the value is over the limit.
    pub fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.put(DEFAULT_TREE, key, value).map_err(|error| named(key, error))?;
        self.with(key, |store| store.commit_blocking(&batch))
    }

    /// Removes the value of this name, durably.
    pub fn remove(&self, key: &str) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.remove(DEFAULT_TREE, key);
        self.with(key, |store| store.commit_blocking(&batch))
    }

    fn with<T>(
        &self,
        key: &str,
        work: impl FnOnce(&Store) -> Result<T, StoreError>,
    ) -> Result<T, StateError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let store = store.as_ref().ok_or_else(|| StateError::Stopped { path: self.path.clone() })?;
        work(store).map_err(|error| named(key, error))
    }
}

/// Why a store that stopped takes nothing.
fn store_stopped(path: &Path) -> StoreError {
    StoreError::Stopped { path: path.to_owned() }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("path", &self.path).finish_non_exhaustive()
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
        StoreError::Conflict { .. }
        | StoreError::DiskFull { .. }
        | StoreError::Unavailable { .. }
        | StoreError::Refused { .. } => StateError::Store(error),
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
    fn every_handle_has_a_state_that_was_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let other = state.clone();
        state.put("installed", &1_u64).unwrap();
        state.set_free_space_floor(u64::MAX);
        let error = state.put("installed", &2_u64).unwrap_err();
        assert!(error.may_pass(), "{error}");
        // As after a write that failed half-way: it is closed, and cannot be opened.
        drop(state.store.write().unwrap().take());
        let stopped = other.get::<u64>("installed").unwrap_err();
        assert!(matches!(stopped, StateError::Stopped { .. }) && stopped.may_pass());
        let held = Store::open_with(folder.path(), OPTIONS).unwrap();
        assert!(state.reopen().unwrap_err().may_pass(), "somebody else has it");
        drop(held);
        state.reopen().unwrap();
        assert_eq!(other.get("installed").unwrap(), Some(1_u64));
        // The disk is still full.
        assert!(other.put("installed", &2_u64).unwrap_err().may_pass());
        state.set_free_space_floor(LEAST_FREE_BYTES);
        other.put("installed", &2_u64).unwrap();
        assert!(state.reopen().is_ok() && State::open(folder.path()).is_err());
    }

    #[test]
    fn a_damaged_value_is_named() {
        let damaged = StoreError::Damaged { tree: DEFAULT_TREE.to_owned(), key: "696e".to_owned() };
        let error = named("installed", damaged).to_string();
        assert_eq!(error, "the value \"installed\" of the state is damaged: its checksum does not hold");
    }
}
