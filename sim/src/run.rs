//! One run: a base, users' text, a scenario; out come an adapter, a summary and a report.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use engine::Base;
use engine::Blocks;
use engine::{DecodeError, EncodeError, Engine, TrainError};
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
use crate::flat::is_flat;
use crate::measure::{Measured, Unseen, losses, mean};
use crate::plain::Assignment;
use crate::public::factors;
use crate::record::Record;
use crate::samples;
use crate::scenario::{Scenario, ScenarioError, with_factors};
use crate::summary::{RunSummary, VersionSummary};
use crate::world::{Seen, Trainer, World, WorldError};
use crate::yardsticks::{self, Against};

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
    /// A prompt that the base's tokenizer cannot read.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A sample that the base's tokenizer cannot write.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// What a run reads.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The base.
    pub base: &'a Arc<Base>,
    /// One for each device.
    pub users: &'a [User],
    /// People who take no part.
    pub newcomers: &'a [User],
    /// Text that belongs to nobody: where there is some, the adapter's frozen factors come from the base's gradient
    /// on it.
    pub public: Option<&'a Blocks>,
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

/// Runs `scenario` on one device for each user.
pub fn run(
    scenario: &Scenario,
    inputs: &Inputs<'_>,
    mut on_version: impl FnMut(&VersionSummary),
) -> Result<Finished, RunError> {
    let Inputs { base, users, newcomers, public } = *inputs;
    let engine = Engine::new(Arc::clone(base));
    let (plan, given) = prepare(scenario, base, &engine, public)?;
    let dealt = scenario.dealt(&plan.adapter).map_err(ScenarioError::from)?;
    let policies = scenario.policies(&dealt);
    let seed = scenario.digest("world").0;
    let mut world = World::with_policies(&plan, given.as_deref(), &policies, faults(scenario), seed)?;
    let sequence_len = plan.training.sequence_len;
    let unseen = Unseen::new(users, newcomers, sequence_len);
    let measure = |state: &State| unseen.measure(&engine, state);

    let bar = progress(users.len(), scenario.versions);
    let mut trainer = Engines {
        engine: engine.clone(),
        text: users.iter().map(|user| user.corpus.train(sequence_len)).collect(),
        seed: scenario.digest("training"),
        bar: bar.clone(),
    };
    bar.set_message("measuring the base");
    let before = measure(&world.state()?)?;
    let mut measured = before.clone();
    let (mut versions, mut stopped): (Vec<VersionSummary>, _) = (Vec::new(), false);
    loop {
        bar.set_message(format!("version {}", versions.len() + 1));
        #[expect(clippy::disallowed_methods, reason = "seconds shown to a person; nothing depends on them")]
        let started = Instant::now();
        if !world.run_to_next_version(&mut trainer)? {
            break;
        }
        if let Some(seen) = world.seen().last() {
            let secs = started.elapsed().as_secs_f64();
            let clip_norm =
                world.seen().iter().rev().nth(1).map_or(scenario.clip_norm, |seen| seen.status.clip_norm);
            let classes = classes::of_version(&plan, &dealt, &world, seen);
            let now = measure(&world.state()?)?;
            let version = VersionSummary {
                classes,
                ..summarize(seen, (&measured, &now), clip_norm, secs, scenario.mode)
            };
            on_version(&version);
            versions.push(version);
            let more = versions.len() < scenario.versions as usize;
            if scenario.stop_when_flat && more && is_flat(&measured.newcomers, &now.newcomers) {
                stopped = true;
                world.stop();
            }
            measured = now;
        }
    }
    bar.finish_and_clear();
    let last = world.state()?;
    let shipped = last.shipped(plan.shipped_rank())?;
    let mut yardsticks = yardsticks::cheap(inputs, &unseen, sequence_len, &before);
    yardsticks.push(yardsticks::of(Against::Federation, &measured, None));
    if scenario.yardsticks {
        yardsticks.extend(yardsticks::trained(scenario, inputs, &engine, &unseen)?);
    }
    yardsticks.sort_by(|a, b| b.loss.total_cmp(&a.loss));
    let summary = RunSummary {
        base_loss: before.held_out,
        final_loss: measured.held_out,
        stopped_when_flat: stopped,
        yardsticks,
        samples: samples::write(&engine, &last, &scenario.prompts, &scenario.digest("samples"))?,
        record: Some(Record::of(scenario, inputs)),
        refresh_every: plan.refresh.map(|refresh| refresh.every),
        shipped_rank: shipped.0.rank,
        shipped_loss: mean(&losses(&engine, &alone(&shipped), &unseen.held_out)?),
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
pub fn prepare(
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
    (before, now): (&Measured, &Measured),
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
        loss_before: before.held_out,
        loss: now.held_out,
        newcomers_loss: now.newcomers(),
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
    fn train_one(&self, device: usize, work: &Work) -> Result<Update, String> {
        let state = work.training().map_err(|error| error.to_string())?;
        let training = &work.plan.training;
        let assignment = Assignment { training, seed: self.seed, device, version: work.published.version };
        let trained =
            assignment.train(&self.engine, &state, &self.text[device]).map_err(|error| error.to_string())?;
        self.bar.inc(1);
        Update::between(&state.trained, &trained.parameters, trained.mean_loss(), trained.examples)
            .ok_or_else(|| "the training gave no finite update".into())
    }
}
