//! File descriptors: how many the system lets the process open, and how they are shared out, so that a crowd of
//! connections leaves some for the store, the spool and the artefacts.

use crate::artifacts::parts::READERS;
use crate::bases;
use crate::listener::Limits;

/// What is kept for everything that is no connection: the store and its log, an artefact for each of
/// [`READERS`] readers and a base for each of [`bases::READERS`], spools, the runtime, the listeners, standard streams.
const KEPT: usize = 64 + READERS + bases::READERS;

/// The least that a coordinator can work with.
const LEAST: usize = 192;

/// Too few descriptors to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the system lets this process open {0} files, at least {LEAST} are needed; raise LimitNOFILE (systemd) or `ulimit -n`"
)]
pub struct TooFew(usize);

/// The limits of both listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The listener of devices.
    pub devices: Limits,
    /// The listener of operators.
    pub operators: Limits,
}

/// Asks for as many descriptors as the system lets this process have, and says how many that is.
#[cfg(unix)]
pub fn raise() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // Some systems name a limit that they do not grant.
    let granted = if raised.is_ok() { maximum } else { current };
    granted.map_or(usize::MAX, |granted| usize::try_from(granted).unwrap_or(usize::MAX))
}

/// How many descriptors the system lets this process have now.
#[cfg(unix)]
pub fn granted() -> u64 {
    use rustix::process::{Resource, getrlimit};

    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The same where there is no such limit.
#[cfg(not(unix))]
pub fn granted() -> u64 {
    u64::MAX
}

/// The same where there is no such limit.
#[cfg(not(unix))]
pub fn raise() -> usize {
    usize::MAX
}

impl Shares {
    /// What of the limits fits under `granted` descriptors: first every kind of connection that is no device's is held
    /// to a small part, then devices get what is left.
    pub fn fit(self, granted: usize) -> Result<Self, TooFew> {
        if granted < LEAST {
            return Err(TooFew(granted));
        }
        let part = |limit: usize, of: usize| limit.min((granted / of).max(1));
        let operators = Limits {
            handshakes: part(self.operators.handshakes, 256),
            connections: part(self.operators.connections, 64),
            ..self.operators
        };
        let devices = Limits {
            handshakes: part(self.devices.handshakes, 64),
            anonymous: part(self.devices.anonymous, 16),
            ..self.devices
        };
        let others = Limits { connections: 0, ..devices }.descriptors() + operators.descriptors() + KEPT;
        let left = granted.saturating_sub(others).max(1);
        Ok(Self { devices: Limits { connections: devices.connections.min(left), ..devices }, operators })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> Shares {
        let operators = Limits { handshakes: 32, anonymous: 0, connections: 32, ..Limits::default() };
        Shares { devices: Limits::default(), operators }
    }

    #[test]
    fn connections_never_take_what_is_kept_for_files() {
        for granted in LEAST..20_000 {
            let fitted = shares().fit(granted).unwrap();
            let taken = fitted.devices.descriptors() + fitted.operators.descriptors();
            assert!(taken + KEPT <= granted, "{granted}");
            assert!(fitted.devices.connections > 0 && fitted.operators.connections > 0);
        }
    }

    #[test]
    fn limits_that_fit_stay_as_they_are() {
        assert_eq!(shares().fit(1 << 20), Ok(shares()));
        assert_eq!(shares().fit(usize::MAX), Ok(shares()));
    }

    #[test]
    fn too_few_are_named() {
        let message = shares().fit(100).unwrap_err().to_string();
        assert!(message.contains("open 100 files, at least 192"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn the_system_grants_some() {
        assert!(raise() >= LEAST);
    }
}
