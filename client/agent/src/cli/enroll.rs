//! `nightshift-agent enroll`: a token becomes a device of a coordinator.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal;
use std::path::Path;

use client::Status;
use client::enrollment::EnrollmentError;
use client::tpm::Tpm;
use client::transport::TransportError;
use proto::ids::DeviceId;
use proto::message::Rejection;
use serde::Serialize;
use shell::cli::{Format, note};

use super::{Failure, device, device_failure, failed, print, token};
use crate::config::Config;

/// Uses a token up, and says what the device is now.
pub(super) async fn enroll(
    config: &Config,
    token: &token::TokenArgs,
    (address, again, tpm): (Option<&str>, bool, Option<&Tpm>),
    format: Format,
) -> Result<(), Failure> {
    let token = token.read().map_err(failed(token.exit_code()))?;
    let address = address.or(config.coordinator.as_deref());
    let folder = Folder::before(&config.state_dir);
    let device = device(config)?;
    let before = device.status().map_err(device_failure)?;
    if let (Some(id), false) = (before.device, again) {
        let question = format!(
            "{} holds the device {} of the coordinator {} already; the token is not used",
            config.state_dir.display(),
            if before.label.is_empty() { id.to_string() } else { before.label.clone() },
            before.coordinator.as_deref().unwrap_or_default()
        );
        if !confirmed(&question)? {
            let why =
                format!("{question}; say --again to enroll it again, or name another folder by --state-dir");
            return Err(failed(2)(anyhow::anyhow!(why)));
        }
    }
    let id = match device.enroll_attested(&token, address, tpm).await {
        Ok(id) => id,
        Err(error) => {
            drop(device);
            folder.restore(&error);
            return Err(not_enrolled(error));
        }
    };
    let after = device.status().map_err(device_failure)?;
    let enrolled = Enrolled::of(id, before, after);
    print(format, &enrolled, || enrolled.text())
}

/// What a folder held before an enrollment, so that one that comes to nothing leaves nothing.
struct Folder<'a> {
    path: &'a Path,
    /// The names in it.
    held: BTreeSet<OsString>,
    /// It, and those above it, where they were not there: the innermost first.
    missing: Vec<&'a Path>,
}

impl<'a> Folder<'a> {
    fn before(path: &'a Path) -> Self {
        let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        let held = entries.map(|entry| entry.file_name()).collect();
        let missing = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        Self { path, held, missing: missing.collect() }
    }

    /// Takes away what was made since, but where the coordinator may have enrolled these keys and its answer was lost, and
    /// where its operator may list them now: with them the same token works again.
    fn restore(self, error: &client::Error) {
        let is_refused = matches!(
            error,
            client::Error::Enrollment(EnrollmentError::Transport(TransportError::Rejected(rejection)))
                if !is_of_machine(rejection)
        );
        if !is_refused && self.path.join("keys").exists() {
            return;
        }
        let entries = fs::read_dir(self.path).into_iter().flatten().filter_map(Result::ok);
        for entry in entries.filter(|entry| !self.held.contains(&entry.file_name())) {
            let path = entry.path();
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = gone {
                tracing::warn!("{} was made for nothing and cannot be removed: {error}", path.display());
            }
        }
        for folder in self.missing {
            // One that holds something else by now stays.
            drop(fs::remove_dir(folder));
        }
    }
}

/// What `enroll` prints as JSON.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Enrolled {
    device: DeviceId,
    /// How the coordinator's operator calls it; empty where they gave no name.
    label: String,
    coordinator: Option<String>,
    /// What the folder held before.
    before: Option<Before>,
}

/// The device that a folder held before.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Before {
    device: DeviceId,
    label: String,
}

impl Enrolled {
    fn of(device: DeviceId, before: Status, after: Status) -> Self {
        let (label, coordinator) = (after.label, after.coordinator);
        let before = before.device.map(|device| Before { device, label: before.label });
        Self { device, label, coordinator, before }
    }

    fn text(&self) -> String {
        let Self { device, label, before, .. } = self;
        let called = if label.is_empty() { String::new() } else { format!(", called {label}") };
        let enrolled = format!("enrolled as {device}{called}");
        match before {
            None => enrolled,
            Some(before) if before.device != *device => {
                let was = if before.label.is_empty() {
                    String::new()
                } else {
                    format!(", called {}", before.label)
                };
                format!("{enrolled}; the folder held the device {}{was} before", before.device)
            }
            Some(before) if before.label == *label => format!("{enrolled}, as before"),
            Some(before) if before.label.is_empty() => format!("{enrolled}; it had no name before"),
            Some(before) => format!("{enrolled}; it was called {} before", before.label),
        }
    }
}

/// Whether it is this machine that the coordinator does not take.
fn is_of_machine(rejection: &Rejection) -> bool {
    matches!(rejection, Rejection::Unacceptable { request, .. } if request == "attestation")
}

/// Why the coordinator gave nothing for the token.
fn not_enrolled(error: client::Error) -> Failure {
    let client::Error::Enrollment(EnrollmentError::Transport(TransportError::Rejected(rejection))) = &error
    else {
        return device_failure(error);
    };
    let is_token = matches!(rejection, Rejection::Unacceptable { request, .. } if request == "token");
    let what = if is_token {
        "the token was not accepted"
    } else if is_of_machine(rejection) {
        "the coordinator does not take this machine; its keys stay here, and the token is not used"
    } else {
        "the coordinator enrolls no such device"
    };
    let why = anyhow::anyhow!("{what}: {}", rejection.reason());
    Failure { error: why, ..device_failure(error) }
}

/// Asks whoever sits at a terminal whether to go on; elsewhere nobody is asked, and the answer is no.
fn confirmed(question: &str) -> Result<bool, Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(false);
    }
    note(&format!("{question} yet. Enroll again? [y/N]"));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| failed(4)(error.into()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(device: Option<u8>, label: &str) -> Status {
        let device = device.map(|device| DeviceId([device; 16]));
        Status { device, label: label.to_owned(), ..Status::default() }
    }

    #[test]
    fn a_device_that_is_renamed_is_told_both_names() {
        let text = |before, after| Enrolled::of(DeviceId([1; 16]), before, after).text();
        let enrolled = format!("enrolled as {}", DeviceId([1; 16]));
        let now = || status(Some(1), "anna");
        assert_eq!(text(status(None, ""), now()), format!("{enrolled}, called anna"));
        assert_eq!(
            text(status(Some(1), "old"), now()),
            format!("{enrolled}, called anna; it was called old before")
        );
        assert_eq!(text(now(), now()), format!("{enrolled}, called anna, as before"));
        assert_eq!(
            text(status(Some(1), ""), now()),
            format!("{enrolled}, called anna; it had no name before")
        );
        let other = format!("; the folder held the device {}, called old before", DeviceId([2; 16]));
        assert_eq!(text(status(Some(2), "old"), now()), format!("{enrolled}, called anna{other}"));
    }

    #[test]
    fn what_was_made_for_nothing_is_taken_away_and_what_was_there_stays() {
        let root = tempfile::tempdir().unwrap();
        let refused = || {
            let rejection =
                Rejection::Unacceptable { request: "token".into(), why: "it was used".to_owned() };
            client::Error::from(TransportError::Rejected(rejection))
        };
        let unlisted = || {
            let rejection =
                Rejection::Unacceptable { request: "attestation".into(), why: "it is not listed".to_owned() };
            client::Error::from(TransportError::Rejected(rejection))
        };
        let lost = || {
            let (address, why) = ("127.0.0.1:1".to_owned(), "it does not answer".to_owned());
            client::Error::from(TransportError::Unreachable { address, why })
        };
        let fill = |path: &Path| {
            fs::create_dir_all(path.join("keys")).unwrap();
            fs::create_dir_all(path.join("state")).unwrap();
            fs::write(path.join("ledger"), "").unwrap();
            fs::write(path.join("keys/identity.seed"), "x").unwrap();
        };
        let new = root.path().join("a/b");
        let folder = Folder::before(&new);
        fill(&new);
        folder.restore(&refused());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        // With its keys the same token works again, whose answer was lost.
        let folder = Folder::before(&new);
        fill(&new);
        folder.restore(&lost());
        assert!(new.join("keys/identity.seed").exists() && new.join("ledger").exists());
        // And with them the device comes that the operator listed meanwhile.
        let listed = root.path().join("listed");
        let folder = Folder::before(&listed);
        fill(&listed);
        folder.restore(&unlisted());
        assert!(listed.join("keys/identity.seed").exists());
        // Of a folder that is used for something, only what is new goes.
        fs::remove_dir_all(new.join("keys")).unwrap();
        fs::write(new.join("agent.toml"), "mine").unwrap();
        let folder = Folder::before(&new);
        fs::create_dir(new.join("keys")).unwrap();
        folder.restore(&refused());
        let mut names: Vec<_> = fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["agent.toml", "ledger", "state"]);
        // Nobody was asked yet, so there were no keys to ask with.
        let folder = Folder::before(&root.path().join("c")).missing.len();
        assert_eq!(folder, 1);
        let other = root.path().join("c");
        let folder = Folder::before(&other);
        fs::create_dir_all(other.join("state")).unwrap();
        folder.restore(&lost());
        assert!(!other.exists());
    }

    #[test]
    fn what_was_turned_away_is_said_once() {
        let said = |request: &'static str, why: &str| {
            let rejection = Rejection::Unacceptable { request: request.into(), why: why.to_owned() };
            not_enrolled(client::Error::from(TransportError::Rejected(rejection))).error.to_string()
        };
        assert_eq!(said("token", "it was used before"), "the token was not accepted: it was used before");
        let revoked = said("enroll", "this device was revoked");
        assert_eq!(revoked, "the coordinator enrolls no such device: this device was revoked");
    }
}
