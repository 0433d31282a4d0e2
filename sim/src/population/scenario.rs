//! What a population is made of, as a file of TOML says it. `sim/scenarios/population.toml` has every key with its default.

use std::path::PathBuf;

use planning::{MethodName, MetricChoice, PlanOptions, PlanningError, Privacy, Subject};
use proto::adapter::{Factors, Module};
use proto::ids::Digest;
use proto::plan::{Mode, Plan};
use serde::{Deserialize, Serialize};
use session::policy::Policy;

use crate::faults::Faults;
use crate::scenario::seeded;

/// Most devices of a population: what fits a machine.
pub(super) const MOST_DEVICES: usize = 1_000_000;

/// What a population is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
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
    /// How much is revealed.
    pub privacy: PrivacyTable,
    /// What goes wrong.
    pub faults: FaultsTable,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            population: PopulationTable::default(),
            presence: PresenceTable::default(),
            network: NetworkTable::default(),
            task: TaskTable::default(),
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

/// What is trained: closed formulas in the place of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveName {
    /// Nothing: every update is zero.
    None,
    /// Half the squared distance to an optimum of each device.
    Quadratic,
    /// A logistic regression on a device's examples.
    Logistic,
}

/// What devices make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskTable {
    /// Versions to make.
    pub versions: u32,
    /// Most devices of a round.
    pub cohort: u32,
    /// Fewest devices of which a version is made; two thirds of the cohort, or the quorum, where left out.
    pub report_goal: Option<u32>,
    /// Numbers of an update.
    pub coordinates: u32,
    /// What is trained.
    pub objective: ObjectiveName,
    /// Step size of one step on a device.
    pub learning_rate: f32,
    /// Steps of one training.
    pub local_steps: u32,
    /// How much devices' optima, or their labels, differ; 0 for not.
    pub heterogeneity: f32,
    /// Seconds that a round waits for devices that have finished training.
    pub join_secs: u64,
    /// Seconds that each later step of a round waits.
    pub step_secs: u64,
    /// Seconds that a round waits for stragglers once the report goal is reached.
    pub grace_secs: u64,
    /// Simulated hours after which a version that was not made ends the run.
    pub patience_hours: u64,
}

impl Default for TaskTable {
    fn default() -> Self {
        Self {
            versions: 10,
            cohort: 100,
            report_goal: None,
            coordinates: 1000,
            objective: ObjectiveName::Quadratic,
            learning_rate: 0.1,
            local_steps: 5,
            heterogeneity: 0.5,
            join_secs: 60,
            step_secs: 60,
            grace_secs: 5,
            patience_hours: 48,
        }
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
    /// It is no TOML, or has a key that there is not.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
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

impl Scenario {
    /// What a file says. Unknown keys and values out of range are refused.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Fails where a value is out of range, or has no effect.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let bad = |key, found: String, wanted| Err(ScenarioError::Value { key, found, wanted });
        let (people, presence, network, task) = (&self.population, &self.presence, &self.network, &self.task);
        if let Some(devices) = people.devices.filter(|devices| !(3..=MOST_DEVICES).contains(devices)) {
            return bad("population.devices", devices.to_string(), "3 to 1000000");
        }
        let positive = [
            ("population.training_secs", people.training_secs),
            ("population.examples", people.examples),
            ("network.up_kib_a_sec", network.up_kib_a_sec),
            ("network.down_kib_a_sec", network.down_kib_a_sec),
            ("presence.hours", presence.hours),
        ];
        for (key, value) in positive {
            if !(value > 0.0 && value <= 1e6) {
                return bad(key, value.to_string(), "a number above 0, up to 1000000");
            }
        }
        let spreads = [
            ("population.speed_spread", people.speed_spread),
            ("population.examples_spread", people.examples_spread),
            ("network.spread", network.spread),
            ("presence.hours_spread", presence.hours_spread),
        ];
        for (key, value) in spreads {
            if !(0.0..=3.0).contains(&value) {
                return bad(key, value.to_string(), "0 to 3");
            }
        }
        if !(0.0..=86_400.0).contains(&presence.arrive_secs) {
            return bad("presence.arrive_secs", presence.arrive_secs.to_string(), "0 to 86400");
        }
        if presence.zones.is_empty() || presence.zones.iter().any(|zone| !(-14.0..=14.0).contains(zone)) {
            return bad("presence.zones", format!("{:?}", presence.zones), "at least one, each -14 to 14");
        }
        if !(0.0..24.0).contains(&presence.from_hour) {
            return bad("presence.from_hour", presence.from_hour.to_string(), "0 to below 24");
        }
        if presence.hours > 23.0 {
            return bad("presence.hours", presence.hours.to_string(), "above 0, up to 23");
        }
        if !(presence.days > 0.0 && presence.days <= 1.0) {
            return bad("presence.days", presence.days.to_string(), "above 0, up to 1");
        }
        match (presence.model, &presence.trace) {
            (PresenceModel::Trace, None) => {
                return bad(
                    "presence.trace",
                    "left out".to_owned(),
                    "a file with presence.model = \"trace\"",
                );
            }
            (PresenceModel::Always, Some(_)) => {
                let (key, with) = ("presence.trace", "presence.model = \"always\"");
                return Err(ScenarioError::NoEffect { key, with });
            }
            (PresenceModel::Diurnal, Some(_)) => {
                let (key, with) = ("presence.trace", "presence.model = \"diurnal\"");
                return Err(ScenarioError::NoEffect { key, with });
            }
            (PresenceModel::Trace, Some(_)) | (PresenceModel::Always | PresenceModel::Diurnal, None) => {}
        }
        if network.latency_millis > 60_000 {
            return bad("network.latency_millis", network.latency_millis.to_string(), "0 to 60000");
        }
        if !(task.learning_rate > 0.0 && task.learning_rate <= 1.0) {
            return bad("task.learning_rate", task.learning_rate.to_string(), "above 0, up to 1");
        }
        if !(1..=1000).contains(&task.local_steps) {
            return bad("task.local_steps", task.local_steps.to_string(), "1 to 1000");
        }
        if !(0.0..=100.0).contains(&task.heterogeneity) {
            return bad("task.heterogeneity", task.heterogeneity.to_string(), "0 to 100");
        }
        if !(1..=960).contains(&task.patience_hours) {
            return bad("task.patience_hours", task.patience_hours.to_string(), "1 to 960");
        }
        if self.privacy.mode == Mode::Off && self.privacy.noise_multiplier != 0.0 {
            let found = self.privacy.noise_multiplier.to_string();
            return bad("privacy.noise_multiplier", found, "0 with privacy.mode = \"off\"");
        }
        let faults = &self.faults;
        let permille = [
            ("faults.drop_out_permille", faults.drop_out_permille),
            ("faults.lost_permille", faults.lost_permille),
            ("faults.repeated_permille", faults.repeated_permille),
        ];
        for (key, value) in permille {
            if value > 999 {
                return bad(key, value.to_string(), "0 to 999");
            }
        }
        if faults.crashes_per_100k > 10_000 {
            return bad("faults.crashes_per_100k", faults.crashes_per_100k.to_string(), "0 to 10000");
        }
        Ok(())
    }

    /// The plan of the task.
    pub fn plan(&self) -> Result<Plan, PlanningError> {
        let (task, privacy) = (&self.task, &self.privacy);
        let options = PlanOptions {
            versions: task.versions,
            rank: Some(1),
            method: Some(MethodName::FrozenA),
            refresh_every: Some(0),
            local_steps: 1,
            batch_size: 1,
            sequence_len: 8,
            privacy: Privacy::of(privacy.mode),
            noise_multiplier: (privacy.mode != Mode::Off).then_some(privacy.noise_multiplier),
            clip: Some(privacy.clip_norm),
            delta: privacy.delta,
            metrics: Some(vec![MetricChoice::None]),
            participations: Some(privacy.participations),
            corrupt_permille: Some(privacy.corrupt_permille),
            report_goal: task.report_goal,
            join_secs: task.join_secs,
            step_secs: task.step_secs,
            grace_secs: task.grace_secs,
            ..PlanOptions::default()
        };
        let module = Module { name: "numbers".to_owned(), inputs: 1, outputs: task.coordinates };
        let plan = options.plan(&Subject {
            name: "population".to_owned(),
            base: self.digest("base"),
            modules: vec![module],
            factors: Factors::Seeded(self.digest("factors")),
            initial_seed: self.digest("initial"),
            cohort: task.cohort,
        })?;
        plan.check()?;
        Ok(plan)
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
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../scenarios/population.toml");

    #[test]
    fn the_sample_has_every_key_at_its_default() {
        assert_eq!(Scenario::parse(SAMPLE).unwrap(), Scenario::default());
        assert_eq!(Scenario::parse("").unwrap(), Scenario::default());
        let keys = |table: &toml::Table| -> Vec<String> {
            table
                .iter()
                .flat_map(|(name, value)| match value.as_table() {
                    Some(table) => table.keys().map(|key| format!("{name}.{key}")).collect(),
                    None => vec![name.clone()],
                })
                .collect()
        };
        // Those that have no default stand in it behind a mark of a comment.
        let whole: String = SAMPLE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.split(' ').nth(1) == Some("=") => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let mut full = Scenario::default();
        full.population.devices = Some(10_000);
        full.presence.trace = Some("trace.csv".into());
        full.task.report_goal = Some(67);
        assert_eq!(toml::from_str::<Scenario>(&whole).unwrap(), full);
        assert_eq!(keys(&whole.parse().unwrap()), keys(&toml::Table::try_from(&full).unwrap()));
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_refused_by_name() {
        let refused = |text: &str| Scenario::parse(text).unwrap_err().to_string();
        assert!(refused("[task]\ncohorts = 3").contains("unknown field `cohorts`"));
        assert!(refused("speed = 3").contains("unknown field `speed`"));
        for (text, words) in [
            ("population.devices = 2", "population.devices is 2, expected 3 to 1000000"),
            ("population.training_secs = 0.0", "population.training_secs is 0"),
            ("population.examples = nan", "population.examples is NaN"),
            ("network.spread = -0.5", "network.spread is -0.5, expected 0 to 3"),
            ("presence.zones = []", "presence.zones is []"),
            ("presence.zones = [15.0]", "presence.zones is [15.0]"),
            ("presence.days = 0.0", "presence.days is 0"),
            ("presence.model = \"trace\"", "presence.trace is left out"),
            ("presence.trace = \"x.csv\"", "presence.trace has no effect with presence.model = \"always\""),
            ("task.learning_rate = 1.5", "task.learning_rate is 1.5"),
            ("task.patience_hours = 0", "task.patience_hours is 0, expected 1 to 960"),
            (
                "privacy.mode = \"off\"",
                "privacy.noise_multiplier is 1, expected 0 with privacy.mode = \"off\"",
            ),
            ("faults.lost_permille = 1000", "faults.lost_permille is 1000, expected 0 to 999"),
        ] {
            assert!(refused(text).starts_with(words), "{text}: {}", refused(text));
        }
    }
}
