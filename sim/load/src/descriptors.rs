//! How many files and connections the system lets this process have, and how many a load needs.

/// For what is no connection: the runtime, standard streams, the lock of the folder, a report.
const KEPT: u64 = 64;

/// A device has one connection; one more while its certificate is renewed, or while it enrolls.
const SPARE_OF_DEVICES: u64 = 10;

/// Descriptors that so many devices need at most, of which so many enroll at a time.
pub(crate) fn needed(devices: u64, enroll_at_once: u64) -> u64 {
    KEPT + devices + devices.div_ceil(SPARE_OF_DEVICES) + 2 * enroll_at_once
}

/// Too few descriptors for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{devices} devices of this process need {needed} descriptors, and the system lets it have {granted}: raise it \
     (`ulimit -n {needed}`, LimitNOFILE of systemd), give fewer --devices, or more shards; {fits} devices would fit"
)]
pub(crate) struct TooFew {
    devices: u64,
    needed: u64,
    granted: u64,
    fits: u64,
}

/// Whether so many devices fit; gives what they need.
pub(crate) fn check(devices: u64, enroll_at_once: u64, granted: u64) -> Result<u64, TooFew> {
    let all = needed(devices, enroll_at_once);
    if all <= granted {
        return Ok(all);
    }
    let left = granted.saturating_sub(needed(0, enroll_at_once));
    let fits = left.saturating_sub(left.div_ceil(SPARE_OF_DEVICES + 1));
    Err(TooFew { devices, needed: all, granted, fits })
}

/// Asks for as many descriptors as the system lets this process have, and says how many that is.
#[cfg(unix)]
pub(crate) fn raise() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // Some systems name a limit that they do not grant.
    let granted = if raised.is_ok() { maximum } else { current };
    granted.unwrap_or(u64::MAX)
}

/// The same where there is no such limit.
#[cfg(not(unix))]
pub(crate) fn raise() -> u64 {
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_does_not_fit_is_refused_with_the_numbers_and_with_what_fits() {
        assert_eq!(check(300, 8, 1024), Ok(64 + 300 + 30 + 16));
        let said = check(300, 8, 256).unwrap_err().to_string();
        assert!(said.contains("300 devices of this process need 410 descriptors"), "{said}");
        assert!(said.contains("lets it have 256") && said.contains("`ulimit -n 410`"), "{said}");
        for granted in 0..3000 {
            match check(2000, 8, granted) {
                Ok(needed) => assert!(needed <= granted),
                Err(TooFew { fits, .. }) => {
                    assert!(fits == 0 || needed(fits, 8) <= granted, "{granted}: {fits}");
                    assert!(granted < 81 || needed(fits + 2, 8) > granted, "{granted}: {fits}");
                }
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_system_grants_some() {
        assert!(raise() >= 64);
    }
}
