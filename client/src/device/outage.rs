//! How long a device whose state cannot be written waits between two tries.

use std::time::Duration;

use session::conditions::Uptime;

/// The wait after the first time in vain, doubled up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// A write that fails so soon after another is of the same outage, in milliseconds.
const CALM_MILLIS: u64 = 60_000;

/// How often writing failed of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outage {
    ended: Option<Uptime>,
    /// Before it is tried again.
    wait: Duration,
}

impl Outage {
    /// What to wait before the first try of an outage that begins now: nothing, unless one has just ended.
    pub(super) fn begin(&mut self, at: Uptime) -> Duration {
        let is_another = self.ended.is_none_or(|ended| at.0.saturating_sub(ended.0) >= CALM_MILLIS);
        if is_another {
            self.wait = Duration::ZERO;
        }
        self.wait
    }

    /// It was tried in vain, or was over at once: what to wait before the next try.
    pub(super) fn next(&mut self) -> Duration {
        self.wait = (2 * self.wait).clamp(FIRST, LONGEST);
        self.wait
    }

    /// It is over.
    pub(super) fn end(&mut self, at: Uptime) {
        self.next();
        self.ended = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_while_writing_fails_and_begin_anew_after_a_calm() {
        let mut outage = Outage::default();
        let secs = |at: u64| Uptime(at * 1000);
        assert_eq!(outage.begin(secs(0)), Duration::ZERO, "the first try is made at once");
        let waits: Vec<u64> = (0..10).map(|_| outage.next().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        outage.end(secs(1000));
        assert_eq!(outage.begin(secs(1059)), LONGEST, "it failed again at once");
        outage.end(secs(2000));
        assert_eq!(outage.begin(secs(2060)), Duration::ZERO);
        outage.end(secs(2060));
        assert_eq!(
            outage.begin(secs(2061)),
            FIRST,
            "one that is over at once and comes again makes no hurry"
        );
    }
}
