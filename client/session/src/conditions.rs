//! When a device may train: conditions to start and laxer ones to go on. Unknown counts as no.
//!
//! [`judge`] decides of what a monitor of the machine says.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// On external power, and a battery, where there is one, charged enough.
    Mains,
    /// Nobody at the machine. No source in this version: it holds only where it is assumed.
    Idle,
    /// The network costs nothing by volume. No source in this version: it holds only where it is assumed.
    Unmetered,
    /// Not too hot.
    Cool,
    /// Others leave the processor free.
    Free,
}

/// The thresholds, and what is taken to hold where the device cannot tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Conditions that are taken to hold where the device cannot tell. Default none.
    pub assume: BTreeSet<Condition>,
    /// Battery charge for a start, percent. Default 80.
    pub start_battery_percent: u8,
    /// Degrees Celsius below the lowest passive or critical trip for a start. Default 15.
    pub start_cool_celsius: f64,
    /// The same to go on. At most `start_cool_celsius`. Default 5.
    pub continue_cool_celsius: f64,
    /// Processor use by others for a start, percent. Default 20.
    pub start_busy_percent: u8,
    /// The same to go on. At least `start_busy_percent`. Default 40.
    pub continue_busy_percent: u8,
    /// Seconds between two looks at the machine. Default 10.
    pub check_secs: u32,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            assume: BTreeSet::new(),
            start_battery_percent: 80,
            start_cool_celsius: 15.0,
            continue_cool_celsius: 5.0,
            start_busy_percent: 20,
            continue_busy_percent: 40,
            check_secs: 10,
        }
    }
}

/// What the sources say; `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// A supply that is not a battery is online.
    pub external_power: Option<bool>,
    /// The least charged battery.
    pub battery_percent: Option<f64>,
    /// Degrees below the nearest trip.
    pub cool_celsius: Option<f64>,
    /// Processor time of others since the last look.
    pub busy_percent: Option<f64>,
}

/// For what the conditions are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To begin.
    Start,
    /// To go on.
    Continue,
}

/// One condition, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgment {
    /// Which.
    pub condition: Condition,
    /// What the source says.
    pub value: String,
    /// Which source.
    pub source: &'static str,
    /// What it is compared with.
    pub threshold: String,
    /// Whether it keeps the device from training.
    pub blocking: bool,
}

/// Judges every condition.
pub fn judge(snapshot: &Snapshot, limits: &Conditions, purpose: Purpose) -> Vec<Judgment> {
    let start = purpose == Purpose::Start;
    let cool = if start { limits.start_cool_celsius } else { limits.continue_cool_celsius };
    let busy = f64::from(if start { limits.start_busy_percent } else { limits.continue_busy_percent });
    let least = if start { f64::from(limits.start_battery_percent) } else { 0.0 };
    let charged = snapshot.battery_percent.is_none_or(|percent| percent >= least);
    let power = snapshot.external_power.map(|on| on && charged);
    let power_text = match (snapshot.external_power, snapshot.battery_percent) {
        (None, _) => "unknown".to_owned(),
        (Some(on), None) => if on { "on" } else { "off" }.to_owned(),
        (Some(on), Some(percent)) => format!("{}, battery {percent:.0} %", if on { "on" } else { "off" }),
    };
    let number = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.0} {unit}"))
    };
    let rows = [
        (
            Condition::Mains,
            power_text,
            "/sys/class/power_supply",
            format!("on, battery at least {least:.0} %"),
            power,
        ),
        (Condition::Idle, "unknown".to_owned(), "none", "nobody at the machine".to_owned(), None),
        (Condition::Unmetered, "unknown".to_owned(), "none", "free by volume".to_owned(), None),
        (
            Condition::Cool,
            number(snapshot.cool_celsius, "°C below the trip"),
            "/sys/class/thermal",
            format!("at least {cool:.0} °C below the trip"),
            snapshot.cool_celsius.map(|margin| margin >= cool),
        ),
        (
            Condition::Free,
            number(snapshot.busy_percent, "% used by others"),
            "/proc/stat",
            format!("below {busy:.0} %"),
            snapshot.busy_percent.map(|percent| percent < busy),
        ),
    ];
    rows.into_iter()
        .map(|(condition, value, source, threshold, holds)| {
            let assumed = holds.is_none() && limits.assume.contains(&condition);
            let value = if assumed { format!("{value}, assumed") } else { value };
            let blocking = !(assumed || holds == Some(true));
            Judgment { condition, value, source, threshold, blocking }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good() -> Snapshot {
        Snapshot {
            external_power: Some(true),
            battery_percent: Some(95.0),
            cool_celsius: Some(30.0),
            busy_percent: Some(5.0),
        }
    }

    fn blocking(snapshot: &Snapshot, limits: &Conditions, purpose: Purpose) -> Vec<Condition> {
        let judged = judge(snapshot, limits, purpose);
        judged.into_iter().filter(|row| row.blocking).map(|row| row.condition).collect()
    }

    fn assuming(conditions: &[Condition]) -> Conditions {
        Conditions { assume: conditions.iter().copied().collect(), ..Conditions::default() }
    }

    #[test]
    fn what_is_unknown_blocks_unless_it_is_assumed() {
        let unknown = Snapshot::default();
        assert_eq!(blocking(&unknown, &Conditions::default(), Purpose::Start).len(), 5);
        let limits = assuming(&[Condition::Idle, Condition::Unmetered]);
        assert_eq!(blocking(&good(), &limits, Purpose::Start), []);
    }

    #[test]
    fn an_assumption_never_overrides_what_is_known() {
        let limits = assuming(&[Condition::Idle, Condition::Unmetered, Condition::Mains, Condition::Cool]);
        let snapshot = Snapshot { external_power: Some(false), cool_celsius: Some(1.0), ..good() };
        assert_eq!(blocking(&snapshot, &limits, Purpose::Continue), [Condition::Mains, Condition::Cool]);
    }

    #[test]
    fn going_on_is_laxer_than_starting() {
        let limits = assuming(&[Condition::Idle, Condition::Unmetered]);
        let snapshot = Snapshot { battery_percent: Some(50.0), busy_percent: Some(30.0), ..good() };
        assert_eq!(blocking(&snapshot, &limits, Purpose::Start), [Condition::Mains, Condition::Free]);
        assert_eq!(blocking(&snapshot, &limits, Purpose::Continue), []);
    }

    proptest! {
        #[test]
        fn whoever_may_start_may_go_on(
            power in any::<Option<bool>>(), battery in proptest::option::of(0.0..100.0_f64),
            cool in proptest::option::of(-20.0..60.0_f64), busy in proptest::option::of(0.0..100.0_f64),
        ) {
            let snapshot = Snapshot {
                external_power: power, battery_percent: battery, cool_celsius: cool, busy_percent: busy,
            };
            let limits = assuming(&[Condition::Idle, Condition::Unmetered]);
            let start = blocking(&snapshot, &limits, Purpose::Start);
            let go_on = blocking(&snapshot, &limits, Purpose::Continue);
            prop_assert!(go_on.iter().all(|condition| start.contains(condition)));
        }
    }
}
