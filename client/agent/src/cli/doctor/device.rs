//! The device's folder, its enrolment, and its coordinator.

use std::path::Path;
use std::time::Duration;

use client::{Answered, Certificate, Device, Status};
use proto::ids::Timestamp;
use proto::shown::shown;
use shell::cli::block_on;
use shell::doctor::{Examined, Finding};

use super::super::status::{certified, not_taken, now};
use super::super::time::{relative, span};
use super::super::{Failure, device, device_failure, failed};
use super::Known;
use crate::config::Config;

/// How long a coordinator may take to answer a person who waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far the two clocks may be apart before somebody is told, and before certificates and rounds fail by it.
const APART: Duration = Duration::from_secs(120);
const FAR_APART: Duration = Duration::from_secs(12 * 3600);

/// Whose the folder is, and who else may read it and its keys.
pub(super) fn folder(config: &Config, examined: &mut Examined) {
    let folder = &config.state_dir;
    let name = shown(&folder.to_string_lossy()).to_string();
    if !folder.exists() {
        examined.add(Finding::ok("folder", format!("{name} is not there yet; `enroll` makes it")));
        return;
    }
    match wrong_modes(folder) {
        Ok(wrong) if wrong.is_empty() => {
            examined.add(Finding::ok("folder", format!("{name} is this user's, and closed to others")));
        }
        Ok(wrong) => wrong.into_iter().for_each(|finding| examined.add(finding)),
        Err(error) => examined.add(Finding::fault("folder", format!("{name} cannot be looked at: {error}"))),
    }
}

#[cfg(unix)]
fn wrong_modes(folder: &Path) -> std::io::Result<Vec<Finding>> {
    use std::os::unix::fs::MetadataExt;

    let user = rustix::process::geteuid().as_raw();
    let mut wrong = Vec::new();
    let found = folder.metadata()?;
    let path = shown(&folder.to_string_lossy()).to_string();
    if found.uid() != user {
        let what = format!("{path} belongs to user {}, and this is user {user}", found.uid());
        let to_do = format!("run this as that user, or `chown -R {user} {path}`");
        wrong.push(Finding::fault("folder", what).advising(to_do));
    } else if found.mode() & 0o077 != 0 {
        let what = format!("{path} is open to others (mode {:04o})", found.mode() & 0o7777);
        wrong.push(
            Finding::warning("folder", what)
                .advising(format!("`chmod 700 {path}`; an agent that starts does it")),
        );
    }
    let keys = folder.join("keys");
    for entry in keys.exists().then(|| keys.read_dir()).transpose()?.into_iter().flatten() {
        let entry = entry?;
        let mode = entry.metadata()?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let path = shown(&entry.path().to_string_lossy()).to_string();
            let what = format!("{path} is a secret and can be read by others (mode {mode:04o})");
            wrong.push(Finding::fault("folder", what).advising(format!("`chmod 600 {path}`")));
        }
    }
    Ok(wrong)
}

#[cfg(not(unix))]
fn wrong_modes(folder: &Path) -> std::io::Result<Vec<Finding>> {
    folder.metadata().map(|_| Vec::new())
}

/// Whether the device is one of a coordinator's, and for how long.
pub(super) fn enrolled(status: &Status, examined: &mut Examined) {
    let Some(device) = status.device else {
        let to_do = "`nightshift-agent enroll --token-file FILE`, with a token of the coordinator's operator";
        examined.add(Finding::fault("enrollment", "this device is not enrolled").advising(to_do).code(5));
        return;
    };
    if let Some(turned_away) = &status.turned_away {
        examined.add(Finding::fault("enrollment", not_taken(turned_away, now())).code(5));
        return;
    }
    let label = if status.label.is_empty() { "without a name" } else { &status.label };
    examined.add(Finding::ok("enrollment", format!("{device}, {label}")));
    if let Some(certificate) = status.certificate {
        examined.add(lasts(certificate, now()));
    }
}

fn lasts(certificate: Certificate, now: Timestamp) -> Finding {
    let what = certified(certificate, now);
    if certificate.ends < now.0 {
        let to_do = "let the agent run; where the coordinator renews it no more, it says so";
        Finding::warning("certificate", what).advising(to_do)
    } else {
        Finding::ok("certificate", what)
    }
}

/// Whether the coordinator answers, and what its clock says: by what a daemon heard last, or by asking it.
pub(super) fn reached(config: &Config, known: &Known, examined: &mut Examined) {
    let status = &known.status;
    if status.device.is_none() {
        return;
    }
    let address = config.coordinator.as_deref().or(status.coordinator.as_deref()).unwrap_or_default();
    let answered = match &known.now {
        Some(now) => now.answered.ok_or(None),
        None => ask(config).map_err(Some),
    };
    match answered {
        Ok(answered) => {
            let when = relative(answered.unix_millis, now());
            examined.add(Finding::ok("coordinator", format!("{address} answered {when}")));
            examined.extend(clock(answered));
        }
        Err(None) => {
            let what = format!("{address} has not answered the agent that runs since it began");
            let to_do = "see what it waits for: `nightshift-agent status`; stop it and look again to ask the coordinator now";
            examined.add(Finding::warning("coordinator", what).advising(to_do));
        }
        Err(Some(Failure { code, error })) => {
            examined.add(Finding::fault("coordinator", error.to_string()).code(code));
        }
    }
}

/// Asks the coordinator something that changes nothing.
fn ask(config: &Config) -> Result<Answered, Failure> {
    let asked = async {
        let device: Device = device(config)?;
        let reached = tokio::time::timeout(PATIENCE, device.reach(config.coordinator.as_deref())).await;
        match reached {
            Ok(reached) => reached.map_err(device_failure),
            Err(_) => Err(failed(5)(anyhow::anyhow!(
                "the coordinator did not answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    };
    block_on(Some(1), asked).unwrap_or_else(|error| Err(failed(4)(error.into())))
}

/// What the two clocks say of each other; nothing where the coordinator tells no time.
fn clock(Answered { ahead_millis, .. }: Answered) -> Option<Finding> {
    let ahead = ahead_millis?;
    let apart = Duration::from_millis(ahead.unsigned_abs());
    let way = if ahead > 0 { "behind" } else { "ahead of" };
    let what = format!("this clock is {} {way} the coordinator's", span(apart));
    let to_do = "set this machine's clock, or let it be set by the network (NTP)";
    Some(if apart >= FAR_APART {
        Finding::fault("clock", what).advising(to_do).code(4)
    } else if apart >= APART {
        Finding::warning("clock", what).advising(to_do)
    } else {
        Finding::ok("clock", "as the coordinator's")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_told_by_how_much_and_which_way() {
        let text = |ahead: i64| {
            let mut examined = Examined::default();
            examined.extend(clock(Answered { unix_millis: 0, ahead_millis: Some(ahead) }));
            examined.text()
        };
        assert!(text(1500).starts_with("ok       clock          as the coordinator's"), "{}", text(1500));
        assert!(
            text(600_000)
                .starts_with("warning  clock          this clock is 10 min behind the coordinator's")
        );
        assert!(text(-600_000).contains("10 min ahead of the coordinator's"));
        assert!(text(90_000_000).starts_with("fault    clock "));
        assert!(clock(Answered { unix_millis: 0, ahead_millis: None }).is_none());
    }
}
