//! `nightshift-sim population`: reads a scenario, runs it or all that its lists make, and says what came of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use formats::name_of_base;
use nightshift_sim::compare::{self, Compared};
use nightshift_sim::population::folder::{self, Begin, Folder, FolderError, Kept};
use nightshift_sim::population::{
    self, Finished, Given, KEYS, News, ObjectiveName, One, PopulationError, Report, Scenario, Sweep, Text,
    Trace, set,
};
use nightshift_sim::record::Files;
use proto::files::{self, Audience};
use proto::shown::{message, page};
use toml::{Table, Value};

use super::cli::{CompareArgs, Format, OutputArgs, PopulationArgs};
use super::progress::{Progress, prefix};
use super::read::{Read, Wanted};
use super::{Failure, stop_on_ctrl_c};

/// What a run has to have, and where it goes.
struct Runs {
    sweep: Sweep,
    table: Table,
    traces: BTreeMap<PathBuf, Trace>,
    text: Option<(Text, String)>,
}

/// What became of a run.
struct Done {
    report: Report,
    kept: Kept,
    /// Why it came to no end, where it did not.
    failure: Option<Failure>,
}

pub(super) fn populate(args: &PopulationArgs, out: &OutputArgs) -> Result<(), Failure> {
    if args.keys {
        print!("{KEYS}");
        return Ok(());
    }
    if args.resume && out.out.is_none() {
        return Err(Failure::Usage(anyhow::anyhow!(
            "--resume goes on with what is in --out: name that folder"
        )));
    }
    let runs = read(args, out).map_err(Failure::Input)?;
    if args.report.is_some() && !runs.sweep.lists.is_empty() {
        let why = "--report takes what came of one run, and the scenario makes several: name a folder for them with --out";
        return Err(Failure::Usage(anyhow::anyhow!(why)));
    }
    for run in &runs.sweep.runs {
        let checked = population::check(&run.scenario, &runs.given(run));
        checked.map_err(|error| Failure::Input(anyhow::anyhow!("{}{error}", prefix(&run.name))))?;
    }
    let mut lock = None;
    if let Some(folder) = &out.out {
        if args.resume {
            for run in &runs.sweep.runs {
                folder::check_again(&folder::of_run(folder, run), run).map_err(refused)?;
            }
        } else if !args.force {
            folder::check(folder, &runs.table).map_err(refused)?;
        }
        if !runs.sweep.lists.is_empty() {
            lock = Some(folder::begin_sweep(folder, &runs.table).map_err(refused)?);
        }
    }
    let stop = stop_on_ctrl_c().map_err(|e| Failure::Output(e.into()))?;
    let begin = if args.resume { Begin::Again } else { Begin::Anew };
    let done = if runs.sweep.lists.is_empty() {
        one(&runs, &stop, begin, args, out)
    } else {
        all(&runs, &stop, begin, out)
    };
    drop(lock);
    done
}

/// What a folder is refused for: what it holds is wrong, or it cannot be written.
fn refused(error: FolderError) -> Failure {
    match error {
        FolderError::Differs { .. }
        | FolderError::Foreign { .. }
        | FolderError::Surplus { .. }
        | FolderError::Unlike(_) => Failure::Input(error.into()),
        FolderError::Write { .. }
        | FolderError::Read { .. }
        | FolderError::File(_)
        | FolderError::Held { .. }
        | FolderError::Busy { .. }
        | FolderError::Json(_)
        | FolderError::Csv(_)
        | FolderError::Toml(_)
        | FolderError::Adapter(_) => Failure::Output(error.into()),
    }
}

/// The one run of a file without lists.
fn one(
    runs: &Runs,
    stop: &AtomicBool,
    begin: Begin,
    args: &PopulationArgs,
    out: &OutputArgs,
) -> Result<(), Failure> {
    let Some(run) = runs.sweep.runs.first() else { return Ok(()) };
    let is_text = out.format == Format::Text;
    let mut progress = Progress::of(&runs.sweep);
    let mut is_headed = false;
    let Done { report, kept, failure } =
        runs.perform(run, stop, (out.out.as_deref(), begin), &mut progress, &mut |line| {
            if !is_text {
                return;
            }
            if !is_headed {
                println!("{}", Report::headings());
            }
            println!("{line}");
            is_headed = true;
        })?;
    progress.ends();
    if let (Kept::Old, Some(folder)) = (kept, &out.out) {
        let (folder, done) = (folder.display(), report.versions.len());
        return Err(Failure::Interrupted(anyhow::anyhow!(
            "stopped after {done} of the versions that are repeated, and {folder} is as it was; `population --resume --out {folder}` goes on"
        )));
    }
    let json = serde_json::to_string_pretty(&report).map_err(|e| Failure::Output(e.into()))?;
    if is_text {
        print!("{}", page(&report.statement()));
    } else {
        println!("{json}");
    }
    if let Some(path) = &args.report {
        write(path, &json).map_err(Failure::Output)?;
    }
    if let Some(folder) = &out.out {
        eprintln!(
            "{}",
            message(&format!("report.html, summary, tables and events are in {}", folder.display()))
        );
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if report.interrupted {
        let (done, of) = (report.versions.len(), report.scenario.task.versions);
        let kept = out.out.as_ref().map_or_else(String::new, |folder| {
            format!("; `population --resume --out {}` goes on", folder.display())
        });
        return Err(Failure::Interrupted(anyhow::anyhow!("stopped after version {done} of {of}{kept}")));
    }
    Ok(())
}

/// A run for each combination of the lists, and their table. Those that came to their end before are left as they are.
fn all(runs: &Runs, stop: &AtomicBool, begin: Begin, out: &OutputArgs) -> Result<(), Failure> {
    let mut progress = Progress::of(&runs.sweep);
    let mut reports: Vec<(String, Report)> = Vec::new();
    for run in &runs.sweep.runs {
        let path = out.out.as_ref().map(|folder| folder::of_run(folder, run));
        if let Some(path) = path.as_deref().filter(|_| begin == Begin::Again)
            && folder::is_finished(path, &run.table).map_err(refused)?
        {
            let report = folder::report_of(path).map_err(refused)?;
            progress.skips(&run.name, &run.scenario);
            reports.push((run.name.clone(), report));
            continue;
        }
        let done = runs.perform(run, stop, (path.as_deref(), begin), &mut progress, &mut |_| {});
        // What one combination comes to stands in the table, and the others are run.
        let Done { report, kept, .. } = done?;
        // Its row is of what stands in its folder.
        let report = match (kept, path.as_deref()) {
            (Kept::Old, Some(path)) => folder::report_of(path).ok(),
            (Kept::Old, None) | (Kept::New, _) => Some(report),
        };
        let Some(report) = report else { break };
        let is_whole = !report.interrupted;
        if is_whole || !report.versions.is_empty() {
            reports.push((run.name.clone(), report));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    progress.ends();
    let names = runs.sweep.runs.iter().map(|run| run.name.clone());
    let missing = names.filter(|name| reports.iter().all(|(known, _)| known != name)).collect();
    let compared = compare::of_reports(reports.iter().map(|(name, report)| (name.clone(), report)), missing);
    let compared = compared.map_err(|e| Failure::Input(e.into()))?;
    tell(&compared, out)?;
    if let Some(folder) = &out.out {
        let words =
            format!("a folder for each run, and table.txt, .csv and .json, are in {}", folder.display());
        eprintln!("{}", message(&words));
    }
    let (done, of) =
        (reports.iter().filter(|(_, report)| !report.interrupted).count(), runs.sweep.runs.len());
    if stop.load(Ordering::Relaxed) && done < of {
        return Err(Failure::Interrupted(anyhow::anyhow!("stopped after {done} of {of} runs")));
    }
    let ended = reports.iter().filter(|(_, report)| report.ended.is_some()).count();
    if ended > 0 {
        return Err(Failure::Federation(anyhow::anyhow!(
            "{ended} of {of} runs came to no end; the table says why"
        )));
    }
    Ok(())
}

/// `nightshift-sim compare`.
pub(super) fn compare_runs(args: &CompareArgs, out: &OutputArgs) -> Result<(), Failure> {
    let compared = compare::read(&args.runs).map_err(|e| Failure::Input(e.into()))?;
    tell(&compared, out)
}

/// Writes a table where there is a folder for it, and prints it.
fn tell(compared: &Compared, out: &OutputArgs) -> Result<(), Failure> {
    if let Some(folder) = &out.out {
        compared.write(folder).map_err(|e| Failure::Output(e.into()))?;
    }
    match out.format {
        Format::Text => print!("{}", page(&compared.to_text())),
        Format::Json => {
            let json = serde_json::to_string_pretty(compared).map_err(|e| Failure::Output(e.into()))?;
            println!("{json}");
        }
    }
    Ok(())
}

impl Runs {
    fn given(&self, run: &One) -> Given {
        let trace = run.scenario.presence.trace.as_ref().and_then(|path| self.traces.get(path)).cloned();
        Given { trace, text: self.text.as_ref().map(|(text, _)| text.clone()) }
    }

    /// Runs one, writes its folder where there is one, and tells each version's row.
    fn perform(
        &self,
        run: &One,
        stop: &AtomicBool,
        (path, begin): (Option<&Path>, Begin),
        progress: &mut Progress,
        on_row: &mut dyn FnMut(&str),
    ) -> Result<Done, Failure> {
        let begun = path.map(|path| Folder::begin(path, run, begin)).transpose();
        let mut folder = begun.map_err(refused)?;
        if let Some(again) = folder.as_ref().map(Folder::repeats).filter(|again| *again > 0) {
            progress.says(&format!("{}repeating the first {again} versions", prefix(&run.name)));
        }
        progress.begins(&run.name, &run.scenario);
        let mut written: Result<(), FolderError> = Ok(());
        let finished = population::run_until(stop, &run.scenario, &self.given(run), &mut |news| match news {
            News::Trained(devices) => progress.trained(devices),
            News::Version(version) => {
                if let (Some(folder), true) = (&mut folder, written.is_ok()) {
                    written = folder.version(version);
                    if written.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                progress.version(version, || on_row(&version.row()));
            }
        });
        let finished = finished.map_err(|error| match error {
            PopulationError::Impossible(_) => Failure::Input(error.into()),
            PopulationError::World(_)
            | PopulationError::Train(_)
            | PopulationError::Spent { .. }
            | PopulationError::Adapter(_) => Failure::Federation(error.into()),
        })?;
        written.map_err(refused)?;
        let mut kept = Kept::New;
        if let Some(folder) = &folder {
            let base = self.text.as_ref().map(|(_, base)| base.as_str());
            let title = format!("{}{}", run.scenario.name, suffix(&run.name));
            kept = folder.finish(&finished, base, &title).map_err(refused)?;
        }
        let Finished { report, error, .. } = finished;
        Ok(Done { report, kept, failure: error.map(|error| Failure::Federation(error.into())) })
    }
}

fn suffix(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(", {name}") }
}

/// The runs that the file and the command line make, and what they read.
fn read(args: &PopulationArgs, out: &OutputArgs) -> anyhow::Result<Runs> {
    let (text, from) = match (&args.scenario, &out.out) {
        (None, Some(folder)) if args.resume => (folder::scenario_of(folder)?, folder.join(folder::SCENARIO)),
        (None, _) => (String::new(), PathBuf::new()),
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| anyhow::anyhow!("cannot read {}: {e}", path.display()))?;
            (text, path.clone())
        }
    };
    let wrong = |why: &dyn std::fmt::Display| match &args.scenario {
        None => anyhow::anyhow!("{why}; --keys prints all keys"),
        Some(path) => anyhow::anyhow!("{}: {why}; --keys prints all keys", path.display()),
    };
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| wrong(&population::one_line(&e)))?;
    if args.resume && table.is_empty() {
        anyhow::bail!(
            "{} is empty, and does not say what is to go on: put the scenario of the run back, or run it anew with --scenario and \
             --force",
            from.display()
        );
    }
    if let Some(stem) = from.file_stem().filter(|_| !table.contains_key("name")) {
        set(&mut table, "name", Value::String(stem.to_string_lossy().into_owned()));
    }
    let folder = from.parent().unwrap_or(Path::new(""));
    let paths = [("model.base", &args.base), ("model.data", &args.data), ("presence.trace", &None)];
    for (key, given) in paths {
        if let Some(given) = given {
            set(&mut table, key, place(Path::new(""), &given.to_string_lossy())?);
        } else {
            in_folder(&mut table, key, folder)?;
        }
    }
    let numbers = [
        ("population.devices", args.devices.map(i64::try_from).transpose()?),
        ("task.cohort", args.cohort.map(i64::from)),
        ("task.versions", args.versions.map(i64::from)),
        ("task.coordinates", args.coordinates.map(i64::from)),
        ("seed", out.seed.map(i64::try_from).transpose()?),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            set(&mut table, key, Value::Integer(number));
        }
    }
    let sweep = Sweep::of(&table).map_err(|e| wrong(&e))?;
    let mut traces = BTreeMap::new();
    for path in sweep.runs.iter().filter_map(|run| run.scenario.presence.trace.as_ref()) {
        if !traces.contains_key(path) {
            let file =
                File::open(path).map_err(|e| anyhow::anyhow!("cannot read {}: {e}", path.display()))?;
            let trace = Trace::read(file).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
            traces.insert(path.clone(), trace);
        }
    }
    let text = match sweep.runs.first() {
        Some(run) => read_text(&run.scenario)?,
        None => None,
    };
    Ok(Runs { sweep, table, traces, text })
}

/// The base and the text of the devices, where the engine trains; and what the base is called.
fn read_text(scenario: &Scenario) -> anyhow::Result<Option<(Text, String)>> {
    let (ObjectiveName::Engine, Some(base), Some(data)) =
        (scenario.task.objective, scenario.model.base.clone(), scenario.model.data.clone())
    else {
        return Ok(None);
    };
    let files = Files { base, data, public: None };
    let wanted = Wanted { devices: scenario.population.devices, newcomers: 0, most: usize::MAX };
    let read = Read::of_files(files, wanted)?;
    let name = name_of_base(&read.folder)?;
    Ok(Some((Text { base: Arc::clone(&read.base), users: read.users.into() }, name)))
}

/// Names in a file are as seen from its folder; from here on they are whole, so that the run may be repeated from anywhere.
fn in_folder(table: &mut Table, key: &str, folder: &Path) -> anyhow::Result<()> {
    let Some((name, last)) = key.split_once('.') else { return Ok(()) };
    let Some(value) = table.get_mut(name).and_then(|inner| inner.as_table_mut()?.get_mut(last)) else {
        return Ok(());
    };
    match value {
        Value::String(text) => *value = place(folder, text)?,
        Value::Array(values) => {
            for value in values {
                if let Value::String(text) = value {
                    *value = place(folder, text)?;
                }
            }
        }
        // It is refused as what it is.
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => {}
    }
    Ok(())
}

fn place(folder: &Path, name: &str) -> anyhow::Result<Value> {
    if name.starts_with("hf:") {
        return Ok(Value::String(name.to_owned()));
    }
    let path = std::path::absolute(folder.join(name))?;
    let Some(path) = path.to_str() else { anyhow::bail!("{} is no name in Unicode", path.display()) };
    Ok(Value::String(path.to_owned()))
}

fn write(path: &Path, json: &str) -> anyhow::Result<()> {
    files::write(path, format!("{json}\n").as_bytes(), Audience::Anyone)?;
    Ok(())
}
