//! Leaving a task: what is there of it is deleted, and that is looked at.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proto::ids::TaskId;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::store::DeviceStore;

const FORGOTTEN: &str = "forgotten-tasks";

/// What was deleted of a task that the user left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Which.
    pub task: TaskId,
    /// Files that were there and are gone: that was looked at after they were deleted.
    pub deleted: Vec<PathBuf>,
    /// Records of the ledger about it, which stay: what was spent stays spent.
    pub ledger_records: usize,
}

/// The tasks that the user left.
pub(super) fn forgotten(store: &DeviceStore) -> Result<BTreeSet<TaskId>, Error> {
    Ok(store.get(FORGOTTEN)?.unwrap_or_default())
}

/// Leaves a task. First that it is left is written down, so that a crash never brings it back.
pub(super) fn forget(store: &DeviceStore, task: TaskId) -> Result<Forgotten, Error> {
    let mut all = forgotten(store)?;
    all.insert(task);
    store.put(FORGOTTEN, &all)?;
    let deleted = store.delete_task(task)?;
    Ok(Forgotten { task, deleted, ledger_records: store.records_of(task) })
}

/// Takes a task back. Returns whether it had been left.
pub(super) fn rejoin(store: &DeviceStore, task: TaskId) -> Result<bool, Error> {
    let mut all = forgotten(store)?;
    let was = all.remove(&task);
    store.put(FORGOTTEN, &all)?;
    Ok(was)
}
