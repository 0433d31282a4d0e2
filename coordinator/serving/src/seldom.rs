//! Lines of a log that a peer could bring about as often as it likes: one a minute.

use std::sync::atomic::{AtomicU64, Ordering};

use proto::ids::Timestamp;

/// How long a line is not said again, in milliseconds.
const PAUSE_MILLIS: u64 = 60_000;

/// When something was last said.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Never yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether it may be said now, which then counts as said.
    pub fn may_say(&self, now: Timestamp) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now.0.saturating_sub(last) >= PAUSE_MILLIS;
        due && self.0.compare_exchange(last, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_once_a_minute() {
        let seldom = Seldom::new();
        let said: Vec<bool> = [0, 1, 59_000, 60_001, 60_002].map(|at| seldom.may_say(Timestamp(at))).to_vec();
        assert_eq!(said, [true, false, false, true, false]);
    }
}
