//! `nightshift audit`: the log of who changed what, and whether it is what was written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use coordinator::audit::chain::{Entry, Outcome};
use coordinator::cli::CliError;
use proto::admin::{AdminReply, AdminRequest, AuditPart};
use proto::ids::Digest;
use proto::shown::shown;
use shell::cli::Format;

use crate::client::{AdminClient, CallError};
use crate::connection::connect;
use crate::output::{Output, at, json_line, line};

mod verify;

/// What each line is with `--format json`.
const ENTRY: &str = "nightshift.audit-entry/1";

/// Between two looks for further entries.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the newest entries, each as one line, with JSON as a document of its own. Needs the role admin.
    Tail {
        /// How many.
        #[arg(short = 'n', long = "entries", default_value_t = 20, value_name = "N")]
        entries: u64,
        /// Go on with those that come, until interrupted.
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Check that no entry was changed, taken out, put in or moved, and that the end is there. Fails where it does not hold.
    ///
    /// The coordinator's log is read over the connection, which needs the role admin, or that in a folder. It is held against
    /// the newest head that this folder (`--dir`) saw before, which is kept there as audit.head, and against those that
    /// are named.
    Verify {
        /// A folder with a copy of the log, `audit` of the state folder; without it the coordinator is asked.
        #[arg(value_name = "FOLDER", conflicts_with = "remote")]
        folder: Option<PathBuf>,
        /// Ask the coordinator, as without FOLDER.
        #[arg(long)]
        remote: bool,
        /// A file with a head that was kept elsewhere (`audit_head` of the configuration); may be given more than once.
        #[arg(long, value_name = "FILE")]
        head: Vec<PathBuf>,
        /// The key that has to have signed, as `key.txt` in the log's folder says it; by default that of audit.head.
        #[arg(long, value_name = "KEY")]
        key: Option<Digest>,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    match command {
        Command::Tail { entries, follow, output } => tail(dir, entries, follow, output.format).await,
        Command::Verify { folder: Some(folder), remote: _, head, key, output } => {
            verify::folder(dir, &folder, &head, key, output.format)
        }
        Command::Verify { folder: None, remote: _, head, key, output } => {
            verify::remote(dir, &head, key, output.format).await
        }
    }
}

/// Entries of the coordinator's log from number `from` on.
async fn read(client: &mut AdminClient, from: u64) -> Result<AuditPart, CliError> {
    let AdminReply::Audit(part) = client.call(AdminRequest::ReadAudit { from }).await? else {
        return Err(CallError::Unexpected.into());
    };
    Ok(part)
}

/// The lines of a part, without their ends.
fn lines(part: &AuditPart) -> impl Iterator<Item = &[u8]> {
    part.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// A line of the log as it was written, for a document of ours.
fn document(line: &[u8]) -> Result<serde_json::Value, CliError> {
    serde_json::from_slice(line).map_err(|error| not_an_entry(&error))
}

fn not_an_entry(error: &serde_json::Error) -> CliError {
    CliError::Store(format!(
        "a line of the audit log is no entry ({error}); `nightshift audit verify` says where"
    ))
}

/// An entry in a line of the log. What else the line holds is for `verify` to look at.
fn entry(line: &[u8]) -> Result<Entry, CliError> {
    #[derive(serde::Deserialize)]
    struct Line {
        entry: Entry,
    }
    let read = serde_json::from_slice::<Line>(line);
    read.map(|line| line.entry).map_err(|error| not_an_entry(&error))
}

async fn tail(dir: &Path, entries: u64, follow: bool, format: Format) -> Result<(), CliError> {
    let mut client = connect(dir).await?;
    let last = read(&mut client, u64::MAX).await?.last;
    let mut from = last.saturating_sub(entries).saturating_add(1);
    loop {
        let part = read(&mut client, from).await?;
        for text in lines(&part) {
            let entry = entry(text)?;
            from = from.max(entry.n.saturating_add(1));
            match format {
                Format::Text => line(&words(&entry))?,
                Format::Json => json_line(ENTRY, &document(text)?)?,
            }
        }
        if from > part.last {
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        } else if part.lines.is_empty() {
            return Err(CallError::Unexpected.into());
        }
    }
}

/// An entry for people.
fn words(entry: &Entry) -> String {
    let role = entry.role.map(|role| format!(" ({role})")).unwrap_or_default();
    let with: Vec<String> = entry.with.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let with = with.concat();
    let of = entry.of.map(|of| format!(" of {of}")).unwrap_or_default();
    let came = match entry.outcome {
        Outcome::Intent => "about to be done".to_owned(),
        Outcome::Done => format!("done{of}"),
        Outcome::Refused => format!("refused{of}: {}", entry.why.as_deref().unwrap_or("no reason")),
        Outcome::Unknown => format!("unknown{of}: the coordinator ended meanwhile"),
    };
    let (when, who, what) = (at(entry.at_unix_millis / 1000), &entry.who, &entry.what);
    shown(&format!("{} {when} {who}{role}: {what}{with}: {came}", entry.n)).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::role::Role;

    use super::*;

    #[test]
    fn an_entry_is_one_line_that_orders_no_terminal() {
        let entry = Entry {
            n: 7,
            at_unix_millis: 1_700_000_000_123,
            who: "operator owl".to_owned(),
            serial: None,
            role: Some(Role::Viewer),
            what: "stop task".to_owned(),
            with: BTreeMap::from([("task".to_owned(), "a\nb\u{1b}[2J".to_owned())]),
            outcome: Outcome::Refused,
            why: Some("role".to_owned()),
            of: None,
            before: Digest([0; 32]),
        };
        let expected =
            r"7 2023-11-14T22:13:20Z operator owl (viewer): stop task task=a\nb\u{1b}[2J: refused: role";
        assert_eq!(words(&entry), expected);
    }
}
