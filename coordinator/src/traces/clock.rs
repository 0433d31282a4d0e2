//! A clock that never goes back, so that no span ends before it began, whoever sets the machine's.
#![expect(clippy::disallowed_methods, reason = "IO shell: spans are measured here")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proto::ids::Timestamp;

/// The time of the start, and what has passed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    start: SystemTime,
    since: Instant,
}

impl Steady {
    pub(super) fn from_now() -> Self {
        Self { start: SystemTime::now(), since: Instant::now() }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.start + self.since.elapsed()
    }

    /// The same, as all else counts time.
    pub(super) fn timestamp(&self) -> Timestamp {
        let millis = self.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}
