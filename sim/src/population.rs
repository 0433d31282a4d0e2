//! A population apart from a cohort: many enrolled devices, of which a version is made by a few.
//!
//! [`Scenario`] says what it is of, in TOML; [`run`](fn@run) lets a [`World`] of it make its versions and
//! returns a [`Report`]. The machines are the production ones, requests go through the wire's bytes, and secure aggregation
//! is real. What is left out is the model: devices train a closed formula ([`objective`]), so that a hundred thousand of
//! them fit one machine. When they are there is [`presence`]'s matter, how fast they are that of [`people`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use session::Work;
use session::update::Update;

use crate::world::{Trainer, World, WorldError};

mod check;
mod clock;
mod dice;
pub mod objective;
pub mod people;
pub mod presence;
mod report;
mod scenario;
mod trace;

pub use check::Impossible;
use objective::Objective;
use people::People;
pub use report::{Fairness, Report, VersionReport};
pub use scenario::{
    FaultsTable, NetworkTable, ObjectiveName, PopulationTable, PresenceModel, PresenceTable, PrivacyTable,
    Scenario, ScenarioError, TaskTable,
};
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
}

/// Lets the population make its versions, until `stop` is set; `on_version` hears of each as it is made.
pub fn run(
    stop: &AtomicBool,
    scenario: &Scenario,
    trace: Option<Trace>,
    mut on_version: impl FnMut(&VersionReport),
) -> Result<Report, PopulationError> {
    let people = Arc::new(People::new(scenario, trace));
    let plan = check::plan(scenario, &people)?;
    let faults = scenario.faults();
    let policy = scenario.policy();
    let mut world =
        World::new(&plan, None, &policy, people.devices(), faults.clone(), scenario.digest("world").0)?
            .with_network(people.network(faults))
            .with_habits(Box::new(Arc::clone(&people)))
            .with_patience(scenario.patience_millis());
    let objective = Objective::new(scenario, &people);
    let mut trainer = Formula { objective: &objective, people: &people, stop };
    let mut report = Report::new(scenario, people.devices());
    for _ in 0..scenario.task.versions {
        if !world.run_to_next_version(&mut trainer)? {
            break;
        }
        report.adds(&world, &objective);
        if let Some(version) = report.versions.last() {
            on_version(version);
        }
    }
    report.ends(&world, stop.load(Ordering::Relaxed));
    Ok(report)
}

/// Trains by a closed formula.
struct Formula<'a> {
    objective: &'a Objective,
    people: &'a People,
    stop: &'a AtomicBool,
}

impl Trainer for Formula<'_> {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        let one = |(device, work): &(usize, Arc<Work>)| {
            let examples = self.people.examples(*device);
            let (after, loss) = self.objective.trains(*device, examples, &work.adapter);
            Update::between(&work.adapter, &after, loss, examples)
                .ok_or_else(|| format!("the training of device {device} gave no finite update"))
        };
        batch.iter().map(one).collect()
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
