//! The files of a run.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use formats::{ExportError, peft_files};
use proto::shown::shown;
use serde::Serialize;

use crate::record::Files;
use crate::report;
use crate::run::Finished;
use crate::scenario::Scenario;
use crate::summary::{RunSummary, VersionSummary};

/// What a run that came to no end leaves in its folder, and all that it may hold before a run of other settings.
const BEGUN: [&str; 2] = ["base", "metrics.jsonl"];

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The disk refuses.
    #[error("cannot write {}: {source}; choose another folder with --out", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is something else already.
    #[error("{} holds {what}, and is left as it is; name another folder with --out, or say --force to write over it", path.display())]
    Held {
        /// Which folder.
        path: PathBuf,
        /// What is in it.
        what: String,
    },
    /// A number has no place in JSON.
    #[error("the summary cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The adapter cannot be written.
    #[error(transparent)]
    Adapter(#[from] ExportError),
}

/// A line of `metrics.jsonl`.
#[derive(Serialize)]
struct Timed<'a> {
    #[serde(flatten)]
    version: &'a VersionSummary,
    secs: f64,
}

/// The folder of a run. It is made, and one file in it opened, before anything is trained.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    metrics: File,
}

impl Output {
    /// Makes the folder and begins `metrics.jsonl`.
    pub fn create(folder: &Path) -> Result<Self, OutputError> {
        fs::create_dir_all(folder).map_err(|source| refuse(folder, source))?;
        let path = folder.join("metrics.jsonl");
        let metrics = File::create(&path).map_err(|source| refuse(&path, source))?;
        Ok(Self { folder: folder.to_path_buf(), metrics })
    }

    /// Fails where the folder holds anything but a run of the same settings, from the same files, or one that came to no
    /// end.
    pub fn check(folder: &Path, scenario: &Scenario, files: Option<&Files>) -> Result<(), OutputError> {
        let held = |what: &str| OutputError::Held { path: folder.to_path_buf(), what: what.to_owned() };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(refuse(folder, source)),
        };
        let path = folder.join("summary.json");
        if !path.exists() {
            for entry in entries {
                let name = entry.map_err(|source| refuse(folder, source))?.file_name();
                if !BEGUN.iter().any(|known| name == *known) {
                    return Err(held(&format!(
                        "{}, and no summary.json of a run",
                        shown(&name.to_string_lossy())
                    )));
                }
            }
            return Ok(());
        }
        let json = fs::read(&path).map_err(|source| refuse(&path, source))?;
        let Ok(summary) = serde_json::from_slice::<RunSummary>(&json) else {
            return Err(held("a summary.json that is not of this program"));
        };
        match summary.record {
            Some(record) if record.scenario == *scenario && record.files.as_ref() == files => Ok(()),
            Some(record) => Err(held(&format!(
                "another run, `{}` of {} devices and {} versions by seed {}",
                shown(&record.scenario.name),
                record.scenario.devices,
                record.scenario.versions,
                record.scenario.seed
            ))),
            None => Err(held("a training in one place, of which no settings are written down")),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a line to `metrics.jsonl`.
    pub fn version(&mut self, version: &VersionSummary) -> Result<(), OutputError> {
        let line = serde_json::to_string(&Timed { version, secs: version.secs })?;
        writeln!(self.metrics, "{line}").map_err(|source| refuse(&self.folder.join("metrics.jsonl"), source))
    }

    /// Writes `adapter/`, `summary.json` and `report.html`.
    pub fn finish(&self, finished: &Finished, base: &str, title: &str) -> Result<(), OutputError> {
        let Finished { shipped: (adapter, parameters), summary, .. } = finished;
        let folder = self.folder.join("adapter");
        fs::create_dir_all(&folder).map_err(|source| refuse(&folder, source))?;
        for (name, bytes) in peft_files(adapter, &[], parameters, base)? {
            self.write(&format!("adapter/{name}"), &bytes)?;
        }
        let mut json = serde_json::to_vec_pretty(summary)?;
        json.push(b'\n');
        self.write("summary.json", &json)?;
        self.write("report.html", report::html(summary, title).as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), OutputError> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).map_err(|source| refuse(&path, source))
    }
}

fn refuse(path: &Path, source: std::io::Error) -> OutputError {
    OutputError::Write { path: path.to_path_buf(), source }
}
