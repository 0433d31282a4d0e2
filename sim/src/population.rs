//! A population apart from a cohort: many enrolled devices, of which a version is made by a few.
//!
//! [`Scenario`] says what it is of, in TOML, and [`Sweep`] what more than one is of; [`run_until`] lets a [`World`] of it make
//! its versions and says in a [`Report`] what came of it. The machines are the production ones, requests go through the wire's
//! bytes, and secure aggregation is real. What devices train is a closed formula ([`objective`]), so that a hundred thousand
//! of them fit one machine, or an adapter of a small base on text of each device. When they are there is [`presence`]'s
//! matter, how fast they are that of [`people`]. What stands in a run's folder is [`folder`]'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::TrainError;
use proto::adapter::{AdapterError, AdapterSpec};

use crate::world::{World, WorldError};

mod check;
mod clock;
mod dice;
pub mod folder;
mod keys;
mod learner;
pub mod objective;
mod page;
pub mod people;
pub mod presence;
mod report;
mod scenario;
mod sweep;
mod trace;

pub use check::Impossible;
pub use keys::{KEYS, KeyError};
pub use learner::Text;
use learner::{Learner, Training};
use people::People;
pub use report::{DeviceReport, Fairness, HourReport, Losses, Report, VersionReport};
use report::{Reporter, Sources};
pub use scenario::{
    FaultsTable, ModelTable, NetworkTable, ObjectiveName, PopulationTable, PresenceModel, PresenceTable,
    PrivacyTable, Scenario, ScenarioError, TaskTable, one_line,
};
pub use sweep::{MOST_RUNS, One, Sweep, set};
pub use trace::{Trace, TraceError};

/// A population that came to no end.
#[derive(Debug, thiserror::Error)]
pub enum PopulationError {
    /// It can never make its versions.
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// The world came to no end.
    #[error(transparent)]
    World(#[from] WorldError),
    /// What was trained cannot be measured.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The task ended by itself.
    #[error(
        "the task ended after {made} of {versions} versions: a version needs {goal} devices, and fewer may take part again, each \
         {participations} times in all; raise privacy.participations or population.devices"
    )]
    Spent {
        /// Versions that were made.
        made: u32,
        /// Versions that were to be made.
        versions: u32,
        /// The fewest devices of a version.
        goal: u32,
        /// How often each may take part.
        participations: u32,
    },
    /// A version is none of the plan's adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

/// What a scenario reads beside itself.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// When devices are there, where it says so.
    pub trace: Option<Trace>,
    /// What they train on, where that is no formula.
    pub text: Option<Text>,
}

/// What is told of a run while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// So many devices came to the end of a training.
    Trained(usize),
    /// A version was made.
    Version(&'a VersionReport),
}

/// What a run gives.
#[derive(Debug)]
pub struct Finished {
    /// What came of it.
    pub report: Report,
    /// Of each device.
    pub devices: Vec<DeviceReport>,
    /// The adapter of the last version, where one was trained: of two factors, with its parameters.
    pub adapter: Option<(AdapterSpec, Vec<f32>)>,
    /// Why it came to no end, where it did not.
    pub error: Option<PopulationError>,
}

/// Lets the population make its versions, until `stop` is set; `on_version` hears of each as it is made.
pub fn run(
    stop: &AtomicBool,
    scenario: &Scenario,
    trace: Option<Trace>,
    mut on_version: impl FnMut(&VersionReport),
) -> Result<Report, PopulationError> {
    let given = Given { trace, text: None };
    let finished = run_until(stop, scenario, &given, &mut |news| {
        if let News::Version(version) = news {
            on_version(version);
        }
    })?;
    match finished.error {
        None => Ok(finished.report),
        Some(error) => Err(error),
    }
}

/// Fails where the population can never make its versions, or this machine cannot hold it.
pub fn check(scenario: &Scenario, given: &Given) -> Result<(), Impossible> {
    let people = people_of(scenario, given);
    check::plan(scenario, &people, given.text.as_ref()).map(drop)
}

/// Its people. Where nothing says how many there are, each that has text is one.
fn people_of(scenario: &Scenario, given: &Given) -> People {
    let mut scenario = scenario.clone();
    if let (Some(text), None) = (&given.text, &given.trace) {
        scenario.population.devices.get_or_insert(text.users.len());
    }
    People::new(&scenario, given.trace.clone())
}

/// Lets the population make its versions, until `stop` is set. Where it comes to no end, why stands in what is returned, beside
/// the versions so far.
pub fn run_until(
    stop: &AtomicBool,
    scenario: &Scenario,
    given: &Given,
    on_news: &mut dyn FnMut(News<'_>),
) -> Result<Finished, PopulationError> {
    let people = Arc::new(people_of(scenario, given));
    let text = given.text.as_ref();
    let plan = check::plan(scenario, &people, text)?;
    let faults = scenario.faults();
    let policy = scenario.policy();
    let mut world =
        World::new(&plan, None, &policy, people.devices(), faults.clone(), scenario.digest("world").0)?
            .with_network(people.network(faults))
            .with_habits(Box::new(Arc::clone(&people)))
            .with_patience(scenario.patience_millis());
    let learner = Learner::new(scenario, &people, text);
    let sources = Sources::of(scenario, &people, text);
    let before = learner.measure(&world.state()?, world.adapter())?;
    let mut reporter = Reporter::new(scenario, &people, &plan, sources, before);
    let mut training =
        Training { learner: &learner, people: &people, stop, trained: vec![0; people.devices()], on_news };
    let mut error = None;
    for made in 0..scenario.task.versions {
        match training.goes_on(&mut world) {
            Ok(true) => {}
            Ok(false) if stop.load(Ordering::Relaxed) => break,
            Ok(false) => {
                let (versions, goal) = (scenario.task.versions, plan.round.report_goal);
                let participations = plan.privacy.participations;
                error = Some(PopulationError::Spent { made, versions, goal, participations });
                break;
            }
            Err(why) => {
                error = Some(why.into());
                break;
            }
        }
        reporter.adds(&world, learner.measure(&world.state()?, world.adapter())?);
        if let Some(version) = reporter.newest() {
            (training.on_news)(News::Version(version));
        }
    }
    let adapter = match text {
        None => None,
        Some(_) => Some(world.state()?.shipped(plan.shipped_rank())?),
    };
    let ended = error.as_ref().map(ToString::to_string);
    let (report, devices) = reporter.ends(&world, &training.trained, (stop.load(Ordering::Relaxed), ended));
    Ok(Finished { report, devices, adapter, error })
}
