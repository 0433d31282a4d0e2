//! The command line of `nightshift-sim`, and the scenario that it asks for.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::{Base, Projection};
use nightshift_sim::classes::ClassShare;
use nightshift_sim::scenario::Scenario;
use nightshift_sim::{bench, demo, make_base, make_data};
use proto::adapter::{AdapterSpec, Method};
use proto::plan::{Mode, RefreshPlan};
use proto::training::{LocalOptimizer, ServerOptimizer, TrainingPlan};

/// Settings that a record has, and so not the command line beside `--from`.
const SETTINGS: [&str; 26] = [
    "devices",
    "newcomers",
    "stop_when_flat",
    "no_yardsticks",
    "prompts",
    "versions",
    "local_steps",
    "rank",
    "alpha",
    "method",
    "refresh_every",
    "accumulated_rank",
    "shipped_rank",
    "central",
    "targets",
    "classes",
    "least_trainers",
    "learning_rate",
    "batch_size",
    "sequence_len",
    "privacy",
    "noise_multiplier",
    "clip",
    "adaptive_clip",
    "delta",
    "public_epochs",
];

/// A whole federation on one machine.
///
/// Without a command: made-up people, a small base that comes with the program, distributed noise. Exit
/// codes: 0 done, 2 wrong usage, 3 unusable base, text or plan, 4 cannot write, 5 the federation came to no end,
/// or to a wrong sum.
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
    privacy: Option<PrivacyArg>,
    /// Without a command: versions to make at most
    #[arg(long)]
    versions: Option<u32>,
    /// Without a command: noise of the sum, divided by the clip norm
    #[arg(long)]
    noise_multiplier: Option<f64>,
    /// Without a command: run although the noise is more than the devices can teach
    #[arg(long)]
    pub(crate) accept_noise: bool,
}

impl DemoArgs {
    /// Whether none is given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { devices, rank, privacy, versions, noise_multiplier, accept_noise } = self;
        devices.is_none()
            && rank.is_none()
            && privacy.is_none()
            && versions.is_none()
            && noise_multiplier.is_none()
            && !accept_noise
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
            mode: self.privacy.map_or(usual.mode, PrivacyArg::mode),
            versions: self.versions.unwrap_or(usual.versions),
            noise_multiplier: self.noise_multiplier.unwrap_or(usual.noise_multiplier),
            vanishing: usual.vanishing.min(devices / 10),
            ..usual
        }
    }
}

#[derive(Args, Clone)]
pub(crate) struct OutputArgs {
    /// Folder for the adapter, metrics, summary and report
    #[arg(long, default_value = "nightshift-run", global = true)]
    pub(crate) out: PathBuf,
    /// What is printed on stdout
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) format: Format,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1, global = true)]
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrivacyArg {
    Off,
    Central,
    Distributed,
}

impl PrivacyArg {
    fn mode(self) -> Mode {
        match self {
            Self::Off => Mode::Off,
            Self::Central => Mode::Central,
            Self::Distributed => Mode::Distributed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum MethodArg {
    FrozenA,
    FrozenB,
    Alternate,
    Core,
    Both,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run on a base and text of your own
    #[command(allow_negative_numbers = true)]
    Run(Box<RunArgs>),
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

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct RunArgs {
    /// Repeat the run that wrote this summary.json, with its settings, seed, base and text: they are checked by digest,
    /// and the files that come out are the same. --base, --data and --public say where they are now
    #[arg(long, value_name = "FILE", conflicts_with_all = SETTINGS)]
    pub(crate) from: Option<PathBuf>,
    /// A Hugging Face folder: config.json, model.safetensors, tokenizer.json
    #[arg(long, required_unless_present = "from")]
    pub(crate) base: Option<PathBuf>,
    /// A folder of JSONL files, one a user, `{"text": …}` a line
    #[arg(long, required_unless_present = "from")]
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
    /// Versions to make
    #[arg(long, default_value_t = 10)]
    versions: u32,
    /// Optimiser steps of a device in one version
    #[arg(long, default_value_t = 10)]
    local_steps: u32,
    /// Rank of the adapter
    #[arg(long, default_value_t = 8)]
    rank: u32,
    /// Scale of the adapter times its rank; twice the rank where left out
    #[arg(long)]
    alpha: Option<f32>,
    /// What is trained: only B, only A, both in turns, only a matrix between frozen factors, or both factors
    #[arg(long, value_enum, default_value_t = MethodArg::FrozenA)]
    method: MethodArg,
    /// Versions after which frozen factors are drawn anew, 0 for never; 3 with `frozen_a` and else 0 where left out
    #[arg(long)]
    refresh_every: Option<u32>,
    /// Largest rank that is kept of all draws before; four times the rank where left out
    #[arg(long)]
    accumulated_rank: Option<u32>,
    /// Rank of the adapter that comes out; four times the rank where left out
    #[arg(long)]
    shipped_rank: Option<u32>,
    /// Train in one place on all users' text, with as many examples: what a federation is compared with
    #[arg(long, conflicts_with_all = ["noise_multiplier", "clip", "adaptive_clip", "refresh_every", "classes", "stop_when_flat"])]
    pub(crate) central: bool,
    /// Adapted layers, separated by commas
    #[arg(
        long,
        default_value = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
        value_delimiter = ','
    )]
    targets: Vec<Projection>,
    /// A share of the devices that trains only the first RANK columns of `B`, in the LAYERS layers nearest to the
    /// output, or in all of them; may be given several times, and who is left over trains all. The seed says which
    /// devices they are. Needs --method `frozen_a` and --privacy distributed
    #[arg(long = "class", value_name = "SHARE:RANK[:LAYERS]")]
    classes: Vec<ClassShare>,
    /// With --class, a number moves only in versions in which at least so many devices trained it
    #[arg(long, default_value_t = 2, value_name = "DEVICES", requires = "classes")]
    least_trainers: u32,
    /// Step size of a device
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Sequences of one step
    #[arg(long, default_value_t = 4)]
    batch_size: u32,
    /// Tokens of one sequence
    #[arg(long, default_value_t = 128)]
    sequence_len: u32,
    /// Who adds noise: nobody, the coordinator after the sum, or every device before masking
    #[arg(long, value_enum, default_value_t = PrivacyArg::Distributed)]
    privacy: PrivacyArg,
    /// Noise of the sum, divided by the clip norm
    #[arg(long, default_value_t = 2.0)]
    noise_multiplier: f64,
    /// Run although the noise is more than the devices can teach
    #[arg(long)]
    pub(crate) accept_noise: bool,
    /// L2 bound of an update; 1 with noise and 100 without where left out
    #[arg(long)]
    clip: Option<f64>,
    /// Let the L2 bound follow the updates' median norm, by the noised fraction that was clipped
    #[arg(long)]
    adaptive_clip: bool,
    /// The δ of ε
    #[arg(long, default_value_t = 1e-5)]
    delta: f64,
    /// JSONL text that belongs to nobody, a file or a folder of files: the frozen factors are made from the base's
    /// gradient on it
    #[arg(long, alias = "public-text")]
    pub(crate) public: Option<PathBuf>,
    /// Draws whose factors come from the public text; later ones are random
    #[arg(long, default_value_t = u32::MAX, hide_default_value = true, requires = "public")]
    public_epochs: u32,
}

impl RunArgs {
    /// The scenario, for so many devices on `base`. Fails where ranks are given for what is never drawn anew.
    pub(crate) fn scenario(&self, base: &Base, devices: usize, seed: u64) -> anyhow::Result<Scenario> {
        let clip = match self.privacy {
            PrivacyArg::Off => 100.0,
            PrivacyArg::Central | PrivacyArg::Distributed => 1.0,
        };
        let (method, rate) = match self.method {
            MethodArg::FrozenA => (Method::FrozenA, 1e-2),
            MethodArg::FrozenB => (Method::FrozenB, 1e-2),
            MethodArg::Alternate => (Method::Alternate, 1e-2),
            MethodArg::Core => (Method::Core, 2e-2),
            MethodArg::Both => (Method::Both, 3e-3),
        };
        let mut scenario = Scenario {
            name: "simulation".to_owned(),
            devices,
            versions: self.versions,
            method,
            rank: self.rank,
            alpha: self.alpha.unwrap_or(2.0 * self.rank as f32),
            refresh: None,
            public_epochs: self.public_epochs,
            projections: self.targets.clone(),
            classes: self.classes.clone(),
            least_trainers: self.least_trainers,
            training: TrainingPlan {
                local_steps: self.local_steps,
                batch_size: self.batch_size,
                sequence_len: self.sequence_len,
                learning_rate: self.learning_rate.unwrap_or(rate),
                warmup_steps: 0,
                max_grad_norm: 1.0,
                optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
            },
            server: ServerOptimizer::FedAvg { rate: 1.0 },
            mode: self.privacy.mode(),
            noise_multiplier: self.noise_multiplier,
            clip_norm: self.clip.unwrap_or(clip),
            adaptive_clip: self.adaptive_clip,
            delta: self.delta,
            corrupt_permille: 50,
            vanishing: 0,
            newcomers: self.newcomers,
            stop_when_flat: self.stop_when_flat,
            yardsticks: !self.no_yardsticks && !self.central,
            prompts: self.prompts.clone(),
            seed,
        };
        scenario.refresh = refresh(self, &scenario.adapter(base))?;
        Ok(scenario)
    }
}

/// When frozen factors are drawn anew; ranks for what is never drawn anew are refused.
fn refresh(args: &RunArgs, adapter: &AdapterSpec) -> anyhow::Result<Option<RefreshPlan>> {
    let usual = if adapter.method == Method::FrozenA && !args.central { 3 } else { 0 };
    let every = args.refresh_every.unwrap_or(usual);
    if every == 0 {
        for (name, rank) in
            [("--accumulated-rank", args.accumulated_rank), ("--shipped-rank", args.shipped_rank)]
        {
            if let Some(rank) = rank {
                anyhow::bail!(
                    "{name} {rank} has no effect on factors that are never drawn anew; leave it out, or give \
                     --refresh-every"
                );
            }
        }
        return Ok(None);
    }
    let usual = RefreshPlan::every(every, adapter);
    Ok(Some(RefreshPlan {
        every,
        accumulated_rank: args.accumulated_rank.unwrap_or(usual.accumulated_rank),
        shipped_rank: args.shipped_rank.unwrap_or(usual.shipped_rank),
    }))
}
