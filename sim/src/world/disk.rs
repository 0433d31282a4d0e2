//! What becomes of what is written down: the seam at which a disk is full, and at which a machine dies while it writes.

use std::fmt::Debug;

use super::Party;

/// What is made durable in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    /// By a device: what it was charged.
    Charge,
    /// By a device: what the coordinator charged and its ledger did not have.
    Found,
    /// By a device: with whom it masked.
    Signature,
    /// By a device: what it helped to open.
    Answer,
    /// By a device: when it drew graphs.
    Draws,
    /// By a device: what it has seen of the enrollment log.
    Log,
    /// By a device: a version that it keeps.
    Version,
    /// By the coordinator: all that a task has decided and that is not written yet, in one transaction.
    Decisions,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is durable.
    Kept,
    /// Nothing is written, and nothing will be for so long. A device leaves its round, as its shell does; the coordinator
    /// answers nobody with what it decided.
    Full {
        /// Milliseconds.
        millis: u64,
    },
    /// Whoever writes dies, before the write is durable or after that, and starts again so much later.
    Dies {
        /// Whether it is durable.
        kept: bool,
        /// Milliseconds.
        millis: u64,
    },
    /// Nothing is written, and the disk says that it is. Nothing here is made for such a disk: whoever checks a world
    /// finds out by it whether the checks notice.
    Lies,
}

/// The disks of a world's devices and of its coordinator.
pub trait Disk: Debug + Send + Sync {
    /// What becomes of the so-many-th write of this party. It follows from what is given alone: devices write at the
    /// same time.
    fn writes(&self, who: Party, what: Record, number: u32) -> Fate;
}

/// Disks that keep everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sound;

impl Disk for Sound {
    fn writes(&self, _: Party, _: Record, _: u32) -> Fate {
        Fate::Kept
    }
}
