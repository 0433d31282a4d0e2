//! `nightshift doctor`: what this machine and a coordinator's folder look like, and what to do.

mod judge;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Args;
use coordinator::cli::CliError;
use coordinator::config::{Config, StoreKeys};
use coordinator::descriptors::{self, Shares};
use coordinator::driver::now;
use coordinator::pki::Identity;
use coordinator::server::{OPERATOR, OURS};
use coordinator::stored;
use proto::admin::{AdminReply, AdminRequest, Health};
use shell::doctor::{Examined, Finding};
use shell::store::StoreError;

use super::up::CONFIG_FILE;
use crate::client::CallError;
use crate::connection::connect;
use crate::output::{Output, print};
use judge::{Port, fault, warning};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The coordinator's configuration, where it is on this machine; by default `coordinator.toml` in the folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Prints what was found; fails where something is a fault, so that a script can ask.
pub(super) async fn run(dir: &Path, arguments: Arguments) -> Result<(), CliError> {
    let Arguments { config, output } = arguments;
    let mut findings = identity(dir);
    let named = config.is_some();
    let path = config.unwrap_or_else(|| dir.join(CONFIG_FILE));
    // A state folder whose configuration lies elsewhere, as packages install it.
    let is_state = OURS.iter().any(|file| *file != CONFIG_FILE && *file != "base" && dir.join(file).exists());
    let is_here = named || path.exists() || is_state;
    let answered = answered(dir).await;
    let answers = answered.is_ok();
    match &answered {
        Ok((health, before, after)) => findings.extend(server(health, *before, *after)),
        Err(error) => findings.push(silent(error, is_here)),
    }
    if !named && !path.exists() && is_state {
        let says = format!(
            "{} is not there, and this is a coordinator's state folder: its configuration lies elsewhere, and ports and limits \
             are not looked at",
            path.display()
        );
        let advice = "name it with --config; packages have /etc/nightshift/coordinator.toml";
        findings.push(warning("configuration", says, advice));
        findings.extend(state(dir, &StoreKeys::default(), answers));
    } else if is_here {
        match Config::load(&path) {
            Ok(config) => {
                findings.push(Finding::ok("configuration", format!("{} is read", path.display())));
                findings.extend(folder(&config, answers));
            }
            Err(error) => findings.push(fault(
                "configuration",
                error.to_string(),
                "deploy/coordinator.toml shows every key with its default",
            )),
        }
    } else {
        let says =
            format!("{} is not there: this folder is an operator's and no coordinator's", path.display());
        findings.push(Finding::ok("configuration", says));
    }
    let mut examined = Examined::default();
    examined.extend(findings);
    print(output.format, "nightshift.doctor/1", &examined, Examined::text)?;
    examined.fault().map_or(Ok(()), |(_, words)| Err(CliError::Input(words)))
}

/// The operator's certificate in the folder, and its authority's.
fn identity(dir: &Path) -> Vec<Finding> {
    let advice = format!(
        "name the folder with --dir, run `nightshift up --dir {}`, or copy {OPERATOR}.pem and {OPERATOR}.key from the \
         coordinator's folder",
        dir.display()
    );
    let identity = match Identity::load(dir, OPERATOR) {
        Ok(identity) => identity,
        Err(error) => return vec![fault("operator", error.to_string(), advice)],
    };
    let Some((own, authority)) = identity.ends_unix_secs() else {
        return vec![fault("operator", "its certificate cannot be read", advice)];
    };
    let now = now().as_secs();
    let again = "`nightshift operator rotate` makes a new one while this one holds; after that copy one from the \
                 coordinator's folder";
    vec![
        judge::ends("operator", now, own, again),
        judge::ends(
            "authority",
            now,
            authority,
            "what it signed ends with it: set up a new coordinator and enroll all anew",
        ),
    ]
}

/// How the coordinator is, and this machine's clock before and after it said so.
async fn answered(dir: &Path) -> Result<(Health, u64, u64), CliError> {
    let mut client = connect(dir).await?;
    let before = now().0;
    let reply = client.call(AdminRequest::ShowHealth).await?;
    let after = now().0;
    let AdminReply::Health(health) = reply else { return Err(CallError::Unexpected.into()) };
    Ok((health, before, after))
}

/// A coordinator that does not answer: one of this machine may be stopped, without one elsewhere an operator can do nothing.
fn silent(error: &CliError, is_here: bool) -> Finding {
    let advice = "start it with `nightshift up` or `nightshift-coordinator`, or look at its log";
    match error {
        CliError::Refused(why) => fault("coordinator", why.clone(), "use a certificate that it knows"),
        CliError::Network(_) | CliError::Input(_) if is_here => {
            warning("coordinator", "none answers at the address in the folder", advice)
        }
        CliError::Network(why) | CliError::Input(why) => fault("coordinator", why.clone(), advice),
        CliError::Internal(why) | CliError::Store(why) | CliError::Ended(why) => {
            fault("coordinator", why.clone(), advice)
        }
    }
}

/// What a coordinator that answers says of itself.
fn server(health: &Health, before: u64, after: u64) -> Vec<Finding> {
    let state = match (&health.trouble, health.stopping) {
        (None, false) => Finding::ok("coordinator", "answers, and writes"),
        (None, true) => warning(
            "coordinator",
            "answers, and is stopping: open rounds may end, and none is opened",
            "start it again when it has ended, or let whoever stopped it do so",
        ),
        (Some(why), _) => {
            fault("coordinator", format!("answers, and writes nothing: {why}"), "mend that disk")
        }
    };
    let advice = "it makes the next one by itself; where it did not, look at its log and start it again";
    let bases = match health.bases_to_read {
        0 => Finding::ok("served bases", health.bases.len().to_string()),
        more => warning("served bases", format!("{more} are still read"), "wait, or look at its log"),
    };
    let now = now().as_secs();
    let mut findings = vec![
        state,
        judge::clock(before, health.now_unix_millis, after),
        judge::ends("server", now, health.server_expires_unix_secs, advice),
        bases,
    ];
    if health.issuer_expires_unix_secs > 0 {
        let advice =
            "get a new certificate of whoever signs devices' in time, and name both in [issuer] authority";
        findings.push(judge::ends("devices' issuer", now, health.issuer_expires_unix_secs, advice));
    }
    if let Some(status) = &health.authority {
        findings.push(judge::authority(status));
        findings.extend(judge::refused_log(status));
        let advice = "make another file by `nightshift-authority coordinator-file`, put it in its place, and start the \
                      coordinator again";
        findings.push(judge::ends("authority's file", now, status.certificate_expires_unix_secs, advice));
    }
    findings.extend(health.log.iter().flat_map(|log| judge::log(now, log)));
    findings
}

/// What a coordinator on this machine would find.
fn folder(config: &Config, answers: bool) -> Vec<Finding> {
    let (devices, operators) = (bound(config.listen), bound(config.admin_listen));
    let wanted = Shares { devices: config.limits.devices(), operators: config.limits.operators() };
    let mut findings = vec![
        judge::port("port of devices", config.listen, &devices, answers),
        judge::port("port of operators", config.admin_listen, &operators, answers),
        judge::descriptors(wanted, descriptors::raise()),
    ];
    let is_running = answers || devices == Port::Held || operators == Port::Held;
    findings.extend(state(&config.state_dir, &config.store, is_running));
    findings
}

/// What is in a state folder.
fn state(state: &Path, keys: &StoreKeys, is_running: bool) -> Vec<Finding> {
    if !state.exists() {
        let says = format!("{} is not there yet; the first start makes it", state.display());
        return vec![Finding::ok("state folder", says)];
    }
    let disk = match fs4::available_space(state) {
        Ok(free) => judge::disk(free),
        Err(error) => warning(
            "disk",
            format!("nobody says what is free where {} lies: {error}", state.display()),
            "look with df",
        ),
    };
    vec![disk, store(state, keys, is_running)]
}

/// Whether a port can be listened on; it is given back at once.
fn bound(address: SocketAddr) -> Port {
    match TcpListener::bind(address) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == ErrorKind::AddrInUse => Port::Held,
        Err(error) => Port::Refused(error.to_string()),
    }
}

/// Whether the store opens, where nobody has it open: a file that is written by another user than the coordinator's would be
/// one that it cannot read.
fn store(state: &Path, keys: &StoreKeys, is_running: bool) -> Finding {
    const WHAT: &str = "store";
    let path = &state.join(stored::STORE);
    if is_running {
        return Finding::ok(WHAT, "left to the coordinator that runs");
    }
    if keys.is_database() && !state.join(stored::CLUSTER).exists() {
        return match stored::look(keys) {
            Ok(()) => Finding::ok(WHAT, "its database answers; the first start makes its tables there"),
            Err(error) => fault(WHAT, error.to_string(), "see [store] of the configuration"),
        };
    }
    if !path.exists() {
        return Finding::ok(WHAT, "not there yet; the first start makes it");
    }
    match is_own(path) {
        Ok(true) => {}
        Ok(false) => {
            let says = format!("not opened: {} is another user's", path.display());
            return warning(WHAT, says, "run this as the user that the coordinator runs as");
        }
        Err(error) => {
            let says = format!("{} cannot be looked at: {error}", path.display());
            return fault(WHAT, says, "run this as the user that the coordinator runs as");
        }
    }
    match stored::open_store(keys, state) {
        Ok(_) => Finding::ok(WHAT, "opens"),
        Err(StoreError::InUse { .. }) => warning(
            WHAT,
            "another process has it open, and no coordinator answers",
            "wait for it to end, or look which it is",
        ),
        Err(error @ (StoreError::Unavailable { .. } | StoreError::Refused { .. })) => {
            fault(WHAT, error.to_string(), "see [store] of the configuration")
        }
        Err(error) => fault(WHAT, error.to_string(), "mend the disk, or put back a copy of the state folder"),
    }
}

/// Whether a file is this user's.
#[cfg(unix)]
fn is_own(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    Ok(std::fs::metadata(path)?.uid() == rustix::process::geteuid().as_raw())
}

/// The same where files have no such owners.
#[cfg(not(unix))]
fn is_own(path: &Path) -> std::io::Result<bool> {
    std::fs::metadata(path).map(|_| true)
}
