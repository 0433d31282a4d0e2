//! What a run is made of, and the plan that follows from it.

use engine::{Base, Projection};
use proto::adapter::{AdapterSpec, Class, Factors, Method};
use proto::ids::Digest;
use proto::plan::{
    AdaptiveClipPlan, ClassPlan, Mode, Plan, PlanError, PrivacyPlan, RefreshPlan, RoundPlan, vector_to_bytes,
};
use proto::training::{ServerOptimizer, TrainingPlan};
use serde::{Deserialize, Serialize};
use session::policy::Policy;
use task::worth::with_usual_metrics;

use crate::classes::{self, ClassError, ClassShare};

/// Fewest devices of a federation: with fewer, a sum hides nobody.
pub const FEWEST_DEVICES: usize = 3;

/// ε that a summary calls small enough.
pub const EPSILON_GOAL: f64 = 8.0;

/// How much of the noise the metrics pay for: that of the updates is 3 % larger.
const METRICS_WEIGHT: f64 = 0.25;

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
}

/// A scenario that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Too few devices.
    #[error("{found} devices are too few for the plan; a federation needs at least {FEWEST_DEVICES}")]
    TooFewDevices {
        /// How many there are.
        found: usize,
    },
    /// More devices than one round takes.
    #[error("{found} devices do not fit one round; use at most {most}")]
    TooManyDevices {
        /// How many there are.
        found: usize,
        /// The most that fit.
        most: usize,
    },
    /// It has classes that cannot be.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// The plan that follows cannot be followed.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Scenario {
    /// Fewest survivors for which a sum may be opened: nine tenths of the devices, and at least the quorum.
    pub fn report_goal(&self) -> usize {
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
        if self.devices < FEWEST_DEVICES {
            return Err(ScenarioError::TooFewDevices { found: self.devices });
        }
        if self.devices > aggregation::MAX_COHORT {
            let most = aggregation::MAX_COHORT;
            return Err(ScenarioError::TooManyDevices { found: self.devices, most });
        }
        adapter.check().map_err(PlanError::from)?;
        self.dealt(&adapter)?;
        let noise_multiplier = match self.mode {
            Mode::Off => 0.0,
            Mode::Central | Mode::Distributed => self.noise_multiplier,
        };
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let plan = Plan {
            name: self.name.clone(),
            base: base.digest(),
            initial_seed: self.digest("initial"),
            adapter,
            refresh: self.refresh,
            classes: (!self.classes.is_empty()).then_some(ClassPlan { least_trainers: self.least_trainers }),
            training: self.training.clone(),
            privacy: PrivacyPlan {
                mode: self.mode,
                clip_norm: self.clip_norm,
                adaptive_clip: self.adaptive_clip.then(|| AdaptiveClipPlan::around(self.clip_norm, 0.5)),
                noise_multiplier,
                scale: 1.0,
                metrics: Vec::new(),
                metrics_weight: METRICS_WEIGHT,
                delta: self.delta,
                corrupt_permille: self.corrupt_permille,
                participations: 2 * self.versions,
                epsilon_budget: None,
            },
            round: RoundPlan {
                versions: self.versions,
                cohort: small(self.devices),
                report_goal: small(self.report_goal()),
                join_millis: 60_000,
                step_millis: 60_000,
                grace_millis: 5_000,
                missing_permille: 300,
            },
            server: self.server,
        }
        .with_recommended_scale()?;
        let plan = with_usual_metrics(&plan)?.with_recommended_scale()?;
        plan.check()?;
        Ok(plan)
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
        let mut bytes = b"nightshift scenario v1".to_vec();
        bytes.extend_from_slice(&self.seed.to_be_bytes());
        bytes.extend_from_slice(purpose.as_bytes());
        Digest::of(&bytes)
    }
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
