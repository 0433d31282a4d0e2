//! What a device saw of its machine last.

use session::conditions::{Judgment, Phase, in_words};

/// What was seen last, and what the device may do until the next look.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Looks so far; before the first nothing is known.
    pub(super) looks: u64,
    /// Whether it may train.
    pub(super) may_train: bool,
    /// Whether it may send and fetch.
    pub(super) may_transfer: bool,
    /// Where the window stands; none where the conditions are overridden.
    pub(super) phase: Option<Phase>,
    /// The conditions of a start, or in a window those of going on.
    pub(super) judged: Vec<Judgment>,
    /// The conditions of a transfer.
    pub(super) transfer: Vec<Judgment>,
}

impl Seen {
    /// What keeps it from training, in words; empty where it is only the dwell or a rest.
    pub(super) fn blocking(&self) -> String {
        in_words(&self.judged)
    }
}
