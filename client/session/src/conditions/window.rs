//! Windows for training: when one opens, and when it closes.

use serde::Serialize;

use super::Conditions;
use super::judge::{Judgment, Purpose, judge};
use super::snapshot::Snapshot;

/// A gap between two looks in a window, in which the machine is looked at twice a second, of which it is taken that the
/// machine slept, in milliseconds.
const ASLEEP_MILLIS: u64 = 60_000;

/// A time on a clock that never goes back and counts the time in which the machine sleeps, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Uptime(pub u64);

impl Uptime {
    fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// Where a device stands between two windows, or in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A condition of a start does not hold.
    Closed,
    /// All conditions of a start hold, and have held since then.
    Settling {
        /// Since when.
        since: Uptime,
    },
    /// The device may train, since then.
    Open {
        /// Since when.
        since: Uptime,
    },
    /// A condition failed while the device was allowed to train; no window opens before then.
    Resting {
        /// Until when.
        until: Uptime,
    },
}

/// What [`decide`] remembers from one look to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowState {
    phase: Phase,
    /// When it was looked at the machine last.
    looked: Option<Uptime>,
    /// Windows that were closed by a condition.
    preemptions: u64,
    /// What spreads the rests of many devices.
    seed: u64,
}

impl WindowState {
    /// No window yet. Devices with other seeds rest for other times after a preemption.
    pub fn new(seed: u64) -> Self {
        Self { phase: Phase::Closed, looked: None, preemptions: 0, seed }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Windows that were closed by a condition so far.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// The rest after the preemption that is next: what the user's limits say, ± 20 %.
    fn rest_millis(&self, limits: &Conditions) -> u64 {
        let permille = 800 + mixed(self.seed.wrapping_add(self.preemptions)) % 401;
        u64::from(limits.rest_minutes).saturating_mul(60 * permille)
    }
}

/// What the device is to do until the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not to train; without an event a window opens no sooner than then, where it is known.
    Wait {
        /// When to look again at the latest to open a window in time.
        until: Option<Uptime>,
    },
    /// To train, or to go on with it.
    Train,
    /// To stop training at once.
    Preempt,
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to remember.
    pub state: WindowState,
    /// What to do.
    pub verdict: Verdict,
    /// The conditions by which it was decided: of going on in a window, of a start otherwise.
    pub judged: Vec<Judgment>,
}

/// Decides whether the device trains until it looks again.
///
/// A window opens when the conditions of a start were seen to hold for the dwell without a gap between the looks; it
/// closes with the first look at which one of going on does not hold, and then the device rests, or at which the machine
/// has slept. Looks may come at any times; a clock that goes back begins a dwell or a rest again and never shortens one.
pub fn decide(limits: &Conditions, state: &WindowState, snapshot: &Snapshot, now: Uptime) -> Decision {
    let dwell = 1000 * u64::from(limits.dwell_secs);
    let went_back = state.looked.is_some_and(|looked| now < looked);
    let gap = state.looked.map_or(u64::MAX, |looked| now.since(looked));
    // Two looks that were missed: a machine that slept, or a process that was stopped, has not seen anything hold.
    let unseen = went_back || gap > 3000 * u64::from(limits.check_secs);
    let mut next = WindowState { looked: Some(now), ..*state };
    let open = matches!(state.phase, Phase::Open { .. });
    let judged = judge(snapshot, limits, if open { Purpose::Continue } else { Purpose::Start });
    let holds = judged.iter().all(|row| !row.blocking);
    let (phase, verdict) = match state.phase {
        // A machine that wakes up may have its user before it, who has not touched it yet.
        Phase::Open { since } if holds && gap <= ASLEEP_MILLIS => {
            (Phase::Open { since: since.min(now) }, Verdict::Train)
        }
        Phase::Open { .. } => {
            let until = now.plus(state.rest_millis(limits));
            next.preemptions += 1;
            (Phase::Resting { until }, Verdict::Preempt)
        }
        Phase::Resting { until } if went_back || now < until => {
            let longest = 60 * 1200 * u64::from(limits.rest_minutes);
            let until = if went_back { now.plus(longest) } else { until };
            (Phase::Resting { until }, Verdict::Wait { until: Some(until) })
        }
        Phase::Closed | Phase::Resting { .. } | Phase::Settling { .. } if !holds => {
            (Phase::Closed, Verdict::Wait { until: None })
        }
        Phase::Closed | Phase::Resting { .. } | Phase::Settling { .. } => {
            let since = match state.phase {
                Phase::Settling { since } if !unseen => since,
                Phase::Closed | Phase::Resting { .. } | Phase::Settling { .. } | Phase::Open { .. } => now,
            };
            if now.since(since) >= dwell {
                (Phase::Open { since: now }, Verdict::Train)
            } else {
                (Phase::Settling { since }, Verdict::Wait { until: Some(since.plus(dwell)) })
            }
        }
    };
    next.phase = phase;
    Decision { state: next, verdict, judged }
}

/// A number whose bits all depend on all bits of another: the finalizer of `SplitMix64` (Steele, Lea and Flood, 2014).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::judge::tests::{any_snapshot, good};
    use super::super::{Condition, Reading};
    use super::*;

    const SECOND: u64 = 1000;
    const MINUTE: u64 = 60 * SECOND;

    fn in_use() -> Snapshot {
        Snapshot { idle: Reading::of(Duration::ZERO, "test"), ..good() }
    }

    /// Looks every ten seconds from `from` on for so long.
    fn look(state: &mut WindowState, snapshot: &Snapshot, (from, until): (u64, u64)) -> Vec<(u64, Verdict)> {
        let limits = Conditions::default();
        let mut verdicts = Vec::new();
        for now in (from..=until).step_by(10_000) {
            let decision = decide(&limits, state, snapshot, Uptime(now));
            *state = decision.state;
            verdicts.push((now, decision.verdict));
        }
        verdicts
    }

    fn first_training(verdicts: &[(u64, Verdict)]) -> Option<u64> {
        verdicts.iter().find(|(_, verdict)| *verdict == Verdict::Train).map(|(now, _)| *now)
    }

    #[test]
    fn a_window_opens_after_the_dwell_and_closes_with_the_first_look_at_a_user() {
        let mut state = WindowState::new(7);
        let verdicts = look(&mut state, &good(), (0, 2 * MINUTE));
        assert_eq!(first_training(&verdicts), Some(MINUTE));
        let closed = look(&mut state, &in_use(), (121 * SECOND, 121 * SECOND));
        assert_eq!(closed, [(121 * SECOND, Verdict::Preempt)]);
        assert_eq!(state.preemptions(), 1);
        // A rest of five minutes ± 20 %, and the dwell.
        let verdicts = look(&mut state, &good(), (122 * SECOND, 20 * MINUTE));
        let opened = first_training(&verdicts).unwrap() - 121 * SECOND;
        assert!((5 * MINUTE..=7 * MINUTE + 20 * SECOND).contains(&opened), "{opened}");
    }

    #[test]
    fn a_machine_that_slept_in_a_window_closes_it_and_rests() {
        let mut state = WindowState::new(7);
        assert_eq!(first_training(&look(&mut state, &good(), (0, MINUTE))), Some(MINUTE));
        // A process that was stopped for some seconds goes on.
        let after = look(&mut state, &good(), (100 * SECOND, 100 * SECOND));
        assert_eq!(after, [(100 * SECOND, Verdict::Train)]);
        let woke = 8 * 3600 * SECOND;
        let after = look(&mut state, &good(), (woke, woke + 20 * MINUTE));
        assert_eq!(after[0], (woke, Verdict::Preempt));
        let opened = first_training(&after).unwrap() - woke;
        assert!((5 * MINUTE..=7 * MINUTE + 20 * SECOND).contains(&opened), "{opened}");
    }

    #[test]
    fn a_machine_that_slept_begins_its_dwell_again() {
        let mut state = WindowState::new(7);
        look(&mut state, &good(), (0, 50 * SECOND));
        let after = look(&mut state, &good(), (3600 * SECOND, 3700 * SECOND));
        assert_eq!(first_training(&after), Some(3660 * SECOND));
    }

    #[test]
    fn a_clock_that_goes_back_shortens_nothing() {
        let mut state = WindowState::new(7);
        look(&mut state, &good(), (1000 * SECOND, 1050 * SECOND));
        let after = look(&mut state, &good(), (0, 100 * SECOND));
        assert_eq!(first_training(&after), Some(MINUTE));
        look(&mut state, &in_use(), (200 * SECOND, 200 * SECOND));
        // During the rest.
        let rested = look(&mut state, &good(), (0, 20 * MINUTE));
        let opened = first_training(&rested).unwrap();
        assert!((7 * MINUTE..=7 * MINUTE + 20 * SECOND).contains(&opened), "{opened}");
    }

    #[test]
    fn many_devices_do_not_come_back_together() {
        let rest = |seed| WindowState::new(seed).rest_millis(&Conditions::default());
        let rests: BTreeSet<u64> = (0..100).map(rest).collect();
        assert!(rests.len() > 80);
        assert!(rests.iter().all(|rest| (4 * MINUTE..=6 * MINUTE).contains(rest)));
    }

    fn any_limits() -> impl Strategy<Value = Conditions> {
        (any::<[bool; 9]>(), 0_u8..=100, 1_u32..15, 0_u8..=50, 0_u32..120, 0_u32..10).prop_map(
            |(assumed, battery, idle, busy, dwell, rest)| Conditions {
                assume: Condition::ALL
                    .into_iter()
                    .zip(assumed)
                    .filter(|(_, yes)| *yes)
                    .map(|(one, _)| one)
                    .collect(),
                start_battery_percent: battery,
                start_idle_minutes: idle,
                start_busy_percent: busy,
                continue_busy_percent: 2 * busy,
                dwell_secs: dwell,
                rest_minutes: rest,
                ..Conditions::default()
            },
        )
    }

    /// Limits that allow no more than `limits`.
    fn stricter(limits: &Conditions) -> Conditions {
        Conditions {
            assume: limits.assume.iter().copied().skip(1).collect(),
            start_battery_percent: limits.start_battery_percent.saturating_add(10).min(100),
            start_idle_minutes: limits.start_idle_minutes + 1,
            start_cool_celsius: limits.start_cool_celsius + 5.0,
            continue_cool_celsius: limits.continue_cool_celsius + 5.0,
            start_busy_percent: limits.start_busy_percent / 2,
            continue_busy_percent: limits.continue_busy_percent / 2,
            start_pressure_percent: limits.start_pressure_percent / 2,
            continue_pressure_percent: limits.continue_pressure_percent / 2,
            least_free_disk_mib: 2 * limits.least_free_disk_mib,
            most_minutes_a_day: limits.most_minutes_a_day / 2,
            most_mib_a_day: limits.most_mib_a_day / 2,
            dwell_secs: limits.dwell_secs + 10,
            rest_minutes: limits.rest_minutes + 1,
            check_secs: limits.check_secs,
        }
    }

    /// Looks at any times, some of them back in time, in weather that is good for whiles.
    fn any_day() -> impl Strategy<Value = Vec<(i64, Snapshot)>> {
        let weather = prop_oneof![5 => Just(good()), 1 => any_snapshot(), 1 => Just(in_use())];
        let step = prop_oneof![20 => 0_i64..12_000, 1 => 30_000_i64..4_000_000, 1 => -100_000_i64..0];
        proptest::collection::vec((step, weather), 1..200)
    }

    proptest! {
        #[test]
        fn it_never_trains_with_a_required_condition_no_or_unknown(limits in any_limits(), day in any_day()) {
            let (mut state, mut now) = (WindowState::new(1), 1_000_000_i64);
            for (step, snapshot) in day {
                now = (now + step).max(0);
                let decision = decide(&limits, &state, &snapshot, Uptime(now.unsigned_abs()));
                state = decision.state;
                let go_on = judge(&snapshot, &limits, Purpose::Continue);
                let blocked = go_on.iter().any(|row| row.blocking);
                // It stops within the look at which a condition fails.
                prop_assert!(!(blocked && decision.verdict == Verdict::Train));
                prop_assert_eq!(
                    decision.verdict == Verdict::Train,
                    matches!(decision.state.phase(), Phase::Open { .. })
                );
                // Without exception but those that the user assumed.
                if decision.verdict == Verdict::Train {
                    for row in go_on {
                        prop_assert!(!row.unknown || limits.assume.contains(&row.condition), "{row:?}");
                    }
                }
            }
        }

        #[test]
        fn it_never_opens_twice_within_the_dwell_and_the_rest(limits in any_limits(), day in any_day()) {
            let (mut state, mut now, mut last) = (WindowState::new(1), 0_i64, None::<u64>);
            for (step, snapshot) in day {
                // Time passes as it does: what goes back has a test of its own.
                now += step.abs();
                let was = state.phase();
                let decision = decide(&limits, &state, &snapshot, Uptime(now.unsigned_abs()));
                state = decision.state;
                if matches!(was, Phase::Open { .. }) || !matches!(state.phase(), Phase::Open { .. }) {
                    continue;
                }
                if let Some(last) = last {
                    let least = 1000 * u64::from(limits.dwell_secs) + 48_000 * u64::from(limits.rest_minutes);
                    prop_assert!(now.unsigned_abs() - last >= least);
                }
                last = Some(now.unsigned_abs());
            }
        }

        #[test]
        fn a_stricter_user_never_trains_more(limits in any_limits(), day in any_day()) {
            let strict = stricter(&limits);
            let (mut state, mut now) = (WindowState::new(1), 1_000_000_i64);
            for (step, snapshot) in day {
                now = (now + step).max(0);
                let at = Uptime(now.unsigned_abs());
                // From whatever state the laxer one comes to.
                let lax = decide(&limits, &state, &snapshot, at);
                let strict = decide(&strict, &state, &snapshot, at);
                prop_assert!(strict.verdict != Verdict::Train || lax.verdict == Verdict::Train);
                state = lax.state;
            }
        }

        #[test]
        fn good_weather_always_opens_a_window_in_the_end(limits in any_limits(), day in any_day()) {
            let (mut state, mut now) = (WindowState::new(1), 1_000_000_i64);
            for (step, snapshot) in day {
                now = (now + step).max(0);
                state = decide(&limits, &state, &snapshot, Uptime(now.unsigned_abs())).state;
            }
            let fine = Snapshot { idle: Reading::of(Duration::from_secs(36_000), "test"), ..good() };
            let limits = Conditions { start_battery_percent: 95, start_busy_percent: 6, ..limits };
            let longest = 1000 * u64::from(limits.dwell_secs) + 72_000 * u64::from(limits.rest_minutes);
            let mut opened = false;
            for tick in 0..=longest.div_ceil(10_000) + 2 {
                let at = Uptime(now.unsigned_abs() + 10_000 * tick);
                let decision = decide(&limits, &state, &fine, at);
                state = decision.state;
                opened |= decision.verdict == Verdict::Train;
            }
            prop_assert!(opened);
        }
    }
}
