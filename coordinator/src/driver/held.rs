//! Who is told when what questions wait for changes ([`task::held`] says what that is).

use std::collections::BTreeMap;

use proto::ids::{SessionId, TaskId};
use task::round::PhaseName;
use tokio::sync::watch;

/// What all tasks tell of. Whoever waits for a round is told by its task alone (`Cell::step`).
#[derive(Debug, Default)]
pub(super) struct Phases {
    /// The step that each open round is in.
    pub(super) rounds: watch::Sender<BTreeMap<SessionId, PhaseName>>,
    /// How often places of a task came free, for each that is active.
    pub(super) places: watch::Sender<BTreeMap<TaskId, u64>>,
}
