//! Why the coordinator cannot serve.

use proto::files::FileError;
use shell::store::StoreError;

use crate::artifacts::ArtifactError;
use crate::records::RecordError;

/// Why the coordinator cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds is not what it should.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An artefact could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
    /// A step broke off.
    #[error("a step broke off: {0}")]
    Broken(String),
}

impl DriverError {
    /// Whether the same may succeed later, because nothing was begun: a disk that is full, an artefact that could not be
    /// written or read. What cannot be written at all, or contradicts what is there, never will.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::File(_) | Self::Record(RecordError::Artifact(ArtifactError::File(_))) => true,
            Self::Store(error) | Self::Record(RecordError::Store(error)) => {
                matches!(
                    error,
                    StoreError::DiskFull { .. }
                        | StoreError::Engine { .. }
                        | StoreError::File(_)
                        | StoreError::Unavailable { .. }
                        | StoreError::Refused { .. }
                )
            }
            Self::Record(_) | Self::Broken(_) => false,
        }
    }
}

impl From<ArtifactError> for DriverError {
    fn from(error: ArtifactError) -> Self {
        Self::Record(error.into())
    }
}
