//! What cannot be kept, or was not kept.

use proto::adapter::AdapterError;
use proto::counted::counted;
use proto::ids::TaskId;

use crate::files::FileError;
use crate::store::bases::FetchedBaseError;
use crate::store::ledger::LedgerError;
use crate::store::state::StateError;

/// What to do with a folder whose ledger is not whole. A backup is no way out: it forgets what was spent since.
macro_rules! enroll_anew {
    () => {
        "what this device spent and signed since cannot be known here, and no backup knows it; keep the folder for \
         inquiry and enroll anew in an empty folder: what was spent stays spent at the coordinator"
    };
}

/// What cannot be kept, or was not kept.
#[derive(Debug, thiserror::Error)]
pub enum DeviceStoreError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A base that came from the coordinator.
    #[error(transparent)]
    Base(#[from] FetchedBaseError),
    /// Whole records are gone from the ledger's end.
    #[error(
        "the ledger has {} and had {expected}: records were cut off, or it was restored from a backup; {}",
        counted(*found, "record", "records"),
        enroll_anew!()
    )]
    Truncated {
        /// Records that there were.
        expected: usize,
        /// Records that there are.
        found: usize,
    },
    /// The ledger is not the one that belongs to the state.
    #[error("the ledger is not the one that this device wrote; {}", enroll_anew!())]
    Foreign,
    /// The ledger is ahead of the state by more than a crash explains.
    #[error(
        "the ledger has {} and the state knows of {expected}: one of the two was replaced, or restored from a backup; {}",
        counted(*found, "record", "records"),
        enroll_anew!()
    )]
    Ahead {
        /// Records that the state knows of.
        expected: usize,
        /// Records that there are.
        found: usize,
    },
    /// The versions that it keeps have no more room.
    #[error(
        "the versions that this device keeps would take {needed_mib} MiB, and may take {most_mib} MiB; raise \
         `installed_mib`, or leave a task with `nightshift-agent forget TASK`"
    )]
    InstalledFull {
        /// With the new one.
        needed_mib: u64,
        /// The user's.
        most_mib: u64,
    },
    /// The device was asked to take part in one round twice.
    #[error("other sharers of round {round} of task {task} were signed before")]
    SignedBefore {
        /// The task.
        task: TaskId,
        /// The round.
        round: u64,
    },
    /// The device was asked to answer in one round twice.
    #[error("another transcript of round {round} of task {task} was answered before")]
    AnsweredBefore {
        /// The task.
        task: TaskId,
        /// The round.
        round: u64,
    },
    /// The version's vectors are not of its adapter.
    #[error("the version cannot be installed: {0}")]
    Adapter(#[from] AdapterError),
    /// The manifest has no place in JSON.
    #[error("the manifest cannot be written: {0}")]
    Manifest(#[from] serde_json::Error),
}

impl DeviceStoreError {
    /// Whether another process has the folder open, which may be over in a moment.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, Self::State(StateError::InUse { .. }) | Self::Ledger(LedgerError::InUse { .. }))
    }

    /// Whether it may pass: the disk is full or was read-only.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Ledger(error) => error.may_pass(),
            Self::State(error) => error.may_pass(),
            Self::File(_) => true,
            Self::Base(_)
            | Self::Truncated { .. }
            | Self::Foreign
            | Self::Ahead { .. }
            | Self::InstalledFull { .. }
            | Self::SignedBefore { .. }
            | Self::AnsweredBefore { .. }
            | Self::Adapter(_)
            | Self::Manifest(_) => false,
        }
    }
}
