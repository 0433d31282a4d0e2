//! What a run is made of, and the plan that follows from it.

use engine::{Base, Projection, UnknownProjection};
use planning::{MethodName, MetricChoice, PlanOptions, PlanningError, Privacy, Subject};
use proto::adapter::{AdapterSpec, Class, Factors, Method};
use proto::counted::counted;
use proto::ids::Digest;
use proto::metrics::MetricName;
use proto::plan::{MAX_ROUNDS, Mode, Plan, PlanError, RefreshPlan, vector_to_bytes};
use proto::training::{ServerOptimizer, TrainingPlan};
use serde::{Deserialize, Serialize};
use session::policy::Policy;

use crate::classes::{self, ClassError, ClassShare};

/// Fewest devices of a federation: with fewer, a sum hides nobody.
pub const FEWEST_DEVICES: usize = 3;

/// ε that a summary calls small enough.
pub const EPSILON_GOAL: f64 = 8.0;

/// What a run is made of, the base and the text aside. It stands in `summary.json` in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A label for people.
    pub name: String,
    /// Devices, all of one cohort.
    pub devices: usize,
    /// Versions to make.
    pub versions: u32,
    /// What is trained.
    pub method: Method,
    /// Rank of the adapter.
    pub rank: u32,
    /// The product is scaled by `alpha / rank`.
    pub alpha: f32,
    /// When frozen factors are drawn anew.
    pub refresh: Option<RefreshPlan>,
    /// Epochs whose frozen factors come from public text, where there is some.
    pub public_epochs: u32,
    /// The adapted layers.
    #[serde(with = "as_words")]
    pub projections: Vec<Projection>,
    /// Devices that train less than all of the adapter; the rest train all.
    #[serde(with = "as_words")]
    pub classes: Vec<ClassShare>,
    /// With classes, a number moves where so many survivors trained it.
    pub least_trainers: u32,
    /// How a device trains.
    pub training: TrainingPlan,
    /// How the mean update is applied.
    pub server: ServerOptimizer,
    /// Whether the sum carries noise.
    pub mode: Mode,
    /// Noise standard deviation of the sum, divided by the clip norm.
    pub noise_multiplier: f64,
    /// L2 bound of an update.
    pub clip_norm: f64,
    /// Whether the bound follows the updates.
    pub adaptive_clip: bool,
    /// The δ of ε.
    pub delta: f64,
    /// Fraction of devices that may collude, in thousandths.
    pub corrupt_permille: u16,
    /// Devices that vanish after sharing, in the second version's round.
    pub vanishing: usize,
    /// People who take no part; what they write tells how well the adapter serves others.
    pub newcomers: usize,
    /// Whether the run stops after a version that gained nothing beyond its noise, as the newcomers' text tells.
    pub stop_when_flat: bool,
    /// Whether what is trained for comparison alone is trained: on public text, without noise, in one place.
    pub yardsticks: bool,
    /// What is written on before the federation and after it.
    pub prompts: Vec<String>,
    /// Everything random follows from it.
    pub seed: u64,
    /// How devices are gathered and what else is summed, where options said it; else [`Scenario::terms`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
}

/// What a plan says beside: how devices are gathered, how often they take part, and what is summed with the updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Fewest survivors for which a sum may be opened.
    pub report_goal: u32,
    /// Most rounds of one version, among which all devices are divided; one where it is left out.
    #[serde(default = "one")]
    pub rounds: u32,
    /// Fewest of them of which a version is made.
    #[serde(default = "one")]
    pub min_rounds: u32,
    /// Rounds that one device may take part in.
    pub participations: u32,
    /// The task ends before its ε passes this, where one is given.
    pub epsilon_budget: Option<f64>,
    /// What is summed beside the updates, where it does not follow from the noise.
    pub metrics: Option<Vec<MetricName>>,
    /// The norm of a device's metrics, divided by the clip norm.
    pub metrics_weight: f64,
    /// Which part of the updates an adaptive bound leaves as they are.
    pub clip_quantile: f64,
    /// Seconds that a round waits for devices that have trained.
    pub join_secs: u64,
    /// Seconds that each later step waits.
    pub step_secs: u64,
    /// Seconds that a round waits for stragglers.
    pub grace_secs: u64,
}

/// A scenario that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Too few devices.
    #[error(
        "{} too few for a round of the plan; a federation needs at least {FEWEST_DEVICES}",
        counted(*found, "device is", "devices are")
    )]
    TooFewDevices {
        /// How many there are.
        found: usize,
    },
    /// More devices than one round takes.
    #[error(
        "{found} devices do not fit one round; use at most {most}, or divide them among several of a version (--rounds)"
    )]
    TooManyDevices {
        /// How many there are.
        found: usize,
        /// The most that fit.
        most: usize,
    },
    /// No version has so many rounds.
    #[error("--rounds {0} is no number of rounds of a version; use 1 to {MAX_ROUNDS}")]
    Rounds(u32),
    /// It has classes that cannot be.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// The plan that follows cannot be followed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No plan can be made of the options.
    #[error(transparent)]
    Planning(#[from] PlanningError),
    /// A layer to adapt that no base has.
    #[error("--targets: {0}, all")]
    Target(#[from] UnknownProjection),
    /// There is nobody who trains less than all.
    #[error(
        "--least-trainers {0} has no effect where every device trains all; leave it out, or give --class"
    )]
    NoClasses(u32),
}

impl ScenarioError {
    /// Whether words of a command line do not go together, whatever the base and the text are.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Target(_) | Self::NoClasses(_) | Self::Rounds(_) => true,
            Self::Planning(error) => error.is_usage(),
            Self::TooFewDevices { .. } | Self::TooManyDevices { .. } | Self::Classes(_) | Self::Plan(_) => {
                false
            }
        }
    }
}

/// The layers that are adapted, of their names or a word for all of them.
pub fn projections(targets: &[String]) -> Result<Vec<Projection>, UnknownProjection> {
    let mut projections = Vec::new();
    for target in targets {
        match target.as_str() {
            "all" | "all-linear" => projections.extend(Projection::ALL),
            name => projections.push(name.parse()?),
        }
    }
    Ok(projections)
}

/// The cohort that so many devices are: all of one round.
pub fn cohort_of(devices: usize, rounds: u32) -> Result<u32, ScenarioError> {
    if !(1..=MAX_ROUNDS).contains(&rounds) {
        return Err(ScenarioError::Rounds(rounds));
    }
    let devices = devices.div_ceil(rounds as usize);
    if devices < FEWEST_DEVICES {
        return Err(ScenarioError::TooFewDevices { found: devices });
    }
    if devices > aggregation::MAX_COHORT {
        return Err(ScenarioError::TooManyDevices { found: devices, most: aggregation::MAX_COHORT });
    }
    Ok(small(devices))
}

/// What follows from a seed, another for each use.
pub fn seeded(seed: u64, purpose: &str) -> Digest {
    let mut bytes = b"nightshift scenario v1".to_vec();
    bytes.extend_from_slice(&seed.to_be_bytes());
    bytes.extend_from_slice(purpose.as_bytes());
    Digest::of(&bytes)
}

impl Scenario {
    /// How devices are gathered. Where no options said it, as in the demonstration: nine tenths of all devices reach the
    /// goal (in a process nobody loses the network), a device may come back after a round that was given up, and a step
    /// has time for hundreds of devices.
    pub fn terms(&self) -> Terms {
        let usual = PlanOptions::default();
        self.terms.clone().unwrap_or_else(|| Terms {
            report_goal: small(self.nine_tenths()),
            rounds: usual.rounds,
            min_rounds: usual.rounds,
            participations: 2 * self.versions,
            epsilon_budget: usual.epsilon_budget,
            metrics: None,
            metrics_weight: usual.metrics_weight,
            clip_quantile: usual.clip_quantile,
            join_secs: usual.join_secs,
            step_secs: 60,
            grace_secs: usual.grace_secs,
        })
    }

    /// Nine tenths of the devices, and at least the quorum.
    fn nine_tenths(&self) -> usize {
        let tenth = self.devices.div_ceil(10).max(self.vanishing).min(self.devices / 2);
        let corrupt = aggregation::corrupt_devices(self.devices, self.corrupt_permille);
        (self.devices - tenth).max(aggregation::quorum(self.devices, corrupt))
    }

    /// The shape of the adapter, with factors drawn from the seed.
    pub fn adapter(&self, base: &Base) -> AdapterSpec {
        AdapterSpec {
            method: self.method,
            rank: self.rank,
            alpha: self.alpha,
            factors: Factors::Seeded(self.digest("factors")),
            modules: base.modules(&self.projections),
        }
    }

    /// The plan. `adapter` is as [`Scenario::adapter`] gives it, or with factors named by their hash.
    pub fn plan(&self, base: &Base, adapter: AdapterSpec) -> Result<Plan, ScenarioError> {
        let cohort = cohort_of(self.devices, self.terms().rounds)?;
        adapter.check().map_err(PlanError::from)?;
        self.dealt(&adapter)?;
        let options = self.options(&adapter);
        let AdapterSpec { factors, modules, .. } = adapter;
        let subject = Subject {
            name: self.name.clone(),
            base: base.digest(),
            modules,
            factors,
            initial_seed: self.digest("initial"),
            cohort,
        };
        // What no option says.
        let plan = Plan { server: self.server, training: self.training.clone(), ..options.plan(&subject)? };
        plan.check()?;
        Ok(plan)
    }

    /// The options of which this scenario's plan is made, all of them said.
    fn options(&self, adapter: &AdapterSpec) -> PlanOptions {
        let terms = self.terms();
        let noisy = self.mode != Mode::Off;
        PlanOptions {
            versions: self.versions,
            rank: Some(adapter.rank),
            alpha: Some(adapter.alpha),
            method: Some(MethodName::of(adapter.method)),
            refresh_every: Some(self.refresh.map_or(0, |refresh| refresh.every)),
            accumulated_rank: self.refresh.map(|refresh| refresh.accumulated_rank),
            least_trainers: (!self.classes.is_empty()).then_some(self.least_trainers),
            shipped_rank: self.refresh.map(|refresh| refresh.shipped_rank),
            targets: self.projections.iter().map(Projection::to_string).collect(),
            local_steps: self.training.local_steps,
            batch_size: self.training.batch_size,
            sequence_len: self.training.sequence_len,
            learning_rate: Some(self.training.learning_rate),
            privacy: Privacy::of(self.mode),
            target_epsilon: None,
            noise_multiplier: noisy.then_some(self.noise_multiplier),
            clip: Some(self.clip_norm),
            delta: self.delta,
            epsilon_budget: terms.epsilon_budget,
            metrics: terms.metrics.map(|names| names.into_iter().map(MetricChoice::of).collect()),
            metrics_weight: terms.metrics_weight,
            adaptive_clip: self.adaptive_clip,
            clip_quantile: terms.clip_quantile,
            participations: Some(terms.participations),
            corrupt_permille: Some(self.corrupt_permille),
            report_goal: Some(terms.report_goal),
            rounds: terms.rounds,
            min_rounds: Some(terms.min_rounds),
            join_secs: terms.join_secs,
            step_secs: terms.step_secs,
            grace_secs: terms.grace_secs,
        }
    }

    /// How much of the adapter each device trains, in order. Fails where a class cannot be.
    pub fn dealt(&self, adapter: &AdapterSpec) -> Result<Vec<Class>, ClassError> {
        classes::deal(&self.classes, (adapter, self.mode), self.devices, &self.digest("classes"))
    }

    /// The limits of a device of each of these classes.
    pub fn policies(&self, dealt: &[Class]) -> Vec<Policy> {
        let policy = Policy {
            // The simulated users accept what the person at the keyboard asked for; the summary says what it costs.
            allow_without_noise: self.mode != Mode::Distributed,
            smallest_cohort: 2,
            smallest_corrupt: 0,
            smallest_report_goal: 2,
            participations: u32::MAX,
            participations_a_day: u32::MAX,
            largest_tokens_a_round: u64::MAX,
            least_noise_multiplier: 0.0,
            largest_epsilon: f64::INFINITY,
            ..Policy::default()
        };
        dealt.iter().map(|class| classes::policy(*class, &policy)).collect()
    }

    /// A seed of its own for each use.
    pub fn digest(&self, purpose: &str) -> Digest {
        seeded(self.seed, purpose)
    }
}

fn one() -> u32 {
    1
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Lists whose parts are written as words, as on the command line.
mod as_words {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(T::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        let words = Vec::<String>::deserialize(deserializer)?;
        words.iter().map(|word| word.parse().map_err(D::Error::custom)).collect()
    }
}

/// The adapter with these factors instead of seeded ones.
pub fn with_factors(adapter: AdapterSpec, frozen: &[f32]) -> AdapterSpec {
    AdapterSpec { factors: Factors::Given(Digest::of(&vector_to_bytes(frozen))), ..adapter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_no_version_has_are_refused_as_such() {
        for rounds in [0, 129] {
            let error = cohort_of(500, rounds).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("--rounds {rounds} is no number of rounds of a version; use 1 to 128")
            );
            assert!(error.is_usage());
        }
        assert_eq!(cohort_of(500, 128).unwrap(), 4);
        let few = cohort_of(100, 128).unwrap_err().to_string();
        assert!(few.starts_with("1 device is too few for a round of the plan"), "{few}");
    }
}
