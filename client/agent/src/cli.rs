//! The command line of `nightshift-agent`.

mod adapter;
mod asked;
mod attest;
mod bench;
mod check;
mod configuration;
mod daemon;
mod doctor;
mod enroll;
mod enrollment_log;
mod export;
mod known_tasks;
mod ledger;
mod local;
mod service;
mod spent;
mod status;
mod time;
mod token;
mod train;
mod try_out;
mod will;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use client::adapter_files::AdapterFileError;
use client::enrollment::EnrollmentError;
use client::store::{DeviceStoreError, StateError};
use client::{Device, ErrorKind, Finished};
use engine::check_vectors;
use proto::files::FileError;
use serde::Serialize;
use shell::cli::{Format, block_on};
use shell::notify::Notifier;
use shell::{home, logs, stop};

use crate::bases;
use crate::config::{Config, address};
use crate::monitor::{BusAddress, Sources};
use crate::trainer::inside::{self, TrainerArgs};
use crate::trainer::process;
use asked::Asked;
use configuration::configuration;

/// The exit code of what its user ended, as shells have it for a signal.
const INTERRUPTED: u8 = 130;

/// How often a daemon looks whether its folder is free, and how long it waits in between.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// The program's name.
const NAME: &str = "nightshift-agent";

/// A device that fine-tunes an adapter on its user's text and contributes it without showing it.
///
/// Exit codes: 0 done, 2 wrong usage, 3 unusable configuration, base or text, 4 the device's own state or disk,
/// 5 the coordinator cannot be reached or does not know this device, 6 the device's own limits forbid it, 7 a
/// condition does not hold, 130 its user ended it before its end.
#[derive(Parser)]
#[command(name = NAME, bin_name = NAME, version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Of every command")]
struct Common {
    /// The configuration; without it the user's own, as ~/.config/nightshift/agent.toml, or for root the system's,
    /// /etc/nightshift/agent.toml, and where there is none every key at its default
    #[arg(long, global = true, value_name = "FILE", value_parser = path())]
    config: Option<PathBuf>,
    /// Instead of the configuration's `state_dir`
    #[arg(long, global = true, value_name = "DIR", value_parser = path())]
    state_dir: Option<PathBuf>,
    /// Instead of the configuration's `base`
    #[arg(long, global = true, value_name = "DIR", value_parser = path())]
    base: Option<PathBuf>,
    /// Instead of the configuration's `data`; may be repeated
    #[arg(long, global = true, value_name = "PATH", value_parser = path())]
    data: Vec<PathBuf>,
    /// What is printed on stdout
    #[arg(long, global = true, value_parser = format(), default_value = "text")]
    format: Format,
}

/// The words of [`Format`], which say what they are and are listed in one line.
fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["text", "json"]).try_map(|word| Format::from_str(&word, false))
}

/// A path, with the home folder in place of a `~` that a shell left where it was, as in `--data=~/notes`.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| home::expanded(&path))
}

#[derive(Subcommand)]
enum LogCommand {
    /// Read all of the log in which the enrollment authority writes every device, and say whether it is as it should be
    ///
    /// It reads every entry, sees that they are those of the signed head, that the log goes on from what this device saw of
    /// it last, and that this device is in it once. It exits with 5 where something is wrong.
    Verify,
    /// Forget what this device saw of that log
    ///
    /// A device takes part in nothing any more whose log does not go on from what it saw. Where its operator says why, such
    /// as that the coordinator came back from a backup, and you believe it, this lets it go by the log that there is now.
    Forget,
}

#[derive(Subcommand)]
enum Command {
    /// Become one of a coordinator's devices
    Enroll {
        #[command(flatten)]
        token: token::TokenArgs,
        /// Where the coordinator is, if not where the token says
        #[arg(long, value_name = "HOST:PORT", value_parser = address)]
        coordinator: Option<String>,
        /// Enroll although the folder holds a device already: it stays the device that it is where the coordinator is the
        /// same, and leaves the other one where it is not
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        attest: attest::AttestArgs,
    },
    /// Take part
    Run {
        /// End when one round with this device in it was published, or the task is over. It waits for work and for others
        /// to join a round; without text, where the coordinator answers nothing for half a minute, and where no further try
        /// would mend what went wrong, it ends
        #[arg(long)]
        once: bool,
        /// Train whatever the conditions are, because a person at this machine wants it
        #[arg(long)]
        override_conditions: bool,
        /// Read the machine's files below this folder, and no bus: for tests
        #[arg(long, value_name = "DIR", hide = true)]
        machine: Option<PathBuf>,
    },
    /// Say what this device does now, what next, and what it would take for it to train
    Status,
    /// Look at everything that may keep this device from taking part, and say what to do about it
    ///
    /// It makes nothing, and works with and without an agent that runs. It exits with 0 where nothing is at fault, else with
    /// the code of the first fault; warnings are none.
    Doctor,
    /// Say what the machine is doing, and which conditions keep the device from training and from the network
    Conditions {
        /// Again every second
        #[arg(long)]
        watch: bool,
    },
    /// Neither train nor use the network for a while, or until it is resumed
    Pause {
        /// For how long, as 90m, 2h or 1d; without it until `resume`
        #[arg(value_name = "SPAN", value_parser = time::parse_span)]
        span: Option<Duration>,
    },
    /// End a pause
    Resume,
    /// Leave a task and delete what is on this disk of it, but for the ledger
    Forget {
        /// The task: its id, the beginning of it, or its name
        task: String,
        /// Take part in it again
        #[arg(long)]
        undo: bool,
    },
    /// List the tasks that this device has to do with
    Tasks,
    /// Say what this device ever contributed, and what that cost
    Ledger {
        /// Walk the chain of hashes on disk
        #[arg(long)]
        verify: bool,
    },
    /// Say what this device did, or look at the log of its enrollment authority
    Log {
        #[command(subcommand)]
        what: Option<LogCommand>,
    },
    /// Look at the text that would be trained on
    #[command(subcommand)]
    Data(DataCommand),
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
    /// Train for a daemon, which starts this itself
    #[command(hide = true, name = process::COMMAND)]
    Trainer(TrainerArgs),
}

#[derive(Subcommand)]
enum DataCommand {
    /// Say what each file is taken for, what is learned of it, and what is left out and why
    Check(check::CheckArgs),
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
    // Before anything else: it ends with the daemon that started it, and logs nothing.
    if let Command::Trainer(args) = cli.command {
        return inside::main(args);
    }
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
    if matches!(cli.command, Command::Doctor) {
        return doctor::doctor(&cli.common);
    }
    let config = configuration(&cli.common).map_err(failed(3))?;
    match &cli.command {
        Command::Train(args) => {
            let report = train::train(&config.base, &config.data, args.text.reading(&config), args);
            let report = report.map_err(|error| {
                // A disk that is full, or a folder that cannot be written, is none of the base's or the text's.
                let of_adapter = matches!(error.downcast_ref(), Some(AdapterFileError::File(_)));
                let is_disk = of_adapter || error.is::<FileError>() || error.is::<std::io::Error>();
                let code = if is_disk { 4 } else { 3 };
                failed(code)(error)
            })?;
            print(format, &report, || report.text())?;
            report.stopped().map_or(Ok(()), |advice| Err(failed(INTERRUPTED)(anyhow::anyhow!(advice))))
        }
        Command::Eval(args) => {
            let measured = try_out::eval(&config.base, &config.data, args.text.reading(&config), args)
                .map_err(failed(3))?;
            print(format, &measured, || measured.text())
        }
        Command::Generate(args) => {
            let written = try_out::generate(&config.base, args).map_err(failed(3))?;
            print(format, &written, || written.text())
        }
        Command::Status => status::status(&config, format),
        Command::Conditions { watch } => status::conditions(&config, *watch, format),
        Command::Pause { span } => will::pause(&config, *span, format),
        Command::Resume => will::resume(&config, format),
        Command::Forget { task, undo } => will::forget(&config, task, *undo, format),
        Command::Tasks => ledger::tasks(&config, format),
        Command::Ledger { verify } => ledger::ledger(&config, *verify, format),
        Command::Log { what: None } => status::log(&config, format),
        Command::Log { what: Some(what) } => enrollment_log::run(&config, what, format),
        Command::Data(DataCommand::Check(args)) => {
            let base = check::base(&cli.common, &config);
            check::check(&config, base, args, format)
        }
        Command::Export(args) => {
            let mut sources = config.sources();
            if cli.common.base.is_some() {
                sources.truncate(1);
            }
            let here = bases::fetched(&sources, &config.state_dir);
            let task = args.task().map(|named| Asked::open(&config)?.task(named)).transpose()?;
            let exported = export::export(args, task, &here, &config.state_dir)
                .map_err(|error| failed(error.code())(error.into()))?;
            print(format, &exported, || exported.text())
        }
        Command::Enroll { token, coordinator, again, attest } => {
            let tpm = attest.read().map_err(failed(3))?;
            wait(enroll::enroll(&config, token, (coordinator.as_deref(), *again, tpm.as_ref()), format))
        }
        Command::Run { once, override_conditions, machine } => {
            let sources = machine.as_ref().map_or_else(Sources::of_this_machine, |root| Sources {
                root: root.clone(),
                bus: BusAddress::None,
                ..Sources::of_this_machine()
            });
            wait(run(config, *once, *override_conditions, sources, format))
        }
        // Done above, without a device.
        Command::Bench(_) | Command::Doctor | Command::Service(_) | Command::Trainer(_) => Ok(()),
    }
}

/// Runs what talks to a coordinator to its end.
fn wait(talk: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on(Some(2), talk).unwrap_or_else(|error| Err(failed(4)(error.into())))
}

fn print<T: Serialize>(format: Format, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
    shell::cli::print(format, value, text).map_err(|error| failed(4)(error.into()))
}

fn device(config: &Config) -> Result<Device, Failure> {
    let device = Device::open(&config.state_dir).map_err(device_failure)?;
    let device = device.with_cache_mib(config.artifact_cache_mib).with_installed_mib(config.installed_mib);
    Ok(device.with_proxy(config.proxy()))
}

/// The device for a daemon. A command that looks into the folder holds it for a moment, and is no reason not to start.
async fn opened(config: &Config) -> Result<Device, Failure> {
    for _ in 0..LOOKS {
        match Device::open(&config.state_dir) {
            Err(error) if is_in_use(&error) => tokio::time::sleep(BETWEEN_LOOKS).await,
            other => {
                drop(other);
                break;
            }
        }
    }
    device(config)
}

/// Whether another process has the folder open now.
fn is_in_use(error: &client::Error) -> bool {
    matches!(error, client::Error::Store(DeviceStoreError::State(StateError::InUse { .. })))
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

async fn run(
    config: Config,
    once: bool,
    override_conditions: bool,
    sources: Sources,
    format: Format,
) -> Result<(), Failure> {
    let stop = stop::on_signal().map_err(|error| failed(4)(error.into()))?;
    let manager = Notifier::from_env().map_err(|error| failed(2)(error.into()))?;
    let device = opened(&config).await?;
    let Some(name) = device.status().map_err(device_failure)?.device else {
        return Err(device_failure(EnrollmentError::NotEnrolled.into()));
    };
    let daemon = daemon::Daemon::new(&config, (once, override_conditions), sources, &stop);
    let says = format!("takes part as {name}");
    let finished = daemon.run(device, &manager, &says).await?;
    let value = match &finished {
        Finished::Contributed(published) => {
            serde_json::json!({ "finished": "contributed", "published": published })
        }
        Finished::NoMoreWork => serde_json::json!({ "finished": "no_more_work" }),
        Finished::NewBase(base) => serde_json::json!({ "finished": "new_base", "base": base }),
        Finished::Stopped => serde_json::json!({ "finished": "stopped" }),
    };
    print(format, &value, || finished.to_string())
}
