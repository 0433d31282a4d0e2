//! The files of a population's run. Nothing in them depends on the clock, so that a run that was stopped and goes on leaves the
//! same bytes as one that was not.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use formats::{ExportError, PEFT_CONFIG, PEFT_TENSORS, peft_files};
use proto::files::{self, Audience, FileError};
use proto::shown::shown;
use serde::Serialize;
use toml::Table;

use super::page;
use super::{Finished, Report, VersionReport};
use crate::events::{self, Scalar};

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
    /// What is there is of no run of this program.
    #[error("{} is no {what} of this program: {why}", path.display())]
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

/// The folder of a run that is under way. Each file but `metrics.jsonl` is whole or absent, whenever the program ends.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    metrics: File,
    /// The lines of a run that was stopped, in order, which this one repeats first.
    repeats: Vec<String>,
    written: usize,
}

/// A scenario file's bytes.
pub fn scenario_text(table: &Table) -> Result<String, FolderError> {
    Ok(toml::to_string(table)?)
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
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FolderError::Read { path: folder.to_path_buf(), source }),
    };
    match scenario_of(folder) {
        Ok(text) if text == scenario_text(table)? => Ok(()),
        Ok(_) => Err(held("a run of another scenario".to_owned())),
        Err(_) => match entries.next() {
            None => Ok(()),
            Some(entry) => {
                let name =
                    entry.map_err(|source| FolderError::Read { path: folder.to_path_buf(), source })?;
                let name = name.file_name().to_string_lossy().into_owned();
                Err(held(format!("{}, and no {SCENARIO}", shown(&name))))
            }
        },
    }
}

/// Makes the folder of a sweep, which says of what it is; each of its runs has a folder in it.
pub fn begin_sweep(path: &Path, table: &Table) -> Result<(), FolderError> {
    fs::create_dir_all(path).map_err(|source| FolderError::Write { path: path.to_path_buf(), source })?;
    Ok(files::write(&path.join(SCENARIO), scenario_text(table)?.as_bytes(), Audience::Anyone)?)
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
    /// Makes the folder, and begins its files.
    pub fn begin(path: &Path, table: &Table, begin: Begin) -> Result<Self, FolderError> {
        let refuse = |path: &Path, source| FolderError::Write { path: path.to_path_buf(), source };
        fs::create_dir_all(path).map_err(|source| refuse(path, source))?;
        let metrics = path.join(METRICS);
        let repeats = match begin {
            Begin::Again => match fs::read_to_string(&metrics) {
                Ok(text) => whole_lines(&text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                Err(source) => return Err(FolderError::Read { path: metrics, source }),
            },
            Begin::Anew => {
                forget(path)?;
                Vec::new()
            }
        };
        files::write(&path.join(SCENARIO), scenario_text(table)?.as_bytes(), Audience::Anyone)?;
        let file = File::create(&metrics).map_err(|source| refuse(&metrics, source))?;
        Ok(Self { path: path.to_path_buf(), metrics: file, repeats, written: 0 })
    }

    /// Versions that are repeated.
    pub fn repeats(&self) -> usize {
        self.repeats.len()
    }

    /// Adds a line to `metrics.jsonl`. Fails where it is not the one that was there.
    pub fn version(&mut self, version: &VersionReport) -> Result<(), FolderError> {
        let path = self.path.join(METRICS);
        let line = serde_json::to_string(version)?;
        let is_same = self.repeats.get(self.written).is_none_or(|repeated| *repeated == line);
        self.written += 1;
        writeln!(self.metrics, "{line}")
            .map_err(|source| FolderError::Write { path: path.clone(), source })?;
        if is_same { Ok(()) } else { Err(FolderError::Differs { version: version.version, path }) }
    }

    /// Writes all that is known at the end. An adapter is one of the base of this name.
    pub fn finish(&self, finished: &Finished, base: Option<&str>, title: &str) -> Result<(), FolderError> {
        let Finished { report, devices, adapter, .. } = finished;
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
        self.write("", SUMMARY, &json)
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

/// Those that end: a program that was killed may have left the half of one.
fn whole_lines(text: &str) -> Vec<String> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
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
