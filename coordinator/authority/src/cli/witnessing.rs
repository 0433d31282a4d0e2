//! `nightshift-authority witness`: a witness of logs of others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aggregation::log::LogKey;
use clap::Subcommand;
use serving::cli::{CliError, LOGGED, listen};
use shell::cli::note;
use shell::notify::Notifier;
use shell::{logs, stop};
use tokio::task::spawn_blocking;

use crate::witness::{self, Witnessing, WitnessingError};

#[derive(Debug, Subcommand)]
pub(super) enum WitnessCommand {
    /// Make a witness in a folder, with a key of its own. Prints the key by which others verify what it signs.
    Init {
        /// The folder of its key and of what it saw; back it up, and put no older one back.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// What it is called, for good: one word without a plus, as a host's name.
        #[arg(long)]
        name: String,
    },
    /// Sign heads of logs, by HTTP, in the foreground.
    Serve {
        /// The folder that `witness init` made.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// A log to watch: its key, as `nightshift health` or `nightshift-authority log` shows it. May be given several times.
        #[arg(long = "log", value_name = "KEY", required = true)]
        logs: Vec<LogKey>,
        /// Where it is asked, in clear: what comes and goes is public, and signed.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7446")]
        listen: SocketAddr,
    },
    /// Forget what was seen of a log, whose keeper came back from an older backup: any head of it is signed once more. The
    /// witness must not run.
    Forget {
        /// The folder that `witness init` made.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The log: its key.
        #[arg(long, value_name = "KEY")]
        log: LogKey,
    },
}

pub(super) async fn perform(command: WitnessCommand) -> Result<(), CliError> {
    match command {
        WitnessCommand::Init { dir, name } => init(dir, name).await,
        WitnessCommand::Serve { dir, logs, listen } => serve(dir, logs, listen).await,
        WitnessCommand::Forget { dir, log } => forget(dir, log).await,
    }
}

async fn init(dir: PathBuf, name: String) -> Result<(), CliError> {
    logs::start("RUST_LOG", "warn");
    let folder = dir.clone();
    let made = spawn_blocking(move || witness::init(&dir, &name)).await.map_err(CliError::internal)?;
    let witness = made.map_err(failure)?;
    shell::cli::line(&witness.to_string()).map_err(CliError::internal)?;
    note(&format!(
        "{} holds a witness now; its key goes into [[witness]] of whoever keeps a log, and into policy.log.witnesses of devices; \
         start it: nightshift-authority witness serve --dir {} --log KEY",
        folder.display(),
        folder.display()
    ));
    Ok(())
}

async fn forget(dir: PathBuf, log: LogKey) -> Result<(), CliError> {
    logs::start("RUST_LOG", "warn");
    let name = log.name().to_owned();
    let forgotten =
        spawn_blocking(move || Witnessing::forget(&dir, &log)).await.map_err(CliError::internal)?;
    let words = if forgotten.map_err(failure)? {
        "nothing is known of it any more, and the next head that it shows is signed"
    } else {
        "nothing was known of it"
    };
    note(&format!("the log {name}: {words}"));
    Ok(())
}

async fn serve(dir: PathBuf, watched: Vec<LogKey>, address: SocketAddr) -> Result<(), CliError> {
    logs::start("RUST_LOG", LOGGED);
    let listener = listen(address).map_err(|error| {
        CliError::Network(format!("cannot listen on {address}: {error}; give another one by --listen"))
    })?;
    let opened = spawn_blocking(move || Witnessing::open(&dir, watched)).await.map_err(CliError::internal)?;
    let witnessing = Arc::new(opened.map_err(failure)?);
    let stop = stop::on_signal().map_err(|error| CliError::Internal(format!("no signals: {error}")))?;
    let address = listener.local_addr().map_err(|error| CliError::Network(error.to_string()))?;
    note(&format!("the witness {}", witnessing.witness()));
    note(&format!("listening on {address} for whoever keeps a log"));
    if !address.ip().is_loopback() {
        note(
            "it is in clear, for everybody who reaches that address: nothing of it is secret, and what it signs is signed",
        );
    }
    let manager = Notifier::from_env().map_err(CliError::input)?;
    let says = format!("listens on {address} for whoever keeps a log");
    let pulse = || async {};
    let serving = Arc::clone(&witnessing).serve(listener, stop.clone());
    let ended: Result<(), CliError> = manager
        .served(&says, &stop, pulse, async {
            serving.await;
            Ok(())
        })
        .await;
    ended
}

fn failure(error: WitnessingError) -> CliError {
    match error {
        WitnessingError::Store(_) | WitnessingError::File(_) => CliError::Store(error.to_string()),
        WitnessingError::Key(_)
        | WitnessingError::Name(_)
        | WitnessingError::NotThere(_)
        | WitnessingError::Missing(_)
        | WitnessingError::There(_)
        | WitnessingError::OtherKey { .. }
        | WitnessingError::Twice(_) => CliError::input(error),
    }
}
