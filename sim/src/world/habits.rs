//! When devices are there, and how long they train: the seam at which a population comes into a world.

use std::fmt::Debug;

use proto::message::Window;
use rand_chacha::ChaCha20Rng;

/// A time for which a device is there, in milliseconds since the world began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// From then on.
    pub from_millis: u64,
    /// Until then; later than the other.
    pub until_millis: u64,
}

impl Stay {
    /// As long as the world is.
    pub const ALWAYS: Self = Self { from_millis: 0, until_millis: u64::MAX };
}

/// What a world's devices do beside what their machines decide. What is random and asked more than once follows from the
/// device alone; the rest from the generator that is given.
pub trait Habits: Debug + Send + Sync {
    /// When the device at this place is there next: the first stay that ends after so many milliseconds, or none any more.
    /// Outside of its stays a device is switched off and knows only what is durable.
    fn stays(&self, device: usize, after_millis: u64) -> Option<Stay>;

    /// How long it trains from a version, in milliseconds.
    fn trains_millis(&self, device: usize, rng: &mut ChaCha20Rng) -> u64;
}

/// Devices that are always there, and whose trainings take a time of the window, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AlwaysThere {
    pub(super) trains: Option<Window>,
}

impl Habits for AlwaysThere {
    fn stays(&self, _: usize, _: u64) -> Option<Stay> {
        Some(Stay::ALWAYS)
    }

    fn trains_millis(&self, _: usize, rng: &mut ChaCha20Rng) -> u64 {
        self.trains.map_or(0, |window| window.choose(rng))
    }
}
