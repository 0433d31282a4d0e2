//! What the clocks of a world's machines say: the seam at which somebody sets them.

use std::fmt::Debug;

use proto::ids::Timestamp;

use super::{DAWN, Party};

/// By how much the clock of the day of a device has to be off what it was, in milliseconds, before its shell says that
/// somebody set it.
pub(super) const STEP_MILLIS: u64 = 60_000;

/// The clocks of a world's devices and of its coordinator: each says the world's time and something more or less.
pub trait Clock: Debug + Send + Sync {
    /// By how many milliseconds the clock of this party is ahead, so many milliseconds after the world began.
    fn ahead_millis(&self, who: Party, millis: u64) -> i64;

    /// When this party's clock is set next, in milliseconds since the world began; none where it never is again.
    fn set_next(&self, who: Party, after_millis: u64) -> Option<u64>;

    /// What it says at a moment of the world's time.
    fn reads(&self, who: Party, at: Timestamp) -> Timestamp {
        let ahead = self.ahead_millis(who, at.millis_since(DAWN));
        Timestamp(at.0.saturating_add_signed(ahead))
    }
}

/// Clocks that all say the world's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right;

impl Clock for Right {
    fn ahead_millis(&self, _: Party, _: u64) -> i64 {
        0
    }

    fn set_next(&self, _: Party, _: u64) -> Option<u64> {
        None
    }
}
