//! What people type: `nightshift-authority`. Data goes to stdout, everything else to stderr. Exit codes are those of
//! [`CliError::code`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};
use proto::ids::DeviceId;
use serving::cli::{CliError, LOGGED, bind, program};
use shell::cli::{Format, note};
use shell::logs::{self, LogFormat};
use shell::notify::Notifier;
use shell::stop;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::keeper::KeeperError;
use crate::kept_log::LogError;
use crate::server::{self, Server, ServerError};

mod commands;
mod until;
mod witnessing;

use until::Until;

/// What `--help` says of exit codes.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 internal failure; 2 wrong usage; 3 wrong configuration or input; 4 store \
or disk; 5 port in use, or the authority does not run; 6 refused by the authority.";

/// Says which devices exist, apart from the coordinator that they work for.
#[derive(Debug, Parser)]
#[command(name = "nightshift-authority", version, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration; deploy/authority.toml is a sample with every key.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/nightshift/authority.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority in its folder: its key, its certificates, and an operator's. Prints the key that verifies what it states.
    Init,
    /// Serve coordinators and operators, in the foreground.
    Serve,
    /// Make a bootstrap token: with it one device may enroll, once. Prints the token and nothing else.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Token {
        /// Whom it is for.
        #[arg(long, required = true)]
        label: Option<String>,
        /// How long it can be used: so many minutes, hours or days, such as `90m`, `24h` or `7d`.
        #[arg(long, value_name = "TIME", default_value = "24h")]
        expires_in: Until,
        /// The coordinator that the device is for, where there are several: the name of its file.
        #[arg(long, value_name = "NAME", default_value = "")]
        coordinator: String,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        #[command(subcommand)]
        command: Option<TokenCommand>,
    },
    /// What is known of devices.
    Device {
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// Make the file by which a coordinator asks this authority. One that was made for this name before is worthless then.
    CoordinatorFile {
        /// The file to write, mode 0600.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// What the coordinator is called: 1 to 64 of a-z, 0-9, `.`, `_`, `-`.
        #[arg(long, default_value = "coordinator")]
        name: String,
    },
    /// Show how the log of what was stated is, and who signs it: its key, its heads, its witnesses.
    Log {
        /// How to print.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Be a witness of logs of others: sign heads that go on from all that was seen. It has a folder and a key of its own, and
    /// reads no configuration.
    Witness {
        #[command(subcommand)]
        command: witnessing::WitnessCommand,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// List the bootstrap tokens, the newest first; their secrets are nowhere but where they were printed.
    Ls {
        /// How to print.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Make a token worthless that nobody has used yet.
    Revoke {
        /// The token: its id, the beginning of it, or its label.
        token: String,
    },
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// List all devices, in the order of their ids.
    Ls {
        /// How to print.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Vouch for a device no more, for ever; its coordinators are told.
    Revoke {
        /// The device's id.
        device: DeviceId,
    },
}

/// All that can be typed, for manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the program with these arguments, its name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    program(arguments, perform)
}

async fn perform(Arguments { config: path, command }: Arguments) -> Result<(), CliError> {
    if let Command::Witness { command } = command {
        // Whoever is a witness has no configuration of an authority.
        return witnessing::perform(command).await;
    }
    let config = Config::load(&path).map_err(|error| {
        CliError::Input(format!("{error}; deploy/authority.toml shows every key with its default"))
    })?;
    match command {
        Command::Init => init(config).await,
        Command::Serve => serve(config, &path).await,
        Command::Token { label, expires_in, coordinator, format, command: None } => {
            // Clap asks for it where no other command is given.
            let label = label.ok_or_else(|| CliError::Input("say --label".to_owned()))?;
            commands::make_token(&config, (label, expires_in.secs(), coordinator), format).await
        }
        Command::Token { command: Some(TokenCommand::Ls { format }), .. } => {
            commands::list_tokens(&config, format).await
        }
        Command::Token { command: Some(TokenCommand::Revoke { token }), .. } => {
            commands::revoke_token(&config, &token).await
        }
        Command::Device { command: DeviceCommand::Ls { format } } => {
            commands::list_devices(&config, format).await
        }
        Command::Device { command: DeviceCommand::Revoke { device } } => {
            commands::revoke_device(&config, device).await
        }
        Command::CoordinatorFile { out, name } => commands::coordinator_file(&config, &out, name).await,
        Command::Log { format } => commands::show_log(&config, format).await,
        Command::Witness { command } => witnessing::perform(command).await,
    }
}

async fn init(config: Config) -> Result<(), CliError> {
    logs::start_as("RUST_LOG", "warn", config.log_format);
    let folder = config.state_dir.clone();
    let made = spawn_blocking(move || server::init(&config)).await.map_err(CliError::internal)?;
    let key = made.map_err(failure)?;
    shell::cli::line(&hex::encode(key.0)).map_err(CliError::internal)?;
    note(&format!(
        "{} holds an enrollment authority now; back it up, then start it: nightshift-authority serve",
        folder.display()
    ));
    Ok(())
}

async fn serve(config: Config, path: &Path) -> Result<(), CliError> {
    logs::start_as("RUST_LOG", LOGGED, config.log_format);
    let say = match config.log_format {
        LogFormat::Text => note,
        LogFormat::Json => |text: &str| tracing::info!("{text}"),
    };
    let listener = bind(config.listen, "listen", path)?;
    let server = Server::open(config, listener).map_err(failure)?;
    // Before anybody is told that it serves: a signal that comes at once must find somebody.
    let stop = stop::on_signal().map_err(|error| CliError::Internal(format!("no signals: {error}")))?;
    let address = server.address();
    say(&format!("the enrollment authority {}", hex::encode(server.public().0)));
    say(&format!("its log, for witnesses: {}", server.log_key()));
    say(&format!("listening on {address} for coordinators and operators of the authority"));
    let manager = Notifier::from_env().map_err(CliError::input)?;
    let keeper = server.keeper();
    let pulse = || {
        let keeper = Arc::clone(&keeper);
        async move { drop(spawn_blocking(move || keeper.pulse()).await) }
    };
    let says = format!("listens on {address} for coordinators and operators");
    manager.served(&says, &stop, pulse, server.serve(stop.clone())).await.map_err(failure)
}

fn failure(error: ServerError) -> CliError {
    match error {
        ServerError::Keeper(KeeperError::Store(_) | KeeperError::Log(LogError::Store(_)))
        | ServerError::File(_)
        | ServerError::Peers(_)
        | ServerError::Stopped(_) => CliError::Store(error.to_string()),
        ServerError::Keeper(KeeperError::Key(_) | KeeperError::Pki(_) | KeeperError::Log(_))
        | ServerError::Pki(_)
        | ServerError::Tls(_)
        | ServerError::Witness(_)
        | ServerError::NotThere(_)
        | ServerError::There(_) => CliError::input(error),
        ServerError::Listener(_) | ServerError::Service(_) => CliError::Network(error.to_string()),
    }
}
