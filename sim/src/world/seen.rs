//! What the world saw of each version.

use proto::admin::VersionStatus;

use super::Traffic;

/// What the world has seen of one version.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The coordinator's record.
    pub status: VersionStatus,
    /// Bytes of each device since the version before, in the order of the world's nodes.
    pub traffic: Vec<Traffic>,
}

impl Seen {
    /// Mean bytes of a device.
    pub fn mean_traffic(&self) -> Traffic {
        let sum = |of: fn(&Traffic) -> u64| self.traffic.iter().map(of).sum::<u64>();
        let devices = self.traffic.len().max(1) as u64;
        Traffic { up: sum(|t| t.up) / devices, down: sum(|t| t.down) / devices }
    }
}
