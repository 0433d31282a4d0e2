//! Where records stand, and what all of them share when they are read.

use proto::ids::TaskId;
use shell::store::{Key, StoreError};
use task::TaskError;

use crate::artifacts::ArtifactError;

/// The names of the trees.
pub(crate) mod tree {
    pub(crate) const TASKS: &str = "tasks";
    pub(crate) const VERSIONS: &str = "versions";
    pub(crate) const PARTICIPATIONS: &str = "participations";
    pub(crate) const SURVIVORS: &str = "survivors";
    pub(crate) const DEVICES: &str = "devices";
    pub(crate) const IDENTITIES: &str = "identities";
    pub(crate) const OPERATORS: &str = "operators";
    /// A coordinator of before there were roles does not look here: it would take everybody for an admin.
    pub(crate) const LESSER_OPERATORS: &str = "lesser operators";
}

/// A store that does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An artefact that a record names is missing or damaged.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The records of a task do not make a task.
    #[error("task {task} cannot be restored: {source}")]
    Task {
        /// The task.
        task: TaskId,
        /// Why.
        source: TaskError,
    },
    /// A key or an artefact has a wrong form.
    #[error("{what} of {of} has a wrong form")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// Of what.
        of: String,
    },
}

/// What was read, or nothing where it is a record that is damaged, which is said.
pub(crate) fn whole<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(record) => Ok(Some(record)),
        Err(error @ (StoreError::Damaged { .. } | StoreError::Unreadable { .. })) => {
            tracing::error!(%error, "whoever the record is of is shut out");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The 16 bytes of a key from `at` on.
pub(super) fn key_part(key: &Key, at: usize, what: &'static str) -> Result<[u8; 16], RecordError> {
    let malformed = || RecordError::Malformed { what, of: format!("key {}", hex::encode(key.as_bytes())) };
    let part = key.as_bytes().get(at..).ok_or_else(malformed)?;
    part.try_into().map_err(|_| malformed())
}
