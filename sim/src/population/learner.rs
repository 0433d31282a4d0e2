//! What devices train, and how far it is: a formula, or an adapter on each device's text by the devices' own engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Base, Blocks, Engine, TrainError};
use proto::adapter::State;
use proto::ids::Digest;
use rayon::prelude::*;
use session::Work;
use session::update::Update;

use super::News;
use super::objective::{MEASURED, Objective};
use super::people::People;
use super::scenario::{ObjectiveName, Scenario};
use crate::inputs::User;
use crate::measure::{losses, mean};
use crate::plain::Assignment;
use crate::record::digest_of;
use crate::world::{Trainer, World, WorldError};

/// A base, and the text of each device.
#[derive(Clone, Debug)]
pub struct Text {
    /// The base.
    pub base: Arc<Base>,
    /// Of each device.
    pub users: Arc<[User]>,
}

impl Text {
    /// The digest of so many devices' text, as the base's tokens.
    pub(super) fn digest(&self, devices: usize, sequence_len: u32) -> Digest {
        digest_of(self.users.iter().take(devices), sequence_len)
    }
}

/// What devices train.
#[derive(Debug)]
pub(super) enum Learner {
    Formula(Box<Objective>),
    Engine(Box<Engines>),
}

/// An engine, and what each device trains on and holds out.
#[derive(Debug)]
pub(super) struct Engines {
    engine: Engine,
    text: Vec<Blocks>,
    /// Of the first devices.
    held_out: Vec<Blocks>,
    seed: Digest,
}

impl Learner {
    /// That of the scenario.
    pub(super) fn new(scenario: &Scenario, people: &People, text: Option<&Text>) -> Self {
        let engine = text.filter(|_| scenario.task.objective == ObjectiveName::Engine);
        let Some(text) = engine else { return Self::Formula(Box::new(Objective::new(scenario, people))) };
        let (len, users) = (scenario.model.sequence_len, text.users.iter().take(people.devices()));
        Self::Engine(Box::new(Engines {
            engine: Engine::new(Arc::clone(&text.base)),
            text: users.clone().map(|user| user.corpus.train(len)).collect(),
            held_out: users.take(MEASURED).map(|user| user.corpus.held_out(len)).collect(),
            seed: scenario.digest("training"),
        }))
    }

    /// What a device makes of its work.
    fn train(&self, device: usize, examples: u32, work: &Work, stop: &AtomicBool) -> Result<Update, String> {
        let no_number = || format!("the training of device {device} gave no finite update");
        match self {
            Self::Formula(objective) => {
                let (after, loss) = objective.trains(device, examples, &work.adapter);
                Update::between(&work.adapter, &after, loss, examples).ok_or_else(no_number)
            }
            Self::Engine(engines) => {
                let state = work.training().map_err(|error| error.to_string())?;
                let (training, version) = (&work.plan.training, work.published.version);
                let assignment = Assignment { training, seed: engines.seed, device, version };
                let trained = assignment.train(&engines.engine, &state, &engines.text[device], stop);
                let trained = trained.map_err(|error| error.to_string())?;
                let (after, loss) = (&trained.parameters, trained.mean_loss());
                Update::between(&state.trained, after, loss, trained.examples).ok_or_else(no_number)
            }
        }
    }

    /// The loss of each of the first devices, and what of them a learning curve shows.
    pub(super) fn measure(
        &self,
        state: &State,
        adapter: &[f32],
    ) -> Result<(Vec<f64>, Option<f64>), TrainError> {
        let (each, all) = match self {
            Self::Formula(objective) => (objective.losses(adapter), objective.measure(adapter)),
            Self::Engine(engines) => {
                let losses = losses(&engines.engine, state, &engines.held_out)?;
                let all = mean(&losses);
                (losses, Some(all))
            }
        };
        Ok((each, all.filter(|all| all.is_finite())))
    }
}

/// The trainer of a world of these devices.
pub(super) struct Training<'a> {
    pub(super) learner: &'a Learner,
    pub(super) people: &'a People,
    pub(super) stop: &'a AtomicBool,
    /// Trainings of each device that came to their end.
    pub(super) trained: Vec<u32>,
    pub(super) on_news: &'a mut dyn FnMut(News<'_>),
}

impl Training<'_> {
    /// Lets the world run to its next version. Returns whether there is one.
    pub(super) fn goes_on(&mut self, world: &mut World) -> Result<bool, WorldError> {
        world.run_to_next_version(self)
    }
}

impl Trainer for Training<'_> {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        let (learner, people, stop) = (self.learner, self.people, self.stop);
        let one = |(device, work): &(usize, Arc<Work>)| {
            if stop.load(Ordering::Relaxed) {
                return Err("the run was stopped".to_owned());
            }
            learner.train(*device, people.examples(*device), work, stop)
        };
        let updates: Vec<_> = batch.par_iter().map(one).collect();
        for ((device, _), update) in batch.iter().zip(&updates) {
            self.trained[*device] += u32::from(update.is_ok());
        }
        (self.on_news)(News::Trained(batch.len()));
        updates
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
