//! How much memory this process has held at most.

/// The largest resident size of this process so far, in bytes, where the system says it.
pub(super) fn peak_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmHWM:  1234 kB` among the lines of `status`.
fn parse(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read_in_bytes() {
        assert_eq!(parse("VmPeak:\t  99 kB\nVmHWM:\t    3072 kB\nVmRSS:\t 1 kB\n"), Some(3 << 20));
        assert_eq!(parse("VmPeak:\t  99 kB\n"), None);
        assert_eq!(parse("VmHWM:\t many kB\n"), None);
    }
}
