//! What a user decides about their device: `pause`, `resume`, `forget`; and what of their text it would read: `data`.

use std::time::Duration;

use client::Forgotten;
use proto::ids::Timestamp;
use serde::Serialize;
use shell::cli::Format;
use text::UserText;

use super::asked::Asked;
use super::status::now;
use super::time::at;
use super::{Failure, failed, print};
use crate::config::Config;

/// Pauses the device, for a time or until it is resumed.
pub(super) fn pause(config: &Config, span: Option<Duration>, format: Format) -> Result<(), Failure> {
    let until = span.map(|span| now().plus_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
    Asked::open_to_change(config)?.pause(until)?;
    print(format, &serde_json::json!({ "paused_until": until.map(|until| until.0) }), || match until {
        Some(Timestamp(until)) => format!("paused until {}", at(until)),
        None => "paused until `nightshift-agent resume`".to_owned(),
    })
}

/// Ends a pause.
pub(super) fn resume(config: &Config, format: Format) -> Result<(), Failure> {
    Asked::open_to_change(config)?.resume()?;
    print(format, &serde_json::json!({ "paused_until": null }), || "not paused".to_owned())
}

/// Leaves a task, or takes it back.
pub(super) fn forget(config: &Config, named: &str, undo: bool, format: Format) -> Result<(), Failure> {
    let asked = Asked::open_to_change(config)?;
    let task = asked.task(named)?;
    if undo {
        let was = asked.rejoin(task)?;
        return print(format, &serde_json::json!({ "task": task, "was_forgotten": was }), || {
            if was {
                format!("takes part in task {task} again when it is asked to")
            } else {
                format!("task {task} was not forgotten")
            }
        });
    }
    let forgotten = asked.forget(task)?;
    print(format, &forgotten, || told(&forgotten))
}

fn told(forgotten: &Forgotten) -> String {
    let Forgotten { task, deleted, ledger_records } = forgotten;
    let mut lines = vec![format!("left task {task}; it is declined from now on")];
    lines.extend(deleted.iter().map(|path| format!("deleted and gone: {}", path.display())));
    if deleted.is_empty() {
        lines.push("nothing of it was on this disk but the ledger".to_owned());
    }
    if *ledger_records > 0 {
        lines.push(format!("the ledger keeps {ledger_records} records of it: what was spent stays spent"));
    }
    lines.push(format!("`nightshift-agent forget {task} --undo` takes it back"));
    lines.join("\n")
}

/// What `data check` prints as JSON: counts, and nothing of the text.
#[derive(Debug, Serialize)]
struct Checked {
    files: u64,
    documents: u64,
    with_roles: u64,
    duplicates: u64,
    surplus: u64,
    secret_looking: u64,
    skipped_lines: u64,
    unread_files: u64,
    /// Why files are not read, and how many.
    unread: Vec<(String, u64)>,
}

/// Reads the text as a training would and says how much of it is used and what is left out, by counts.
pub(super) fn check(config: &Config, format: Format) -> Result<(), Failure> {
    if config.data.is_empty() {
        let why = "no text: name files or folders by `data` in the configuration or by --data";
        return Err(failed(3)(anyhow::anyhow!(why)));
    }
    let text = UserText::read(&config.data, &config.reading()).map_err(|error| failed(3)(error.into()))?;
    let reading = text.reading();
    let checked = Checked {
        files: reading.files,
        documents: reading.documents,
        with_roles: reading.with_roles,
        duplicates: reading.duplicates,
        surplus: reading.surplus,
        secret_looking: reading.secret_looking(),
        skipped_lines: reading.skipped_lines(),
        unread_files: reading.unread_files(),
        unread: reading.unread.iter().map(|(reason, unread)| (reason.to_string(), unread.count)).collect(),
    };
    print(format, &checked, || reading.to_string())
}
