//! Seconds that are shown to a person; nothing depends on them.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module reads the clock")]

use std::time::Instant;

/// How long something takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since then.
    pub(super) fn secs(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self::start()
    }
}
