//! Runs beside each other: what differs in their settings, and what came of each, as text, CSV and JSON.
//!
//! Runs are compared where their losses are of the same kind: of one base, on the same text, or of one closed formula. Others are
//! refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use proto::files::{self, Audience, FileError};
use proto::ids::Digest;
use proto::plan::Mode;
use proto::shown::shown;
use serde::Serialize;
use serde_json::Value;

use crate::population::folder::{SCENARIO, SUMMARY};
use crate::population::{ObjectiveName, Report, Sweep};
use crate::summary::RunSummary;
use crate::table::{bytes, flat};

/// Where inputs lie is no setting: what they are is compared by digest. Nor is what people call it.
const PLACES: [&str; 3] = ["model.base", "model.data", "name"];

/// Runs that cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder has no run.
    #[error("{} has no {SUMMARY}, and neither has any folder in it: name the folders of runs that came to their end", .0.display())]
    None(PathBuf),
    /// It is none of ours.
    #[error("{} is the summary of no run: as a population {population}; as a run of all devices {run}", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Why it is none of a population.
        population: String,
        /// Why it is none of a run of all devices.
        run: String,
    },
    /// It says not what it is of.
    #[error(
        "{0} does not say what it read: a training in one place has no record, and is compared with nothing"
    )]
    NoRecord(String),
    /// There is one run only.
    #[error("one run is compared with nothing: name another one{}", missing_words(.0).map_or_else(String::new, |words| format!("; {words}")))]
    One(Vec<String>),
    /// Their losses are not of the same kind.
    #[error("{first} and {second} cannot be compared: {what}")]
    Differ {
        /// The first run.
        first: String,
        /// One that differs.
        second: String,
        /// In what.
        what: String,
    },
    /// A table cannot be written.
    #[error("the table cannot be written: {0}")]
    Csv(#[from] csv::Error),
    /// A number has no place in JSON.
    #[error("the table cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The folder cannot be made.
    #[error("cannot write {}: {source}; choose another folder with --out", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be put in its place.
    #[error("{0}; choose another folder with --out")]
    File(#[from] FileError),
}

/// Runs that can be compared.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The settings in which they differ, by their whole names.
    pub differ: Vec<String>,
    /// In the order in which they were named.
    pub runs: Vec<Row>,
    /// What is measured.
    pub measures: Option<String>,
    /// Runs that are not among them, since they never began or were ended early.
    pub missing: Vec<String>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// As it was named.
    pub run: String,
    /// Those of its settings in which runs differ; none stands for one that is left out.
    pub settings: BTreeMap<String, Value>,
    /// What came of it.
    pub figures: Figures,
    #[serde(skip)]
    source: Source,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Versions that were made.
    pub versions: usize,
    /// The loss before the first.
    pub before: Option<f64>,
    /// The loss of the last.
    pub after: Option<f64>,
    /// ε; none where there is no bound.
    pub epsilon: Option<f64>,
    /// Signal to noise as planned, at best; none without noise.
    pub snr: Option<f64>,
    /// Updates in sums.
    pub counted: u64,
    /// Devices of these rounds that are in no sum.
    pub missing: u64,
    /// Simulated hours; none where all devices were always there.
    pub hours: Option<f64>,
    /// Bytes sent in the mean of the versions: of a population for each update in a sum, else by a device.
    pub up_bytes: u64,
    /// Bytes received likewise.
    pub down_bytes: u64,
    /// Why it is not whole, where it is not.
    pub ended: Option<String>,
}

/// Of what its loss is.
#[derive(Clone, Debug, PartialEq)]
struct Source {
    kind: Kind,
    base: Option<Digest>,
    data: Option<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Population(ObjectiveName),
    Whole,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Population(ObjectiveName::None) => "a population that trains nothing",
            Self::Population(ObjectiveName::Quadratic) => "a population that trains a quadratic",
            Self::Population(ObjectiveName::Logistic) => "a population that trains a regression",
            Self::Population(ObjectiveName::Engine) => "a population that trains an adapter",
            Self::Whole => "a run of all devices",
        }
    }
}

/// Reads the runs in these folders; a folder of a sweep stands for all of its runs.
pub fn read(folders: &[PathBuf]) -> Result<Compared, CompareError> {
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    for folder in folders {
        let (runs, without) = runs_in(folder)?;
        for run in runs {
            rows.push(row_of(&run)?);
        }
        missing.extend(without.iter().map(|run| run.to_string_lossy().into_owned()));
    }
    if rows.len() < 2 {
        return Err(CompareError::One(missing));
    }
    Ok(Compared { missing, ..compare(rows)? })
}

/// Runs of one sweep, each with its name, and the names of those of which there is nothing.
pub fn of_reports<'a>(
    reports: impl Iterator<Item = (String, &'a Report)>,
    missing: Vec<String>,
) -> Result<Compared, CompareError> {
    let compared = compare(reports.map(|(name, report)| of_population(name, report)).collect())?;
    Ok(Compared { missing, ..compared })
}

/// What is said of runs that are not compared; nothing where all are.
fn missing_words(missing: &[String]) -> Option<String> {
    let names: Vec<String> = missing.iter().map(|name| shown(name).to_string()).collect();
    let words = || format!("missing, since they never began or were ended early: {}", names.join(", "));
    (!missing.is_empty()).then(words)
}

/// The runs of a folder, and those that have no summary.
fn runs_in(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), CompareError> {
    if folder.join(SUMMARY).exists() {
        return Ok((vec![folder.to_path_buf()], Vec::new()));
    }
    let refuse = |source| CompareError::Read { path: folder.to_path_buf(), source };
    // A sweep says which runs are its own: another one may have left more.
    let sweep = fs::read_to_string(folder.join(SCENARIO)).ok().and_then(|text| Sweep::parse(&text).ok());
    let mut runs = Vec::new();
    if let Some(sweep) = sweep {
        runs.extend(sweep.runs.iter().map(|run| folder.join(&run.name)));
    } else {
        for entry in fs::read_dir(folder).map_err(refuse)? {
            let run = entry.map_err(refuse)?.path();
            // Whatever else lies there is no run.
            if run.join(SCENARIO).exists() || run.join(SUMMARY).exists() {
                runs.push(run);
            }
        }
        runs.sort();
    }
    let (runs, missing): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.join(SUMMARY).exists());
    if runs.is_empty() { Err(CompareError::None(folder.to_path_buf())) } else { Ok((runs, missing)) }
}

fn row_of(folder: &Path) -> Result<Row, CompareError> {
    let path = folder.join(SUMMARY);
    let json = fs::read(&path).map_err(|source| CompareError::Read { path: path.clone(), source })?;
    let name = folder.to_string_lossy().into_owned();
    match (serde_json::from_slice::<Report>(&json), serde_json::from_slice::<RunSummary>(&json)) {
        (Ok(report), _) => Ok(of_population(name, &report)),
        (Err(_), Ok(summary)) => of_whole(name, &summary),
        (Err(population), Err(run)) => {
            Err(CompareError::Foreign { path, population: population.to_string(), run: run.to_string() })
        }
    }
}

fn of_population(run: String, report: &Report) -> Row {
    let versions = &report.versions;
    let mean = |sum: u64| sum.checked_div(versions.len() as u64).unwrap_or(0);
    let settings = serde_json::to_value(&report.scenario).unwrap_or_default();
    let figures = Figures {
        versions: versions.len(),
        before: report.start,
        after: versions.last().and_then(|version| version.measure),
        epsilon: report.epsilon,
        snr: report.snr,
        counted: versions.iter().map(|version| u64::from(version.survivors)).sum(),
        missing: versions.iter().map(|version| u64::from(version.missing)).sum(),
        hours: versions.last().map(|version| version.at_secs / 3600.0),
        up_bytes: mean(versions.iter().map(|version| version.up_bytes).sum()),
        down_bytes: mean(versions.iter().map(|version| version.down_bytes).sum()),
        ended: report.ended.clone().or_else(|| report.interrupted.then(|| "stopped by its user".to_owned())),
    };
    let kind = Kind::Population(report.scenario.task.objective);
    let settings = with_program(&settings, &report.program);
    Row { run, settings, figures, source: Source { kind, base: report.base, data: report.data } }
}

fn of_whole(run: String, summary: &RunSummary) -> Result<Row, CompareError> {
    let Some(record) = &summary.record else { return Err(CompareError::NoRecord(run)) };
    let versions = &summary.versions;
    let mean = |sum: u64| sum.checked_div(versions.len() as u64).unwrap_or(0);
    let settings = serde_json::to_value(&record.scenario).unwrap_or_default();
    let finite = |number: f64| Some(number).filter(|number| number.is_finite());
    let figures = Figures {
        versions: versions.len(),
        before: finite(summary.base_loss),
        after: finite(summary.final_loss),
        epsilon: summary.bounded_epsilon(),
        snr: summary.snr.filter(|_| summary.privacy != Mode::Off),
        counted: versions.iter().map(|version| u64::from(version.survivors)).sum(),
        missing: versions.iter().map(|version| u64::from(version.missing)).sum(),
        hours: None,
        up_bytes: mean(versions.iter().map(|version| version.bytes_up_per_device).sum()),
        down_bytes: mean(versions.iter().map(|version| version.bytes_down_per_device).sum()),
        ended: summary.interrupted.then(|| "stopped by its user".to_owned()),
    };
    let mut settings = with_program(&settings, &record.program);
    settings.insert("public text".to_owned(), serde_json::to_value(record.public).unwrap_or_default());
    let source = Source { kind: Kind::Whole, base: Some(record.base), data: Some(record.data) };
    Ok(Row { run, settings, figures, source })
}

/// Settings by their whole names, and by which version of the program they were followed.
fn with_program(settings: &Value, program: &str) -> BTreeMap<String, Value> {
    let settings = flat(settings).into_iter().filter(|(key, _)| !PLACES.contains(&key.as_str()));
    settings.chain([("program".to_owned(), program.into())]).collect()
}

/// Fails where the losses of two runs are not of the same kind; leaves the settings in which runs differ.
fn compare(mut rows: Vec<Row>) -> Result<Compared, CompareError> {
    if let Some((first, others)) = rows.split_first() {
        for other in others {
            if let Some(what) = difference(&first.source, &other.source) {
                let (first, second) = (first.run.clone(), other.run.clone());
                return Err(CompareError::Differ { first, second, what });
            }
        }
    }
    let keys: BTreeSet<String> = rows.iter().flat_map(|row| row.settings.keys().cloned()).collect();
    let of = |row: &Row, key: &str| row.settings.get(key).cloned().unwrap_or_default();
    let is_other = |key: &String| {
        let first = rows.first().map(|row| of(row, key));
        rows.iter().any(|row| Some(of(row, key)) != first)
    };
    let differ: Vec<String> = keys.into_iter().filter(is_other).collect();
    for row in &mut rows {
        row.settings = differ.iter().map(|key| (key.clone(), of(row, key))).collect();
    }
    let measures = match rows.first().map(|row| row.source.kind) {
        None => None,
        Some(Kind::Population(objective)) => objective.measures(),
        Some(Kind::Whole) => ObjectiveName::Engine.measures(),
    };
    Ok(Compared { differ, runs: rows, measures: measures.map(str::to_owned), missing: Vec::new() })
}

fn difference(first: &Source, second: &Source) -> Option<String> {
    let (a, b) = (first.kind, second.kind);
    if a != b {
        return Some(format!(
            "one is {}, the other {}, and their losses are of other things",
            a.words(),
            b.words()
        ));
    }
    let words =
        |digest: Option<Digest>| digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    if first.base != second.base {
        return Some(format!(
            "their bases are not the same, by digest {} and {}",
            words(first.base),
            words(second.base)
        ));
    }
    (first.data != second.data).then(|| {
        format!(
            "the text that they train on and are measured on is not the same, by digest {} and {}: other users, fewer or more of \
             them, or sequences of another length",
            words(first.data),
            words(second.data)
        )
    })
}

/// The whole name of a setting, which is not that of a figure.
fn apart(key: &str, figures: &[&str]) -> String {
    if figures.contains(&key) { format!("setting.{key}") } else { key.to_owned() }
}

impl Compared {
    /// The headings: the last part of a setting's name, where neither another that differs nor a figure has the same.
    fn headings(&self) -> Vec<String> {
        let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
        let figures = [
            "versions", "before", "after", "ε", "signal", "counted", "missing", "hours", "up", "down",
            "ended",
        ];
        let short = |key: &String| {
            let is_alone = self.differ.iter().filter(|other| last(other) == last(key)).count() == 1;
            let is_figure = figures.contains(&last(key).as_str());
            if is_alone && !is_figure { last(key) } else { apart(key, &figures) }
        };
        let settings = self.differ.iter().map(short);
        std::iter::once("run".to_owned()).chain(settings).chain(figures.map(str::to_owned)).collect()
    }

    fn settings(&self, row: &Row) -> Vec<String> {
        let word = |key: &String| match row.settings.get(key) {
            None | Some(Value::Null) => "–".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
                value.to_string()
            }
        };
        self.differ.iter().map(word).collect()
    }

    /// Writes the table into a folder, as text, CSV and JSON.
    pub fn write(&self, folder: &Path) -> Result<(), CompareError> {
        fs::create_dir_all(folder)
            .map_err(|source| CompareError::Write { path: folder.to_path_buf(), source })?;
        let json = format!("{}\n", serde_json::to_string_pretty(self)?);
        for (name, bytes) in [
            ("table.txt", self.to_text().into_bytes()),
            ("table.csv", self.to_csv()?),
            ("table.json", json.into()),
        ] {
            files::write(&folder.join(name), &bytes, Audience::Anyone)?;
        }
        Ok(())
    }

    /// An aligned table with what differs below it.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(self.headings());
        let some = |value: Option<f64>, decimals: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
        };
        for row in &self.runs {
            let figures = &row.figures;
            let cells = [
                figures.versions.to_string(),
                some(figures.before, 4),
                some(figures.after, 4),
                figures.epsilon.map_or_else(|| "∞".to_owned(), |epsilon| format!("{epsilon:.2}")),
                some(figures.snr, 2),
                figures.counted.to_string(),
                figures.missing.to_string(),
                some(figures.hours, 1),
                bytes(figures.up_bytes),
                bytes(figures.down_bytes),
                figures.ended.clone().unwrap_or_default(),
            ];
            let name = std::iter::once(row.run.clone());
            // A line break in a name would be one in the table.
            table.add_row(name.chain(self.settings(row)).chain(cells).map(|cell| shown(&cell).to_string()));
        }
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if place > 0 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let differ = match self.differ.as_slice() {
            [] => "they differ in no setting".to_owned(),
            keys => format!("they differ in {}", keys.join(", ")),
        };
        let measures =
            self.measures.as_ref().map_or_else(String::new, |what| format!("before and after: {what}\n"));
        let missing = missing_words(&self.missing).map_or_else(String::new, |words| format!("{words}\n"));
        format!("{}\n\n{differ}\n{measures}{missing}", table.trim_fmt())
    }

    /// A line for each run, with whole numbers and whole names.
    pub fn to_csv(&self) -> Result<Vec<u8>, CompareError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let figures = [
            "versions",
            "before",
            "after",
            "epsilon",
            "snr",
            "counted",
            "missing",
            "hours",
            "up_bytes",
            "down_bytes",
            "ended",
        ];
        let settings = self.differ.iter().map(|key| apart(key, &figures));
        let head = std::iter::once("run".to_owned()).chain(settings).chain(figures.map(str::to_owned));
        writer.write_record(head)?;
        let some = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        for row in &self.runs {
            let figures = &row.figures;
            let cells = [
                figures.versions.to_string(),
                some(figures.before),
                some(figures.after),
                some(figures.epsilon),
                some(figures.snr),
                figures.counted.to_string(),
                figures.missing.to_string(),
                some(figures.hours),
                figures.up_bytes.to_string(),
                figures.down_bytes.to_string(),
                figures.ended.clone().unwrap_or_default(),
            ];
            let settings = self.settings(row).into_iter();
            let settings = settings.map(|word| if word == "–" { String::new() } else { word });
            writer.write_record(std::iter::once(row.run.clone()).chain(settings).chain(cells))?;
        }
        writer.into_inner().map_err(|error| csv::Error::from(error.into_error()).into())
    }
}
