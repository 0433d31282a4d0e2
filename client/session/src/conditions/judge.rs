//! Each condition, compared with its threshold.

use std::borrow::Cow;
use std::time::Duration;

use proto::counted::counted;
use serde::{Deserialize, Serialize};

use super::snapshot::{Power, Reading, Snapshot};
use super::{CONTINUE_IDLE_SECS, Condition, Conditions};

/// For what the conditions are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To begin a training.
    Start,
    /// To go on with it.
    Continue,
    /// To send or to fetch.
    Transfer,
}

/// One condition, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgment {
    /// Which.
    pub condition: Condition,
    /// What the source says.
    pub value: String,
    /// Which source.
    pub source: Cow<'static, str>,
    /// What it is compared with.
    pub threshold: String,
    /// Whether the source says nothing. It then blocks, unless it is assumed to hold.
    pub unknown: bool,
    /// Whether it keeps the device from what it was judged for.
    pub blocking: bool,
}

/// Judges every condition that matters for this purpose.
pub fn judge(snapshot: &Snapshot, limits: &Conditions, purpose: Purpose) -> Vec<Judgment> {
    Condition::ALL.into_iter().filter_map(|condition| one(condition, snapshot, limits, purpose)).collect()
}

/// The conditions that block, in words: what each is, and what is wanted. Empty where none does.
pub fn in_words(judged: &[Judgment]) -> String {
    let blocking = judged.iter().filter(|row| row.blocking);
    let words: Vec<String> = blocking
        .map(|row| format!("{} is {} (wanted: {})", row.condition.as_str(), row.value, row.threshold))
        .collect();
    words.join(", ")
}

/// What a source says in words, and whether that is enough; `None` where it says nothing.
type Compared = (String, Cow<'static, str>, Option<bool>);

fn one(condition: Condition, snapshot: &Snapshot, limits: &Conditions, purpose: Purpose) -> Option<Judgment> {
    let start = purpose == Purpose::Start;
    let by_purpose = |at_start: f64, later: f64| if start { at_start } else { later };
    if (condition == Condition::Unmetered) != (purpose == Purpose::Transfer)
        && !matches!(condition, Condition::Budget | Condition::Resumed)
    {
        return None;
    }
    let (threshold, (value, source, holds)) = match condition {
        Condition::Mains => {
            let least = by_purpose(f64::from(limits.start_battery_percent), 0.0);
            (format!("on, battery at least {least:.0} %"), power(&snapshot.power, least))
        }
        Condition::Idle => {
            let least = if start {
                Duration::from_secs(60 * u64::from(limits.start_idle_minutes))
            } else {
                Duration::from_secs(CONTINUE_IDLE_SECS)
            };
            let compared = compare(
                &snapshot.idle,
                |idle| {
                    if idle.is_zero() { "in use".to_owned() } else { format!("unused for {}", time(*idle)) }
                },
                |idle| *idle >= least,
            );
            (format!("unused for {}", time(least)), compared)
        }
        Condition::Unmetered => {
            let compared = compare(
                &snapshot.metered,
                |metered| if *metered { "metered" } else { "unmetered" }.to_owned(),
                |metered| !metered,
            );
            ("unmetered".to_owned(), compared)
        }
        Condition::Cool => {
            let least = by_purpose(limits.start_cool_celsius, limits.continue_cool_celsius);
            let compared = compare(
                &snapshot.cool_celsius,
                |margin| format!("{margin:.0} °C below the trip"),
                |margin| *margin >= least,
            );
            (format!("at least {least:.0} °C below the trip"), compared)
        }
        Condition::Free => free(snapshot, limits, start),
        Condition::Saver => {
            let compared =
                compare(&snapshot.power_saver, |on| if *on { "on" } else { "off" }.to_owned(), |on| !on);
            ("off".to_owned(), compared)
        }
        Condition::Disk => {
            let least = if start { limits.least_free_disk_mib } else { limits.least_free_disk_mib / 2 };
            let free = snapshot.usage.free_disk_mib;
            let reading = free.map_or_else(
                || Reading::unknown("the disk of state_dir"),
                |free| Reading::of(free, "the disk of state_dir"),
            );
            let compared = compare(&reading, |free| format!("{free} MiB free"), |free| *free >= least);
            (format!("at least {least} MiB free"), compared)
        }
        Condition::Budget => budget(snapshot, limits, purpose),
        Condition::Resumed => {
            let (value, holds) = match snapshot.usage.paused_until {
                None => ("not paused".to_owned(), true),
                Some(_) => ("paused".to_owned(), false),
            };
            ("not paused".to_owned(), (value, "the user".into(), Some(holds)))
        }
    };
    let assumed = holds.is_none() && limits.assume.contains(&condition);
    let value = if assumed { format!("{value}, assumed") } else { value };
    let blocking = !(assumed || holds == Some(true));
    Some(Judgment { condition, value, source, threshold, unknown: holds.is_none(), blocking })
}

fn compare<T>(
    reading: &Reading<T>,
    words: impl FnOnce(&T) -> String,
    holds: impl FnOnce(&T) -> bool,
) -> Compared {
    let value = reading.value.as_ref();
    (value.map_or_else(|| "unknown".to_owned(), words), reading.source.clone(), value.map(holds))
}

/// A battery that says what no battery can say tells nothing.
fn power(reading: &Reading<Power>, least: f64) -> Compared {
    let source = reading.source.clone();
    let Some(Power { external, battery_percent }) = reading.value else {
        return ("unknown".to_owned(), source, None);
    };
    let on = if external { "on" } else { "off" };
    match battery_percent {
        None => (on.to_owned(), source, Some(external)),
        Some(percent) if (0.0..=100.0).contains(&percent) => {
            (format!("{on}, battery {percent:.0} %"), source, Some(external && percent >= least))
        }
        Some(percent) => {
            // Off is off, whatever the battery says.
            let holds = if external { None } else { Some(false) };
            (format!("{on}, battery {percent:.0} %, which no battery has"), source, holds)
        }
    }
}

/// The processor must be known; memory pressure counts where the system has it.
fn free(snapshot: &Snapshot, limits: &Conditions, start: bool) -> (String, Compared) {
    let pick = |at_start: u8, later: u8| f64::from(if start { at_start } else { later });
    let busy = pick(limits.start_busy_percent, limits.continue_busy_percent);
    let pressure = pick(limits.start_pressure_percent, limits.continue_pressure_percent);
    let threshold = format!("below {busy:.0} %, memory pressure below {pressure:.0} %");
    let (mut value, mut source, mut holds) = compare(
        &snapshot.busy_percent,
        |percent| format!("{percent:.0} % used by others"),
        |percent| *percent < busy,
    );
    if let Some(percent) = snapshot.pressure_percent.value {
        value = format!("{value}, memory pressure {percent:.0} %");
        source = format!("{source}, {}", snapshot.pressure_percent.source).into();
        // What is not a number is not below.
        let relaxed = percent < pressure;
        holds = if relaxed { holds } else { Some(false) };
    }
    (threshold, (value, source, holds))
}

fn budget(snapshot: &Snapshot, limits: &Conditions, purpose: Purpose) -> (String, Compared) {
    let usage = &snapshot.usage;
    let (threshold, value, holds) = if purpose == Purpose::Transfer {
        let most = limits.most_mib_a_day;
        let mib = usage.transferred_today.div_ceil(1 << 20);
        (format!("below {most} MiB a day"), format!("{mib} MiB today"), mib < most)
    } else {
        let most = limits.most_minutes_a_day;
        let minutes = usage.trained_today.as_secs() / 60;
        let in_words = |minutes: u64| counted(minutes, "minute", "minutes");
        let threshold = format!("below {} a day", in_words(most.into()));
        (threshold, format!("{} today", in_words(minutes)), minutes < u64::from(most))
    };
    (threshold, (value, "this device".into(), Some(holds)))
}

/// A time span for people.
fn time(span: Duration) -> String {
    let secs = span.as_secs();
    match (secs / 3600, secs / 60, secs) {
        (0, 0, secs) => format!("{secs} s"),
        (0, minutes, _) => format!("{minutes} min"),
        (hours, minutes, _) => format!("{hours} h {} min", minutes % 60),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use proto::ids::Timestamp;

    use super::super::Usage;
    use super::*;

    pub(in super::super) fn good() -> Snapshot {
        Snapshot {
            power: Reading::of(Power { external: true, battery_percent: Some(95.0) }, "test"),
            idle: Reading::of(Duration::from_secs(600), "test"),
            metered: Reading::of(false, "test"),
            cool_celsius: Reading::of(30.0, "test"),
            busy_percent: Reading::of(5.0, "test"),
            pressure_percent: Reading::of(0.0, "test"),
            power_saver: Reading::of(false, "test"),
            usage: Usage { free_disk_mib: Some(10_000), ..Usage::default() },
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
        let expected = [
            Condition::Mains,
            Condition::Idle,
            Condition::Cool,
            Condition::Free,
            Condition::Saver,
            Condition::Disk,
        ];
        for purpose in [Purpose::Start, Purpose::Continue] {
            assert_eq!(blocking(&unknown, &Conditions::default(), purpose), expected);
            assert_eq!(blocking(&unknown, &assuming(&expected), purpose), []);
            assert_eq!(blocking(&good(), &Conditions::default(), purpose), []);
        }
        assert_eq!(blocking(&unknown, &Conditions::default(), Purpose::Transfer), [Condition::Unmetered]);
        assert_eq!(blocking(&good(), &Conditions::default(), Purpose::Transfer), []);
    }

    #[test]
    fn an_assumption_never_overrides_what_is_known() {
        let limits = assuming(&Condition::ALL);
        let bad = Snapshot {
            power: Reading::of(Power { external: false, battery_percent: Some(99.0) }, "test"),
            idle: Reading::of(Duration::ZERO, "test"),
            metered: Reading::of(true, "test"),
            cool_celsius: Reading::of(1.0, "test"),
            busy_percent: Reading::of(90.0, "test"),
            pressure_percent: Reading::of(0.0, "test"),
            power_saver: Reading::of(true, "test"),
            usage: Usage {
                trained_today: Duration::from_secs(480 * 60),
                transferred_today: 2048 << 20,
                free_disk_mib: Some(3),
                paused_until: Some(Timestamp(u64::MAX)),
            },
        };
        let all_but_transfer: Vec<_> =
            Condition::ALL.into_iter().filter(|condition| *condition != Condition::Unmetered).collect();
        assert_eq!(blocking(&bad, &limits, Purpose::Start), all_but_transfer);
        assert_eq!(blocking(&bad, &limits, Purpose::Continue), all_but_transfer);
        let transfer = [Condition::Unmetered, Condition::Budget, Condition::Resumed];
        assert_eq!(blocking(&bad, &limits, Purpose::Transfer), transfer);
    }

    #[test]
    fn a_battery_that_no_battery_is_tells_nothing_and_its_value_is_named() {
        let with = |external, percent| Snapshot {
            power: Reading::of(Power { external, battery_percent: Some(percent) }, "test"),
            ..good()
        };
        for (percent, words) in [(300.0, "300 %"), (-1.0, "-1 %"), (f64::NAN, "NaN %")] {
            let row = judge(&with(true, percent), &Conditions::default(), Purpose::Continue).remove(0);
            assert!(row.blocking && row.unknown && row.value.contains(words), "{row:?}");
            // Nor is it assumed away where the machine is not on power.
            let row =
                judge(&with(false, percent), &assuming(&[Condition::Mains]), Purpose::Continue).remove(0);
            assert!(row.blocking && !row.unknown, "{row:?}");
        }
        assert_eq!(blocking(&with(true, 0.0), &Conditions::default(), Purpose::Start), [Condition::Mains]);
        assert_eq!(blocking(&with(true, 0.0), &Conditions::default(), Purpose::Continue), []);
    }

    #[test]
    fn going_on_is_laxer_than_starting() {
        let snapshot = Snapshot {
            power: Reading::of(Power { external: true, battery_percent: Some(50.0) }, "test"),
            idle: Reading::of(Duration::from_secs(CONTINUE_IDLE_SECS), "test"),
            cool_celsius: Reading::of(10.0, "test"),
            busy_percent: Reading::of(30.0, "test"),
            usage: Usage { free_disk_mib: Some(600), ..Usage::default() },
            ..good()
        };
        let limits = Conditions::default();
        let expected = [Condition::Mains, Condition::Idle, Condition::Cool, Condition::Free, Condition::Disk];
        assert_eq!(blocking(&snapshot, &limits, Purpose::Start), expected);
        assert_eq!(blocking(&snapshot, &limits, Purpose::Continue), []);
        let pressed = Snapshot { pressure_percent: Reading::of(10.0, "test"), ..good() };
        assert_eq!(blocking(&pressed, &limits, Purpose::Start), [Condition::Free]);
        assert_eq!(blocking(&pressed, &limits, Purpose::Continue), []);
    }

    #[test]
    fn a_machine_without_memory_pressure_is_judged_by_its_processor() {
        let without = Snapshot { pressure_percent: Reading::unknown("/proc/pressure"), ..good() };
        assert_eq!(blocking(&without, &Conditions::default(), Purpose::Start), []);
    }

    #[test]
    fn what_blocks_is_said_with_its_value_and_what_is_wanted() {
        let snapshot = Snapshot { idle: Reading::of(Duration::from_secs(90), "test"), ..good() };
        let words = in_words(&judge(&snapshot, &Conditions::default(), Purpose::Start));
        assert_eq!(words, "idle is unused for 1 min (wanted: unused for 5 min)");
    }

    pub(in super::super) fn any_snapshot() -> impl Strategy<Value = Snapshot> {
        let of = |value: Option<f64>| {
            value.map_or_else(|| Reading::unknown("test"), |value| Reading::of(value, "test"))
        };
        let flag = |value: Option<bool>| {
            value.map_or_else(|| Reading::unknown("test"), |value| Reading::of(value, "test"))
        };
        let percent = || proptest::option::of(prop_oneof![0.0..100.0_f64, Just(300.0), Just(0.0)]);
        let power = proptest::option::of((any::<bool>(), percent()));
        let readings = (power, proptest::option::of(0_u64..1000), any::<Option<bool>>(), percent());
        let more = (percent(), proptest::option::of(-20.0..60.0_f64), any::<Option<bool>>());
        let usage = (0_u64..600, 0_u64..3000, proptest::option::of(0_u64..3000), any::<bool>());
        (readings, more, usage).prop_map(move |((power, idle, metered, busy), more, usage)| Snapshot {
            power: power.map_or_else(
                || Reading::unknown("test"),
                |(external, battery_percent)| Reading::of(Power { external, battery_percent }, "test"),
            ),
            idle: idle.map_or_else(
                || Reading::unknown("test"),
                |secs| Reading::of(Duration::from_secs(secs), "test"),
            ),
            metered: flag(metered),
            busy_percent: of(busy),
            pressure_percent: of(more.0),
            cool_celsius: of(more.1),
            power_saver: flag(more.2),
            usage: Usage {
                trained_today: Duration::from_secs(60 * usage.0),
                transferred_today: usage.1 << 20,
                free_disk_mib: usage.2,
                paused_until: usage.3.then_some(Timestamp(5)),
            },
        })
    }

    proptest! {
        #[test]
        fn whoever_may_start_may_go_on(snapshot in any_snapshot(), assumed in any::<[bool; 9]>()) {
            let assumed: Vec<_> =
                Condition::ALL.into_iter().zip(assumed).filter(|(_, yes)| *yes).map(|(one, _)| one).collect();
            let limits = assuming(&assumed);
            let start = blocking(&snapshot, &limits, Purpose::Start);
            let go_on = blocking(&snapshot, &limits, Purpose::Continue);
            prop_assert!(go_on.iter().all(|condition| start.contains(condition)), "{start:?} {go_on:?}");
        }

        #[test]
        fn a_required_condition_that_is_no_or_unknown_blocks(snapshot in any_snapshot()) {
            for purpose in [Purpose::Start, Purpose::Continue, Purpose::Transfer] {
                for row in judge(&snapshot, &Conditions::default(), purpose) {
                    prop_assert!(!row.unknown || row.blocking, "{row:?}");
                }
            }
        }
    }
}
