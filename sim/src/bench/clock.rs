//! The clock of a measurement.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module reads the clock")]

use std::time::{Duration, Instant};

/// What `work` gives, and how long it took.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
