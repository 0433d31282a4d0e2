//! The command line of `nightshift-sim`, and the scenario that it asks for.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::Base;
use nightshift_sim::classes::ClassShare;
use nightshift_sim::scenario::{Scenario, ScenarioError, Terms, cohort_of, projections, seeded};
use nightshift_sim::{bench, demo, make_base, make_data};
use planning::{PlanOptions, Privacy, Subject};
use proto::adapter::Factors;
use proto::plan::Plan;

/// With classes, devices that must have trained a number for it to move, where nobody says otherwise: the fewest.
const LEAST_TRAINERS: u32 = 2;

/// Settings that a record has, and so not the command line beside `--from`; `PlanOptions` is all that says of a plan.
const SETTINGS: [&str; 9] = [
    "PlanOptions",
    "devices",
    "newcomers",
    "stop_when_flat",
    "no_yardsticks",
    "prompts",
    "central",
    "classes",
    "public_epochs",
];

/// What training in one place has no use for.
const OF_ROUNDS: [&str; 23] = [
    "refresh_every",
    "accumulated_rank",
    "shipped_rank",
    "least_trainers",
    "privacy",
    "target_epsilon",
    "noise_multiplier",
    "clip",
    "delta",
    "epsilon_budget",
    "metrics",
    "metrics_weight",
    "adaptive_clip",
    "clip_quantile",
    "participations",
    "corrupt_permille",
    "report_goal",
    "rounds",
    "min_rounds",
    "join_secs",
    "step_secs",
    "grace_secs",
    "classes",
];

/// A whole federation on one machine.
///
/// Without a command: made-up people, a small base that comes with the program, distributed noise. Exit
/// codes: 0 done, 2 wrong usage, 3 unusable base, text, plan or population, 4 cannot write, 5 the federation came to no
/// end, or to a wrong sum, 130 its user ended it before its end, and what is there is kept.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) demo: DemoArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What the demonstration takes; what is left out is as chosen for it.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct DemoArgs {
    /// Without a command: devices of the demonstration
    #[arg(long)]
    devices: Option<usize>,
    /// Without a command: rank of its adapter
    #[arg(long)]
    rank: Option<u32>,
    /// Without a command: who adds noise
    #[arg(long, value_enum)]
    privacy: Option<Privacy>,
    /// Without a command: versions to make at most
    #[arg(long)]
    versions: Option<u32>,
    /// Without a command: noise of the sum, divided by the clip norm
    #[arg(long)]
    noise_multiplier: Option<f64>,
    /// Without a command: run although the noise is more than the devices can teach
    #[arg(long)]
    pub(crate) accept_noise: bool,
    /// Without a command: write into --out although it holds something else
    #[arg(long)]
    pub(crate) force: bool,
}

impl DemoArgs {
    /// Whether none is given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { devices, rank, privacy, versions, noise_multiplier, accept_noise, force } = self;
        devices.is_none()
            && rank.is_none()
            && privacy.is_none()
            && versions.is_none()
            && noise_multiplier.is_none()
            && !accept_noise
            && !force
    }

    /// The demonstration with these settings.
    pub(crate) fn scenario(&self, seed: u64) -> Scenario {
        let usual = demo::scenario(seed);
        let devices = self.devices.unwrap_or(usual.devices);
        let rank = self.rank.unwrap_or(usual.rank);
        Scenario {
            devices,
            rank,
            // The scale of the product stays.
            alpha: usual.alpha * rank as f32 / usual.rank as f32,
            mode: self.privacy.map_or(usual.mode, Privacy::mode),
            versions: self.versions.unwrap_or(usual.versions),
            noise_multiplier: self.noise_multiplier.unwrap_or(usual.noise_multiplier),
            vanishing: usual.vanishing.min(devices / 10),
            ..usual
        }
    }
}

#[derive(Args, Clone)]
pub(crate) struct OutputArgs {
    /// Folder for the adapter, metrics, summary and report of a run, and for what is made [default: nightshift-run; of population
    /// and compare: nothing is written]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) out: Option<PathBuf>,
    /// What is printed on stdout
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) format: Format,
    /// Everything random follows from it; 1 where neither this nor a scenario says it
    #[arg(long, global = true)]
    pub(crate) seed: Option<u64>,
}

impl OutputArgs {
    /// The folder of what always has one.
    pub(crate) fn folder(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new("nightshift-run"))
    }

    /// The seed of what has no scenario that says one.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or(1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run on a base and text of your own
    #[command(allow_negative_numbers = true)]
    Run(Box<RunArgs>),
    /// Many devices of which a version is made by a few: who comes when, what a version costs, and what it learns
    Population(Box<PopulationArgs>),
    /// Print finished runs as one table, with what differs in their settings
    Compare(CompareArgs),
    /// Play many real devices against a running coordinator, over TLS; its options are its own, see `load --help`
    Load,
    /// Make the base that comes with the program, from the seed, into --out
    MakeBase(make_base::Options),
    /// Write the base and the made-up people's text as files, into --out
    MakeData(make_data::Options),
    /// Measure a part of the system
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// One secure sum without training: seconds, bytes and memory, and whether the sum is exact
    #[command(allow_negative_numbers = true)]
    Secagg(bench::Options),
}

/// Which runs are compared.
#[derive(Args)]
pub(crate) struct CompareArgs {
    /// Folders of runs, or of a sweep, which stands for all of its runs. With --out their table is written there too, as text,
    /// CSV and JSON
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
}

/// What a population is of. A scenario's keys, with what each means and its default, are in `sim/scenarios/population.toml`,
/// which `--keys` prints.
#[derive(Args)]
pub(crate) struct PopulationArgs {
    /// A file of TOML with the population, its presence, network, task, model, privacy, faults and seed; the defaults where left
    /// out. Its keys are those that --keys prints, and no others. A list of values in the place of one makes a run for each, and
    /// lists a run for each of their combinations
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) scenario: Option<PathBuf>,
    /// Print a scenario with every key, its meaning and its default, and run nothing
    #[arg(long, exclusive = true)]
    pub(crate) keys: bool,
    /// Enrolled devices, instead of the scenario's
    #[arg(long)]
    pub(crate) devices: Option<usize>,
    /// Most devices of a round, instead of the scenario's
    #[arg(long)]
    pub(crate) cohort: Option<u32>,
    /// Versions to make, instead of the scenario's
    #[arg(long)]
    pub(crate) versions: Option<u32>,
    /// Numbers of an update, instead of the scenario's
    #[arg(long)]
    pub(crate) coordinates: Option<u32>,
    /// The base, instead of the scenario's model.base
    #[arg(long, value_name = "DIR|FILE.gguf|hf:OWNER/NAME")]
    pub(crate) base: Option<PathBuf>,
    /// A folder with text for each device, instead of the scenario's model.data
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Go on with what was stopped in --out: it is repeated up to there, which must come to the same, and ends with the same
    /// files as if it had not been stopped. Runs of a sweep that came to their end are left as they are
    #[arg(long, conflicts_with_all = ["scenario", "devices", "cohort", "versions", "coordinates", "seed", "force"])]
    pub(crate) resume: bool,
    /// Write into --out although it holds something else
    #[arg(long)]
    pub(crate) force: bool,
    /// Write what came of one run to this file too, as JSON: the same scenario gives the same bytes
    #[arg(long, value_name = "FILE.json")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct RunArgs {
    /// Repeat the run that wrote this summary.json, with its settings, seed, base and text: they are checked by digest,
    /// and the files that come out are the same. --base, --data and --public say where they are now
    #[arg(long, value_name = "FILE", conflicts_with_all = SETTINGS)]
    pub(crate) from: Option<PathBuf>,
    /// A Hugging Face folder (config.json, model.safetensors, tokenizer.json), a GGUF file, or one of the hub that is in the
    /// cache on this machine
    #[arg(long, value_name = "DIR|FILE.gguf|hf:OWNER/NAME", required_unless_present = "from")]
    pub(crate) base: Option<PathBuf>,
    /// A folder with a file or a folder for each user, of text as devices read it: `.jsonl`, `.json`, `.csv`, `.txt`, `.md` and
    /// others
    #[arg(long, value_name = "DIR", required_unless_present = "from")]
    pub(crate) data: Option<PathBuf>,
    /// Use the first so many users, by file name; all that a round takes where left out
    #[arg(long)]
    pub(crate) devices: Option<usize>,
    /// Users after those who take no part; what they write tells how well the adapter serves others
    #[arg(long, default_value_t = 0)]
    pub(crate) newcomers: usize,
    /// Stop after a version that gained nothing beyond its noise, as the text of those who take no part tells
    #[arg(long)]
    stop_when_flat: bool,
    /// Leave out what is trained for comparison only: on public text alone, without noise, in one place
    #[arg(long)]
    no_yardsticks: bool,
    /// Show how the base and the adapter write on after it; may be given several times
    #[arg(long = "prompt", value_name = "TEXT")]
    prompts: Vec<String>,
    /// Train in one place on all users' text, with as many examples: what a federation is compared with
    #[arg(long, conflicts_with_all = OF_ROUNDS, conflicts_with = "stop_when_flat")]
    pub(crate) central: bool,
    /// A share of the devices that trains only the first RANK columns of `B`, in the LAYERS layers nearest to the
    /// output, or in all of them; may be given several times, and who is left over trains all. The seed says which
    /// devices they are. Needs --method `frozen_a` and --privacy distributed
    #[arg(long = "class", value_name = "SHARE:RANK[:LAYERS]")]
    classes: Vec<ClassShare>,
    /// Run although the noise is more than the devices can teach
    #[arg(long)]
    pub(crate) accept_noise: bool,
    /// Write into --out although it holds something else than a run of the same settings
    #[arg(long)]
    pub(crate) force: bool,
    /// Text that belongs to nobody, a file or a folder of files as devices read them: the frozen factors are made from the
    /// base's gradient on it
    #[arg(long, value_name = "DIR|FILE", alias = "public-text")]
    pub(crate) public: Option<PathBuf>,
    /// Draws whose factors come from the public text; later ones are random
    #[arg(long, default_value_t = u32::MAX, hide_default_value = true, requires = "public")]
    public_epochs: u32,
    #[command(flatten)]
    options: PlanOptions,
}

impl RunArgs {
    /// The scenario, for so many devices on `base`, all of them in each version: that of the plan which the options make.
    pub(crate) fn scenario(&self, base: &Base, devices: usize, seed: u64) -> Result<Scenario, ScenarioError> {
        let mut options = self.options.clone();
        options.least_trainers = match (options.least_trainers, self.classes.is_empty()) {
            (Some(least), true) => return Err(ScenarioError::NoClasses(least)),
            (None, true) => None,
            (least, false) => Some(least.unwrap_or(LEAST_TRAINERS)),
        };
        let projections = projections(&options.targets)?;
        let subject = Subject {
            name: "simulation".to_owned(),
            base: base.digest(),
            modules: base.modules(&projections),
            factors: Factors::Seeded(seeded(seed, "factors")),
            initial_seed: seeded(seed, "initial"),
            cohort: cohort_of(devices, options.rounds)?,
        };
        let Plan { name, adapter, refresh, training, privacy, round, server, .. } = options.plan(&subject)?;
        Ok(Scenario {
            name,
            devices,
            versions: round.versions,
            method: adapter.method,
            rank: adapter.rank,
            alpha: adapter.alpha,
            refresh,
            public_epochs: self.public_epochs,
            projections,
            classes: self.classes.clone(),
            least_trainers: options.least_trainers.unwrap_or(LEAST_TRAINERS),
            training,
            server,
            mode: privacy.mode,
            noise_multiplier: privacy.noise_multiplier,
            clip_norm: privacy.clip_norm,
            adaptive_clip: options.adaptive_clip,
            delta: privacy.delta,
            corrupt_permille: privacy.corrupt_permille,
            vanishing: 0,
            newcomers: self.newcomers,
            stop_when_flat: self.stop_when_flat,
            yardsticks: !self.no_yardsticks && !self.central,
            prompts: self.prompts.clone(),
            seed,
            terms: Some(Terms {
                report_goal: round.report_goal,
                rounds: round.rounds,
                min_rounds: round.min_rounds,
                participations: privacy.participations,
                epsilon_budget: privacy.epsilon_budget,
                metrics: Some(privacy.metrics.iter().map(|metric| metric.name).collect()),
                metrics_weight: privacy.metrics_weight,
                clip_quantile: options.clip_quantile,
                join_secs: options.join_secs,
                step_secs: options.step_secs,
                grace_secs: options.grace_secs,
            }),
        })
    }
}
