//! One run: a base, users' text, a scenario; out come an adapter, a summary and a report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::{Blocks, Engine};
use indicatif::{ProgressBar, ProgressStyle};
use proto::adapter::{AdapterSpec, State};
use proto::ids::Digest;
use proto::plan::Mode;
use rayon::prelude::*;
use session::update::Update;
use session::{SessionState, Work};

use crate::classes;
use crate::epsilon;
use crate::faults::{Faults, Vanish};
use crate::flat::is_flat;
use crate::inputs::{Inputs, RunError, alone, coordinates, method_name, prepare};
use crate::measure::{Measured, Unseen, losses, mean};
use crate::plain::Assignment;
use crate::record::Record;
use crate::samples;
use crate::scenario::{Scenario, ScenarioError};
use crate::summary::{RunSummary, VersionSummary};
use crate::world::{Seen, Trainer, World};
use crate::yardsticks::{self, Against};

/// What is told of a run while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// A version was made.
    Version(&'a VersionSummary),
    /// There will be no further version. What comes out of those that there are is this adapter of two factors, with its
    /// parameters; it is told before anything else is measured.
    Adapter(&'a AdapterSpec, &'a [f32]),
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

/// What a reader has to know while what is trained for comparison is not there.
const NOT_COMPARED: &str =
    "not compared with what is trained for comparison only: the run was stopped before that was done";

/// Runs `scenario` on one device for each user, and compares what comes out.
pub fn run(
    scenario: &Scenario,
    inputs: &Inputs<'_>,
    on_news: impl FnMut(News<'_>),
) -> Result<Finished, RunError> {
    let stop = AtomicBool::new(false);
    let mut finished = run_until(&stop, scenario, inputs, on_news)?;
    compare(&stop, scenario, inputs, &mut finished)?;
    Ok(finished)
}

/// Trains what a finished run is compared with, if its scenario says so, and adds it. Where `stop` is set before that is done,
/// nothing is added, and the summary says so. Returns whether all that was asked for is there.
pub fn compare(
    stop: &AtomicBool,
    scenario: &Scenario,
    inputs: &Inputs<'_>,
    finished: &mut Finished,
) -> Result<bool, RunError> {
    if !scenario.yardsticks {
        return Ok(true);
    }
    if finished.summary.interrupted || stop.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let engine = Engine::new(Arc::clone(inputs.base));
    let unseen = Unseen::new(inputs.users, inputs.newcomers, scenario.training.sequence_len);
    let trained = yardsticks::trained(stop, scenario, inputs, &engine, &unseen);
    if stop.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let summary = &mut finished.summary;
    summary.yardsticks.extend(trained?);
    summary.yardsticks.sort_by(|a, b| b.loss.total_cmp(&a.loss));
    summary.warnings.retain(|warning| warning != NOT_COMPARED);
    Ok(true)
}

/// Runs `scenario` on one device for each user, until `stop` is set: then what is trained and the round that is open are given
/// up, and what comes out is that of the versions so far. What is trained for comparison only is left to [`compare`].
pub fn run_until(
    stop: &AtomicBool,
    scenario: &Scenario,
    inputs: &Inputs<'_>,
    mut on_news: impl FnMut(News<'_>),
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
        held_out: users.iter().map(|user| user.corpus.held_out(sequence_len)).collect(),
        seed: scenario.digest("training"),
        bar: bar.clone(),
        stop,
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
            on_news(News::Version(&version));
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
    if !versions.is_empty() {
        on_news(News::Adapter(&shipped.0, &shipped.1));
    }
    let mut yardsticks = yardsticks::cheap(inputs, &unseen, sequence_len, &before);
    yardsticks.push(yardsticks::of(Against::Federation, &measured, None));
    let interrupted = stop.load(Ordering::Relaxed) && versions.len() < scenario.versions as usize && !stopped;
    let interruption = interrupted.then(|| interruption(versions.len(), scenario.versions));
    yardsticks.sort_by(|a, b| b.loss.total_cmp(&a.loss));
    let samples = samples::write(stop, &engine, &last, &scenario.prompts, &scenario.digest("samples"))?;
    let left_out = [
        (scenario.yardsticks).then(|| NOT_COMPARED.to_owned()),
        samples::left_out(&samples, &scenario.prompts),
    ];
    let summary = RunSummary {
        base_loss: before.held_out,
        final_loss: measured.held_out,
        stopped_when_flat: stopped,
        interrupted,
        yardsticks,
        samples,
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
        warnings: [
            interruption.into_iter().chain(left_out.into_iter().flatten()).collect(),
            epsilon::remarks(&plan, &versions),
            classes::remarks(&plan, &dealt),
            world.verdicts(),
        ]
        .concat(),
        versions,
    };
    Ok(Finished { summary, trained: world.adapter().to_vec(), shipped, up_to_date: world.up_to_date() })
}

/// What a reader has to know of a run that did not come to its end.
pub(crate) fn interruption(done: usize, of: u32) -> String {
    format!("stopped by its user after {done} of {of} versions: the adapter is that of version {done}")
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

fn progress(devices: usize, versions: u32) -> ProgressBar {
    let bar = ProgressBar::new(devices as u64 * u64::from(versions));
    if let Ok(style) = ProgressStyle::with_template("{msg:18} [{bar:36}] {pos}/{len} trainings, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// The real trainer: one engine, one thread for each device.
struct Engines<'a> {
    engine: Engine,
    text: Vec<Blocks>,
    /// What each device holds out, on which it measures versions.
    held_out: Vec<Blocks>,
    seed: Digest,
    bar: ProgressBar,
    stop: &'a AtomicBool,
}

impl Trainer for Engines<'_> {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        batch.par_iter().map(|(index, work)| self.train_one(*index, work)).collect()
    }
}

impl Engines<'_> {
    fn train_one(&self, device: usize, work: &Work) -> Result<Update, String> {
        if self.stops() {
            return Err("the run was stopped".to_owned());
        }
        let state = work.training().map_err(|error| error.to_string())?;
        let training = &work.plan.training;
        let assignment = Assignment { training, seed: self.seed, device, version: work.published.version };
        let trained = assignment.train(&self.engine, &state, &self.text[device], self.stop);
        let trained = trained.map_err(|error| error.to_string())?;
        self.bar.inc(1);
        let (from, most) = work.measured();
        let held_out = self.held_out[device].some(from, most);
        let over_base = work.is_measured_against_base();
        let gains = self.engine.gains(&work.state, work.before.as_ref(), over_base, &held_out, &|| true);
        let gains = gains.map_err(|error| error.to_string())?.unwrap_or_default();
        Update::between(&state.trained, &trained.parameters, trained.mean_loss(), trained.examples)
            .map(|update| update.with_gains(gains))
            .ok_or_else(|| "the training gave no finite update".into())
    }
}
