//! How commands reach a daemon that runs: a Unix socket in the device's folder, one JSON line each way.
//!
//! The folder is its owner's alone (0700), the socket too (0600), and the daemon answers only its own user and root, by
//! what the system says of the other end. What goes over it are numbers and words of the device itself, never the user's
//! text.

mod command;
mod daemon;

use std::path::{Path, PathBuf};

use client::store::{Entry, Note};
use client::{Forgotten, Now, Status};
use proto::ids::TaskId;
use serde::{Deserialize, Serialize};

pub use command::{ControlError, ask};
pub use daemon::serve;

/// The longest request, in bytes.
const MOST_REQUEST_BYTES: u64 = 4 << 10;

/// The longest answer, in bytes: a ledger of many years.
const MOST_ANSWER_BYTES: u64 = 64 << 20;

/// Where the socket of a device is.
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// What a command asks of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What the device does.
    Now,
    /// The ledger's records.
    Ledger,
    /// What the device did.
    Journal,
    /// What the device is and holds.
    Status,
    /// To neither train nor transfer, until then or until it is resumed.
    Pause {
        /// Until when, in milliseconds since 1970.
        until: Option<u64>,
    },
    /// To end a pause.
    Resume,
    /// To leave a task and delete what is there of it.
    Forget {
        /// Which.
        task: TaskId,
    },
    /// To take part in a forgotten task again.
    Rejoin {
        /// Which.
        task: TaskId,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "snake_case")]
pub enum Answer {
    /// What the device does.
    Now(Box<Now>),
    /// The ledger's records, oldest first.
    Ledger(Vec<Entry>),
    /// What the device did, oldest first.
    Journal(Vec<Note>),
    /// What the device is and holds.
    Status(Box<Status>),
    /// It is done.
    Done,
    /// What was deleted.
    Forgotten(Forgotten),
    /// Whether the task had been forgotten.
    Rejoined(bool),
    /// It cannot be done, for this reason.
    Failed(String),
}
