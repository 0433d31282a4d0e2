//! `nightshift-sim`: a whole federation on one machine.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the command line's own output")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::{Base, Projection};
use nightshift_sim::bench::{self, BenchError};
use nightshift_sim::classes::ClassShare;
use nightshift_sim::output::Output;
use nightshift_sim::place::{Place, run_at};
use nightshift_sim::run::{Finished, User, read_user};
use nightshift_sim::scenario::{FEWEST_DEVICES, Scenario, ScenarioError};
use nightshift_sim::{demo, make_base, make_data, table};
use proto::adapter::{AdapterSpec, Method};
use proto::plan::{Mode, RefreshPlan};
use proto::shown::{message, page};
use proto::training::{LocalOptimizer, ServerOptimizer, TrainingPlan};
use text::{Corpus, ReadOptions, UserText};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A whole federation on one machine.
///
/// Without a command: 64 made-up people, a small base that comes with the program, distributed noise. Exit
/// codes: 0 done, 2 wrong usage, 3 unusable base, text or plan, 4 cannot write, 5 the federation came to no end,
/// or to a wrong sum.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args, Clone)]
struct OutputArgs {
    /// Folder for the adapter, metrics, summary and report
    #[arg(long, default_value = "nightshift-run", global = true)]
    out: PathBuf,
    /// What is printed on stdout
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrivacyArg {
    Off,
    Central,
    Distributed,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum MethodArg {
    FrozenA,
    FrozenB,
    Alternate,
    Core,
    Both,
}

#[derive(Subcommand)]
enum Command {
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
enum BenchCommand {
    /// One secure sum without training: seconds, bytes and memory, and whether the sum is exact
    #[command(allow_negative_numbers = true)]
    Secagg(bench::Options),
}

#[derive(Args)]
struct RunArgs {
    /// A Hugging Face folder: config.json, model.safetensors, tokenizer.json
    #[arg(long)]
    base: PathBuf,
    /// A folder of JSONL files, one a user, `{"text": …}` a line
    #[arg(long)]
    data: PathBuf,
    /// Use the first so many users, by file name; all that a round takes where left out
    #[arg(long)]
    devices: Option<usize>,
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
    #[arg(long, conflicts_with_all = ["noise_multiplier", "clip", "adaptive_clip", "refresh_every", "classes"])]
    central: bool,
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
    public: Option<PathBuf>,
    /// Draws whose factors come from the public text; later ones are random
    #[arg(long, default_value_t = u32::MAX, hide_default_value = true, requires = "public")]
    public_epochs: u32,
}

/// What went wrong, by exit code.
enum Failure {
    Usage(anyhow::Error),
    Input(anyhow::Error),
    Output(anyhow::Error),
    Federation(anyhow::Error),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let vectors = engine::check_vectors().map_err(|e| Failure::Usage(e.into()));
    let result = vectors.and_then(|()| match cli.command {
        None => demonstrate(&cli.output),
        Some(Command::Run(args)) => run_on(&args, &cli.output),
        Some(Command::MakeData(options)) => make_data::run(&options, &cli.output.out, cli.output.seed)
            .map_err(|e| {
                Failure::Output(anyhow::anyhow!("cannot write into {}: {e}", cli.output.out.display()))
            }),
        Some(Command::MakeBase(options)) => {
            make_base::run(&options, &cli.output.out, cli.output.seed).map_err(|e| Failure::Output(e.into()))
        }
        Some(Command::Bench(BenchCommand::Secagg(options))) => measure(&options, &cli.output),
    });
    let (code, error) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => (2, error),
        Err(Failure::Input(error)) => (3, error),
        Err(Failure::Output(error)) => (4, error),
        Err(Failure::Federation(error)) => (5, error),
    };
    eprintln!("nightshift-sim: {}", message(&error.to_string()));
    ExitCode::from(code)
}

fn demonstrate(args: &OutputArgs) -> Result<(), Failure> {
    let output = Output::create(&args.out).map_err(|e| Failure::Output(e.into()))?;
    let folder = demo::write_base(&output.folder().join("base")).map_err(|e| Failure::Output(e.into()))?;
    let base = open(&folder)?;
    let scenario = demo::scenario(args.seed);
    let users = demo::users(&base, &scenario).map_err(|e| Failure::Input(e.into()))?;
    let public = Corpus::new(&base, &demo::public(args.seed)).map_err(|e| Failure::Input(e.into()))?;
    eprintln!(
        "{} made-up people fine-tune one adapter; their text stays on their devices, which add noise and masks \
         before anything is sent",
        users.len()
    );
    perform(Place::Federation, &scenario, &base, &users, Some(&public), output, args.format, &folder)
}

fn measure(options: &bench::Options, out: &OutputArgs) -> Result<(), Failure> {
    let report = bench::secagg(options, out.seed).map_err(|error| {
        let failure =
            if matches!(error, BenchError::Options(_)) { Failure::Usage } else { Failure::Federation };
        failure(error.into())
    })?;
    match out.format {
        Format::Text => print!("{}", page(&report.to_text())),
        Format::Json => {
            let json = serde_json::to_string_pretty(&report).map_err(|e| Failure::Output(e.into()))?;
            println!("{json}");
        }
    }
    if report.exact {
        return Ok(());
    }
    let survivors = report.survivors;
    Err(Failure::Federation(anyhow::anyhow!("the sum is not that of the {survivors} survivors' inputs")))
}

fn run_on(args: &RunArgs, out: &OutputArgs) -> Result<(), Failure> {
    let base = open(&args.base)?;
    let users = read_users(args, &base)?;
    let public = match &args.public {
        None => None,
        Some(path) => {
            let text = UserText::read(std::slice::from_ref(path), &ReadOptions::default())
                .map_err(|e| Failure::Input(e.into()))?;
            Some(Corpus::new(&base, &text).map_err(|e| Failure::Input(e.into()))?)
        }
    };
    let (mode, clip) = match args.privacy {
        PrivacyArg::Off => (Mode::Off, 100.0),
        PrivacyArg::Central => (Mode::Central, 1.0),
        PrivacyArg::Distributed => (Mode::Distributed, 1.0),
    };
    let (method, rate) = match args.method {
        MethodArg::FrozenA => (Method::FrozenA, 1e-2),
        MethodArg::FrozenB => (Method::FrozenB, 1e-2),
        MethodArg::Alternate => (Method::Alternate, 1e-2),
        MethodArg::Core => (Method::Core, 2e-2),
        MethodArg::Both => (Method::Both, 3e-3),
    };
    let mut scenario = Scenario {
        name: "simulation".to_owned(),
        devices: users.len(),
        versions: args.versions,
        method,
        rank: args.rank,
        alpha: args.alpha.unwrap_or(2.0 * args.rank as f32),
        refresh: None,
        public_epochs: args.public_epochs,
        projections: args.targets.clone(),
        classes: args.classes.clone(),
        least_trainers: args.least_trainers,
        training: TrainingPlan {
            local_steps: args.local_steps,
            batch_size: args.batch_size,
            sequence_len: args.sequence_len,
            learning_rate: args.learning_rate.unwrap_or(rate),
            warmup_steps: 0,
            max_grad_norm: 1.0,
            optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
        },
        server: ServerOptimizer::FedAvg { rate: 1.0 },
        mode,
        noise_multiplier: args.noise_multiplier,
        clip_norm: args.clip.unwrap_or(clip),
        adaptive_clip: args.adaptive_clip,
        delta: args.delta,
        corrupt_permille: 50,
        vanishing: 0,
        seed: out.seed,
    };
    scenario.refresh = refresh(args, &scenario.adapter(&base)).map_err(Failure::Usage)?;
    // What cannot work is said before the folder is touched.
    scenario.plan(&base, scenario.adapter(&base)).map_err(|e| Failure::Input(e.into()))?;
    let output = Output::create(&out.out).map_err(|e| Failure::Output(e.into()))?;
    let place = if args.central { Place::Central } else { Place::Federation };
    perform(place, &scenario, &base, &users, public.as_ref(), output, out.format, &args.base)
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

/// Runs the scenario and prints each version as it comes; writes what came of it to `folder`.
#[expect(clippy::too_many_arguments, reason = "each is a different thing, and none has a default")]
fn perform(
    place: Place,
    scenario: &Scenario,
    base: &Arc<Base>,
    users: &[User],
    public: Option<&Corpus>,
    mut output: Output,
    format: Format,
    folder: &Path,
) -> Result<(), Failure> {
    let public = public.map(|corpus| {
        let len = scenario.training.sequence_len;
        corpus.train(len).and(corpus.held_out(len))
    });
    let mut written = Ok(());
    let finished = run_at(place, scenario, base, users, public.as_ref(), |version| {
        if written.is_ok() {
            written = output.version(version);
        }
    })
    .map_err(|e| Failure::Federation(e.into()))?;
    written.map_err(|e| Failure::Output(e.into()))?;
    output
        .finish(&finished, &folder.display().to_string(), &scenario.name)
        .map_err(|e| Failure::Output(e.into()))?;
    print(&finished, output.folder(), format)
}

fn print(finished: &Finished, folder: &Path, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let json = serde_json::to_string_pretty(&finished.summary);
            println!("{}", json.map_err(|e| Failure::Output(e.into()))?);
        }
        Format::Text => {
            println!("{}", table::by_version(&finished.summary));
            for warning in &finished.summary.warnings {
                println!("{warning}");
            }
        }
    }
    let devices = finished.summary.devices;
    eprintln!("{} of {devices} devices hold the last version", finished.up_to_date);
    eprintln!("adapter, metrics, summary and report are in {}", folder.display());
    Ok(())
}

fn open(folder: &Path) -> Result<Arc<Base>, Failure> {
    Base::open(folder).map(Arc::new).map_err(|e| Failure::Input(e.into()))
}

/// The first users by file name. Lines that cannot be read are counted and reported; a user with no usable text
/// is left out and named.
fn read_users(args: &RunArgs, base: &Base) -> Result<Vec<User>, Failure> {
    let paths = jsonl_files(&args.data).map_err(Failure::Input)?;
    let wanted = args.devices.unwrap_or_else(|| paths.len().min(aggregation::MAX_COHORT));
    let (mut users, mut skipped) = (Vec::new(), 0);
    for path in &paths {
        if users.len() == wanted {
            break;
        }
        match read_user(base, path) {
            Ok((user, lines)) => {
                users.push(user);
                skipped += lines;
            }
            Err(error) => {
                eprintln!("{}", message(&format!("left out: the user of {}: {error}", path.display())));
            }
        }
    }
    if skipped > 0 {
        eprintln!("{skipped} lines could not be read, or look like secrets, and were skipped");
    }
    if args.devices.is_some() && users.len() < wanted {
        let (found, folder) = (users.len(), args.data.display());
        let error =
            anyhow::anyhow!("{wanted} devices were asked for, {folder} has {found} users with usable text");
        return Err(Failure::Input(error));
    }
    if users.len() < FEWEST_DEVICES {
        return Err(Failure::Input(ScenarioError::TooFewDevices { found: users.len() }.into()));
    }
    Ok(users)
}

/// The JSONL files of a folder, by name.
fn jsonl_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = std::fs::read_dir(folder)
        .map_err(|e| anyhow::anyhow!("cannot read the folder {}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
