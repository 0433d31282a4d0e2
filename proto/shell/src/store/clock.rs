//! The clock of a store that no other machine shares: this one's, which does not go back.
#![expect(clippy::disallowed_methods, reason = "IO shell: reads the clock")]

use std::time::{SystemTime, UNIX_EPOCH};

use super::engine::Forward;

/// This machine's clock.
#[derive(Debug, Default)]
pub(super) struct Clock(Forward);

impl Clock {
    /// Milliseconds since 1970.
    pub(super) fn now_millis(&self) -> u64 {
        // Before 1970 it is 1970, and in 500 million years it stands still.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.at(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
