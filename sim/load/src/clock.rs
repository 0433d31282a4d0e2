//! The clocks of a load, and what the system says of this process.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module reads clocks")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::ids::Timestamp;

/// Milliseconds since 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The clock by which times are measured.
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// As far ahead as this program looks: longer than any load.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// When that will be by the clock of the day.
pub(crate) fn at(then: Timestamp) -> Instant {
    instant() + Duration::from_millis(then.millis_since(now())).min(FAR)
}

/// Seconds of processors that this process used so far, and the most memory that it held, in bytes.
#[cfg(unix)]
pub(crate) fn used() -> (Option<f64>, Option<u64>) {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;

    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return (None, None) };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    // Linux says KiB, macOS bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let peak = u64::try_from(usage.max_rss()).ok().map(|peak| peak * unit);
    (Some(micros as f64 / 1e6), peak)
}

/// The same where the system does not tell.
#[cfg(not(unix))]
pub(crate) fn used() -> (Option<f64>, Option<u64>) {
    (None, None)
}

/// How many of the machine's processors were wanted on average over the last minute.
pub(crate) fn machine_load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_beyond_all_time_is_far_ahead_and_one_that_was_is_now() {
        assert!(at(Timestamp(u64::MAX)) > instant() + FAR / 2);
        assert!(at(Timestamp(0)) <= instant());
    }
}
