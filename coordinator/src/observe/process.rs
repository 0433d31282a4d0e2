//! What the system says of this process. Linux only; elsewhere nothing is said, and the metrics are not there.

use std::fs;

/// What the process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Memory that is resident, in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Descriptors that are open.
    pub(super) open_descriptors: Option<u64>,
}

impl Process {
    /// Asks the system. Blocks.
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").ok();
        // Reading the folder takes one itself.
        let open = fs::read_dir("/proc/self/fd").ok().map(|list| (list.count() as u64).saturating_sub(1));
        Self { resident_bytes: status.as_deref().and_then(resident), open_descriptors: open }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_the_system_writes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nVmData: 1 kB\n"), Some(2048 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
        assert_eq!(resident("VmRSS: many kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_open_files() {
        let _open = fs::File::open("/proc/self/status").unwrap();
        let Process { resident_bytes, open_descriptors } = Process::now();
        assert!(resident_bytes.unwrap() > 1 << 20 && open_descriptors.unwrap() > 3);
    }
}
