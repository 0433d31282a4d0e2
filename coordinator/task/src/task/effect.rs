//! What a task wants made durable.

use proto::admin::{TaskState, VersionStatus};
use proto::ids::{DeviceId, Digest};
use proto::message::Outcome;

/// What the shell must make durable, in this order, before it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskEffect {
    /// Only these devices' inputs may ever be opened for this round.
    FixSurvivors {
        /// The round's number.
        round: u64,
        /// Devices in the sum.
        survivors: Vec<DeviceId>,
    },
    /// These devices spent one more participation.
    Charge {
        /// The round's number.
        round: u64,
        /// Devices and how often each has now taken part.
        devices: Vec<(DeviceId, u32)>,
    },
    /// The sum of this round is one of those of the version that is being made: [`Task::gathered`](super::Task::gathered) has
    /// them all.
    Gathered {
        /// The round's number.
        round: u64,
    },
    /// A new version, and what the server optimiser carries on.
    Commit {
        /// The round whose sum was the last that it waited for; none where no round gave one.
        completed_by: Option<u64>,
        /// The version's record.
        version: Box<VersionStatus>,
        /// The trained parameters.
        adapter: Vec<u8>,
        /// What the epochs before left, where one ends with this version.
        folded: Option<Vec<u8>>,
        /// The optimiser's moments.
        optimizer: Vec<u8>,
        /// What stands for the rosters of its rounds; none where no round made it.
        roster: Option<Digest>,
    },
    /// A device joins no more rounds, until the coordinator starts again.
    Excluded {
        /// The round's number.
        round: u64,
        /// Which.
        device: DeviceId,
        /// How it is known that what it shared did not open the sum.
        why: String,
    },
    /// A round ended without a version.
    Aborted {
        /// The round's number.
        round: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// The task waits for its operator: these two versions were each worse than the one before.
    Paused {
        /// The versions.
        worse: [u32; 2],
    },
    /// The task has ended.
    End(TaskState),
}
