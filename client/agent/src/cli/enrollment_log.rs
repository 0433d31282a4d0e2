//! The log of the enrollment authority: `log verify` and `log forget`.

use client::{Device, VerifiedLog};
use proto::counted::counted;
use shell::cli::{Format, block_on};

use super::asked::{Asked, no_device};
use super::time::at;
use super::{Failure, LogCommand, device_failure, failed, print};
use crate::config::Config;

/// Days of growth that are told.
const TOLD_DAYS: usize = 7;

/// Does one of both. They need the device's folder.
pub(super) fn run(config: &Config, what: &LogCommand, format: Format) -> Result<(), Failure> {
    let device = match Asked::open(config)? {
        Asked::Folder(device) => device,
        Asked::Nothing => return Err(no_device(config)),
        Asked::Daemon(_) => {
            let why = "an agent runs and has the device's folder; stop it first. While it runs it looks at each head of \
                       the log by itself, and takes no part where one is wrong";
            return Err(failed(4)(anyhow::anyhow!(why)));
        }
    };
    match what {
        LogCommand::Verify => verify(config, &device, format),
        LogCommand::Forget => {
            device.forget_log().map_err(device_failure)?;
            let words = "forgotten: the next log that this device is shown is the one that it goes by";
            print(format, &serde_json::json!({ "forgot": true }), || words.to_owned())
        }
    }
}

fn verify(config: &Config, device: &Device, format: Format) -> Result<(), Failure> {
    let read = device.verify_log(config.coordinator.as_deref(), &config.policy.log);
    let verified = block_on(None, read).map_err(|error| failed(4)(error.into()))?.map_err(device_failure)?;
    print(format, &verified, || page(&verified))?;
    match verified.faults.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(failed(5)(anyhow::anyhow!("the enrollment log is not as it should be: {first}"))),
    }
}

fn page(log: &VerifiedLog) -> String {
    let mut lines = vec![
        format!("{} entries, up to {}", log.size, at(log.signed_unix_secs.saturating_mul(1000))),
        format!("root {}", log.root),
        format!(
            "{}, {} of them shut out, and {}",
            counted(usize::try_from(log.devices).unwrap_or(usize::MAX), "device", "devices"),
            log.revoked,
            counted(usize::try_from(log.versions).unwrap_or(usize::MAX), "version", "versions")
        ),
    ];
    if log.witnesses > 0 {
        lines.push(format!("signed by {}", counted(log.witnesses, "witness", "witnesses")));
    }
    match log.seen_before {
        0 => lines.push("this device had seen nothing of it before".to_owned()),
        seen if log.faults.is_empty() => {
            lines.push(format!("it goes on from the {seen} entries that this device saw last"));
        }
        seen => lines.push(format!("this device had seen {seen} entries")),
    }
    if let Some(place) = log.place {
        let others = match log.labeled_alike.saturating_sub(1) {
            0 => "no other device has its label".to_owned(),
            others => format!(
                "{} its label: ask the operator",
                counted(others, "other device has", "other devices have")
            ),
        };
        lines.push(format!("entry {place} is this device's credential; {others}"));
    }
    let days = log.enrolled.iter().rev().take(TOLD_DAYS);
    lines.extend(days.map(|(day, enrolled)| {
        let midnight = at(day.saturating_mul(24 * 3600 * 1000));
        let date = midnight.split(' ').next().unwrap_or_default();
        format!("{date}  {enrolled} enrolled")
    }));
    lines.extend(log.faults.iter().map(|fault| format!("fault: {fault}")));
    lines.join("\n")
}
