//! What a user decides about their device: `pause`, `resume`, `forget`.

use std::time::Duration;

use client::Forgotten;
use proto::counted::counted;
use proto::ids::Timestamp;
use shell::cli::Format;

use super::asked::Asked;
use super::status::now;
use super::time::at;
use super::{Failure, print};
use crate::config::Config;

/// Pauses the device, for a time or until it is resumed.
pub(super) fn pause(config: &Config, span: Option<Duration>, format: Format) -> Result<(), Failure> {
    let until = span.map(|span| now().plus_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
    Asked::open_to_tell(config)?.pause(until)?;
    print(format, &serde_json::json!({ "paused_until": until.map(|until| until.0) }), || match until {
        Some(Timestamp(until)) => format!("paused until {}", at(until)),
        None => "paused until `nightshift-agent resume`".to_owned(),
    })
}

/// Ends a pause.
pub(super) fn resume(config: &Config, format: Format) -> Result<(), Failure> {
    Asked::open_to_tell(config)?.resume()?;
    print(format, &serde_json::json!({ "paused_until": null }), || "not paused".to_owned())
}

/// Leaves a task, or takes it back.
pub(super) fn forget(config: &Config, named: &str, undo: bool, format: Format) -> Result<(), Failure> {
    let asked = Asked::open_to_tell(config)?;
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
        let records = counted(*ledger_records, "record", "records");
        lines.push(format!("the ledger keeps {records} of it: what was spent stays spent"));
    }
    lines.push(format!("`nightshift-agent forget {task} --undo` takes it back"));
    lines.join("\n")
}
