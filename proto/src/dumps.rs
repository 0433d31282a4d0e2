//! Core dumps: a copy of a process's memory on disk, with its keys and its user's text in it.
//!
//! Both sides' programs forbid them before they read a secret. On Unix the size of a core file is limited to nothing, and
//! Linux is also told that the process is not dumpable: the limit does not hold for a core that is piped to a collector
//! such as `systemd-coredump`, and a process that is not dumpable can be neither traced nor read by another process of
//! the same user ([prctl(2)](https://man7.org/linux/man-pages/man2/pr_set_dumpable.2const.html)). What a process reads
//! of itself below `/proc/self` stays readable, but for `environ` and `mem`. Programs that it starts are dumpable again,
//! with cores of no size. Elsewhere there is nothing to forbid by these means.

/// Why core dumps could not be forbidden.
#[derive(Debug, thiserror::Error)]
#[error("core dumps of this program cannot be forbidden: {what}: {source}")]
pub struct DumpError {
    /// What was tried.
    what: &'static str,
    /// What the operating system said.
    source: std::io::Error,
}

/// Forbids core dumps of this process, by every means that the system has. Fails when one of them does, after all were
/// tried.
#[cfg(unix)]
pub fn forbid() -> Result<(), DumpError> {
    let limited = limit_cores();
    #[cfg(target_os = "linux")]
    let limited = limited.and(refuse_dumps());
    limited
}

/// Forbids nothing: this system writes no core files.
#[cfg(not(unix))]
pub fn forbid() -> Result<(), DumpError> {
    Ok(())
}

#[cfg(unix)]
fn limit_cores() -> Result<(), DumpError> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .map_err(|errno| DumpError { what: "the limit RLIMIT_CORE", source: errno.into() })
}

#[cfg(target_os = "linux")]
fn refuse_dumps() -> Result<(), DumpError> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| DumpError { what: "PR_SET_DUMPABLE", source: errno.into() })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_process_that_forbids_core_dumps_is_not_dumpable_and_may_do_it_again() {
        forbid().unwrap();
        forbid().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        for name in ["status", "stat", "smaps", "limits"] {
            std::fs::read_to_string(format!("/proc/self/{name}")).unwrap();
        }
    }
}
