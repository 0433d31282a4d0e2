//! The agent's configuration file: TOML, unknown keys refused. The sample with
//! every key is `deploy/agent.toml`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::files::{self, FileError};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not TOML, or has a wrong or unknown key.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: toml::de::Error,
    },
    /// A value is out of its range.
    #[error("{}: {key} must be {expected}, got {actual}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        actual: String,
    },
}

/// What the device's user decides about the agent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The coordinator's address, `host:port`. Default none: the address in
    /// the bootstrap token with which the device enrolled.
    pub coordinator: Option<String>,
    /// The folder of the device's keys, state and ledger. Default
    /// `/var/lib/nightshift-agent`.
    pub state_dir: PathBuf,
    /// The folder of the base model (weights, tokenizer, configuration).
    /// Default `/var/lib/nightshift-agent/base`.
    pub base: PathBuf,
    /// Text files and folders to train on; nothing else is read. Default none:
    /// the agent runs but never trains.
    pub data: Vec<PathBuf>,
    /// The device's own limits, whatever the coordinator asks for.
    pub policy: PolicyLimits,
    /// When the device may train.
    pub conditions: Conditions,
}

/// The device's own limits, whatever the coordinator asks for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyLimits {
    /// The fewest devices in a cohort that this one joins. Default 10.
    pub smallest_cohort: u32,
    /// The fewest survivors for which a sum with this device in it may be
    /// revealed. At most `smallest_cohort`. Default 7.
    pub smallest_report_goal: u32,
    /// The least noise multiplier: noise standard deviation divided by the
    /// clip norm. Default 0.5.
    pub least_noise_multiplier: f64,
    /// The largest ε that this device ever spends on one task, by its own
    /// ledger. Default 8.
    pub largest_epsilon: f64,
    /// The δ at which ε is taken. Above 0, below 1. Default 1e-6.
    pub delta: f64,
    /// The most rounds of one task that this device ever contributes to.
    /// Default 100.
    pub participations_total: u32,
    /// The most rounds of all tasks that it contributes to in 24 hours.
    /// Default 4.
    pub participations_a_day: u32,
    /// The most bytes that it sends and receives in 24 hours. Default 1 GiB.
    pub bytes_a_day: u64,
    /// The base models that it trains, by SHA-256 in hex. Default none: only
    /// the one in `base`.
    pub models: Vec<String>,
    /// Whether it takes part in tasks without differential privacy. Default
    /// false.
    pub allow_privacy_off: bool,
    /// Whether it takes part in tasks where the coordinator, not the devices,
    /// adds the noise. Default false.
    pub allow_privacy_central: bool,
}

/// When the device may train: conditions to start, and laxer ones to go on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Conditions that are taken to hold where the device cannot tell; without
    /// it, unknown counts as no. Default none.
    pub assume: BTreeSet<Assumption>,
    /// Seconds without input before a start. Default 300.
    pub idle_secs: u32,
    /// Battery charge for a start, percent. Default 80.
    pub start_battery_percent: u8,
    /// Degrees Celsius below the first thermal trip for a start. Default 15.
    pub start_cool_celsius: f64,
    /// The same to go on. At most `start_cool_celsius`. Default 5.
    pub continue_cool_celsius: f64,
    /// Processor use by others for a start, percent. Default 20.
    pub start_busy_percent: u8,
    /// The same to go on. At least `start_busy_percent`. Default 40.
    pub continue_busy_percent: u8,
    /// Seconds that all conditions must hold before a start. Default 60.
    pub hold_secs: u32,
    /// Seconds to wait after an interruption, give or take a fifth. Default 300.
    pub pause_secs: u32,
    /// Free bytes that must be left on the disk of `state_dir`. Default 1 GiB.
    pub free_disk_bytes: u64,
    /// Fewest examples to train on. Default 8.
    pub least_examples: u32,
    /// The most minutes of training in 24 hours. Default 240.
    pub minutes_a_day: u32,
    /// Threads to train with, 0 for half of the cores. Default 0.
    pub threads: u32,
}

/// A condition that may be taken to hold where the device cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assumption {
    /// On external power: for machines without a battery.
    Mains,
    /// Nobody at the machine: for servers.
    Idle,
    /// The network costs nothing by volume.
    Unmetered,
    /// Not too hot: for machines without a sensor.
    Cool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            coordinator: None,
            state_dir: PathBuf::from("/var/lib/nightshift-agent"),
            base: PathBuf::from("/var/lib/nightshift-agent/base"),
            data: Vec::new(),
            policy: PolicyLimits::default(),
            conditions: Conditions::default(),
        }
    }
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            smallest_cohort: 10,
            smallest_report_goal: 7,
            least_noise_multiplier: 0.5,
            largest_epsilon: 8.0,
            delta: 1e-6,
            participations_total: 100,
            participations_a_day: 4,
            bytes_a_day: 1 << 30,
            models: Vec::new(),
            allow_privacy_off: false,
            allow_privacy_central: false,
        }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            assume: BTreeSet::new(),
            idle_secs: 300,
            start_battery_percent: 80,
            start_cool_celsius: 15.0,
            continue_cool_celsius: 5.0,
            start_busy_percent: 20,
            continue_busy_percent: 40,
            hold_secs: 60,
            pause_secs: 300,
            free_disk_bytes: 1 << 30,
            least_examples: 8,
            minutes_a_day: 240,
            threads: 0,
        }
    }
}

/// A value that is out of its range: key, what it must be, what it is.
type Unfit = (&'static str, &'static str, String);

impl Config {
    /// Reads the file. Fails when it is not there, has a wrong or unknown key,
    /// or a value out of its range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = files::read(path)?;
        Self::parse(&String::from_utf8_lossy(&bytes), path)
    }

    /// Reads the text of a file; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?;
        config.policy.check().and_then(|()| config.conditions.check()).map_err(
            |(key, expected, actual)| ConfigError::Value { path: path.to_owned(), key, expected, actual },
        )?;
        Ok(config)
    }
}

impl PolicyLimits {
    fn check(&self) -> Result<(), Unfit> {
        require(
            self.smallest_cohort >= 2,
            "policy.smallest_cohort",
            "at least 2: a sum over one device is that device's update",
            &self.smallest_cohort,
        )?;
        require(
            (2..=self.smallest_cohort).contains(&self.smallest_report_goal),
            "policy.smallest_report_goal",
            "from 2 to policy.smallest_cohort",
            &self.smallest_report_goal,
        )?;
        require(
            self.least_noise_multiplier.is_finite() && self.least_noise_multiplier >= 0.0,
            "policy.least_noise_multiplier",
            "a number from 0",
            &self.least_noise_multiplier,
        )?;
        require(
            self.largest_epsilon.is_finite() && self.largest_epsilon > 0.0,
            "policy.largest_epsilon",
            "a number above 0",
            &self.largest_epsilon,
        )?;
        require(self.delta > 0.0 && self.delta < 1.0, "policy.delta", "above 0 and below 1", &self.delta)?;
        for model in &self.models {
            let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            require(
                model.len() == 64 && model.chars().all(digits),
                "policy.models",
                "a list of SHA-256 hashes, 64 lower-case hex digits each",
                model,
            )?;
        }
        Ok(())
    }
}

impl Conditions {
    fn check(&self) -> Result<(), Unfit> {
        let percents = [
            ("conditions.start_battery_percent", self.start_battery_percent),
            ("conditions.start_busy_percent", self.start_busy_percent),
            ("conditions.continue_busy_percent", self.continue_busy_percent),
        ];
        for (key, percent) in percents {
            require(percent <= 100, key, "from 0 to 100", &percent)?;
        }
        require(
            self.continue_busy_percent >= self.start_busy_percent,
            "conditions.continue_busy_percent",
            "at least conditions.start_busy_percent",
            &self.continue_busy_percent,
        )?;
        require(
            self.start_cool_celsius.is_finite(),
            "conditions.start_cool_celsius",
            "a number",
            &self.start_cool_celsius,
        )?;
        require(
            self.continue_cool_celsius.is_finite() && self.continue_cool_celsius <= self.start_cool_celsius,
            "conditions.continue_cool_celsius",
            "at most conditions.start_cool_celsius",
            &self.continue_cool_celsius,
        )
    }
}

fn require(
    holds: bool,
    key: &'static str,
    expected: &'static str,
    actual: &impl ToString,
) -> Result<(), Unfit> {
    if holds { Ok(()) } else { Err((key, expected, actual.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../deploy/agent.toml");

    #[test]
    fn the_sample_has_every_key_at_its_default() {
        let sample = parse(SAMPLE).unwrap();
        let coordinator = Some("localhost:7443".to_owned());
        let expected = Config { coordinator, ..Config::default() };
        assert_eq!(sample, expected);
        let keys: toml::Table = SAMPLE.parse().unwrap();
        assert_eq!(keys.len(), 6);
        assert_eq!(keys["policy"].as_table().unwrap().len(), 11);
        assert_eq!(keys["conditions"].as_table().unwrap().len(), 13);
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named() {
        for text in ["coordinater = 'x'", "[policy]\nsmallest_cohorts = 1", "[conditions]\nassume = ['warm']"]
        {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains("unknown"), "{message}");
            assert!(message.contains("agent.toml"), "{message}");
        }
    }

    #[test]
    fn assumptions_are_named() {
        let config = parse("[conditions]\nassume = ['mains', 'idle']").unwrap();
        let expected = BTreeSet::from([Assumption::Mains, Assumption::Idle]);
        assert_eq!(config.conditions.assume, expected);
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        for (text, key) in [
            ("[policy]\nsmallest_cohort = 1", "policy.smallest_cohort"),
            ("[policy]\nsmallest_report_goal = 11", "policy.smallest_report_goal"),
            ("[policy]\nleast_noise_multiplier = nan", "policy.least_noise_multiplier"),
            ("[policy]\nlargest_epsilon = 0.0", "policy.largest_epsilon"),
            ("[policy]\ndelta = 1.0", "policy.delta"),
            ("[policy]\nmodels = ['abc']", "policy.models"),
            ("[conditions]\nstart_battery_percent = 101", "conditions.start_battery_percent"),
            ("[conditions]\ncontinue_busy_percent = 1", "conditions.continue_busy_percent"),
            ("[conditions]\ncontinue_cool_celsius = 16.0", "conditions.continue_cool_celsius"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            let expected = format!("agent.toml: {key} must be ");
            assert!(message.starts_with(&expected), "{message}");
        }
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("agent.toml"))
    }
}
