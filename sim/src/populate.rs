//! `nightshift-sim population`: reads a scenario, runs it, and says what came of it.

use std::fs::File;
use std::path::Path;

use nightshift_sim::population::{
    self, PopulationError, PresenceModel, Report, Scenario, Trace, VersionReport,
};
use proto::files::{self, Audience};
use proto::shown::{message, page};

use super::cli::{Format, OutputArgs, PopulationArgs};
use super::{Failure, stop_on_ctrl_c};

/// A scenario with every key.
const KEYS: &str = include_str!("../scenarios/population.toml");

pub(super) fn populate(args: &PopulationArgs, out: &OutputArgs) -> Result<(), Failure> {
    if args.keys {
        print!("{KEYS}");
        return Ok(());
    }
    let (scenario, trace) = read(args, out).map_err(Failure::Input)?;
    let stop = stop_on_ctrl_c().map_err(|e| Failure::Output(e.into()))?;
    let is_text = match out.format {
        Format::Text => true,
        Format::Json => false,
    };
    let mut is_headed = false;
    let report = population::run(&stop, &scenario, trace, |version| {
        let line = version.row();
        match (is_text, is_headed) {
            (true, false) => print!("{}\n{line}\n", Report::headings()),
            (true, true) => println!("{line}"),
            (false, _) => eprintln!("{}", progress(version, scenario.task.versions)),
        }
        is_headed = true;
    });
    let report = report.map_err(|error| match error {
        PopulationError::Impossible(_) => Failure::Input(error.into()),
        PopulationError::World(_) => Failure::Federation(error.into()),
    })?;
    let json = serde_json::to_string_pretty(&report).map_err(|e| Failure::Output(e.into()))?;
    if is_text {
        print!("{}", page(&report.statement()));
    } else {
        println!("{json}");
    }
    if let Some(path) = &args.report {
        write(path, &json).map_err(Failure::Output)?;
    }
    if report.interrupted {
        let (done, of) = (report.versions.len(), scenario.task.versions);
        return Err(Failure::Interrupted(anyhow::anyhow!("stopped after version {done} of {of}")));
    }
    Ok(())
}

/// A line for whoever reads JSON.
fn progress(version: &VersionReport, of: u32) -> String {
    let line = format!(
        "version {} of {of}: {} of {} in the sum, after {:.2} simulated hours, {:.1} s",
        version.version,
        version.survivors,
        version.cohort,
        version.at_secs / 3600.0,
        version.secs
    );
    message(&line).to_string()
}

fn read(args: &PopulationArgs, out: &OutputArgs) -> anyhow::Result<(Scenario, Option<Trace>)> {
    let mut scenario = match &args.scenario {
        None => Scenario::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| anyhow::anyhow!("cannot read {}: {e}", path.display()))?;
            Scenario::parse(&text)
                .map_err(|e| anyhow::anyhow!("{}: {e}; --keys prints all keys", path.display()))?
        }
    };
    scenario.population.devices = args.devices.or(scenario.population.devices);
    scenario.task.cohort = args.cohort.unwrap_or(scenario.task.cohort);
    scenario.task.versions = args.versions.unwrap_or(scenario.task.versions);
    scenario.task.coordinates = args.coordinates.unwrap_or(scenario.task.coordinates);
    scenario.seed = out.seed.unwrap_or(scenario.seed);
    scenario.check()?;
    let trace = match (scenario.presence.model, &scenario.presence.trace) {
        (PresenceModel::Trace, Some(trace)) => {
            let folder = args.scenario.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
            let path = folder.join(trace);
            let file =
                File::open(&path).map_err(|e| anyhow::anyhow!("cannot read {}: {e}", path.display()))?;
            Some(Trace::read(file).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?)
        }
        (PresenceModel::Always | PresenceModel::Diurnal | PresenceModel::Trace, _) => None,
    };
    Ok((scenario, trace))
}

fn write(path: &Path, json: &str) -> anyhow::Result<()> {
    files::write(path, format!("{json}\n").as_bytes(), Audience::Anyone)?;
    Ok(())
}
