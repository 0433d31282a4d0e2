//! When a device may train and when it may use the network.
//!
//! A monitor of the machine says what it sees ([`Snapshot`]); [`judge`] compares that with the user's thresholds
//! ([`Conditions`]), and [`decide`] opens and closes windows for training: conditions hold for a while before one opens,
//! laxer ones keep it open, and after a preemption the device rests. What is unknown does not hold, unless the user's
//! thresholds assume it. All of it is pure: the time is an argument.

mod judge;
mod snapshot;
mod window;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use judge::{Judgment, Purpose, in_words, judge};
pub use snapshot::{Power, Reading, Snapshot, Usage};
pub use window::{Decision, Phase, Uptime, Verdict, WindowState, decide};

/// A condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// On external power, and a battery, where there is one, charged enough.
    Mains,
    /// Nobody at the machine.
    Idle,
    /// The network costs nothing by volume. For transfers only.
    Unmetered,
    /// Not too hot.
    Cool,
    /// Others leave the processor and the memory free.
    Free,
    /// The machine does not save power.
    Saver,
    /// The disk has room.
    Disk,
    /// The device has not trained, for training, or sent and fetched, for transfers, as much today as it may.
    Budget,
    /// The user has not paused the device.
    Resumed,
}

impl Condition {
    /// Every condition, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Mains,
        Self::Idle,
        Self::Unmetered,
        Self::Cool,
        Self::Free,
        Self::Saver,
        Self::Disk,
        Self::Budget,
        Self::Resumed,
    ];

    /// Its name, as configurations have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mains => "mains",
            Self::Idle => "idle",
            Self::Unmetered => "unmetered",
            Self::Cool => "cool",
            Self::Free => "free",
            Self::Saver => "saver",
            Self::Disk => "disk",
            Self::Budget => "budget",
            Self::Resumed => "resumed",
        }
    }
}

/// The thresholds, and what is taken to hold where the device cannot tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Conditions that are taken to hold where the device cannot tell. Default none.
    pub assume: BTreeSet<Condition>,
    /// Battery charge for a start, percent. Default 80.
    pub start_battery_percent: u8,
    /// Minutes without anybody's input for a start. Default 5. To go on, there was no input for
    /// [`CONTINUE_IDLE_SECS`].
    pub start_idle_minutes: u32,
    /// Degrees Celsius below the lowest passive or critical trip for a start. Default 15.
    pub start_cool_celsius: f64,
    /// The same to go on. At most `start_cool_celsius`. Default 5.
    pub continue_cool_celsius: f64,
    /// Processor use by others for a start, percent. Default 20.
    pub start_busy_percent: u8,
    /// The same to go on. At least `start_busy_percent`. Default 40.
    pub continue_busy_percent: u8,
    /// Share of the last ten seconds in which something waited for memory, for a start, percent. Default 5.
    pub start_pressure_percent: u8,
    /// The same to go on. At least `start_pressure_percent`. Default 20.
    pub continue_pressure_percent: u8,
    /// Free space on the disk of the device's folder for a start, in MiB; half of it to go on. Default 1024.
    pub least_free_disk_mib: u64,
    /// Minutes of training in a day of the device's clock. Default 480.
    pub most_minutes_a_day: u32,
    /// MiB that are sent and fetched in a day of the device's clock. Default 2048.
    pub most_mib_a_day: u64,
    /// Seconds for which the conditions of a start hold before it. Default 60.
    pub dwell_secs: u32,
    /// Minutes without training after a preemption, ± 20 %. Default 5.
    pub rest_minutes: u32,
    /// Seconds between two looks at the machine while it does not train. Default 10. While it trains it looks twice a
    /// second.
    pub check_secs: u32,
}

/// Seconds without input for a training to go on: any input closes the window, even where a look came late.
pub const CONTINUE_IDLE_SECS: u64 = 30;

impl Default for Conditions {
    fn default() -> Self {
        Self {
            assume: BTreeSet::new(),
            start_battery_percent: 80,
            start_idle_minutes: 5,
            start_cool_celsius: 15.0,
            continue_cool_celsius: 5.0,
            start_busy_percent: 20,
            continue_busy_percent: 40,
            start_pressure_percent: 5,
            continue_pressure_percent: 20,
            least_free_disk_mib: 1024,
            most_minutes_a_day: 480,
            most_mib_a_day: 2048,
            dwell_secs: 60,
            rest_minutes: 5,
            check_secs: 10,
        }
    }
}
