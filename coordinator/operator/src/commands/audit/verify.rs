//! `nightshift audit verify`: the chain of a log, and the heads that were kept of it.

use std::path::{Path, PathBuf};

use coordinator::audit::chain::{Fault, Head, Report, Verifier};
use coordinator::audit::{File, KEY_FILE, lines as files_of};
use coordinator::cli::CliError;
use proto::counted::counted;
use proto::files::{self, Audience};
use proto::ids::Digest;
use serde_json::json;
use shell::cli::{Format, note};

use super::{lines, read};
use crate::connection::connect;
use crate::output::print;

/// The newest head that was seen from an operator's folder.
const SEEN_FILE: &str = "audit.head";

/// A head, and where it was kept.
struct Kept {
    head: Head,
    by: String,
}

/// Verifies the log of a running coordinator.
pub(super) async fn remote(
    dir: &Path,
    named: &[PathBuf],
    key: Option<Digest>,
    format: Format,
) -> Result<(), CliError> {
    let mut client = connect(dir).await?;
    let mut part = read(&mut client, 1).await?;
    let mut kept = kept(dir, named)?;
    let key = expected(key, &kept).unwrap_or(Digest(part.key));
    if !part.head.is_empty() {
        let head = parse(part.head.as_bytes(), "the coordinator's answer")?;
        kept.push(Kept { head, by: "the coordinator's store".to_owned() });
    }
    let mut verifier = verifier(key, &kept)?;
    loop {
        for line in lines(&part) {
            verifier.line(line).map_err(fault)?;
        }
        let end = verifier.end().n;
        if end >= part.last || part.lines.is_empty() {
            break;
        }
        part = read(&mut client, end.saturating_add(1)).await?;
    }
    conclude(dir, verifier, &kept, (key, false), format)
}

/// Verifies the files in a folder.
pub(super) fn folder(
    dir: &Path,
    folder: &Path,
    named: &[PathBuf],
    key: Option<Digest>,
    format: Format,
) -> Result<(), CliError> {
    let logs = files_of(folder).map_err(CliError::input)?;
    let kept = kept(dir, named)?;
    // Where a head was kept, that there is no log is a fault of the log.
    if logs.is_empty() && kept.is_empty() {
        return Err(CliError::Input(format!(
            "{} holds no file of an audit log (00000000000000000001.jsonl and so on): name the folder `audit` of a state folder, \
             or a copy of it",
            folder.display()
        )));
    }
    let (key, is_own_word) = match expected(key, &kept) {
        Some(key) => (key, false),
        None => (own_key(folder)?, true),
    };
    let mut verifier = verifier(key, &kept)?;
    for line in logs.iter().flat_map(File::lines) {
        verifier.line(line).map_err(fault)?;
    }
    conclude(dir, verifier, &kept, (key, is_own_word), format)
}

fn verifier(key: Digest, kept: &[Kept]) -> Result<Verifier, CliError> {
    let heads: Vec<Head> = kept.iter().map(|kept| kept.head).collect();
    Verifier::new(key, &heads).map_err(fault)
}

/// The key that is named, or else that of the heads.
fn expected(key: Option<Digest>, kept: &[Kept]) -> Option<Digest> {
    key.or_else(|| kept.first().map(|kept| kept.head.key))
}

fn own_key(folder: &Path) -> Result<Digest, CliError> {
    let path = folder.join(KEY_FILE);
    let text = files::read(&path).map_err(|error| {
        CliError::Input(format!("{error}; it says which key signed the log, or `--key` does"))
    })?;
    let text = String::from_utf8_lossy(&text);
    text.trim().parse().map_err(|error| CliError::Input(format!("{}: {error}", path.display())))
}

/// The heads that were kept elsewhere than in the log: by this folder, and in the files that are named.
fn kept(dir: &Path, named: &[PathBuf]) -> Result<Vec<Kept>, CliError> {
    let mut kept = Vec::new();
    let seen = dir.join(SEEN_FILE);
    match files::read(&seen) {
        Ok(bytes) => kept.push(of_file(&bytes, &seen)?),
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(CliError::input(error)),
    }
    for path in named {
        kept.push(of_file(&files::read(path).map_err(CliError::input)?, path)?);
    }
    Ok(kept)
}

fn of_file(bytes: &[u8], path: &Path) -> Result<Kept, CliError> {
    let by = path.display().to_string();
    Ok(Kept { head: parse(bytes, &by)?, by })
}

fn parse(bytes: &[u8], of: &str) -> Result<Head, CliError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CliError::Input(format!("{of} does not hold a head of an audit log: {error}")))
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
fn fault(fault: Fault) -> CliError {
    CliError::Store(format!(
        "the audit log does not hold: {fault}; keep a copy of it and of the heads for whoever looks into it"
    ))
}

fn conclude(
    dir: &Path,
    verifier: Verifier,
    kept: &[Kept],
    (key, is_own_word): (Digest, bool),
    format: Format,
) -> Result<(), CliError> {
    let end = verifier.end();
    let report = verifier.finish().map_err(fault)?;
    // Before anything is said of it: not all of it holds.
    if !report.found.is_empty() {
        let entries: Vec<String> = report.found.iter().map(u64::to_string).collect();
        return Err(CliError::Store(format!(
            "the audit log says itself, in entry {}, that the coordinator found a head that was later than the log: an older \
             state folder was put in the place of a newer one, or entries were taken away",
            entries.join(", ")
        )));
    }
    let by: Vec<&str> = kept.iter().map(|kept| kept.by.as_str()).collect();
    let document = json!({ "entries": report, "last_hash": end.hash, "key": key, "heads": by });
    print(format, "nightshift.audit-verified/1", &document, |_| text(&report, key, &by))?;
    if is_own_word {
        note(&format!(
            "warning: no head and no `--key` says whose log this is, so its folder was believed ({KEY_FILE})"
        ));
    }
    see(dir, kept)
}

fn text(report: &Report, key: Digest, by: &[&str]) -> String {
    let Report { first, last, heads_found, heads_before, open, found: _ } = report;
    let mut text = if *last == 0 {
        "the audit log has no entry".to_owned()
    } else {
        format!("the audit log holds: entries {first} to {last}, each signed by {key}")
    };
    if *heads_found > 0 {
        let heads = counted(*heads_found, "head", "heads");
        text = format!("{text}\nits end is held against {heads}, of {}", by.join(", "));
    } else {
        text += "\nno head that was kept elsewhere says where it ends: entries at the end may be missing";
    }
    if *heads_before > 0 {
        let heads = counted(*heads_before, "head is", "heads are");
        text = format!("{text}\n{heads} of entries that were removed to make room");
    }
    if !open.is_empty() {
        let entries = counted(open.len(), "entry", "entries");
        let open: Vec<String> = open.iter().map(u64::to_string).collect();
        text = format!("{text}\nof {entries} it is not written yet what came of it: {}", open.join(", "));
    }
    text
}

/// Remembers the newest of the heads, which were all found to fit: the next log that is verified from here has to have it.
fn see(dir: &Path, kept: &[Kept]) -> Result<(), CliError> {
    let Some(newest) = kept.iter().map(|kept| kept.head).max_by_key(|head| head.n) else { return Ok(()) };
    let path = dir.join(SEEN_FILE);
    let mut bytes = serde_json::to_vec(&newest).map_err(CliError::internal)?;
    bytes.push(b'\n');
    // Whoever verifies a copy elsewhere may have no folder of an operator.
    if !dir.is_dir() || files::read(&path).is_ok_and(|seen| seen == bytes) {
        return Ok(());
    }
    files::write(&path, &bytes, Audience::Owner).map_err(|error| CliError::Store(error.to_string()))
}
