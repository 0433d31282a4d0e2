//! The agent's configuration file: TOML, unknown keys refused. The sample with
//! every key is `deploy/agent.toml`.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;

use client::Proxy;
use client::store::{DEFAULT_CACHE_MIB, DEFAULT_INSTALLED_MIB};
use engine::WeightDtype;
use engine::{BaseOptions, Compute, DeviceError, DeviceRequest, Precision, Recompute, Source, SourceError};
use session::conditions::{Condition, Conditions};
use session::policy::Policy;
use shell::config::{self, ConfigError, OutOfRange, require};
use shell::home;
use text::{ControlTokens, ReadOptions, SecretLines};

/// Every key at its default, with what it means.
pub const SAMPLE: &str = include_str!("../../../deploy/agent.toml");

/// In what numbers products with a base are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// What suits the base and the CPU: f32 or bf16
    Auto,
    /// Weights are held in f32 and multiplied as such
    F32,
    /// Weights are held in bf16, and products are as fine as that or finer
    Bf16,
    /// Weights are held as they are stored; 8-bit integers on the way back, where the CPU has instructions for them
    Int8,
}

impl Dtype {
    /// What products are computed in; none for what suits the base and the CPU.
    pub fn precision(self) -> Option<Precision> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(Precision::F32),
            Self::Bf16 => Some(Precision::Int16),
            Self::Int8 => Some(Precision::Int8),
        }
    }

    /// Its word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// What weights are held as.
    pub fn options(self) -> BaseOptions {
        let dtype = match self {
            Self::Auto | Self::Int8 => WeightDtype::AsStored,
            Self::F32 => WeightDtype::F32,
            Self::Bf16 => WeightDtype::Bf16,
        };
        BaseOptions { dtype }
    }
}

/// What the device's user decides about the agent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The coordinator's address, `host:port`. Default none: the address in
    /// the bootstrap token with which the device enrolled.
    pub coordinator: Option<String>,
    /// The proxy on the way to the coordinator, `http://host:port`, or `none`.
    /// Default: as `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    pub proxy: Option<String>,
    /// The folder of the device's keys, state and ledger. Default
    /// `/var/lib/nightshift-agent`.
    #[serde(deserialize_with = "home::path")]
    pub state_dir: PathBuf,
    /// The base model: a folder (weights, tokenizer, configuration), a GGUF file,
    /// or `hf:owner/name[/FILE.gguf][@revision]`, which is fetched from the
    /// Hugging Face hub once, when the network may be used. Default
    /// `/var/lib/nightshift-agent/base`.
    #[serde(deserialize_with = "home::path")]
    pub base: PathBuf,
    /// Further bases, named as `base` is: the device takes part in tasks of each.
    /// Default none.
    #[serde(deserialize_with = "home::paths")]
    pub further_bases: Vec<PathBuf>,
    /// Text files and folders to train on; nothing else is read. Default none:
    /// the agent does not run without any.
    #[serde(deserialize_with = "home::paths")]
    pub data: Vec<PathBuf>,
    /// Whether lines that look like secrets (private keys, access tokens,
    /// passwords, numbers of cards and accounts) are trained on. Default no:
    /// they are left out and counted, in conversations the whole conversation.
    pub keep_secret_looking_lines: bool,
    /// Whether control tokens of the base that are spelled in text without turns
    /// are read as tokens: for text to which a chat template was applied before.
    /// Default no: they are read as letters and counted.
    pub read_control_tokens: bool,
    /// The most threads that training uses. Default 0: half as many as there
    /// are cores, rounded up. What is learned does not depend on it.
    pub threads: usize,
    /// Where training computes: `auto`, `cpu`, `candle`, `cuda`, `cuda:N`,
    /// `metal` or `metal:N`. Default `auto`: a GPU that the agent was built for
    /// and that opens, else the CPU.
    pub device: DeviceRequest,
    /// In what numbers products with the base are computed. Default `auto`:
    /// what suits the base and the CPU.
    pub dtype: Dtype,
    /// Whether blocks are computed again on the way back: a third more time,
    /// much less memory. Default no.
    pub recompute: bool,
    /// Most disk for what was fetched from the coordinator and may be needed again, in MiB. Default 2048.
    #[serde(alias = "artefact_cache_mib")]
    pub artifact_cache_mib: u64,
    /// Most disk for the versions that the device keeps for its user, of all tasks, in MiB. Default 4096.
    pub installed_mib: u64,
    /// The device's own limits, whatever the coordinator asks for.
    pub policy: Policy,
    /// When the device may train.
    pub conditions: Conditions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            coordinator: None,
            proxy: None,
            state_dir: PathBuf::from("/var/lib/nightshift-agent"),
            base: PathBuf::from("/var/lib/nightshift-agent/base"),
            further_bases: Vec::new(),
            data: Vec::new(),
            keep_secret_looking_lines: false,
            read_control_tokens: false,
            threads: 0,
            device: DeviceRequest::Auto,
            dtype: Dtype::Auto,
            recompute: false,
            artifact_cache_mib: DEFAULT_CACHE_MIB,
            installed_mib: DEFAULT_INSTALLED_MIB,
            policy: Policy::default(),
            conditions: Conditions::default(),
        }
    }
}

impl Config {
    /// Reads the file. Fails when it is not there, has a wrong or unknown key,
    /// or a value out of its range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        config::load(path, Self::check)
    }

    /// Reads the text of a file; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        config::parse(text, path, Self::check)
    }

    fn check(&self) -> Result<(), OutOfRange> {
        if let Some(proxy) = &self.proxy {
            let parsed = proxy.parse::<Proxy>();
            require(parsed.is_ok(), "proxy", "http://HOST:PORT, or none", &"something else")?;
        }
        require(!self.state_dir.as_os_str().is_empty(), "state_dir", "a folder", &"\"\"")?;
        let has_names = self.data.iter().all(|path| !path.as_os_str().is_empty());
        require(has_names, "data", "files and folders, each with a name", &"\"\"")?;
        if let Some(coordinator) = &self.coordinator {
            require(address(coordinator).is_ok(), "coordinator", ADDRESS, coordinator)?;
        }
        for (key, names) in
            [("base", std::slice::from_ref(&self.base)), ("further_bases", &self.further_bases)]
        {
            for name in names {
                let form = "a folder, a GGUF file, or hf:owner/name[/FILE.gguf][@revision]";
                require(source(name).is_ok(), key, form, &name.display())?;
            }
        }
        require(
            self.installed_mib >= 1,
            "installed_mib",
            "at least 1: a device that keeps no version trains none",
            &self.installed_mib,
        )?;
        check_policy(&self.policy)?;
        check_conditions(&self.conditions)
    }

    /// All bases, in the order of the file; of what names none there is none, which [`Self::load`] refuses.
    pub fn sources(&self) -> Vec<Source> {
        std::iter::once(&self.base).chain(&self.further_bases).filter_map(|name| source(name).ok()).collect()
    }

    /// How training computes. Fails when the device is not there, or the agent
    /// was not built for it.
    pub fn compute(&self) -> Result<Compute, DeviceError> {
        let threads = self.threads_beside_the_user();
        let recompute = if self.recompute { Recompute::Blocks } else { Recompute::Never };
        let precision = self.dtype.precision();
        Ok(Compute { threads, precision, recompute, backend: self.device.resolve()? })
    }

    /// The way to the coordinator.
    pub fn proxy(&self) -> Proxy {
        self.proxy.as_ref().and_then(|proxy| proxy.parse().ok()).unwrap_or_default()
    }

    /// The threads of a training that goes on beside its user: at most half of the cores, unless the file says how many.
    pub fn threads_beside_the_user(&self) -> usize {
        if self.threads == 0 { cores().div_ceil(2) } else { self.threads }
    }

    /// How the user's text is read.
    pub fn reading(&self) -> ReadOptions {
        let secrets = if self.keep_secret_looking_lines { SecretLines::Keep } else { SecretLines::LeaveOut };
        let control_tokens =
            if self.read_control_tokens { ControlTokens::AsTokens } else { ControlTokens::AsLetters };
        ReadOptions { secrets, control_tokens }
    }
}

/// What an address of a coordinator looks like.
const ADDRESS: &str = "HOST:PORT, such as coordinator.example:7443 or [2001:db8::1]:7443";

/// An address of a coordinator, as it was given.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':');
    let is_host = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_of_name = |letter: char| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_');
        inner.map_or_else(
            || !host.is_empty() && host.chars().all(is_of_name),
            |inner| inner.parse::<Ipv6Addr>().is_ok(),
        )
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match parts {
        Some((host, port)) if is_host(host) && is_port(port) => Ok(text.to_owned()),
        Some(_) | None => Err(format!("expected {ADDRESS}")),
    }
}

/// What a name of a base means. A path that is no text is one all the same.
pub(crate) fn source(name: &Path) -> Result<Source, SourceError> {
    name.to_str().map_or_else(|| Ok(Source::Path(name.to_owned())), str::parse)
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

fn check_policy(policy: &Policy) -> Result<(), OutOfRange> {
    require(
        policy.smallest_cohort >= 2,
        "policy.smallest_cohort",
        "at least 2: a sum over one device is that device's update",
        &policy.smallest_cohort,
    )?;
    require(
        (2..=policy.smallest_cohort).contains(&policy.smallest_report_goal),
        "policy.smallest_report_goal",
        "from 2 to policy.smallest_cohort",
        &policy.smallest_report_goal,
    )?;
    require(
        policy.smallest_corrupt_permille < 500,
        "policy.smallest_corrupt_permille",
        "below 500: half of a cohort can rebuild every seed",
        &policy.smallest_corrupt_permille,
    )?;
    require(
        policy.least_noise_multiplier.is_finite() && policy.least_noise_multiplier >= 0.0,
        "policy.least_noise_multiplier",
        "a number from 0",
        &policy.least_noise_multiplier,
    )?;
    require(
        policy.largest_epsilon.is_finite() && policy.largest_epsilon > 0.0,
        "policy.largest_epsilon",
        "a number above 0",
        &policy.largest_epsilon,
    )?;
    require(
        policy.largest_epsilon_in_total.is_none_or(|most| most.is_finite() && most > 0.0),
        "policy.largest_epsilon_in_total",
        "a number above 0",
        &policy.largest_epsilon_in_total.unwrap_or_default(),
    )?;
    for (key, most) in
        [("policy.largest_rank", policy.largest_rank), ("policy.top_layers", policy.top_layers)]
    {
        require(most != Some(0), key, "at least 1: leave it out to train all of an adapter", &0)?;
    }
    require(
        policy.largest_tokens_a_round >= 1,
        "policy.largest_tokens_a_round",
        "at least 1",
        &policy.largest_tokens_a_round,
    )?;
    require(
        policy.longest_training_minutes >= 1,
        "policy.longest_training_minutes",
        "at least 1",
        &policy.longest_training_minutes,
    )?;
    require(
        policy.largest_memory_mib != Some(0),
        "policy.largest_memory_mib",
        "at least 1: leave it out to use what is free",
        &0,
    )?;
    require(
        policy.log.longest_head_hours >= 2,
        "policy.log.longest_head_hours",
        "at least 2: a head is signed anew every half hour",
        &policy.log.longest_head_hours,
    )?;
    require(
        policy.log.least_witnesses <= policy.log.witness_keys(),
        "policy.log.least_witnesses",
        "at most as many as policy.log.witnesses has different keys",
        &policy.log.least_witnesses,
    )?;
    require(
        policy.largest_delta > 0.0 && policy.largest_delta < 1.0,
        "policy.largest_delta",
        "above 0 and below 1",
        &policy.largest_delta,
    )
}

fn check_conditions(conditions: &Conditions) -> Result<(), OutOfRange> {
    let percents = [
        ("conditions.start_battery_percent", conditions.start_battery_percent),
        ("conditions.start_busy_percent", conditions.start_busy_percent),
        ("conditions.continue_busy_percent", conditions.continue_busy_percent),
        ("conditions.start_pressure_percent", conditions.start_pressure_percent),
        ("conditions.continue_pressure_percent", conditions.continue_pressure_percent),
    ];
    for (key, percent) in percents {
        require(percent <= 100, key, "from 0 to 100", &percent)?;
    }
    for always in [Condition::Budget, Condition::Resumed] {
        let expected = "of conditions that a device may not be able to tell, which it always is of this one";
        let is_named = conditions.assume.contains(&always);
        require(!is_named, "conditions.assume", expected, &always.as_str())?;
    }
    require(
        conditions.continue_busy_percent >= conditions.start_busy_percent,
        "conditions.continue_busy_percent",
        "at least conditions.start_busy_percent",
        &conditions.continue_busy_percent,
    )?;
    require(
        conditions.continue_pressure_percent >= conditions.start_pressure_percent,
        "conditions.continue_pressure_percent",
        "at least conditions.start_pressure_percent",
        &conditions.continue_pressure_percent,
    )?;
    require(
        conditions.start_idle_minutes >= 1,
        "conditions.start_idle_minutes",
        "at least 1",
        &conditions.start_idle_minutes,
    )?;
    require(
        conditions.most_minutes_a_day >= 1,
        "conditions.most_minutes_a_day",
        "at least 1: `nightshift-agent pause` keeps the device from training",
        &conditions.most_minutes_a_day,
    )?;
    require(
        conditions.most_mib_a_day >= 1,
        "conditions.most_mib_a_day",
        "at least 1: `nightshift-agent pause` keeps the device from the network",
        &conditions.most_mib_a_day,
    )?;
    require(
        conditions.start_cool_celsius.is_finite(),
        "conditions.start_cool_celsius",
        "a number",
        &conditions.start_cool_celsius,
    )?;
    require(
        conditions.continue_cool_celsius.is_finite()
            && conditions.continue_cool_celsius <= conditions.start_cool_celsius,
        "conditions.continue_cool_celsius",
        "at most conditions.start_cool_celsius",
        &conditions.continue_cool_celsius,
    )?;
    require(conditions.check_secs >= 1, "conditions.check_secs", "at least 1", &conditions.check_secs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_address_that_nobody_can_be_reached_at_is_refused() {
        for good in ["localhost:7443", "127.0.0.1:1", "coordinator.example:65535", "[2001:db8::1]:7443"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in
            ["", "localhost", "http://localhost:7443", ":7443", "a b:1", "host:0", "host:65536", "::1:7443"]
        {
            assert!(address(bad).is_err(), "{bad}");
            let text = format!("coordinator = \"{bad}\"");
            let error = Config::parse(&text, Path::new("agent.toml")).unwrap_err().to_string();
            assert!(error.contains("coordinator") && error.contains("HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn the_sample_has_every_key_at_its_default() {
        let sample = parse(SAMPLE).unwrap();
        assert_eq!(sample, Config::default());
        let keys: toml::Table = SAMPLE.parse().unwrap();
        assert_eq!(keys.len(), 14, "every key but those that have no value as their default");
        assert_eq!(keys["policy"].as_table().unwrap().len(), 16);
        assert_eq!(keys["policy"]["log"].as_table().unwrap().len(), 4);
        assert_eq!(keys["conditions"].as_table().unwrap().len(), 15);
    }

    #[test]
    fn how_it_computes_is_as_the_file_says() {
        let compute = parse("dtype = 'f32'\nrecompute = true\nthreads = 3").unwrap().compute().unwrap();
        assert_eq!((compute.precision, compute.threads), (Some(Precision::F32), 3));
        assert_eq!(compute.recompute, Recompute::Blocks);
        let message = parse("dtype = 'int4'").unwrap_err().to_string();
        assert!(message.contains("int4") && message.contains("int8"), "{message}");
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
    fn secret_looking_lines_are_kept_only_if_the_user_says_so() {
        let secrets = |text| parse(text).unwrap().reading().secrets;
        assert_eq!(secrets(""), SecretLines::LeaveOut);
        assert_eq!(secrets("keep_secret_looking_lines = true"), SecretLines::Keep);
        let control_tokens = |text| parse(text).unwrap().reading().control_tokens;
        assert_eq!(control_tokens(""), ControlTokens::AsLetters);
        assert_eq!(control_tokens("read_control_tokens = true"), ControlTokens::AsTokens);
    }

    #[test]
    fn a_device_that_is_none_or_not_there_is_named() {
        assert_eq!(parse("device = 'candle'").unwrap().compute().unwrap().backend.to_string(), "candle");
        let message = parse("device = 'gpu'").unwrap_err().to_string();
        assert!(
            message.contains("agent.toml") && message.contains("unknown device `gpu`; use auto"),
            "{message}"
        );
        let message = parse("device = 'cuda:77'").unwrap().compute().unwrap_err().to_string();
        assert!(message.contains("`cuda:77`") && message.contains("use the device cpu"), "{message}");
    }

    #[test]
    fn a_key_of_a_witness_that_is_none_is_named() {
        let message = parse("[policy.log]\nwitnesses = ['bad']").unwrap_err().to_string();
        assert!(message.contains("\"bad\" is not the key of a witness"), "{message}");
    }

    #[test]
    fn assumptions_are_named() {
        let config = parse("[conditions]\nassume = ['mains', 'idle']").unwrap();
        let expected = BTreeSet::from([Condition::Mains, Condition::Idle]);
        assert_eq!(config.conditions.assume, expected);
    }

    #[test]
    fn a_tilde_is_the_home_in_every_path_and_another_s_home_is_refused_with_its_place() {
        let home = std::env::home_dir().unwrap();
        let text =
            "state_dir = '~/state'\nbase = '~'\nfurther_bases = ['hf:o/n', '~/base']\ndata = ['~/notes']";
        let config = parse(text).unwrap();
        assert_eq!((config.state_dir, config.base), (home.join("state"), home.clone()));
        assert_eq!(config.further_bases, [PathBuf::from("hf:o/n"), home.join("base")]);
        assert_eq!(config.data, [home.join("notes")]);
        for text in
            ["state_dir = '~anna'", "base = '~anna'", "further_bases = ['~anna']", "\ndata = ['~anna']"]
        {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with("agent.toml, line ") && message.contains("~anna"), "{message}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        for (text, key) in [
            ("proxy = 'proxy.example'", "proxy"),
            ("installed_mib = 0", "installed_mib"),
            ("state_dir = ''", "state_dir"),
            ("data = ['notes', '']", "data"),
            ("[conditions]\nassume = ['disk', 'budget']", "conditions.assume"),
            ("[conditions]\nassume = ['resumed']", "conditions.assume"),
            ("base = 'hf:o/../n'", "base"),
            ("further_bases = ['here', 'hf:o']", "further_bases"),
            ("[policy]\nsmallest_cohort = 1", "policy.smallest_cohort"),
            ("[policy]\nsmallest_report_goal = 11", "policy.smallest_report_goal"),
            ("[policy]\nsmallest_corrupt_permille = 500", "policy.smallest_corrupt_permille"),
            ("[policy]\nleast_noise_multiplier = nan", "policy.least_noise_multiplier"),
            ("[policy]\nlargest_epsilon = 0.0", "policy.largest_epsilon"),
            ("[policy]\nlargest_epsilon_in_total = nan", "policy.largest_epsilon_in_total"),
            ("[policy]\nlargest_delta = 1.0", "policy.largest_delta"),
            ("[policy]\nlargest_rank = 0", "policy.largest_rank"),
            ("[policy]\ntop_layers = 0", "policy.top_layers"),
            ("[policy]\nlargest_tokens_a_round = 0", "policy.largest_tokens_a_round"),
            ("[policy]\nlongest_training_minutes = 0", "policy.longest_training_minutes"),
            ("[policy]\nlargest_memory_mib = 0", "policy.largest_memory_mib"),
            ("[conditions]\nstart_battery_percent = 101", "conditions.start_battery_percent"),
            ("[conditions]\ncontinue_busy_percent = 1", "conditions.continue_busy_percent"),
            ("[conditions]\ncheck_secs = 0", "conditions.check_secs"),
            ("[conditions]\nstart_idle_minutes = 0", "conditions.start_idle_minutes"),
            ("[conditions]\nstart_pressure_percent = 101", "conditions.start_pressure_percent"),
            ("[conditions]\ncontinue_pressure_percent = 1", "conditions.continue_pressure_percent"),
            ("[conditions]\nmost_minutes_a_day = 0", "conditions.most_minutes_a_day"),
            ("[conditions]\nmost_mib_a_day = 0", "conditions.most_mib_a_day"),
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
