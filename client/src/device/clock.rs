//! The device's clocks: that of the day, which people set, and that of the machine, which only goes on.
#![expect(clippy::disallowed_methods, reason = "IO shell: the device's clocks")]

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::ids::Timestamp;
use session::conditions::Uptime;

/// How far the two clocks may drift apart before the clock of the day was set.
const STEP: Duration = Duration::from_secs(60);

/// Milliseconds since 1970 by the clock of the day.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds that the machine has been on, with the time that it slept where the system tells it.
pub fn uptime() -> Uptime {
    let since = since_boot().unwrap_or_else(|| {
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGUN.elapsed()
    });
    Uptime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long ago that was.
pub(super) fn passed(since: Uptime) -> Duration {
    Duration::from_millis(uptime().0.saturating_sub(since.0))
}

/// The longest sleep without a look at the clock.
const NAP: Duration = Duration::from_secs(30);

/// Waits for so long, the time that the machine sleeps meanwhile counted: who sleeps at night waits no night longer.
pub(super) async fn wait(for_so_long: Duration) {
    let until = uptime().0.saturating_add(u64::try_from(for_so_long.as_millis()).unwrap_or(u64::MAX));
    loop {
        let left = Duration::from_millis(until.saturating_sub(uptime().0));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP)).await;
    }
}

#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Duration> {
    None
}

/// Tells when somebody set the clock of the day.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepDetector {
    day: Timestamp,
    uptime: Uptime,
}

impl StepDetector {
    /// Begins to watch.
    pub(super) fn new(day: Timestamp, uptime: Uptime) -> Self {
        Self { day, uptime }
    }

    /// By how many milliseconds the clock of the day was set since the last call; `None` where it was not.
    pub(super) fn step(&mut self, day: Timestamp, uptime: Uptime) -> Option<i128> {
        let by_day = i128::from(day.0) - i128::from(self.day.0);
        let passed = i128::from(uptime.0) - i128::from(self.uptime.0);
        *self = Self { day, uptime };
        let step = by_day - passed;
        (step.unsigned_abs() > STEP.as_millis()).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_seen_and_one_that_drifts_is_not() {
        let mut detector = StepDetector::new(Timestamp(1_000_000), Uptime(5_000));
        assert_eq!(detector.step(Timestamp(1_010_500), Uptime(15_000)), None);
        assert_eq!(detector.step(Timestamp(1_000), Uptime(16_000)), Some(-1_010_500));
        // A machine that slept is on all the while.
        assert_eq!(detector.step(Timestamp(3_601_000), Uptime(3_616_000)), None);
        assert_eq!(detector.step(Timestamp(90_000_000), Uptime(3_617_000)), Some(86_398_000));
    }

    #[test]
    fn the_machine_has_been_on_for_longer_and_longer() {
        let first = uptime();
        assert!(uptime() >= first);
    }
}
