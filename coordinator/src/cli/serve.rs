//! `nightshift-coordinator`: the server in the foreground.

use std::io;
use std::path::{Path, PathBuf};

use clap::Parser;
use serving::cli::{LOGGED, bind};
use shell::cli::note;
use shell::logs::LogFormat;
use shell::notify::Notifier;
use shell::store::StoreError;
use shell::{logs, stop};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{CliError, EXIT_CODES};
use crate::audit::AuditError;
use crate::config::Config;
use crate::enroller::EnrollerError;
use crate::kept_log::LogError;
use crate::operators::OperatorsError;
use crate::pki::PkiError;
use crate::revocations::RevocationsError;
use crate::server::{Coordinator, Listeners, ServerError};
use crate::server_certificates::ServerCertificatesError;

/// Adds up what devices contribute without reading any one of them.
#[derive(Debug, Parser)]
#[command(name = "nightshift-coordinator", version, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    /// The configuration; deploy/coordinator.toml is a sample with every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn serve(arguments: Arguments) -> Result<(), CliError> {
    let config = Config::load(&arguments.config).map_err(|error| {
        CliError::Input(format!("{error}; deploy/coordinator.toml shows every key with its default"))
    })?;
    let (coordinator, stop) = start(config, &arguments.config)?;
    until_stopped(coordinator, stop).await
}

/// Binds both ports and opens the store; says where it listens, and gives what is canceled when the process is told to
/// stop. For use in a runtime only.
pub fn start(config: Config, path: &Path) -> Result<(Coordinator, CancellationToken), CliError> {
    logs::start_as("RUST_LOG", LOGGED, config.log_format);
    // Where logs are for programs, nothing else is between them.
    let say = match config.log_format {
        LogFormat::Text => note,
        LogFormat::Json => |text: &str| tracing::info!("{text}"),
    };
    let device = bind(config.listen, "listen", path)?;
    let admin = bind(config.admin_listen, "admin_listen", path)?;
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| network(&error));
    let (device_address, admin_address) = (address(&device)?, address(&admin)?);
    let metrics = config.metrics.map(|address| bind(address, "metrics", path)).transpose()?;
    let metrics_address = metrics.as_ref().map(address).transpose()?;
    let coordinator = Coordinator::open(config, Listeners { device, admin }).map_err(failure)?;
    let coordinator = coordinator.observed(metrics);
    // Before anybody is told that it serves: a signal that comes at once must find somebody.
    let stop = stop::on_signal().map_err(|error| CliError::Internal(format!("no signals: {error}")))?;
    say(&coordinator.enroller());
    say(&format!("listening on {device_address} for devices"));
    say(&format!("listening on {admin_address} for operators"));
    if let Some(address) = metrics_address {
        say(&format!("listening on {address} for whoever asks for metrics"));
        if !address.ip().is_loopback() {
            say(
                "warning: metrics are in clear and for everybody who reaches that address; keep it on a network of your own",
            );
        }
    }
    Ok((coordinator, stop))
}

/// Serves until `stop` is canceled, and tells a service manager that it does, where one started this process.
pub async fn until_stopped(coordinator: Coordinator, stop: CancellationToken) -> Result<(), CliError> {
    let manager = Notifier::from_env().map_err(CliError::input)?;
    let (devices, operators) = coordinator.addresses();
    let says = format!("listens on {devices} for devices, on {operators} for operators");
    let driver = coordinator.driver();
    let pulse = || {
        let driver = driver.clone();
        async move { driver.pulse().await }
    };
    manager.served(&says, &stop, pulse, coordinator.serve(stop.clone())).await.map_err(failure)
}

fn network(error: &io::Error) -> CliError {
    CliError::Network(format!("a listener has no address: {error}"))
}

fn failure(error: ServerError) -> CliError {
    match error {
        ServerError::Store(StoreError::Refused { .. }) => CliError::input(error),
        ServerError::Store(_)
        | ServerError::Driver(_)
        | ServerError::File(_)
        | ServerError::Stopped(_)
        | ServerError::Log(LogError::Store(_))
        | ServerError::Audit(AuditError::File(_) | AuditError::Store(_))
        | ServerError::Operators(OperatorsError::Store(_) | OperatorsError::Record(_))
        | ServerError::Certificates(
            ServerCertificatesError::Operators(OperatorsError::Store(_) | OperatorsError::Record(_))
            | ServerCertificatesError::Pki(PkiError::File(_))
            | ServerCertificatesError::Audit(AuditError::File(_) | AuditError::Store(_)),
        )
        | ServerError::Enroller(EnrollerError::Store(_))
        | ServerError::Revocations(RevocationsError::File(_))
        | ServerError::Pki(PkiError::File(_)) => CliError::Store(error.to_string()),
        ServerError::Revocations(_)
        // A person has to look at it: to start again and again mends nothing.
        | ServerError::Audit(AuditError::Key(_) | AuditError::Unwritable(_) | AuditError::Fault { .. })
        | ServerError::Log(LogError::Entry { .. } | LogError::Head(_) | LogError::Book(_))
        | ServerError::Bases(_)
        | ServerError::Hooks(_)
        | ServerError::Traces(_)
        | ServerError::Witness(_)
        | ServerError::Enroller(
            EnrollerError::Pki(_)
            | EnrollerError::Bundle(_)
            | EnrollerError::Link { .. }
            | EnrollerError::Both(_)
            | EnrollerError::OwnDevices(_)
            | EnrollerError::OtherAuthority { .. }
            | EnrollerError::WithoutFile(_),
        )
        | ServerError::Pki(_)
        | ServerError::Certificates(_)
        | ServerError::Operator(_)
        | ServerError::Operators(_) => CliError::input(error),
        ServerError::Descriptors(_) | ServerError::Listener(_) | ServerError::Service(_) => {
            CliError::Network(error.to_string())
        }
    }
}
