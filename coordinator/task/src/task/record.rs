//! What is durable of a task.

use std::collections::BTreeMap;

use proto::admin::{TaskState, VersionStatus};
use proto::ids::DeviceId;

use super::earlier::Earlier;
use super::gathered::Gathered;
use crate::optimizer::OptimizerState;

/// What is durable of a task, for a start after a stop or a crash.
#[derive(Clone, Debug)]
pub struct TaskRecord {
    /// Where it stands.
    pub state: TaskState,
    /// The published versions, oldest first; version 0 is not among them.
    pub versions: Vec<VersionStatus>,
    /// How often each device took part.
    pub participations: BTreeMap<DeviceId, u32>,
    /// The highest round number that was ever opened.
    pub last_round: u64,
    /// Rounds charged, aborted ones too.
    pub rounds_charged: u64,
    /// The newest trained parameters.
    pub adapter: Vec<f32>,
    /// What earlier epochs left, where factors were drawn anew before.
    pub folded: Option<Vec<f32>>,
    /// What the server optimiser carries on.
    pub optimizer: OptimizerState,
    /// The version before the newest one, where that was trained from it and its gain is measured.
    pub before: Option<Earlier>,
    /// The sums of the version that is being made, where it is of more rounds than gave theirs.
    pub gathered: Option<Gathered>,
    /// How many devices took part when the newest version was made: so many are expected after a restart.
    pub devices: u32,
}
