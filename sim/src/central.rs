//! Training on everybody's text in one place: what a federation is compared with.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use engine::Base;
use engine::Blocks;
use engine::Engine;
use proto::adapter::State;
use proto::ids::Digest;
use proto::plan::Mode;

use crate::run::{Finished, RunError, User, alone, coordinates, mean_loss, method_name, prepare};
use crate::scenario::Scenario;
use crate::summary::{RunSummary, VersionSummary};

/// Trains the scenario's adapter on all users' text together, on as many sequences for each version as the
/// federation's devices would take, one step after another; nothing is averaged, clipped or noised, and no factors
/// are drawn anew. The local optimiser begins afresh with each version, as a device's does.
pub(crate) fn train(
    scenario: &Scenario,
    base: &Arc<Base>,
    users: &[User],
    public: Option<&Blocks>,
    mut on_version: impl FnMut(&VersionSummary),
) -> Result<Finished, RunError> {
    let engine = Engine::new(Arc::clone(base));
    let scenario = Scenario { refresh: None, mode: Mode::Off, ..scenario.clone() };
    let (plan, given) = prepare(&scenario, base, &engine, public)?;
    let len = plan.training.sequence_len;
    let pooled = users.iter().map(|user| user.corpus.train(len)).reduce(Blocks::and);
    let held_out: Vec<Blocks> = users.iter().map(|user| user.corpus.held_out(len)).collect();
    let mut trained = plan.adapter.initial(&plan.initial_seed, given.as_deref());
    let state = |version, trained: &[f32]| plan.state_at(version, given.as_deref(), None, trained);
    let devices = u32::try_from(users.len()).unwrap_or(u32::MAX);
    let mut training = plan.training.clone();
    training.local_steps = training.local_steps.saturating_mul(devices);
    let base_loss = mean_loss(&engine, &state(0, &trained)?, &held_out)?;
    let mut versions: Vec<VersionSummary> = Vec::new();
    for version in 0..plan.round.versions {
        #[expect(clippy::disallowed_methods, reason = "seconds shown to a person; nothing depends on them")]
        let started = Instant::now();
        let before = versions.last().map_or(base_loss, |version| version.loss);
        if let Some(pooled) = &pooled {
            let State { spec, frozen, trained: start, .. } = state(version, &trained)?;
            let mut seed = scenario.digest("training").0.to_vec();
            seed.extend_from_slice(&version.to_be_bytes());
            let seed = Digest::of(&seed).0;
            let mut go_on = |_| ControlFlow::Continue(());
            let after = engine.train(&spec, &frozen, &start, pooled, &training, seed, &mut go_on)?.parameters;
            let places = plan.adapter.update_places(version).into_iter().flatten();
            places.zip(after).for_each(|(place, x)| trained[place] = x);
        }
        let loss = mean_loss(&engine, &state(version + 1, &trained)?, &held_out)?;
        let summary = VersionSummary {
            version: u64::from(version) + 1,
            cohort: 1,
            survivors: 1,
            missing: 0,
            loss_before: before,
            loss,
            epsilon: None,
            clip_norm: scenario.clip_norm,
            metrics: Vec::new(),
            bytes_up_per_device: 0,
            bytes_down_per_device: 0,
            classes: Vec::new(),
            secs: started.elapsed().as_secs_f64(),
        };
        on_version(&summary);
        versions.push(summary);
    }
    let shipped = state(plan.round.versions, &trained)?.shipped(plan.shipped_rank())?;
    let summary = RunSummary {
        base_loss,
        final_loss: versions.last().map_or(base_loss, |version| version.loss),
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
        shipped_loss: mean_loss(&engine, &alone(&shipped), &held_out)?,
        classes: Vec::new(),
        warnings: vec![format!(
            "central training: the text of all {} users was pooled in one place, and nothing was private",
            users.len()
        )],
        versions,
    };
    Ok(Finished { summary, trained, shipped, up_to_date: 1 })
}
