//! What goes wrong in a world, and how often.

use rand_core::Rng;
use session::SessionState;

/// A device that goes away before it does what its state wants, and comes back at the next version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vanish {
    /// The version that the round starts from.
    pub version: u32,
    /// Which device.
    pub device: usize,
    /// The state in which it goes away.
    pub state: SessionState,
}

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Devices that go away.
    pub vanish: Vec<Vanish>,
    /// Requests lost, and replies lost, in a thousand.
    pub lost_permille: u32,
    /// Requests carried twice, in a thousand.
    pub repeated_permille: u32,
    /// Trainings at the end of which the device goes away, in a thousand.
    pub broken_permille: u32,
    /// Requests after which the coordinator crashes, in a hundred thousand.
    pub crash_per_100k: u32,
}

impl Faults {
    pub(crate) fn breaks(&self, rng: &mut impl Rng) -> bool {
        chance(rng, self.broken_permille, 1000)
    }

    pub(crate) fn loses(&self, rng: &mut impl Rng) -> bool {
        chance(rng, self.lost_permille, 1000)
    }

    pub(crate) fn repeats(&self, rng: &mut impl Rng) -> bool {
        chance(rng, self.repeated_permille, 1000)
    }

    pub(crate) fn crashes_coordinator(&self, rng: &mut impl Rng) -> bool {
        chance(rng, self.crash_per_100k, 100_000)
    }
}

/// Draws nothing where nothing can happen, so that a world without faults does not depend on their order.
fn chance(rng: &mut impl Rng, times: u32, of: u32) -> bool {
    times > 0 && rng.next_u32() % of < times
}
