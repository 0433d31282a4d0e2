//! A system of which nothing is known.

use std::sync::Arc;

use session::conditions::{Reading, Snapshot};
use tokio::sync::Notify;

use super::Sources;

/// The machine.
#[derive(Debug)]
pub(super) struct Machine;

impl Machine {
    pub(super) fn start(_: Sources) -> Self {
        Self
    }

    pub(super) fn look(&self) -> Snapshot {
        const WHY: &str = "nothing is asked on this system";
        Snapshot {
            power: Reading::unknown(WHY),
            idle: Reading::unknown(WHY),
            metered: Reading::unknown(WHY),
            cool_celsius: Reading::unknown(WHY),
            busy_percent: Reading::unknown(WHY),
            pressure_percent: Reading::unknown(WHY),
            power_saver: Reading::unknown(WHY),
            ..Snapshot::default()
        }
    }

    pub(super) fn changes(&self) -> Option<Arc<Notify>> {
        None
    }
}
