//! How far devices came with a version, and who may take part at all: what an operator asks when no version comes.

use serde::{Deserialize, Serialize};

use crate::message::DeclineReason;

/// How far devices came with one version; each is counted once in every step that it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funnel {
    /// The version that they train from.
    pub version: u32,
    /// Since when they are counted.
    pub since_unix_millis: u64,
    /// Whether that is since the version is there; else the coordinator was started again in between.
    pub whole: bool,
    /// Devices that asked for work and were given or refused this.
    pub offered: u32,
    /// Those that were given it.
    pub assigned: u32,
    /// Those that have trained and asked to join a round.
    pub trained: u32,
    /// Those that joined one.
    pub joined: u32,
    /// Those whose whole input came.
    pub submitted: u32,
    /// Those in the sum.
    pub counted: u32,
    /// Those that joined a round and are not in its sum.
    pub missing: u32,
    /// Whether more devices came than are counted.
    pub overflowed: bool,
    /// When a device was offered the task last; 0 where none was.
    pub last_offered_unix_millis: u64,
}

/// Who may take part in a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// Devices that are enrolled and not revoked.
    pub enrolled: u32,
    /// Those of them that may take part once more.
    pub able: u32,
    /// Those of these that declined.
    pub declined: u32,
    /// When any device called last; 0 where that is not known.
    pub last_call_unix_secs: u64,
    /// Why the coordinator writes nothing now; empty while it does.
    pub trouble: String,
    /// The report goal: the fewest devices of which a round gives a sum.
    pub least: u32,
}

/// So many devices do not take part for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclineCount {
    /// The reason.
    pub reason: DeclineReason,
    /// How many.
    pub devices: u32,
    /// When it was given first, of all that was said since the coordinator started; 0 where an older coordinator does not say.
    pub first_unix_millis: u64,
    /// When it was given last.
    pub last_unix_millis: u64,
}
