//! What a population is made of, as a file of TOML says it. `sim/scenarios/population.toml` has every key with its default.

use std::path::PathBuf;

use engine::{Base, Projection, UnknownProjection};
use planning::{MethodName, MetricChoice, PlanOptions, PlanningError, Privacy, Subject};
use proto::adapter::{Factors, Module};
use proto::ids::Digest;
use proto::plan::{Mode, Plan};
use serde::{Deserialize, Serialize};
use session::policy::Policy;

use super::keys::{self, KeyError};
use crate::faults::Faults;
use crate::scenario::{projections, seeded};

mod task;
mod values;

pub(super) use task::USUAL_RATE;
pub use task::{ModelTable, ObjectiveName, TaskTable};

/// Most devices of a population: what fits a machine.
pub(super) const MOST_DEVICES: usize = 1_000_000;

/// What a population is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What people call it.
    pub name: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// Who there is.
    pub population: PopulationTable,
    /// When they are there.
    pub presence: PresenceTable,
    /// How they are connected.
    pub network: NetworkTable,
    /// What they make.
    pub task: TaskTable,
    /// With what it is made, where that is no formula.
    pub model: ModelTable,
    /// How much is revealed.
    pub privacy: PrivacyTable,
    /// What goes wrong.
    pub faults: FaultsTable,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "population".to_owned(),
            seed: 1,
            population: PopulationTable::default(),
            presence: PresenceTable::default(),
            network: NetworkTable::default(),
            task: TaskTable::default(),
            model: ModelTable::default(),
            privacy: PrivacyTable::default(),
            faults: FaultsTable::default(),
        }
    }
}

/// Who there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PopulationTable {
    /// Enrolled devices; with a trace those of the trace, where it is left out.
    pub devices: Option<usize>,
    /// Median seconds of a training of a device of the usual speed with the usual number of examples.
    pub training_secs: f64,
    /// How much devices' speeds differ: the standard deviation of the logarithm.
    pub speed_spread: f64,
    /// Median number of examples of a device.
    pub examples: f64,
    /// How much it differs: the standard deviation of the logarithm.
    pub examples_spread: f64,
}

impl Default for PopulationTable {
    fn default() -> Self {
        Self { devices: None, training_secs: 60.0, speed_spread: 0.5, examples: 20.0, examples_spread: 0.7 }
    }
}

/// Devices where neither a scenario nor a trace says how many.
pub(super) const USUAL_DEVICES: usize = 10_000;

/// When devices are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceModel {
    /// Always, from some time in the first minutes on.
    #[default]
    Always,
    /// In most nights of its time zone, around one hour.
    Diurnal,
    /// As a file says.
    Trace,
}

/// When devices are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceTable {
    /// How that is known.
    pub model: PresenceModel,
    /// With `always`: the seconds within which they come at first.
    pub arrive_secs: f64,
    /// With `trace`: the file, as seen from the scenario's folder.
    pub trace: Option<PathBuf>,
    /// With `diurnal`: hours by which the time zones are ahead of the simulated clock, which begins at noon; each device is
    /// of one of them, each as likely.
    pub zones: Vec<f64>,
    /// With `diurnal`: at which hour of its day a device comes, in the mean.
    pub from_hour: f64,
    /// With `diurnal`: how many hours it stays, in the mean.
    pub hours: f64,
    /// With `diurnal`: the standard deviation of both, in hours.
    pub hours_spread: f64,
    /// With `diurnal`: in which part of the days it comes.
    pub days: f64,
}

impl Default for PresenceTable {
    fn default() -> Self {
        Self {
            model: PresenceModel::default(),
            arrive_secs: 600.0,
            trace: None,
            zones: vec![0.0],
            from_hour: 23.0,
            hours: 7.0,
            hours_spread: 1.0,
            days: 0.8,
        }
    }
}

/// How devices are connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkTable {
    /// Milliseconds of one way.
    pub latency_millis: u64,
    /// Median KiB a second from a device.
    pub up_kib_a_sec: f64,
    /// Median KiB a second to a device.
    pub down_kib_a_sec: f64,
    /// How much both differ: the standard deviation of the logarithm.
    pub spread: f64,
}

impl Default for NetworkTable {
    fn default() -> Self {
        Self { latency_millis: 50, up_kib_a_sec: 1000.0, down_kib_a_sec: 4000.0, spread: 0.5 }
    }
}

/// How much is revealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyTable {
    /// Who adds noise; masks are always there.
    pub mode: Mode,
    /// Noise standard deviation of the sum, divided by the clip norm; 0 with `off`.
    pub noise_multiplier: f64,
    /// L2 bound of an update.
    pub clip_norm: f64,
    /// The δ at which ε is stated.
    pub delta: f64,
    /// Devices that may collude, in thousandths of a cohort.
    pub corrupt_permille: u16,
    /// Charged rounds that one device may take part in.
    pub participations: u32,
}

impl Default for PrivacyTable {
    fn default() -> Self {
        Self {
            mode: Mode::Distributed,
            noise_multiplier: 1.0,
            clip_norm: 1.0,
            delta: 1e-6,
            corrupt_permille: 50,
            participations: 100,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultsTable {
    /// Trainings at whose end the device goes away, in thousandths.
    pub drop_out_permille: u32,
    /// Requests and replies that are lost, in thousandths.
    pub lost_permille: u32,
    /// Requests that come twice, in thousandths.
    pub repeated_permille: u32,
    /// Requests after which the coordinator crashes, in a hundred thousand.
    pub crashes_per_100k: u32,
}

/// A scenario that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is no TOML, or a value is of another kind.
    #[error("{}", one_line(.0))]
    Toml(#[from] toml::de::Error),
    /// A key is none, or a list that cannot be run through.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A layer to adapt that no base has.
    #[error("model.targets: {0}, all")]
    Target(#[from] UnknownProjection),
    /// A value is none.
    #[error("{key} is {found}, expected {wanted}")]
    Value {
        /// Which.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// A value has no effect.
    #[error("{key} has no effect with {with}; leave it out")]
    NoEffect {
        /// Which.
        key: &'static str,
        /// Beside what.
        with: &'static str,
    },
}

/// What is wrong with a file of TOML, without the picture of the place.
pub fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match (error.span(), lines.first()) {
        (Some(_), Some(place)) => {
            let message: Vec<&str> = error.message().lines().map(str::trim).collect();
            format!("{place}: {}", message.join(", "))
        }
        (None, _) | (Some(_), None) => lines.join(" "),
    }
}

/// What the engine has no use for: its updates are as long as the adapter, its text is the devices', and all take the same steps.
const OF_FORMULAS: &[&str] =
    &["task.coordinates", "task.heterogeneity", "population.examples", "population.examples_spread"];

/// What a formula has no use for.
const OF_MODELS: &[&str] = &[
    "model.base",
    "model.data",
    "model.method",
    "model.rank",
    "model.alpha",
    "model.targets",
    "model.batch_size",
    "model.sequence_len",
];

impl Scenario {
    /// What a file says. Unknown keys and values out of range are refused.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        Self::of(&text.parse()?)
    }

    /// What the table of a file says.
    pub fn of(table: &toml::Table) -> Result<Self, ScenarioError> {
        keys::check_known(table)?;
        let scenario: Self = table.clone().try_into()?;
        // A sample with all keys at their defaults is for every objective.
        let usual = toml::Table::try_from(Self::default()).unwrap_or_default();
        let (usual, values) = (keys::values(&usual), keys::values(table));
        let is_told = |key: &&&str| values.iter().any(|told| told.0 == **key && !usual.contains(told));
        if let Some(key) = scenario.idle().iter().find(is_told) {
            let with = if scenario.task.objective == ObjectiveName::Engine {
                "task.objective = \"engine\""
            } else {
                "a task.objective other than \"engine\""
            };
            return Err(ScenarioError::NoEffect { key, with });
        }
        scenario.check()?;
        Ok(scenario)
    }

    /// The keys that have no effect with its objective.
    pub(super) fn idle(&self) -> &'static [&'static str] {
        if self.task.objective == ObjectiveName::Engine { OF_FORMULAS } else { OF_MODELS }
    }

    /// The plan of the task, of an adapter of the base where one is trained.
    pub fn plan(&self, base: Option<&Base>) -> Result<Plan, PlanningError> {
        let (task, privacy, model) = (&self.task, &self.privacy, &self.model);
        let common = PlanOptions {
            versions: task.versions,
            refresh_every: Some(0),
            privacy: Privacy::of(privacy.mode),
            noise_multiplier: (privacy.mode != Mode::Off).then_some(privacy.noise_multiplier),
            clip: Some(privacy.clip_norm),
            delta: privacy.delta,
            metrics: Some(vec![MetricChoice::None]),
            participations: Some(privacy.participations),
            corrupt_permille: Some(privacy.corrupt_permille),
            report_goal: task.report_goal,
            rounds: task.rounds,
            min_rounds: task.min_rounds,
            join_secs: task.join_secs,
            step_secs: task.step_secs,
            grace_secs: task.grace_secs,
            ..PlanOptions::default()
        };
        let (options, modules) = match base {
            None => {
                let module = Module { name: "numbers".to_owned(), inputs: 1, outputs: task.coordinates };
                let options = PlanOptions {
                    rank: Some(1),
                    method: Some(MethodName::FrozenA),
                    local_steps: 1,
                    batch_size: 1,
                    sequence_len: 8,
                    ..common
                };
                (options, vec![module])
            }
            Some(base) => {
                let options = PlanOptions {
                    rank: Some(model.rank),
                    alpha: model.alpha,
                    method: Some(MethodName::of(model.method)),
                    targets: model.targets.clone(),
                    local_steps: task.local_steps,
                    batch_size: model.batch_size,
                    sequence_len: model.sequence_len,
                    learning_rate: task.learning_rate,
                    ..common
                };
                // A scenario was checked.
                (options, base.modules(&self.projections().unwrap_or_default()))
            }
        };
        let plan = options.plan(&Subject {
            name: "population".to_owned(),
            base: base.map_or_else(|| self.digest("base"), Base::digest),
            modules,
            factors: Factors::Seeded(self.digest("factors")),
            initial_seed: self.digest("initial"),
            cohort: task.cohort,
        })?;
        plan.check()?;
        Ok(plan)
    }

    /// The layers that are adapted.
    fn projections(&self) -> Result<Vec<Projection>, UnknownProjection> {
        projections(&self.model.targets)
    }

    /// The limits of each device: simulated users accept what the person at the keyboard asked for.
    pub(super) fn policy(&self) -> Policy {
        Policy {
            allow_without_noise: self.privacy.mode != Mode::Distributed,
            smallest_cohort: 2,
            smallest_corrupt: 0,
            smallest_corrupt_permille: 0,
            smallest_report_goal: 2,
            participations: u32::MAX,
            participations_a_day: u32::MAX,
            largest_tokens_a_round: u64::MAX,
            least_noise_multiplier: 0.0,
            largest_epsilon: f64::INFINITY,
            largest_delta: 1.0,
            ..Policy::default()
        }
    }

    pub(super) fn faults(&self) -> Faults {
        let FaultsTable { drop_out_permille, lost_permille, repeated_permille, crashes_per_100k } =
            self.faults;
        Faults {
            vanish: Vec::new(),
            lost_permille,
            repeated_permille,
            broken_permille: drop_out_permille,
            crash_per_100k: crashes_per_100k,
        }
    }

    pub(super) fn patience_millis(&self) -> u64 {
        self.task.patience_hours * 3_600_000
    }

    /// A seed of its own for each use.
    pub(super) fn digest(&self, purpose: &str) -> Digest {
        seeded(self.seed, &format!("population {purpose}"))
    }
}

#[cfg(test)]
mod tests;
