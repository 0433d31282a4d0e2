//! The files of a run.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use formats::{ExportError, peft_files};
use proto::adapter::AdapterSpec;
use proto::counted::counted;
use proto::files::{self, Audience, FileError};
use proto::shown::shown;
use serde::Serialize;

use crate::record::Files;
use crate::report;
use crate::run::Finished;
use crate::scenario::Scenario;
use crate::summary::{RunSummary, VersionSummary};

/// The base that the program makes up, a line for each version, and the adapter, in the folder of a run.
const BASE: &str = "base";
const METRICS: &str = "metrics.jsonl";
const ADAPTER: &str = "adapter";

/// What a run that came to no end leaves in its folder, and all that it may hold before a run of other settings.
const BEGUN: [&str; 3] = [BASE, METRICS, ADAPTER];

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

/// The folder of a run. It is made, and one file in it opened, before anything is trained. A run that comes to nothing, as one
/// that is refused, leaves it as it was. Each file but `metrics.jsonl` is whole or absent, whenever the program ends.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    metrics: File,
    /// Whether anything of this run is there to be kept.
    is_begun: bool,
    /// What was made for it and was not there before, in the order in which it is taken away.
    made: Made,
}

/// What an [`Output`] made.
#[derive(Debug, Default)]
struct Made {
    metrics: Option<PathBuf>,
    base: Option<PathBuf>,
    /// The innermost first.
    folders: Vec<PathBuf>,
}

impl Output {
    /// Makes the folder, and opens `metrics.jsonl`, of which nothing is lost before the first version.
    pub fn create(folder: &Path) -> Result<Self, OutputError> {
        let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let folders: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        fs::create_dir_all(folder).map_err(|source| refuse(folder, source))?;
        let (metrics, base) = (folder.join(METRICS), folder.join(BASE));
        let new = |path: &Path| (!path.exists()).then(|| path.to_path_buf());
        let made = Made { metrics: new(&metrics), base: new(&base), folders };
        let opened = File::options().create(true).append(true).open(&metrics);
        let opened = opened.map_err(|source| refuse(&metrics, source));
        match opened {
            Ok(metrics) => Ok(Self { folder: folder.to_path_buf(), metrics, is_begun: false, made }),
            Err(error) => {
                made.take_away();
                Err(error)
            }
        }
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
                "another run, `{}` of {} and {} by seed {}",
                shown(&record.scenario.name),
                counted(record.scenario.devices, "device", "devices"),
                counted(record.scenario.versions, "version", "versions"),
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
        self.begin()?;
        let line = serde_json::to_string(&Timed { version, secs: version.secs })?;
        writeln!(self.metrics, "{line}").map_err(|source| refuse(&self.folder.join(METRICS), source))
    }

    /// Writes `adapter/`.
    pub fn adapter(
        &mut self,
        adapter: &AdapterSpec,
        parameters: &[f32],
        base: &str,
    ) -> Result<(), OutputError> {
        self.begin()?;
        let folder = self.folder.join(ADAPTER);
        fs::create_dir_all(&folder).map_err(|source| refuse(&folder, source))?;
        for (name, bytes) in peft_files(adapter, &[], parameters, base)? {
            self.write(&format!("{ADAPTER}/{name}"), &bytes)?;
        }
        Ok(())
    }

    /// Writes `summary.json` and `report.html`.
    pub fn finish(&mut self, finished: &Finished, title: &str) -> Result<(), OutputError> {
        self.begin()?;
        let mut json = serde_json::to_vec_pretty(&finished.summary)?;
        json.push(b'\n');
        self.write("summary.json", &json)?;
        self.write("report.html", report::html(&finished.summary, title).as_bytes())
    }

    /// What an earlier run of the same settings left is written over from here on.
    fn begin(&mut self) -> Result<(), OutputError> {
        if !self.is_begun {
            self.metrics.set_len(0).map_err(|source| refuse(&self.folder.join(METRICS), source))?;
            self.is_begun = true;
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), OutputError> {
        Ok(files::write(&self.folder.join(name), bytes, Audience::Anyone)?)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_begun {
            self.made.take_away();
        }
    }
}

impl Made {
    /// What cannot be taken away stays: it holds nothing.
    fn take_away(&self) {
        if let Some(metrics) = &self.metrics {
            drop(fs::remove_file(metrics));
        }
        if let Some(base) = &self.base {
            drop(fs::remove_dir_all(base));
        }
        for folder in &self.folders {
            drop(fs::remove_dir(folder));
        }
    }
}

fn refuse(path: &Path, source: std::io::Error) -> OutputError {
    OutputError::Write { path: path.to_path_buf(), source }
}
