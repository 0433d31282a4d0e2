//! `nightshift-sim`: a whole federation on one machine.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the command line's own output")]

mod cli;
mod populate;
mod read;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use cli::{BenchCommand, Cli, Command, DemoArgs, Format, OutputArgs, RunArgs};
use engine::Base;
use formats::name_of_base;
use nightshift_sim::bench::{self, BenchError};
use nightshift_sim::output::Output;
use nightshift_sim::place::{Place, run_at};
use nightshift_sim::record::{Files, Record};
use nightshift_sim::run::{Finished, News, compare};
use nightshift_sim::scenario::Scenario;
use nightshift_sim::summary::{RunSummary, VersionSummary};
use nightshift_sim::{make_base, make_data, table};
use populate::populate;
use proto::counted::counted;
use proto::plan::Mode;
use proto::shown::{message, page};
use read::{Read, Wanted};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};
use task::worth::{LEAST_SNR, changes, worth};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What went wrong, by exit code.
enum Failure {
    Usage(anyhow::Error),
    Input(anyhow::Error),
    Output(anyhow::Error),
    Federation(anyhow::Error),
    /// The user ended it: what is said is what was kept.
    Interrupted(anyhow::Error),
}

/// The exit code of what the user ended by ctrl-c, as shells have it: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let vectors = engine::check_vectors().map_err(|e| Failure::Usage(e.into()));
    let result = vectors.and_then(|()| match cli.command {
        None => demonstrate(&cli.demo, &cli.output),
        Some(_) if !cli.demo.is_empty() => {
            Err(Failure::Usage(anyhow::anyhow!("a command has its options after its name; see --help")))
        }
        Some(Command::Run(args)) if args.from.is_some() => repeat(&args, &cli.output),
        Some(Command::Run(args)) => run_on(&args, &cli.output),
        Some(Command::Population(args)) => populate(&args, &cli.output),
        Some(Command::MakeData(options)) => make_data::run(&options, &cli.output.out, cli.output.seed())
            .map_err(|e| {
                Failure::Output(anyhow::anyhow!("cannot write into {}: {e}", cli.output.out.display()))
            }),
        Some(Command::MakeBase(options)) => make_base::run(&options, &cli.output.out, cli.output.seed())
            .map_err(|e| Failure::Output(e.into())),
        Some(Command::Bench(BenchCommand::Secagg(options))) => measure(&options, &cli.output),
    });
    let (code, error) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => (2, error),
        Err(Failure::Input(error)) => (3, error),
        Err(Failure::Output(error)) => (4, error),
        Err(Failure::Federation(error)) => (5, error),
        Err(Failure::Interrupted(error)) => (INTERRUPTED, error),
    };
    eprintln!("nightshift-sim: {}", message(&error.to_string()));
    ExitCode::from(code)
}

fn demonstrate(demo: &DemoArgs, out: &OutputArgs) -> Result<(), Failure> {
    let scenario = demo.scenario(out.seed());
    check_folder(out, &scenario, None, demo.force)?;
    let output = Output::create(&out.out).map_err(|e| Failure::Output(e.into()))?;
    let read = Read::made_up(&scenario, &output.folder().join("base")).map_err(Failure::Input)?;
    check_noise(&scenario, &read.base, demo.accept_noise)?;
    let what = match scenario.mode {
        Mode::Off => "mask what they send, without any noise",
        Mode::Central => "mask what they send; the coordinator adds noise to the sum",
        Mode::Distributed => "add noise and masks before anything is sent",
    };
    eprintln!(
        "{} made-up people fine-tune one adapter; their text stays on their devices, which {what}",
        read.users.len()
    );
    perform(Place::Federation, &scenario, &read, output, out.format)
}

fn measure(options: &bench::Options, out: &OutputArgs) -> Result<(), Failure> {
    let report = bench::secagg(options, out.seed()).map_err(|error| {
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
    let (Some(base), Some(data)) = (args.base.clone(), args.data.clone()) else {
        return Err(Failure::Usage(anyhow::anyhow!("--base and --data are needed, or --from")));
    };
    let wanted = Wanted { devices: args.devices, newcomers: args.newcomers };
    let read =
        Read::of_files(Files { base, data, public: args.public.clone() }, wanted).map_err(Failure::Input)?;
    let scenario = args.scenario(&read.base, read.users.len(), out.seed()).map_err(|error| {
        let failure = if error.is_usage() { Failure::Usage } else { Failure::Input };
        failure(error.into())
    })?;
    // What cannot work is said before the folder is touched.
    check_noise(&scenario, &read.base, args.accept_noise || args.central)?;
    check_folder(out, &scenario, read.files.as_ref(), args.force)?;
    let output = Output::create(&out.out).map_err(|e| Failure::Output(e.into()))?;
    let place = if args.central { Place::Central } else { Place::Federation };
    perform(place, &scenario, &read, output, out.format)
}

/// Fails where the folder holds what this run would write over, and nobody said that it may.
fn check_folder(
    out: &OutputArgs,
    scenario: &Scenario,
    files: Option<&Files>,
    is_forced: bool,
) -> Result<(), Failure> {
    if is_forced {
        return Ok(());
    }
    Output::check(&out.out, scenario, files).map_err(|e| Failure::Output(e.into()))
}

/// Fails where there is no plan, or where its noise is more than its devices can teach and nobody said that it may be; what
/// would mend that is printed.
fn check_noise(scenario: &Scenario, base: &Base, is_accepted: bool) -> Result<(), Failure> {
    let plan = scenario.plan(base, scenario.adapter(base)).map_err(|e| Failure::Input(e.into()))?;
    let snr = worth(&plan).map_err(|e| Failure::Input(e.into()))?.snr;
    if snr >= LEAST_SNR || is_accepted {
        return Ok(());
    }
    for change in changes(&plan, LEAST_SNR) {
        // A cohort is all devices here, and the demonstration's goal follows from them.
        let options = match change.options.strip_prefix("--cohort ") {
            Some(cohort) if scenario.terms.is_some() => format!("--devices {cohort}"),
            Some(cohort) => format!("--devices {}", cohort.split(' ').next().unwrap_or(cohort)),
            // They are divided among the rounds, and each round is to be as large as it is.
            None => {
                match change.options.strip_prefix("--rounds ").and_then(|rounds| rounds.parse::<u32>().ok()) {
                    Some(rounds) => {
                        format!("--devices {} --rounds {rounds}", plan.round.cohort.saturating_mul(rounds))
                    }
                    None => change.options,
                }
            }
        };
        eprintln!(
            "{}",
            message(&format!(
                "{options}: signal to noise {:.2}, ε = {:.3}",
                change.worth.snr, change.worth.epsilon
            ))
        );
    }
    Err(Failure::Input(anyhow::anyhow!(
        "a signal to noise of {snr:.2} is under {LEAST_SNR}: versions gather noise as fast as what devices teach them, or \
         faster; any one line above comes over that, which is no promise that the model gets better, or say \
         --accept-noise"
    )))
}

/// Repeats a run from its summary. What it reads has to be what the record names.
fn repeat(args: &RunArgs, out: &OutputArgs) -> Result<(), Failure> {
    let record = args.from.as_deref().map_or_else(|| anyhow::bail!("no record"), recorded);
    let record = record.map_err(Failure::Input)?;
    if record.program != env!("CARGO_PKG_VERSION") {
        eprintln!(
            "{}",
            message(&format!("the record is of version {}; another may give other numbers", record.program))
        );
    }
    let scenario = record.scenario.clone();
    check_folder(out, &scenario, record.files.as_ref(), args.force)?;
    let output = Output::create(&out.out).map_err(|e| Failure::Output(e.into()))?;
    let read = match &record.files {
        None => Read::made_up(&scenario, &output.folder().join("base")),
        Some(files) => {
            let files = Files {
                base: args.base.clone().unwrap_or_else(|| files.base.clone()),
                data: args.data.clone().unwrap_or_else(|| files.data.clone()),
                public: args.public.clone().or_else(|| files.public.clone()),
            };
            let wanted = Wanted { devices: Some(scenario.devices), newcomers: scenario.newcomers };
            // The record stays as it was, wherever the files are now.
            Read::of_files(files, wanted).map(|read| Read { files: record.files.clone(), ..read })
        }
    };
    let read = read.map_err(Failure::Input)?;
    let public = read.public(scenario.training.sequence_len);
    let found = read.record(&scenario, public.as_ref());
    record.check(&found).map_err(|e| Failure::Input(e.into()))?;
    perform(Place::Federation, &scenario, &read, output, out.format)
}

fn recorded(path: &Path) -> anyhow::Result<Record> {
    let json = std::fs::read(path).map_err(|e| anyhow::anyhow!("cannot read {}: {e}", path.display()))?;
    let summary: RunSummary = serde_json::from_slice(&json)
        .map_err(|e| anyhow::anyhow!("{} is no summary of this program: {e}", path.display()))?;
    summary.record.ok_or_else(|| anyhow::anyhow!("{} has no record of a federation", path.display()))
}

/// Runs the scenario, prints what came of it and writes it to a folder.
fn perform(
    place: Place,
    scenario: &Scenario,
    read: &Read,
    mut output: Output,
    format: Format,
) -> Result<(), Failure> {
    let stop = stop_on_ctrl_c().map_err(|e| Failure::Output(e.into()))?;
    let public = read.public(scenario.training.sequence_len);
    let inputs = read.inputs(public.as_ref());
    let base = name_of_base(&read.folder).map_err(|e| Failure::Output(e.into()))?;
    let (mut written, shows_bar) = (Ok(()), std::io::stderr().is_terminal());
    let mut finished = run_at(&stop, place, scenario, &inputs, |news| {
        if let News::Version(version) = news
            && !shows_bar
        {
            eprintln!("{}", progress(version, scenario.versions));
        }
        if written.is_ok() {
            written = match news {
                News::Version(version) => output.version(version),
                News::Adapter(adapter, parameters) => output.adapter(adapter, parameters, &base),
            };
        }
        // What cannot be kept is not made.
        if written.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
    })
    .map_err(|e| Failure::Federation(e.into()))?;
    written.map_err(|e| Failure::Output(e.into()))?;
    let (interrupted, done) = (finished.summary.interrupted, finished.summary.versions.len());
    if interrupted && done == 0 {
        let why = "stopped before the first version was made: there is nothing to keep";
        return Err(Failure::Interrupted(anyhow::anyhow!(why)));
    }
    if let Some(record) = &mut finished.summary.record {
        record.files.clone_from(&read.files);
    }
    // All that is known is there before anything more is trained.
    output.finish(&finished, &scenario.name).map_err(|e| Failure::Output(e.into()))?;
    if scenario.yardsticks && !interrupted {
        eprintln!(
            "the adapter is written; what it is compared with is trained now, and ctrl-c leaves that out"
        );
    }
    let is_compared = compare(&stop, scenario, &inputs, &mut finished);
    let is_compared = is_compared.map_err(|e| Failure::Federation(e.into()))?;
    output.finish(&finished, &scenario.name).map_err(|e| Failure::Output(e.into()))?;
    print(&finished, output.folder(), format)?;
    if finished.summary.stopped_when_flat {
        let versions = scenario.versions;
        let why =
            format!("stopped after version {done} of {versions}: the last gained nothing beyond its noise");
        eprintln!("{}", message(&why));
    }
    let left_out = if is_compared { "" } else { "; it is not compared with what is trained for comparison" };
    if interrupted {
        let why = format!("stopped after version {done} of {}, which is kept{left_out}", scenario.versions);
        return Err(Failure::Interrupted(anyhow::anyhow!(why)));
    }
    if stop.load(Ordering::Relaxed) {
        let why = format!("stopped when all versions were made; the last is kept{left_out}");
        return Err(Failure::Interrupted(anyhow::anyhow!(why)));
    }
    Ok(())
}

/// A line for whoever sees no bar.
fn progress(version: &VersionSummary, of: u32) -> String {
    format!(
        "version {} of {of}: held-out loss {}, ε = {}, {:.1} s",
        version.version,
        table::loss(version.loss),
        table::epsilon(version.epsilon),
        version.secs
    )
}

/// What is set when the user or the system asks the program to end; asked a second time, it ends at once.
fn stop_on_ctrl_c() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, or the first one would end it.
        register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&stop))?;
        register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn print(finished: &Finished, folder: &Path, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let json = serde_json::to_string_pretty(&finished.summary);
            println!("{}", json.map_err(|e| Failure::Output(e.into()))?);
        }
        Format::Text => {
            println!("{}", table::whole(&finished.summary));
            for warning in &finished.summary.warnings {
                println!("{warning}");
            }
        }
    }
    let devices = finished.summary.devices;
    eprintln!(
        "{} of {} the last version",
        finished.up_to_date,
        counted(devices, "device holds", "devices hold")
    );
    eprintln!("adapter, metrics, summary and report are in {}", folder.display());
    Ok(())
}
