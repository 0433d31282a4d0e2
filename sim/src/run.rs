//! One run: a base, users' text, a scenario; out come an adapter, a summary and a report.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use engine::Base;
use engine::Blocks;
use engine::{Engine, TrainError};
use indicatif::{ProgressBar, ProgressStyle};
use proto::adapter::{AdapterError, AdapterSpec, Folded, State};
use proto::ids::Digest;
use proto::plan::{Mode, Plan};
use rayon::prelude::*;
use session::update::Update;
use session::{SessionState, Work};
use text::{Corpus, ReadOptions, TextError, UserText};

use crate::classes;
use crate::epsilon;
use crate::faults::{Faults, Vanish};
use crate::public::factors;
use crate::scenario::{Scenario, ScenarioError, with_factors};
use crate::summary::{RunSummary, VersionSummary};
use crate::world::{Seen, Trainer, World, WorldError};

/// One user's text, split, as tokens.
#[derive(Debug)]
pub struct User {
    /// For messages.
    pub name: String,
    /// The text.
    pub corpus: Corpus,
}

/// A run that came to no end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario cannot be run.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The federation came to no end.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The training engine failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A version is none of its plan's adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

/// What a run gives.
#[derive(Debug)]
pub struct Finished {
    /// The numbers.
    pub summary: RunSummary,
    /// The last version's trained parameters.
    pub trained: Vec<f32>,
    /// What came out: an adapter of two factors, and its parameters.
    pub shipped: (AdapterSpec, Vec<f32>),
    /// Devices that hold the last version.
    pub up_to_date: usize,
}

/// Runs `scenario` on one device for each user. `public` is text that belongs to nobody: where there is some,
/// the adapter's frozen factors come from the base's gradient on it.
pub fn run(
    scenario: &Scenario,
    base: &Arc<Base>,
    users: &[User],
    public: Option<&Blocks>,
    mut on_version: impl FnMut(&VersionSummary),
) -> Result<Finished, RunError> {
    let engine = Engine::new(Arc::clone(base));
    let (plan, given) = prepare(scenario, base, &engine, public)?;
    let dealt = scenario.dealt(&plan.adapter).map_err(ScenarioError::from)?;
    let policies = scenario.policies(&dealt);
    let seed = scenario.digest("world").0;
    let mut world = World::with_policies(&plan, given.as_deref(), &policies, faults(scenario), seed)?;
    let sequence_len = plan.training.sequence_len;
    let held_out: Vec<Blocks> = users.iter().map(|user| user.corpus.held_out(sequence_len)).collect();
    let measure = |state: &State| mean_loss(&engine, state, &held_out);

    let bar = progress(users.len(), scenario.versions);
    let mut trainer = Engines {
        engine: engine.clone(),
        text: users.iter().map(|user| user.corpus.train(sequence_len)).collect(),
        seed: scenario.digest("training"),
        bar: bar.clone(),
    };
    bar.set_message("measuring the base");
    let base_loss = measure(&world.state()?)?;
    let mut versions: Vec<VersionSummary> = Vec::new();
    loop {
        bar.set_message(format!("version {}", versions.len() + 1));
        #[expect(clippy::disallowed_methods, reason = "seconds shown to a person; nothing depends on them")]
        let started = Instant::now();
        if !world.run_to_next_version(&mut trainer)? {
            break;
        }
        if let Some(seen) = world.seen().last() {
            let before = versions.last().map_or(base_loss, |version| version.loss);
            let secs = started.elapsed().as_secs_f64();
            let clip_norm =
                world.seen().iter().rev().nth(1).map_or(scenario.clip_norm, |seen| seen.status.clip_norm);
            let loss = (before, measure(&world.state()?)?);
            let classes = classes::of_version(&plan, &dealt, &world, seen);
            let version = VersionSummary { classes, ..summarize(seen, loss, clip_norm, secs, scenario.mode) };
            on_version(&version);
            versions.push(version);
        }
    }
    bar.finish_and_clear();
    let shipped = world.state()?.shipped(plan.shipped_rank())?;
    let final_loss = versions.last().map_or(base_loss, |version| version.loss);
    let summary = RunSummary {
        base_loss,
        final_loss,
        refresh_every: plan.refresh.map(|refresh| refresh.every),
        shipped_rank: shipped.0.rank,
        shipped_loss: measure(&alone(&shipped))?,
        epsilon: versions.last().and_then(|version| version.epsilon),
        delta: scenario.delta,
        seed: scenario.seed,
        devices: u32::try_from(users.len()).unwrap_or(u32::MAX),
        method: method_name(&plan),
        rank: scenario.rank,
        coordinates: coordinates(&plan),
        noise_multiplier: plan.privacy.noise_multiplier,
        clip_norm: scenario.clip_norm,
        privacy: scenario.mode,
        snr: epsilon::snr(&plan),
        classes: classes::of_run(&plan, &dealt, &world),
        warnings: [epsilon::remarks(&plan, &versions), classes::remarks(&plan, &dealt)].concat(),
        versions,
    };
    Ok(Finished { summary, trained: world.adapter().to_vec(), shipped, up_to_date: world.up_to_date() })
}

/// Reads one user's file, and says how many lines of it were left out.
pub fn read_user(base: &Base, path: &Path) -> Result<(User, u64), TextError> {
    let text = UserText::read(&[path.to_owned()], &ReadOptions::default())?;
    let skipped = text.reading().skipped_lines() + text.reading().secret_looking();
    let corpus = Corpus::new(base, &text)?;
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok((User { name, corpus }, skipped))
}

/// The plan, and the factors that it names by their hash, where it does.
pub(crate) fn prepare(
    scenario: &Scenario,
    base: &Base,
    engine: &Engine,
    public: Option<&Blocks>,
) -> Result<(Plan, Option<Vec<f32>>), RunError> {
    let seeded = scenario.adapter(base);
    let Some(public) = public else { return Ok((scenario.plan(base, seeded)?, None)) };
    // What cannot be a plan is said before anything is computed.
    let plan = scenario.plan(base, seeded.clone())?;
    let epochs = scenario.public_epochs.min(plan.epoch(plan.round.versions) + 1);
    let given = factors(engine, &seeded, epochs, public, scenario.digest("public").0)?;
    Ok((scenario.plan(base, with_factors(seeded, &given))?, Some(given)))
}

/// What came out, on the base as it is.
pub(crate) fn alone((adapter, parameters): &(AdapterSpec, Vec<f32>)) -> State {
    let (spec, trained) = (adapter.clone(), parameters.clone());
    State { spec, frozen: Vec::new(), folded: Folded::default(), trained }
}

/// Numbers in one device's longest update.
pub(crate) fn coordinates(plan: &Plan) -> u64 {
    plan.adapter.update_len(0).max(plan.adapter.update_len(1)) as u64
}

fn faults(scenario: &Scenario) -> Faults {
    // One leaves before it has sent anything of its input, the next in the middle of it.
    let states = [SessionState::Charging, SessionState::Submitting];
    let vanish = (0..scenario.vanishing)
        .map(|i| Vanish { version: 1, device: 1 + 2 * i, state: states[i % 2] })
        .collect();
    Faults { vanish, ..Faults::default() }
}

fn summarize(
    seen: &Seen,
    (loss_before, loss): (f64, f64),
    clip_norm: f64,
    secs: f64,
    mode: Mode,
) -> VersionSummary {
    let (status, traffic) = (&seen.status, seen.mean_traffic());
    VersionSummary {
        version: u64::from(status.version),
        cohort: status.cohort,
        survivors: status.survivors,
        missing: status.cohort - status.survivors,
        loss_before,
        loss,
        epsilon: (mode != Mode::Off && status.epsilon.is_finite()).then_some(status.epsilon),
        clip_norm,
        metrics: status.metrics.clone(),
        bytes_up_per_device: traffic.up,
        bytes_down_per_device: traffic.down,
        classes: Vec::new(),
        secs,
    }
}

pub(crate) fn method_name(plan: &Plan) -> String {
    serde_json::to_value(plan.adapter.method)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The mean over users of the loss on what each held out, in nats a token.
pub(crate) fn mean_loss(engine: &Engine, state: &State, held_out: &[Blocks]) -> Result<f64, TrainError> {
    let engine = engine.with_folded(&state.folded)?;
    let losses: Vec<f64> = held_out
        .par_iter()
        .map(|blocks| Ok(engine.loss(&state.spec, &state.frozen, &state.trained, blocks)?.nats_per_token))
        .collect::<Result<_, TrainError>>()?;
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

fn progress(devices: usize, versions: u32) -> ProgressBar {
    let bar = ProgressBar::new(devices as u64 * u64::from(versions));
    if let Ok(style) = ProgressStyle::with_template("{msg:18} [{bar:36}] {pos}/{len} trainings, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// The real trainer: one engine, one thread for each device.
struct Engines {
    engine: Engine,
    text: Vec<Blocks>,
    seed: Digest,
    bar: ProgressBar,
}

impl Trainer for Engines {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        batch.par_iter().map(|(index, work)| self.train_one(*index, work)).collect()
    }
}

impl Engines {
    fn train_one(&self, index: usize, work: &Work) -> Result<Update, String> {
        let mut seed = self.seed.0.to_vec();
        seed.extend_from_slice(&(index as u64).to_be_bytes());
        seed.extend_from_slice(&work.published.version.to_be_bytes());
        let state = work.training().map_err(|error| error.to_string())?;
        let State { spec, frozen, folded, trained: start } = state.as_ref();
        let (text, plan, seed) = (&self.text[index], &work.plan.training, Digest::of(&seed).0);
        let trained = self
            .engine
            .with_folded(folded)
            .and_then(|engine| {
                engine.train(spec, frozen, start, text, plan, seed, &mut |_| ControlFlow::Continue(()))
            })
            .map_err(|error| error.to_string())?;
        self.bar.inc(1);
        Update::between(start, &trained.parameters, trained.mean_loss(), trained.examples)
            .ok_or_else(|| "the training gave no finite update".into())
    }
}
