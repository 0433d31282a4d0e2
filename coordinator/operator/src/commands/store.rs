//! `nightshift store`: the records of a coordinator that is stopped, in its state folder or in its database.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use coordinator::cli::CliError;
use coordinator::config::{Config, StoreKeys};
use coordinator::offline::{self, ForgetError, OfflineError, Report};
use coordinator::stored;
use proto::counted::counted;
use proto::files::{self, Audience, FileError};
use proto::shown::shown;
use serde_json::json;
use shell::store::{ArchiveError, Kept, Store, StoreError};

use super::up::CONFIG_FILE;
use crate::output::{Output, print};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read every record, and every file that a task names, and say what is damaged or missing. Fails where something is.
    Check {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
    /// Write all records to one file, from which `store import` makes a store again. Keys and artifacts are files already: copy
    /// the other files of the state folder with it.
    Export {
        #[command(flatten)]
        place: Place,
        /// The file to write; what is there is replaced.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Make the store anew from such a file, in the state folder or in the database that the configuration names. Refuses a store
    /// that has records.
    Import {
        #[command(flatten)]
        place: Place,
        /// The file that `store export` wrote.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Forget what was read of the log of the enrollment authority apart, and read all of it anew at the next start: for when the
    /// authority's folder came back from an old backup, and there is no newer one. Devices that saw more of the log than it has now
    /// take no part until they enroll anew, or their users run `nightshift-agent log forget`.
    ForgetLog {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
}

/// Whose store.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The coordinator's configuration, which names its state folder; by default `coordinator.toml` in the folder, and without
    /// that the folder itself.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    /// Where the store and the state folder are.
    fn keys(&self, dir: &Path) -> Result<(StoreKeys, PathBuf), CliError> {
        let path = self.config.clone().unwrap_or_else(|| dir.join(CONFIG_FILE));
        if self.config.is_none() && !path.exists() {
            return Ok((StoreKeys::default(), dir.to_owned()));
        }
        let Config { store, state_dir, .. } = Config::load(&path).map_err(CliError::input)?;
        Ok((store, state_dir))
    }

    /// The same where there is a store.
    fn with_store(&self, dir: &Path) -> Result<(StoreKeys, PathBuf), CliError> {
        let (keys, state_dir) = self.keys(dir)?;
        if state_dir.join(offline::STORE).is_dir() || (keys.is_database() && state_dir.is_dir()) {
            return Ok((keys, state_dir));
        }
        Err(CliError::Input(format!(
            "{} holds no store of a coordinator; name its configuration with --config, or its folder with --dir",
            state_dir.display()
        )))
    }
}

pub(super) fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    match command {
        Command::Check { place, output } => {
            let (keys, state_dir) = place.with_store(dir)?;
            let report = offline::check_in(&keys, &state_dir).map_err(|error| unreadable(&error))?;
            print(output.format, "nightshift.store-check/1", &report, text)?;
            match report.faults.len() {
                0 => Ok(()),
                faults => Err(CliError::Store(format!(
                    "{} in {}; put back a copy of the state folder{} from before",
                    counted(faults, "fault", "faults"),
                    state_dir.display(),
                    if keys.is_database() { " and of the database" } else { "" }
                ))),
            }
        }
        Command::Export { place, out, output } => {
            if out.is_dir() {
                let out = out.display();
                return Err(CliError::Input(format!("{out} is a folder; name a file in it with `--out`")));
            }
            let (keys, state_dir) = place.with_store(dir)?;
            let store = stored::open_store(&keys, &state_dir).map_err(|error| failed(&error))?;
            let records = export(&store, &out).map_err(|error| CliError::Store(error.to_string()))?;
            let written = json!({ "records": records, "out": out });
            print(output.format, "nightshift.store-export/1", &written, |_| {
                format!("{} written to {}", counted(records, "record", "records"), out.display())
            })
        }
        Command::ForgetLog { place, output } => {
            let (keys, state_dir) = place.with_store(dir)?;
            forget_log(&keys, &state_dir, output)
        }
        Command::Import { place, from, output } => {
            let (keys, state_dir) = place.keys(dir)?;
            let (records, at) = if keys.is_database() {
                (import_database(&keys, &state_dir, &from)?, keys.address.clone())
            } else {
                (import(&state_dir, &from)?, state_dir.display().to_string())
            };
            let made = json!({ "records": records, "state_dir": state_dir });
            print(output.format, "nightshift.store-import/1", &made, |_| {
                format!(
                    "{} in the store of {at}; `nightshift store check` says whether all that they name is there",
                    counted(records, "record is", "records are"),
                )
            })
        }
    }
}

fn forget_log(keys: &StoreKeys, state_dir: &Path, output: Output) -> Result<(), CliError> {
    let entries = offline::forget_log(keys, state_dir).map_err(|error| match error {
        ForgetError::Store(error) => CliError::Store(error.to_string()),
        error @ ForgetError::Own(_) => CliError::Input(error.to_string()),
    })?;
    let forgotten = json!({ "entries": entries, "state_dir": state_dir });
    print(output.format, "nightshift.store-forget-log/1", &forgotten, |_| {
        format!(
            "{} of the enrollment authority's log forgotten in {}; the coordinator reads it, and whom the authority revoked, anew at its \
             next start",
            counted(entries, "entry", "entries"),
            state_dir.display()
        )
    })
}

/// A store that is not to be used as the configuration says is its writer's to mend, as another wrong word in it is.
fn failed(error: &StoreError) -> CliError {
    if matches!(error, StoreError::Refused { .. }) {
        CliError::Input(error.to_string())
    } else {
        CliError::Store(error.to_string())
    }
}

fn export(store: &Store, out: &Path) -> Result<u64, ArchiveError> {
    let mut records = 0;
    // Whom a device belongs to is nobody else's business.
    files::write_with::<ArchiveError>(out, Audience::Owner, |file| {
        let mut buffered = BufWriter::new(file);
        records = store.export(&mut buffered)?;
        Ok(buffered.flush()?)
    })?;
    Ok(records)
}

/// Puts all records into a database that has none, at once or not at all.
fn import_database(keys: &StoreKeys, state_dir: &Path, from: &Path) -> Result<u64, CliError> {
    let file = File::open(from).map_err(|error| CliError::Input(format!("{}: {error}", from.display())))?;
    files::create_folder(state_dir).map_err(|error| CliError::Store(error.to_string()))?;
    let (store, claim) = stored::open_unclaimed(keys, state_dir).map_err(|error| failed(&error))?;
    if !stored::is_empty(&store).map_err(|error| failed(&error))? {
        return Err(CliError::Input(format!(
            "{} has records already, and is left as it is; import into a database without any",
            keys.address
        )));
    }
    // First, so that no coordinator that begins meanwhile takes it for another's.
    claim.keep().map_err(|error| failed(&error))?;
    store.import(&mut BufReader::new(file)).map_err(|error| not_imported(error, from))
}

/// Makes the store beside its place and moves it there when it is whole, so that a failure leaves none that looks like one.
fn import(state_dir: &Path, from: &Path) -> Result<u64, CliError> {
    let (place, aside) = (state_dir.join(offline::STORE), state_dir.join("store.importing"));
    let disk = |error: FileError| CliError::Store(error.to_string());
    let file = File::open(from).map_err(|error| CliError::Input(format!("{}: {error}", from.display())))?;
    if place.exists() {
        let store = Store::open(&place).map_err(|error| CliError::Store(error.to_string()))?;
        let check = store.check().map_err(|error| CliError::Store(error.to_string()))?;
        if check.records > 0 {
            return Err(CliError::Input(format!(
                "{} has {} already, and is left as it is; import into a state folder without a store",
                place.display(),
                counted(check.records, "record", "records")
            )));
        }
    }
    files::create_folder(state_dir).map_err(disk)?;
    let is_new = !place.exists();
    // Until the store is in its place: no coordinator begins with one that is removed then, and no other import.
    let kept = Kept::new(&place).map_err(|error| CliError::Store(error.to_string()))?;
    let imported = import_aside(&mut BufReader::new(file), &aside, from);
    if is_new && imported.is_err() {
        drop(fs::remove_dir_all(&place));
    }
    let records = imported?;
    fs::remove_dir_all(&place).map_err(FileError::io("remove", &place)).map_err(disk)?;
    fs::rename(&aside, &place).map_err(FileError::io("rename into place", &place)).map_err(disk)?;
    drop(kept);
    files::sync_folder_of(&place).map_err(disk)?;
    // Where it came from a database, it is here from now on.
    stored::forget_cluster(state_dir).map_err(disk)?;
    Ok(records)
}

/// Makes the store that is moved into its place then; nothing of it stays where that fails.
fn import_aside(file: &mut dyn BufRead, aside: &Path, from: &Path) -> Result<u64, CliError> {
    // What an import left that broke off.
    if aside.exists() {
        let removed = fs::remove_dir_all(aside).map_err(FileError::io("remove", aside));
        removed.map_err(|error| CliError::Store(error.to_string()))?;
    }
    let imported = Store::open(aside).map_err(ArchiveError::from).and_then(|store| store.import(file));
    imported.map_err(|error| {
        drop(fs::remove_dir_all(aside));
        not_imported(error, from)
    })
}

fn not_imported(error: ArchiveError, from: &Path) -> CliError {
    match error {
        error @ (ArchiveError::Line { .. } | ArchiveError::NotEmpty) => {
            CliError::Input(format!("{}: {error}", from.display()))
        }
        error @ (ArchiveError::Store(_) | ArchiveError::Io(_) | ArchiveError::File(_)) => {
            CliError::Store(error.to_string())
        }
    }
}

fn unreadable(error: &OfflineError) -> CliError {
    match error {
        OfflineError::Store(error) => failed(error),
        OfflineError::File(error) => CliError::Store(error.to_string()),
    }
}

fn text(report: &Report) -> String {
    let Report { records, unknown_trees, tasks, artifacts, orphans, orphan_bytes, faults } = report;
    let mut lines: Vec<String> = faults.iter().map(|fault| format!("fault: {}", shown(fault))).collect();
    for (tree, count) in unknown_trees {
        let records = counted(*count, "record", "records");
        lines.push(format!("{records} of a kind that this version does not know: {}", shown(tree)));
    }
    lines.push(format!(
        "{}, {}, {} that they name",
        counted(*records, "record", "records"),
        counted(*tasks, "task", "tasks"),
        counted(*artifacts, "artifact", "artifacts")
    ));
    if *orphans > 0 {
        lines.push(format!(
            "{} that no task names, {}: harmless, and may be removed",
            counted(*orphans, "artifact", "artifacts"),
            counted(*orphan_bytes, "byte", "bytes")
        ));
    }
    if faults.is_empty() {
        lines.push("all of it is whole".to_owned());
    }
    lines.join("\n")
}
