//! Training on everybody's text in one place: what a federation is compared with.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use engine::Blocks;
use engine::{Engine, TrainError};
use proto::adapter::State;
use proto::ids::Digest;
use proto::plan::Mode;

use crate::inputs::{Inputs, RunError, alone, coordinates, method_name, prepare};
use crate::measure::{Unseen, losses, mean};
use crate::plain::unless;
use crate::run::{Finished, News, interruption};
use crate::samples;
use crate::scenario::Scenario;
use crate::summary::{RunSummary, VersionSummary};
use crate::yardsticks::{self, Against};

/// Trains the scenario's adapter on all users' text together, on as many sequences for each version as the
/// federation's devices would take, one step after another; nothing is averaged, clipped or noised, and no factors
/// are drawn anew. The local optimiser begins afresh with each version, as a device's does.
pub(crate) fn train(
    stop: &AtomicBool,
    scenario: &Scenario,
    inputs: &Inputs<'_>,
    mut on_news: impl FnMut(News<'_>),
) -> Result<Finished, RunError> {
    let Inputs { base, users, newcomers, public } = *inputs;
    let engine = Engine::new(Arc::clone(base));
    let scenario = Scenario { refresh: None, mode: Mode::Off, ..scenario.clone() };
    let (plan, given) = prepare(&scenario, base, &engine, public)?;
    let len = plan.training.sequence_len;
    let pooled = users.iter().map(|user| user.corpus.train(len)).reduce(Blocks::and);
    let unseen = Unseen::new(users, newcomers, len);
    let mut trained = plan.adapter.initial(&plan.initial_seed, given.as_deref());
    let state = |version, trained: &[f32]| plan.state_at(version, given.as_deref(), None, trained);
    let devices = u32::try_from(users.len()).unwrap_or(u32::MAX);
    let mut training = plan.training.clone();
    training.local_steps = training.local_steps.saturating_mul(devices);
    let base_measured = unseen.measure(&engine, &state(0, &trained)?)?;
    let mut measured = base_measured.clone();
    let mut versions: Vec<VersionSummary> = Vec::new();
    for version in 0..plan.round.versions {
        #[expect(clippy::disallowed_methods, reason = "seconds shown to a person; nothing depends on them")]
        let started = Instant::now();
        if let Some(pooled) = &pooled {
            let State { spec, frozen, trained: start, .. } = state(version, &trained)?;
            let mut seed = scenario.digest("training").0.to_vec();
            seed.extend_from_slice(&version.to_be_bytes());
            let seed = Digest::of(&seed).0;
            let mut go_on = |_| unless(stop);
            let after = match engine.train(&spec, &frozen, &start, pooled, &training, seed, &mut go_on) {
                Ok(trained) => trained.parameters,
                Err(TrainError::Stopped { .. }) => break,
                Err(error) => return Err(error.into()),
            };
            let places = plan.adapter.update_places(version).into_iter().flatten();
            places.zip(after).for_each(|(place, x)| trained[place] = x);
        }
        let before =
            std::mem::replace(&mut measured, unseen.measure(&engine, &state(version + 1, &trained)?)?);
        let summary = VersionSummary {
            version: u64::from(version) + 1,
            cohort: 1,
            survivors: 1,
            missing: 0,
            loss_before: before.held_out,
            loss: measured.held_out,
            newcomers_loss: measured.newcomers(),
            epsilon: None,
            clip_norm: scenario.clip_norm,
            metrics: Vec::new(),
            bytes_up_per_device: 0,
            bytes_down_per_device: 0,
            classes: Vec::new(),
            secs: started.elapsed().as_secs_f64(),
        };
        on_news(News::Version(&summary));
        versions.push(summary);
    }
    let done = u32::try_from(versions.len()).unwrap_or(u32::MAX);
    let interrupted = done < plan.round.versions;
    let last = state(done, &trained)?;
    let shipped = last.shipped(plan.shipped_rank())?;
    if !versions.is_empty() {
        on_news(News::Adapter(&shipped.0, &shipped.1));
    }
    let samples = samples::write(stop, &engine, &last, &scenario.prompts, &scenario.digest("samples"))?;
    let left_out = samples::left_out(&samples, &scenario.prompts);
    let mut yardsticks = yardsticks::cheap(inputs, &unseen, len, &base_measured);
    yardsticks.push(yardsticks::of(Against::Federation, &measured, None));
    yardsticks.sort_by(|a, b| b.loss.total_cmp(&a.loss));
    let summary = RunSummary {
        base_loss: base_measured.held_out,
        final_loss: measured.held_out,
        stopped_when_flat: false,
        interrupted,
        yardsticks,
        samples,
        record: None,
        epsilon: None,
        delta: scenario.delta,
        seed: scenario.seed,
        devices: 1,
        method: format!("central {}", method_name(&plan)),
        rank: scenario.rank,
        coordinates: coordinates(&plan),
        noise_multiplier: 0.0,
        clip_norm: scenario.clip_norm,
        privacy: Mode::Off,
        snr: None,
        refresh_every: None,
        shipped_rank: shipped.0.rank,
        shipped_loss: mean(&losses(&engine, &alone(&shipped), &unseen.held_out)?),
        classes: Vec::new(),
        warnings: [
            interrupted.then(|| interruption(versions.len(), plan.round.versions)),
            left_out,
            Some(format!(
                "central training: the text of all {} users was pooled in one place, and nothing was private",
                users.len()
            )),
        ]
        .into_iter()
        .flatten()
        .collect(),
        versions,
    };
    Ok(Finished { summary, trained, shipped, up_to_date: 1 })
}
