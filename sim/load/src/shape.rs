//! When devices begin.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most devices of a load, and of a process.
pub const MOST_DEVICES: u32 = 20_000;

/// The most arrivals in a second.
pub const MOST_PER_SEC: f64 = 10_000.0;

/// How a load comes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// All devices at once. They stay, and ask again when the coordinator tells them to.
    Herd,
    /// One after another in so long. They stay as well.
    Ramp {
        /// Seconds until the last has begun.
        secs: u32,
    },
    /// So many begin each second, whatever becomes of those before: each connects anew, asks, does what it is given, and goes;
    /// whoever was away longest is next.
    Rate {
        /// How many begin in a second.
        per_sec: f64,
    },
}

impl Shape {
    /// When a device of so many begins, or the arrival of that number, after the beginning.
    pub fn begins(self, number: u32, devices: u32) -> Duration {
        match self {
            Self::Herd => Duration::ZERO,
            Self::Ramp { secs } => {
                Duration::from_secs(u64::from(secs)).mul_f64(f64::from(number) / f64::from(devices.max(1)))
            }
            Self::Rate { per_sec } => Duration::from_secs_f64(f64::from(number) / per_sec),
        }
    }

    /// Whether devices go when they have done what they were given, to come again.
    pub fn is_visits(self) -> bool {
        match self {
            Self::Rate { .. } => true,
            Self::Herd | Self::Ramp { .. } => false,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Herd => f.write_str("all at once"),
            Self::Ramp { secs } => write!(f, "one after another in {secs} s"),
            Self::Rate { per_sec } => write!(f, "{per_sec} arrivals a second"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_together_begin_as_one_process_would() {
        let ramp = Shape::Ramp { secs: 10 };
        let begins: Vec<u128> = (0..5).map(|device| ramp.begins(device, 5).as_millis()).collect();
        assert_eq!(begins, [0, 2000, 4000, 6000, 8000]);
        let rate = Shape::Rate { per_sec: 4.0 };
        assert_eq!(rate.begins(10, 5).as_millis(), 2500, "arrivals go on behind the last device");
        assert_eq!(Shape::Herd.begins(4, 5), Duration::ZERO);
        assert!(rate.is_visits() && !ramp.is_visits() && !Shape::Herd.is_visits());
    }
}
