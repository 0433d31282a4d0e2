//! What is known of the machine at one moment.

use std::borrow::Cow;
use std::time::Duration;

use proto::ids::Timestamp;

/// A value and where it is from; without a value, where it was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<T> {
    /// What the source says; `None` is unknown.
    pub value: Option<T>,
    /// Which source.
    pub source: Cow<'static, str>,
}

impl<T> Reading<T> {
    /// What a source says.
    pub fn of(value: T, source: impl Into<Cow<'static, str>>) -> Self {
        Self { value: Some(value), source: source.into() }
    }

    /// Nothing is known; `source` says where it was looked for, or why that says nothing.
    pub fn unknown(source: impl Into<Cow<'static, str>>) -> Self {
        Self { value: None, source: source.into() }
    }

    /// This, or the other where this is unknown.
    #[must_use]
    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self.value.is_some() {
            return self;
        }
        let other = other();
        if other.value.is_some() || self.source == NONE { other } else { self }
    }
}

const NONE: &str = "none";

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self::unknown(NONE)
    }
}

/// How the machine is powered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Power {
    /// Whether it runs on external power.
    pub external: bool,
    /// The charge of the least charged battery, where there is one, in percent.
    pub battery_percent: Option<f64>,
}

/// What the device itself counts; nothing of it is asked of a monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time trained since the device's day began.
    pub trained_today: Duration,
    /// Bytes sent and fetched since the device's day began.
    pub transferred_today: u64,
    /// Free space on the disk of the device's folder, in MiB.
    pub free_disk_mib: Option<u64>,
    /// Until when the user paused the device; `Timestamp(u64::MAX)` is until they resume it.
    pub paused_until: Option<Timestamp>,
}

/// What the sources say at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// External power and battery.
    pub power: Reading<Power>,
    /// How long nobody has used the machine: zero while somebody does.
    pub idle: Reading<Duration>,
    /// Whether the network's volume costs money.
    pub metered: Reading<bool>,
    /// Degrees Celsius below the nearest thermal trip.
    pub cool_celsius: Reading<f64>,
    /// Processor time that others took since the last look, percent of the machine.
    pub busy_percent: Reading<f64>,
    /// Share of the last ten seconds in which something waited for memory, percent.
    pub pressure_percent: Reading<f64>,
    /// Whether the machine saves power.
    pub power_saver: Reading<bool>,
    /// What the device counts.
    pub usage: Usage,
}
