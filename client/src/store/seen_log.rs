//! What is kept of the enrollment log that the device has seen.

use aggregation::log::{Head, Seen};
use proto::ids::Digest;
use serde::{Deserialize, Serialize};

/// Where it is kept.
pub(crate) const SEEN_LOG: &str = "enrollment-log";

/// A [`Seen`], as it is written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SeenLog {
    size: u64,
    root: Digest,
    devices: u64,
    unix_secs: u64,
    previous: Digest,
    /// When the running day began, by the heads' clock, and with how many devices.
    day: (u64, u64),
}

impl From<Seen> for SeenLog {
    fn from(Seen { head, day }: Seen) -> Self {
        let Head { size, root, devices, unix_secs, previous } = head;
        Self { size, root: Digest(root), devices, unix_secs, previous: Digest(previous), day }
    }
}

impl From<SeenLog> for Seen {
    fn from(SeenLog { size, root, devices, unix_secs, previous, day }: SeenLog) -> Self {
        Self { head: Head { size, root: root.0, devices, unix_secs, previous: previous.0 }, day }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_read_as_it_was_written() {
        let head = Head { size: 1, root: [2; 32], devices: 3, unix_secs: 4, previous: [5; 32] };
        let seen = Seen { head, day: (6, 7) };
        let text = serde_json::to_string(&SeenLog::from(seen)).unwrap();
        assert_eq!(Seen::from(serde_json::from_str::<SeenLog>(&text).unwrap()), seen);
    }
}
