//! `nightshift device`: tokens, devices, revocation.

use std::path::Path;

use clap::Subcommand;
use coordinator::cli::CliError;
use proto::admin::{AdminReply, AdminRequest, DeviceStatus};
use proto::ids::DeviceId;
use proto::shown::shown;
use serde_json::json;
use time::OffsetDateTime;

use crate::client::CallError;
use crate::connection::connect;
use crate::output::{Output, at, print, table};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a bootstrap token: with it one device may enrol, once. Prints the token and nothing else.
    Token {
        /// Whom it is for.
        #[arg(long)]
        label: String,
        /// Hours until it is worth nothing.
        #[arg(long, default_value_t = 24)]
        hours: u32,
        #[command(flatten)]
        output: Output,
    },
    /// List the enrolled devices.
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Shut a device out, for ever.
    Revoke {
        /// The device: its id, the beginning of it, or its label.
        device: String,
        #[command(flatten)]
        output: Output,
    },
}

/// The device that a word means: its id, the beginning of that, or a label that only one has which is not revoked yet.
fn meant(all: &[DeviceStatus], word: &str) -> Result<DeviceId, CliError> {
    if let Ok(id) = word.parse() {
        return Ok(id);
    }
    let is_meant = |device: &&DeviceStatus| {
        let by_id = word.len() >= 4 && device.device.to_string().starts_with(word);
        by_id || (device.label == word && !device.revoked)
    };
    let found: Vec<&DeviceStatus> = all.iter().filter(is_meant).collect();
    let is_revoked = all.iter().any(|device| device.label == word);
    let word = shown(word);
    match found.as_slice() {
        [device] => Ok(device.device),
        [] if is_revoked => Err(CliError::Input(format!("every device called `{word}` is revoked already"))),
        [] => {
            Err(CliError::Input(format!("no device is called `{word}`; `nightshift device ls` lists them")))
        }
        several => Err(CliError::Input(format!(
            "{} devices are called `{word}`; use the id that `nightshift device ls` prints",
            several.len()
        ))),
    }
}

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    let mut client = connect(dir).await?;
    match command {
        Command::Token { label, hours, output } => {
            let lifetime_secs = u64::from(hours) * 3600;
            let reply = client.call(AdminRequest::IssueToken { label, lifetime_secs }).await?;
            let AdminReply::Token(token) = reply else { return Err(CallError::Unexpected.into()) };
            print(output.format, &json!({ "token": token }), |_| token.clone())
        }
        Command::Ls { output } => {
            let reply = client.call(AdminRequest::ListDevices).await?;
            let AdminReply::Devices(devices) = reply else { return Err(CallError::Unexpected.into()) };
            print(output.format, &devices, |devices| {
                let now = OffsetDateTime::now_utc().unix_timestamp();
                let rows: Vec<_> = devices.iter().map(|device| row(device, now)).collect();
                table(&["DEVICE", "LABEL", "STATE", "CERTIFICATE ENDS"], &rows)
            })
        }
        Command::Revoke { device, output } => {
            let AdminReply::Devices(all) = client.call(AdminRequest::ListDevices).await? else {
                return Err(CallError::Unexpected.into());
            };
            let device = meant(&all, &device)?;
            let reply = client.call(AdminRequest::RevokeDevice(device)).await?;
            let AdminReply::Done = reply else { return Err(CallError::Unexpected.into()) };
            print(output.format, &json!({ "revoked": device }), |_| format!("revoked {device}"))
        }
    }
}

fn row(device: &DeviceStatus, now_unix_secs: i64) -> Vec<String> {
    let is_over = i64::try_from(device.expires_unix_secs).is_ok_and(|end| end > 0 && end < now_unix_secs);
    let state = match (device.revoked, is_over) {
        (true, _) => "revoked",
        (false, true) => "certificate ended",
        (false, false) => "enrolled",
    };
    let ends = at(device.expires_unix_secs);
    vec![device.device.to_string(), device.label.clone(), state.to_owned(), ends]
}
