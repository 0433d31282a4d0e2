//! The files of a population's run. Nothing in them depends on the clock, so that a run that was stopped and goes on leaves the
//! same bytes as one that was not.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use formats::{ExportError, PEFT_CONFIG, PEFT_TENSORS, peft_files};
use proto::counted::counted;
use proto::files::{self, Audience, FileError};
use proto::shown::shown;
use serde::Serialize;
use toml::Table;

use super::page;
use super::{Finished, One, Report, Scenario, VersionReport};
use crate::events::{self, Scalar};

mod lock;

use lock::LOCK;
pub use lock::Lock;

/// What the run is of, as a scenario file.
pub const SCENARIO: &str = "scenario.toml";
/// Its [`Report`].
pub const SUMMARY: &str = "summary.json";
const METRICS: &str = "metrics.jsonl";
const VERSIONS: &str = "versions.csv";
const DEVICES: &str = "devices.csv";
const REPORT: &str = "report.html";
const ADAPTER: &str = "adapter";
const BOARD: &str = "tensorboard";
/// `TensorBoard` takes every file with `tfevents` in its name.
const EVENTS: &str = "events.out.tfevents.1700000000.nightshift";

/// When the simulated clock begins, in seconds since 1970.
const BEGIN_SECS: f64 = 1_700_000_000.0;

/// A folder that cannot be written, or holds something else.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The disk refuses.
    #[error("cannot write {}: {source}; choose another folder with --out", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be put in its place.
    #[error("{0}; choose another folder with --out")]
    File(#[from] FileError),
    /// There is something else already.
    #[error("{} holds {what}, and is left as it is; name another folder with --out, or say --force to write over it", path.display())]
    Held {
        /// Which folder.
        path: PathBuf,
        /// What is in it.
        what: String,
    },
    /// Another program writes into it.
    #[error("{} writes into {} now: wait for it, or name another folder with --out", who, path.display())]
    Busy {
        /// Which folder.
        path: PathBuf,
        /// The other one.
        who: String,
    },
    /// What is there is of no run of this program.
    #[error("{} is no {what} of this program, and is left as it is: {why}; run it anew with --force", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A run that is repeated comes to something else.
    #[error(
        "version {version} is not the one that {} has: the run is repeated from its settings up to where it was stopped, and must \
         come to the same; another version of the program, another base or other text does not. Run it anew with --force",
        path.display()
    )]
    Differs {
        /// Which version.
        version: u32,
        /// The file that has it.
        path: PathBuf,
    },
    /// A run that is repeated has fewer versions than are there.
    #[error(
        "{} has {}, and the run has {made}: it is left as it is; run it anew with --force",
        path.display(), counted(*found, "line", "lines")
    )]
    Surplus {
        /// The file that has them.
        path: PathBuf,
        /// Its lines.
        found: usize,
        /// Versions of the run.
        made: usize,
    },
    /// The summary is of another run than the scenario.
    #[error(
        "{} does not say what the run in {} is of: its {SUMMARY} has another scenario; put the one of the run back, or run it anew \
         with --force",
        .0.join(SCENARIO).display(), .0.display()
    )]
    Unlike(PathBuf),
    /// A number has no place in JSON.
    #[error("the summary cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// A table cannot be written.
    #[error("a table cannot be written: {0}")]
    Csv(#[from] csv::Error),
    /// The scenario cannot be written.
    #[error("the scenario cannot be written: {0}")]
    Toml(#[from] toml::ser::Error),
    /// The adapter cannot be written.
    #[error(transparent)]
    Adapter(#[from] ExportError),
}

/// The folder of a run that is under way. Each file but `metrics.jsonl` is whole or absent, whenever the program ends. What a run
/// that was stopped left is as it was until this one has repeated all of it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    metrics: File,
    scenario: String,
    /// The lines of a run that was stopped, in order, which this one repeats first.
    repeats: Vec<String>,
    /// How many of them came out the same.
    repeated: usize,
    goes_on: bool,
    _lock: Lock,
}

/// What becomes of a run's files at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// They say what it came to.
    New,
    /// It was stopped while it was repeated, and they are as they were.
    Old,
}

/// A scenario file's bytes.
pub fn scenario_text(table: &Table) -> Result<String, FolderError> {
    Ok(toml::to_string(table)?)
}

/// The folder of a run: one below that of its sweep, or that itself.
pub fn of_run(folder: &Path, run: &One) -> PathBuf {
    if run.name.is_empty() { folder.to_path_buf() } else { folder.join(&run.name) }
}

/// The scenario of the run, or of the runs, in a folder.
pub fn scenario_of(folder: &Path) -> Result<String, FolderError> {
    let path = folder.join(SCENARIO);
    fs::read_to_string(&path).map_err(|source| FolderError::Read { path, source })
}

/// What came of the run in a folder.
pub fn report_of(folder: &Path) -> Result<Report, FolderError> {
    let path = folder.join(SUMMARY);
    let json = fs::read(&path).map_err(|source| FolderError::Read { path: path.clone(), source })?;
    serde_json::from_slice(&json).map_err(|error| FolderError::Foreign {
        path,
        what: "summary",
        why: error.to_string(),
    })
}

/// Fails where a folder holds anything but what this scenario left in it.
pub fn check(folder: &Path, table: &Table) -> Result<(), FolderError> {
    let held = |what: String| FolderError::Held { path: folder.to_path_buf(), what };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FolderError::Read { path: folder.to_path_buf(), source }),
    };
    match scenario_of(folder) {
        Ok(text) if text == scenario_text(table)? => Ok(()),
        Ok(_) => Err(held("a run of another scenario".to_owned())),
        Err(_) => {
            for entry in entries {
                let name =
                    entry.map_err(|source| FolderError::Read { path: folder.to_path_buf(), source })?;
                let name = name.file_name().to_string_lossy().into_owned();
                if name != LOCK {
                    return Err(held(format!("{}, and no {SCENARIO}", shown(&name))));
                }
            }
            Ok(())
        }
    }
}

/// Fails where a folder holds anything but a run of this scenario that can go on. Where its base and its text lie may have changed.
pub fn check_again(folder: &Path, run: &One) -> Result<(), FolderError> {
    let held = |what: &str| FolderError::Held { path: folder.to_path_buf(), what: what.to_owned() };
    match scenario_of(folder) {
        Ok(text) => {
            let of_file = text.parse::<Table>().ok().map(without_places);
            if of_file != Some(without_places(run.table.clone())) {
                return Err(held("a run of another scenario"));
            }
        }
        Err(FolderError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return check(folder, &run.table);
        }
        Err(error) => return Err(error),
    }
    if folder.join(SUMMARY).exists() {
        let placeless = |scenario: &Scenario| {
            let mut scenario = scenario.clone();
            (scenario.model.base, scenario.model.data) = (None, None);
            scenario
        };
        if placeless(&report_of(folder)?.scenario) != placeless(&run.scenario) {
            return Err(FolderError::Unlike(folder.to_path_buf()));
        }
    }
    let (found, versions) = (lines_of(folder)?.0.len(), run.scenario.task.versions as usize);
    if found > versions {
        return Err(FolderError::Surplus { path: folder.join(METRICS), found, made: versions });
    }
    Ok(())
}

/// A scenario but for where its base and its text lie: what they are, the versions that are repeated show.
fn without_places(mut table: Table) -> Table {
    if let Some(model) = table.get_mut("model").and_then(toml::Value::as_table_mut) {
        model.remove("base");
        model.remove("data");
    }
    table
}

/// The whole lines of `metrics.jsonl`, and as how many bytes they are there.
fn lines_of(folder: &Path) -> Result<(Vec<String>, u64), FolderError> {
    let path = folder.join(METRICS);
    match fs::read(&path) {
        Ok(mut bytes) => {
            // A program that was killed may have left the half of one.
            bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
            let lines = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
            Ok((lines, bytes.len() as u64))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((Vec::new(), 0)),
        Err(source) => Err(FolderError::Read { path, source }),
    }
}

/// Makes the folder of a sweep, which says of what it is; each of its runs has a folder in it. It is this program's alone for as
/// long as what is returned lives.
pub fn begin_sweep(path: &Path, table: &Table) -> Result<Lock, FolderError> {
    fs::create_dir_all(path).map_err(|source| FolderError::Write { path: path.to_path_buf(), source })?;
    let lock = Lock::take(path)?;
    files::write(&path.join(SCENARIO), scenario_text(table)?.as_bytes(), Audience::Anyone)?;
    Ok(lock)
}

/// Whether a folder holds a run of this scenario that came to its end.
pub fn is_finished(folder: &Path, table: &Table) -> Result<bool, FolderError> {
    if !folder.join(SUMMARY).exists() || scenario_of(folder)? != scenario_text(table)? {
        return Ok(false);
    }
    Ok(!report_of(folder)?.interrupted)
}

/// What a folder's run is repeated up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Nothing: it begins anew.
    Anew,
    /// The versions that it has, which must come out the same.
    Again,
}

impl Folder {
    /// Makes the folder, and begins its files. Of a run that goes on nothing is touched yet.
    pub fn begin(path: &Path, run: &One, begin: Begin) -> Result<Self, FolderError> {
        let refuse = |path: &Path, source| FolderError::Write { path: path.to_path_buf(), source };
        fs::create_dir_all(path).map_err(|source| refuse(path, source))?;
        let lock = Lock::take(path)?;
        let (repeats, whole) = match begin {
            Begin::Again => {
                check_again(path, run)?;
                lines_of(path)?
            }
            Begin::Anew => {
                forget(path)?;
                (Vec::new(), 0)
            }
        };
        let name = path.join(METRICS);
        let opened = OpenOptions::new().create(true).truncate(begin == Begin::Anew).write(true).open(&name);
        let mut metrics = opened.map_err(|source| refuse(&name, source))?;
        metrics.seek(SeekFrom::Start(whole)).map_err(|source| refuse(&name, source))?;
        let scenario = scenario_text(&run.table)?;
        let path = path.to_path_buf();
        let mut folder = Self { path, metrics, scenario, repeats, repeated: 0, goes_on: false, _lock: lock };
        folder.goes_on()?;
        Ok(folder)
    }

    /// Versions that are repeated.
    pub fn repeats(&self) -> usize {
        self.repeats.len()
    }

    /// Adds a line to `metrics.jsonl`. Where one was there it must be the same, and nothing is written.
    pub fn version(&mut self, version: &VersionReport) -> Result<(), FolderError> {
        let path = self.path.join(METRICS);
        let line = serde_json::to_string(version)?;
        if let Some(there) = self.repeats.get(self.repeated) {
            if *there != line {
                return Err(FolderError::Differs { version: version.version, path });
            }
            self.repeated += 1;
            return self.goes_on();
        }
        writeln!(self.metrics, "{line}").map_err(|source| FolderError::Write { path, source })
    }

    /// Once all that was there is repeated, the scenario is written, and half a line that a program left that was killed is cut.
    fn goes_on(&mut self) -> Result<(), FolderError> {
        if self.goes_on || self.repeated < self.repeats.len() {
            return Ok(());
        }
        files::write(&self.path.join(SCENARIO), self.scenario.as_bytes(), Audience::Anyone)?;
        let end = self.metrics.stream_position().and_then(|whole| self.metrics.set_len(whole));
        end.map_err(|source| FolderError::Write { path: self.path.join(METRICS), source })?;
        self.goes_on = true;
        Ok(())
    }

    /// Writes all that is known at the end. An adapter is one of the base of this name. Nothing is written where fewer versions
    /// were made than are there.
    pub fn finish(&self, finished: &Finished, base: Option<&str>, title: &str) -> Result<Kept, FolderError> {
        let Finished { report, devices, adapter, .. } = finished;
        if self.repeated < self.repeats.len() {
            if report.interrupted {
                return Ok(Kept::Old);
            }
            let (path, found) = (self.path.join(METRICS), self.repeats.len());
            return Err(FolderError::Surplus { path, found, made: report.versions.len() });
        }
        if let (Some((spec, parameters)), Some(base)) = (adapter, base) {
            for (name, bytes) in peft_files(spec, &[], parameters, base)? {
                self.write(ADAPTER, name, &bytes)?;
            }
        }
        self.write("", VERSIONS, &table(&report.versions)?)?;
        self.write("", DEVICES, &table(devices)?)?;
        self.write(BOARD, EVENTS, &events::file(&scalars(report)))?;
        self.write("", REPORT, page::html(report, title).as_bytes())?;
        let mut json = serde_json::to_vec_pretty(report)?;
        json.push(b'\n');
        // The last: where it is there, all is.
        self.write("", SUMMARY, &json)?;
        Ok(Kept::New)
    }

    fn write(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let folder = self.path.join(folder);
        fs::create_dir_all(&folder).map_err(|source| FolderError::Write { path: folder.clone(), source })?;
        Ok(files::write(&folder.join(name), bytes, Audience::Anyone)?)
    }
}

/// Takes away what an earlier run left, so that what is there is of one run, whenever the program ends. Nothing else is touched.
fn forget(path: &Path) -> Result<(), FolderError> {
    let adapter = [PEFT_CONFIG, PEFT_TENSORS].map(|name| path.join(ADAPTER).join(name));
    // The first: where it is there, all is.
    let own = [SUMMARY, REPORT, VERSIONS, DEVICES].map(|name| path.join(name));
    for file in own.into_iter().chain([path.join(BOARD).join(EVENTS)]).chain(adapter) {
        match fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(FolderError::Write { path: file, source }),
        }
    }
    for folder in [BOARD, ADAPTER].map(|name| path.join(name)) {
        // One that is not empty holds what is not ours.
        match fs::remove_dir(&folder) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
                ) => {}
            Err(source) => return Err(FolderError::Write { path: folder, source }),
        }
    }
    Ok(())
}

fn table<T: Serialize>(rows: &[T]) -> Result<Vec<u8>, FolderError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()).into())
}

/// What `TensorBoard` draws.
fn scalars(report: &Report) -> Vec<Scalar> {
    let mut scalars = Vec::new();
    let mut add = |step: u32, secs: f64, tag: &str, value: Option<f64>| {
        if let Some(value) = value {
            #[expect(clippy::cast_possible_truncation, reason = "TensorBoard's numbers are single precision")]
            let value = value as f32;
            let (tag, at_secs) = (tag.to_owned(), BEGIN_SECS + secs);
            scalars.push(Scalar { tag, step: i64::from(step), at_secs, value });
        }
    };
    add(0, 0.0, "loss", report.start);
    for version in &report.versions {
        let of = |number: usize| Some(number as f64);
        for (tag, value) in [
            ("loss", version.measure),
            ("epsilon", version.epsilon),
            ("signal_to_noise", version.snr),
            ("simulated_hours", Some(version.at_secs / 3600.0)),
            ("devices/available", of(version.available)),
            ("devices/assigned", of(version.assigned)),
            ("devices/trained", of(version.trained)),
            ("devices/joined", of(version.joined)),
            ("devices/submitted", of(version.submitted)),
            ("devices/counted", Some(version.survivors.into())),
            ("devices/missing", Some(version.missing.into())),
            ("devices/late", of(version.late)),
            ("bytes/up", Some(version.up_bytes as f64)),
            ("bytes/down", Some(version.down_bytes as f64)),
        ] {
            add(version.version, version.at_secs, tag, value);
        }
    }
    scalars
}
