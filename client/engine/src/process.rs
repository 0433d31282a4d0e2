//! Memory and CPU time of this process, as the system reports them.

use std::time::Duration;

/// Peak resident set size, in bytes; `None` where the system does not report it.
pub fn peak_bytes() -> Option<u64> {
    peak_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Memory that can still be allocated without swapping, in bytes; `None` where the system does not report it.
pub fn available_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let value = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// CPU time of all threads so far, in steps of a hundredth of a second; `None` where the system does not report
/// it. Unlike wall-clock time it does not grow with what else runs on the machine.
pub fn processor_time() -> Option<Duration> {
    time_of(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// `VmHWM:  1234 kB` among the lines of `status`.
fn peak_of(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The sum of fields 14 and 15 of `stat`, user and system time; the second field may hold spaces and ends with
/// the last parenthesis. A tick is a hundredth of a second on every Linux that Rust's standard library runs on.
fn time_of(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(ticks()?.checked_add(ticks()?)?.checked_mul(10)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read_in_bytes() {
        assert_eq!(peak_of("VmPeak:\t  99 kB\nVmHWM:\t    3072 kB\nVmRSS:\t 1 kB\n"), Some(3 << 20));
        assert_eq!(peak_of("VmPeak:\t  99 kB\n"), None);
        assert_eq!(peak_of("VmHWM:\t many kB\n"), None);
    }

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "7 (a ) b) R 1 2 3 4 5 6 7 8 9 10 150 25 0 0";
        assert_eq!(time_of(stat), Some(Duration::from_millis(1750)));
        assert_eq!(time_of("7 (a) R 1"), None);
    }
}
