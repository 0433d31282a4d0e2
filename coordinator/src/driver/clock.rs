//! The system's clock.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module reads the clock")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::ids::Timestamp;

/// How far this process is ahead of the system's clock, in milliseconds: not at all, but in a test.
static AHEAD_MILLIS: AtomicU64 = AtomicU64::new(0);

/// The system's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(millis(since)).plus_millis(AHEAD_MILLIS.load(Ordering::Relaxed))
}

/// Puts the clock of this process ahead, so that a test can live through a day. What TLS says of certificates is by the
/// system's clock still.
pub fn put_ahead(by: Duration) {
    AHEAD_MILLIS.fetch_add(millis(by), Ordering::Relaxed);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
