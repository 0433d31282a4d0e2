//! What is counted while the coordinator works, for its metrics: how rounds end, how long their steps take, what devices ask
//! and are answered.
//!
//! Everything here is about all devices and all tasks together: a label has one of a few words that stand in the code, and
//! none is a device's, a task's or anybody's text but the names of
//! witnesses that the operator chose. What can be looked up when somebody asks is in `observe/scrape.rs`.
#![expect(clippy::disallowed_methods, reason = "IO shell: how long the disk takes is measured here")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use proto::ids::{SessionId, Timestamp};
use proto::message::{Outcome, Rejection, Reply};
use task::TaskEffect;
use task::round::PhaseName;

/// So many labels, each with a word.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Seconds of a round's step.
const STEP_BUCKETS: [f64; 13] =
    [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Seconds of a commit.
const COMMIT_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0];

/// Seconds that somebody takes who is asked when a device enrolls.
const HOOK_BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0];

/// The steps that a round goes through.
const STEPS: [PhaseName; 6] = [
    PhaseName::Advertise,
    PhaseName::Draw,
    PhaseName::Share,
    PhaseName::Masked,
    PhaseName::Agree,
    PhaseName::Unmask,
];

/// How a round ends.
const OUTCOMES: [Outcome; 8] = [
    Outcome::Published,
    Outcome::TooFewJoined,
    Outcome::NotDrawn,
    Outcome::TooFewShared,
    Outcome::TooFewSurvivors,
    Outcome::NoQuorum,
    Outcome::NotRecovered,
    Outcome::Stopped,
];

/// Counted since the start.
#[derive(Debug)]
pub struct Metrics {
    rounds: Family<Labels<1>, Counter>,
    excluded: Counter,
    paused: Counter,
    steps: Family<Labels<1>, Histogram, fn() -> Histogram>,
    requests: Family<Labels<2>, Counter>,
    held: Gauge,
    commits: Histogram,
    hooks: Family<Labels<2>, Counter>,
    hook_times: Family<Labels<1>, Histogram, fn() -> Histogram>,
    /// The step that each open round is in, and since when.
    now: Mutex<BTreeMap<SessionId, (PhaseName, Timestamp)>>,
}

/// A question is held, until this is dropped.
#[derive(Debug)]
pub struct Held(Gauge);

/// A question of a device. Where it is dropped before it was answered, its device hung up, and that is counted.
#[derive(Debug)]
pub struct Question {
    requests: Family<Labels<2>, Counter>,
    request: &'static str,
    is_answered: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        let steps: fn() -> Histogram = || Histogram::new(STEP_BUCKETS);
        let hook_times: fn() -> Histogram = || Histogram::new(HOOK_BUCKETS);
        let metrics = Self {
            rounds: Family::default(),
            excluded: Counter::default(),
            paused: Counter::default(),
            steps: Family::new_with_constructor(steps),
            requests: Family::default(),
            held: Gauge::default(),
            commits: Histogram::new(COMMIT_BUCKETS),
            hooks: Family::default(),
            hook_times: Family::new_with_constructor(hook_times),
            now: Mutex::default(),
        };
        // What has not come up yet is there as 0.
        for outcome in OUTCOMES {
            drop(metrics.rounds.get_or_create(&[("outcome", outcome.word())]));
        }
        for answer in ["wait", "assignment"] {
            drop(metrics.requests.get_or_create(&[("request", "check-in"), ("answer", answer)]));
        }
        for step in STEPS {
            drop(metrics.steps.get_or_create(&[("step", of_step(step))]));
        }
        metrics
    }
}

impl Metrics {
    /// What a task's machine has decided is on disk.
    pub fn durable(&self, effect: &TaskEffect) {
        let outcome = match effect {
            TaskEffect::Gathered { .. } | TaskEffect::Commit { completed_by: Some(_), .. } => {
                Outcome::Published
            }
            TaskEffect::Aborted { outcome, .. } => *outcome,
            TaskEffect::Excluded { .. } => {
                self.excluded.inc();
                return;
            }
            TaskEffect::Paused { .. } => {
                self.paused.inc();
                return;
            }
            TaskEffect::FixSurvivors { .. }
            | TaskEffect::Charge { .. }
            | TaskEffect::Commit { completed_by: None, .. }
            | TaskEffect::End(_) => return,
        };
        self.rounds.get_or_create(&[("outcome", outcome.word())]).inc();
    }

    /// The steps that all open rounds are in now.
    pub fn steps(&self, phases: &BTreeMap<SessionId, PhaseName>, now: Timestamp) {
        // A map is whole after each change.
        let mut known = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|session, (phase, since)| {
            let goes_on = phases.get(session) == Some(phase);
            if !goes_on && *phase != PhaseName::Over {
                let secs = now.millis_since(*since) as f64 / 1000.0;
                self.steps.get_or_create(&[("step", of_step(*phase))]).observe(secs);
            }
            goes_on
        });
        for (session, phase) in phases {
            known.entry(*session).or_insert((*phase, now));
        }
    }

    /// How many rounds are in each step.
    pub fn open_rounds(&self) -> Vec<(&'static str, i64)> {
        let known = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |step: &PhaseName| known.values().filter(|(phase, _)| phase == step).count();
        STEPS.iter().map(|step| (of_step(*step), i64::try_from(count(step)).unwrap_or(i64::MAX))).collect()
    }

    /// A device asks this, by its name.
    #[must_use = "where it is dropped its device hung up"]
    pub fn asked_for(&self, request: &'static str) -> Question {
        Question { requests: self.requests.clone(), request, is_answered: false }
    }

    /// A question is held from now on.
    #[must_use = "it is held until this is dropped"]
    pub fn holds(&self) -> Held {
        self.held.inc();
        Held(self.held.clone())
    }

    /// Measures how long the disk takes for a commit.
    pub fn commit<T>(&self, commit: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = commit();
        self.commits.observe(began.elapsed().as_secs_f64());
        done
    }

    /// Somebody was asked when a device enrolled, and this came of it.
    pub fn asked(&self, hook: &'static str, outcome: &'static str, took: Duration) {
        self.hooks.get_or_create(&[("hook", hook), ("outcome", outcome)]).inc();
        self.hook_times.get_or_create(&[("hook", hook)]).observe(took.as_secs_f64());
    }

    /// Everything that is counted here, for an answer.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "nightshift_rounds",
            "Rounds that ended since the start, by how",
            self.rounds.clone(),
        );
        registry.register(
            "nightshift_devices_excluded",
            "Devices that join no more rounds since what they shared opened nothing",
            self.excluded.clone(),
        );
        registry.register(
            "nightshift_tasks_paused",
            "How often a task paused itself after two versions that were worse",
            self.paused.clone(),
        );
        registry.register_with_unit(
            "nightshift_round_step",
            "How long the steps of rounds took",
            Unit::Seconds,
            self.steps.clone(),
        );
        registry.register(
            "nightshift_device_requests",
            "Requests of devices, by what they were answered; hung_up: the device did not wait for its answer",
            self.requests.clone(),
        );
        registry.register(
            "nightshift_held_questions",
            "Questions of devices that wait for others",
            self.held.clone(),
        );
        registry.register_with_unit(
            "nightshift_store_commit",
            "How long the disk took for what a step of a task decided",
            Unit::Seconds,
            self.commits.clone(),
        );
        registry.register(
            "nightshift_hooks",
            "Who was asked when a device enrolled or renewed its certificate, and what came of it",
            self.hooks.clone(),
        );
        registry.register_with_unit(
            "nightshift_hook",
            "How long they took",
            Unit::Seconds,
            self.hook_times.clone(),
        );
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Question {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.request
    }

    /// It was answered.
    pub fn answered(mut self, answer: &Result<Reply, Rejection>) {
        self.is_answered = true;
        self.count(of_answer(answer));
    }

    fn count(&self, answer: &'static str) {
        self.requests.get_or_create(&[("request", self.request), ("answer", answer)]).inc();
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.is_answered {
            self.count("hung_up");
        }
    }
}

/// What a device is answered, in a word.
pub(crate) fn of_answer(answer: &Result<Reply, Rejection>) -> &'static str {
    match answer {
        Ok(reply) => reply.name(),
        Err(Rejection::Unavailable(_)) => "unavailable",
        Err(_) => "refused",
    }
}

fn of_step(step: PhaseName) -> &'static str {
    match step {
        PhaseName::Advertise => "advertise",
        PhaseName::Draw => "draw",
        PhaseName::Share => "share",
        PhaseName::Masked => "masked",
        PhaseName::Agree => "agree",
        PhaseName::Unmask => "unmask",
        PhaseName::Over => "over",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        metrics.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_step_is_measured_from_its_beginning_to_the_next_or_to_the_rounds_end() {
        let metrics = Metrics::default();
        let (one, other) = (SessionId([1; 32]), SessionId([2; 32]));
        metrics.steps(&BTreeMap::from([(one, PhaseName::Advertise)]), Timestamp(1_000));
        let both = BTreeMap::from([(one, PhaseName::Advertise), (other, PhaseName::Advertise)]);
        metrics.steps(&both, Timestamp(2_000));
        assert_eq!(metrics.open_rounds()[0], ("advertise", 2));
        let both = BTreeMap::from([(one, PhaseName::Share), (other, PhaseName::Advertise)]);
        metrics.steps(&both, Timestamp(4_000));
        metrics.steps(&BTreeMap::new(), Timestamp(9_000));
        assert!(metrics.open_rounds().iter().all(|(_, count)| *count == 0));
        let text = text(&metrics);
        for line in [
            "nightshift_round_step_seconds_sum{step=\"advertise\"} 10.0",
            "nightshift_round_step_seconds_count{step=\"advertise\"} 2",
            "nightshift_round_step_seconds_sum{step=\"share\"} 5.0",
            "nightshift_round_step_seconds_count{step=\"masked\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_is_held_is_counted_until_it_is_answered_and_rounds_by_how_they_ended() {
        let metrics = Metrics::default();
        let held = metrics.holds();
        assert!(text(&metrics).contains("nightshift_held_questions 1"));
        drop((held, metrics.asked_for("check-in")));
        metrics.durable(&TaskEffect::Aborted { round: 1, outcome: Outcome::NoQuorum });
        metrics.asked_for("check-in").answered(&Ok(Reply::wait(1)));
        metrics.asked_for("check-in").answered(&Err(Rejection::UnknownTask));
        assert_eq!(metrics.commit(|| 7), 7);
        metrics.asked("issuer", "slow", Duration::from_secs(3));
        let text = text(&metrics);
        for line in [
            "nightshift_held_questions 0",
            "nightshift_rounds_total{outcome=\"no_quorum\"} 1",
            "nightshift_rounds_total{outcome=\"published\"} 0",
            "nightshift_device_requests_total{request=\"check-in\",answer=\"wait\"} 1",
            "nightshift_device_requests_total{request=\"check-in\",answer=\"refused\"} 1",
            "nightshift_device_requests_total{request=\"check-in\",answer=\"hung_up\"} 1",
            "nightshift_store_commit_seconds_count 1",
            "nightshift_hooks_total{hook=\"issuer\",outcome=\"slow\"} 1",
            "nightshift_hook_seconds_sum{hook=\"issuer\"} 3.0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
