//! The command line of `nightshift-agent`.

mod adapter;
mod bench;
mod export;
mod local;
mod service;
mod token;
mod train;
mod try_out;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use client::enrollment::EnrollmentError;
use client::store::{DeviceStoreError, Entry};
use client::transport::TransportError;
use client::{Device, DeviceMonitor, ErrorKind, Finished, InProcess, Settings};
use engine::{Engine, check_vectors};
use proto::ids::{TaskId, Timestamp};
use serde::Serialize;
use session::conditions::{Judgment, Purpose, judge};
use session::spending::Spending;
use shell::cli::{Format, block_on, note};
use shell::notify::Notifier;
use shell::{logs, stop};

use crate::config::Config;
use crate::monitor::ThisMachine;

/// The program's name.
const NAME: &str = "nightshift-agent";

/// A device that fine-tunes an adapter on its user's text and contributes it without showing it.
///
/// Exit codes: 0 done, 2 wrong usage, 3 unusable configuration, base or text, 4 the device's own state or disk,
/// 5 the coordinator cannot be reached or does not know this device, 6 the device's own limits forbid it, 7 a
/// condition does not hold.
#[derive(Parser)]
#[command(name = NAME, version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Common {
    /// The configuration; without a file, every key is at its default
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Instead of the configuration's `state_dir`
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Instead of the configuration's `base`
    #[arg(long, global = true, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Instead of the configuration's `data`; may be repeated
    #[arg(long, global = true, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// What is printed on stdout
    #[arg(long, global = true, value_parser = format(), default_value = "text")]
    format: Format,
}

/// The words of [`Format`], which say what they are and are listed in one line.
fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["text", "json"]).try_map(|word| Format::from_str(&word, false))
}

#[derive(Subcommand)]
enum Command {
    /// Become one of a coordinator's devices
    Enroll {
        #[command(flatten)]
        token: token::TokenArgs,
        /// Where the coordinator is, if not where the token says
        #[arg(long, value_name = "HOST:PORT")]
        coordinator: Option<String>,
    },
    /// Take part
    Run {
        /// End when one round with this device in it was published, or the task is over
        #[arg(long)]
        once: bool,
        /// Train whatever the conditions are, because a person at this machine wants it
        #[arg(long)]
        override_conditions: bool,
    },
    /// Say which conditions keep the device from training
    Conditions,
    /// Say what this device ever contributed
    Ledger {
        /// Walk the chain of hashes on disk
        #[arg(long)]
        verify: bool,
    },
    /// Say what this device is and holds
    Status,
    /// Let the system start the agent
    Service(service::ServiceArgs),
    /// Measure how fast a model of this shape trains here, with random weights; --config names its config.json
    Bench(bench::BenchArgs),
    /// Train an adapter on this machine's text alone, without any federation
    #[command(allow_negative_numbers = true)]
    Train(train::TrainArgs),
    /// Measure a base, or an adapter of it, on text
    Eval(try_out::EvalArgs),
    /// Let a base, or an adapter of it, write
    #[command(allow_negative_numbers = true)]
    Generate(try_out::GenerateArgs),
    /// Write an adapter, or the base with an adapter in it, for other programs
    Export(export::ExportArgs),
}

struct Failure {
    code: u8,
    error: anyhow::Error,
}

fn failed(code: u8) -> impl Fn(anyhow::Error) -> Failure {
    move |error| Failure { code, error }
}

/// All that can be typed, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        // It would be printed as an argument that is not known.
        Err(_) if token::is_among(&args) => {
            let way = "a token is given by --token-file FILE, or by --token - on standard input";
            return shell::cli::failed(NAME, &way, 2);
        }
        Err(error) => return shell::cli::usage(&error),
    };
    logs::start("NIGHTSHIFT_LOG", "info");
    // Before anything that is secret is read.
    if let Err(error) = proto::dumps::forbid() {
        tracing::warn!("{error}; what this program holds could be written to disk");
    }
    let done = match check_vectors() {
        Ok(()) => perform(&cli),
        Err(error) => Err(failed(2)(error.into())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, error }) => shell::cli::failed(NAME, &error, code),
    }
}

fn perform(cli: &Cli) -> Result<(), Failure> {
    let format = cli.common.format;
    if let Command::Bench(args) = &cli.command {
        let Some(path) = &cli.common.config else {
            return Err(failed(2)(anyhow::anyhow!("bench needs --config with the config.json of a model")));
        };
        let measured = bench::bench(path, args).map_err(failed(3))?;
        return print(format, &measured, || measured.text());
    }
    if let Command::Service(args) = &cli.command {
        return service::service(&cli.common, args);
    }
    let config = configuration(&cli.common).map_err(failed(3))?;
    match &cli.command {
        Command::Train(args) => {
            let report =
                train::train(&config.base, &config.data, config.reading(), args).map_err(failed(3))?;
            print(format, &report, || report.text())
        }
        Command::Eval(args) => {
            let measured =
                try_out::eval(&config.base, &config.data, config.reading(), args).map_err(failed(3))?;
            print(format, &measured, || measured.text())
        }
        Command::Generate(args) => {
            let written = try_out::generate(&config.base, args).map_err(failed(3))?;
            print(format, &written, || written.text())
        }
        Command::Bench(_)
        | Command::Export(_)
        | Command::Enroll { .. }
        | Command::Run { .. }
        | Command::Conditions
        | Command::Ledger { .. }
        | Command::Service(_)
        | Command::Status => federate(cli, config),
    }
}

/// The commands of a device of a federation.
fn federate(cli: &Cli, config: Config) -> Result<(), Failure> {
    let result = block_on(Some(2), async {
        match &cli.command {
            Command::Enroll { token, coordinator } => {
                enroll_device(&config, token, coordinator.as_deref(), cli.common.format).await
            }
            Command::Run { once, override_conditions } => {
                run(config, *once, *override_conditions, cli.common.format).await
            }
            Command::Conditions => conditions(&config, cli.common.format).await,
            Command::Ledger { verify } => ledger(&config, *verify, cli.common.format),
            Command::Status => status(&config, cli.common.format),
            Command::Export(args) => {
                let exported = export::export(args, &config.base, &config.state_dir)
                    .map_err(|error| failed(error.code())(error.into()))?;
                print(cli.common.format, &exported, || exported.text())
            }
            // Done without the device's state.
            Command::Bench(_)
            | Command::Train(_)
            | Command::Eval(_)
            | Command::Generate(_)
            | Command::Service(_) => Ok(()),
        }
    });
    result.unwrap_or_else(|error| Err(failed(4)(error.into())))
}

fn configuration(common: &Common) -> anyhow::Result<Config> {
    let mut config = match &common.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    if let Some(folder) = &common.state_dir {
        config.state_dir.clone_from(folder);
    }
    if let Some(folder) = &common.base {
        config.base.clone_from(folder);
    }
    if !common.data.is_empty() {
        config.data.clone_from(&common.data);
    }
    Ok(config)
}

fn print<T: Serialize>(format: Format, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
    shell::cli::print(format, value, text).map_err(|error| failed(4)(error.into()))
}

fn device(config: &Config) -> Result<Device, Failure> {
    let device = Device::open(&config.state_dir).map_err(device_failure)?;
    Ok(device.with_cache_mib(config.artifact_cache_mib))
}

fn device_failure(error: client::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::Input => 3,
        ErrorKind::Device => 4,
        ErrorKind::Coordinator => 5,
        ErrorKind::Limits => 6,
        ErrorKind::Conditions => 7,
    };
    Failure { code, error: error.into() }
}

async fn enroll_device(
    config: &Config,
    token: &token::TokenArgs,
    address: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    let token = token.read().map_err(failed(2))?;
    let address = address.or(config.coordinator.as_deref());
    let enrolled = device(config)?.enroll(&token, address).await;
    let device = enrolled.map_err(|error| {
        let turned_away = matches!(
            error,
            client::Error::Enrollment(EnrollmentError::Transport(TransportError::Rejected(_)))
        );
        let Failure { code, error } = device_failure(error);
        let error = if turned_away { anyhow::anyhow!("the token was not accepted: {error}") } else { error };
        Failure { code, error }
    })?;
    print(format, &serde_json::json!({ "device": device }), || format!("enrolled as {device}"))
}

async fn run(config: Config, once: bool, override_conditions: bool, format: Format) -> Result<(), Failure> {
    if override_conditions {
        note(
            "conditions are overridden: this device trains even on battery, in use, or hot, because you said so",
        );
    }
    let device = device(&config)?;
    let reading = config.reading();
    let compute = config.compute().map_err(|error| failed(3)(error.into()))?;
    tracing::info!(device = %compute.backend, "trains on");
    let options = config.dtype.options();
    let base = local::read(&config.base, options, compute, |_, _| 0).map_err(failed(3))?;
    let engine = Engine::new(Arc::new(base)).with_compute(compute);
    let Some(name) = device.status().map_err(device_failure)?.device else {
        return Err(device_failure(EnrollmentError::NotEnrolled.into()));
    };
    let trainer = InProcess::new(engine, config.data, reading).map_err(|error| {
        device.forget_training("there is no text any more");
        failed(3)(error.into())
    })?;
    let settings = Settings {
        coordinator: config.coordinator,
        policy: config.policy,
        conditions: config.conditions,
        override_conditions,
        once,
    };
    let stop = stop::on_signal().map_err(|error| failed(4)(error.into()))?;
    let manager = Notifier::from_env().map_err(|error| failed(2)(error.into()))?;
    let running = Box::pin(device.run(trainer, ThisMachine, settings, stop.clone()));
    let says = format!("takes part as {name}");
    let finished = manager.served(&says, &stop, || std::future::ready(()), running).await;
    let finished = finished.map_err(device_failure)?;
    let value = match &finished {
        Finished::Contributed(published) => {
            serde_json::json!({ "finished": "contributed", "published": published })
        }
        Finished::NoMoreWork => serde_json::json!({ "finished": "no_more_work" }),
        Finished::Stopped => serde_json::json!({ "finished": "stopped" }),
    };
    print(format, &value, || finished.to_string())
}

async fn conditions(config: &Config, format: Format) -> Result<(), Failure> {
    let snapshot = tokio::task::spawn_blocking(|| ThisMachine.look()).await;
    let snapshot = snapshot.map_err(|error| failed(4)(error.into()))?;
    let judged = judge(&snapshot, &config.conditions, Purpose::Start);
    print(format, &judged, || {
        let row = |row: &Judgment| {
            let state = if row.blocking { "blocks" } else { "holds" };
            let name = format!("{:?}", row.condition).to_lowercase();
            format!("{name:10} {state:7} {:28} wanted: {:34} from {}", row.value, row.threshold, row.source)
        };
        judged.iter().map(row).collect::<Vec<_>>().join("\n")
    })
}

fn ledger(config: &Config, verify: bool, format: Format) -> Result<(), Failure> {
    let device = device(config)?;
    let store = device.store();
    let largest_delta = config.policy.largest_delta;
    if verify {
        store.verify().map_err(|error: DeviceStoreError| failed(4)(error.into()))?;
    }
    let entries = store.entries();
    print(format, &entries, || {
        let mut lines = vec![format!(
            "{:32}  {:>7}  {:>6}  {:>10}  {:>8}  epsilon so far",
            "task", "version", "round", "bytes", "examples"
        )];
        let mut spending = Spending::new();
        for entry in entries {
            match entry {
                Entry::Charge { unix_millis, charge } => {
                    spending.add(charge, Timestamp(*unix_millis));
                    let epsilon = epsilon(&spending, (charge.task, charge.delta));
                    lines.push(format!(
                        "{}  {:>7}  {:>6}  {:>10}  {:>8}  {epsilon}",
                        charge.task, charge.version, charge.round, charge.bytes, charge.examples
                    ));
                }
                Entry::FoundAtCoordinator { unix_millis, found } => {
                    spending.add_found(found, Timestamp(*unix_millis));
                    let epsilon = epsilon(&spending, (found.task, found.delta));
                    let what = format!("{} found at the coordinator", found.times);
                    lines.push(format!("{}  {what:>37}  {epsilon}", found.task));
                }
                Entry::Signature(_) | Entry::Answer(_) => {}
            }
        }
        if let Ok(delta) = privacy::Delta::new(largest_delta) {
            let total = spending.epsilon_in_total(delta);
            let total = if total.is_finite() { format!("{total:.3}") } else { "unbounded".to_owned() };
            lines.push(format!("all tasks together: epsilon {total} at δ = {largest_delta:e}"));
            lines.push(privacy::accountant::ADJACENCY.to_owned());
        }
        if spending.in_total() == 0 {
            lines = vec!["this device has not contributed anything".to_owned()];
        }
        if verify {
            lines.push(format!("the chain of {} records is whole", entries.len()));
        }
        lines.join("\n")
    })
}

/// By this device's own accountant, from its own records.
fn epsilon(spending: &Spending, (task, delta): (TaskId, f64)) -> String {
    match privacy::Delta::new(delta).map(|delta| spending.epsilon(task, delta)) {
        Ok(epsilon) if epsilon.is_finite() => format!("{epsilon:.3} at δ = {delta:e}"),
        Ok(_) => "unbounded: a round had no noise of the devices' own".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn status(config: &Config, format: Format) -> Result<(), Failure> {
    let status = device(config)?.status().map_err(device_failure)?;
    print(format, &status, || {
        let device =
            status.device.map_or("not enrolled".to_owned(), |device| format!("enrolled as {device}"));
        let installed = status.installed.as_ref().map_or("holds no version yet".to_owned(), |published| {
            format!("holds version {} of task {}", published.version, published.task)
        });
        let declined =
            status.declined.as_ref().map_or(String::new(), |declined| format!("\n{}", declined.why));
        let found = match status.charges_found_at_coordinator {
            0 => String::new(),
            found => format!(
                "\n{found} rounds were charged that this folder did not know of: it was restored from a backup, or \
                 the coordinator errs"
            ),
        };
        format!("{device}\n{installed}{declined}{found}")
    })
}
