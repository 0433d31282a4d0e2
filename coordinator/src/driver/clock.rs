//! The system's clock.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module reads the clock")]

use std::time::{SystemTime, UNIX_EPOCH};

use proto::ids::Timestamp;

/// The system's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
