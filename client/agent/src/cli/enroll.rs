//! `nightshift-agent enroll`: a token becomes a device of a coordinator.

use std::io::IsTerminal;

use client::Status;
use client::enrollment::EnrollmentError;
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
    (address, again): (Option<&str>, bool),
    format: Format,
) -> Result<(), Failure> {
    let token = token.read().map_err(failed(token.exit_code()))?;
    let address = address.or(config.coordinator.as_deref());
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
    let id = device.enroll(&token, address).await.map_err(not_enrolled)?;
    let after = device.status().map_err(device_failure)?;
    let enrolled = Enrolled::of(id, before, after);
    print(format, &enrolled, || enrolled.text())
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

/// Why the coordinator gave nothing for the token.
fn not_enrolled(error: client::Error) -> Failure {
    let client::Error::Enrollment(EnrollmentError::Transport(TransportError::Rejected(rejection))) = &error
    else {
        return device_failure(error);
    };
    let is_token = matches!(rejection, Rejection::Unacceptable { request, .. } if request == "token");
    let what = if is_token { "the token was not accepted" } else { "the coordinator enrolls no such device" };
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
