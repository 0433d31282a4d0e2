//! A control group of the trainer's own, whose memory the system limits, where the daemon may make one.
//!
//! It may where the service manager delegated it a part of the tree: systemd with `Delegate=memory` and
//! `DelegateSubgroup=`, which marks that part with the attribute `user.delegate`
//! ([Control Group APIs and Delegation](https://systemd.io/CGROUP_DELEGATION/)). Elsewhere the tree is somebody else's,
//! even where the daemon could write to it, and the trainer limits itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the second version of control groups is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// A control group that is removed when it is dropped, after what was in it.
#[derive(Debug)]
pub(super) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// A new group below what was delegated to this process, of so much memory; none where nothing was delegated, or it
    /// has no say over memory.
    pub(super) fn delegated(most_bytes: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let delegated = delegated(Path::new(ROOT), &own, &is_delegated)?;
        match Self::below(&delegated, most_bytes) {
            Ok(group) => Some(group),
            Err(error) => {
                tracing::debug!(%error, "no control group for the trainer");
                None
            }
        }
    }

    fn below(delegated: &Path, most_bytes: u64) -> io::Result<Self> {
        // Fails where a process is in it itself, or memory was not delegated.
        fs::write(delegated.join("cgroup.subtree_control"), "+memory")?;
        let path = delegated.join(format!("trainer-{}", std::process::id()));
        match fs::create_dir(&path) {
            // Left by a daemon that was killed and had this number.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let group = Self(path);
        fs::write(group.0.join("memory.max"), most_bytes.to_string())?;
        // Without swap, which would write the user's numbers to a disk; where there is no swap there is no such file.
        match fs::write(group.0.join("memory.swap.max"), "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(group)
    }

    /// Puts a process into it.
    pub(super) fn take_in(&self, process: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), process.to_string())
    }

    /// Whether the system ended a process in it because its memory was used up.
    pub(super) fn ran_out(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let ended =
            events.lines().filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok());
        ended.sum::<u64>() > 0
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::debug!(%error, "the trainer's control group stays");
        }
    }
}

/// The process's own group where that was delegated, or the one above where the own is its subgroup for the daemon and no
/// unit itself: any further up is the service manager's, with other limits and other kills. `own` is what
/// `/proc/self/cgroup` says.
fn delegated(root: &Path, own: &str, is_delegated: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = root.join(own.trim_end());
    let is_unit = own.extension().is_some_and(|kind| kind == "service" || kind == "scope" || kind == "slice");
    let groups = own.ancestors().take(if is_unit { 1 } else { 2 });
    let mut below_root = groups.take_while(|path| *path != root && path.starts_with(root));
    below_root.find(|path| is_delegated(path)).map(Path::to_owned)
}

#[cfg(target_os = "linux")]
fn is_delegated(path: &Path) -> bool {
    let mut value = [0; 8];
    matches!(rustix::fs::getxattr(path, "user.delegate", value.as_mut_slice()), Ok(1) if value[0] == b'1')
}

/// There are no control groups here.
#[cfg(not(target_os = "linux"))]
fn is_delegated(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_group_that_was_delegated_is_found_and_no_other() {
        let root = Path::new("/sys/fs/cgroup");
        let own = "9:name=systemd:/x\n0::/system.slice/nightshift-agent.service/daemon\n";
        let service = root.join("system.slice/nightshift-agent.service");
        let found = |which: &Path| delegated(root, own, &|path| path == which);
        assert_eq!(found(&service), Some(service.clone()));
        assert_eq!(found(&service.join("daemon")), Some(service.join("daemon")));
        assert_eq!(found(root), None, "the root is nobody's");
        let manager = root.join("user.slice/user@1000.service");
        let own = "0::/user.slice/user@1000.service/app.slice/nightshift-agent.service\n";
        let above = |path: &Path| path == manager || path == manager.join("app.slice");
        assert_eq!(delegated(root, own, &above), None, "what is above a unit is not the unit's");
        assert_eq!(delegated(root, own, &|_| false), None);
        assert_eq!(delegated(root, "0::/\n", &|_| true), None);
        assert_eq!(delegated(root, "9:name=systemd:/x\n", &|_| true), None);
    }

    #[test]
    fn a_group_has_the_limit_takes_a_process_in_and_says_whether_memory_ran_out() {
        let folder = tempfile::tempdir().unwrap();
        let group = MemoryGroup::below(folder.path(), 4096).unwrap();
        let read = |name: &str| fs::read_to_string(group.0.join(name)).unwrap();
        assert_eq!(read("memory.max"), "4096");
        group.take_in(77).unwrap();
        assert_eq!(read("cgroup.procs"), "77");
        assert!(!group.ran_out());
        fs::write(group.0.join("memory.events"), "low 0\noom 1\noom_kill 1\noom_group_kill 0\n").unwrap();
        assert!(group.ran_out());
    }
}
