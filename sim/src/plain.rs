//! The same training without a protocol: what the devices' updates come to where nothing hides or noises them.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Blocks, Engine, TrainError};
use privacy::l2_norm;
use proto::adapter::State;
use proto::ids::Digest;
use proto::plan::Plan;
use proto::training::TrainingPlan;
use rayon::prelude::*;
use task::optimizer::OptimizerState;

use crate::inputs::RunError;

/// One device's training for one version, by everything that it depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assignment<'a> {
    /// Steps, batches and optimizer.
    pub training: &'a TrainingPlan,
    /// Of all devices' batches.
    pub seed: Digest,
    /// Which device.
    pub device: usize,
    /// The version that it starts from.
    pub version: u32,
}

impl Assignment<'_> {
    /// Trains the adapter of `state` on `text`; fails after the step in which `stop` is set.
    pub(crate) fn train(
        self,
        engine: &Engine,
        state: &State,
        text: &Blocks,
        stop: &AtomicBool,
    ) -> Result<engine::Trained, TrainError> {
        let mut seed = self.seed.0.to_vec();
        seed.extend_from_slice(&(self.device as u64).to_be_bytes());
        seed.extend_from_slice(&self.version.to_be_bytes());
        let State { spec, frozen, folded, trained: start } = state;
        let mut go_on = |_| unless(stop);
        engine.with_folded(folded)?.train(
            spec,
            frozen,
            start,
            text,
            self.training,
            Digest::of(&seed).0,
            &mut go_on,
        )
    }
}

/// Goes on where nobody said to stop.
pub(crate) fn unless(stop: &AtomicBool) -> ControlFlow<()> {
    if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Federated averaging in the open: each device trains as it does in a round, its update is clipped as there, and
/// the plan's optimizer takes the exact mean. `disturb` may change a mean before that; `after` sees each version and may
/// end it; it fails after the step in which `stop` is set. Factors are not drawn anew.
pub fn federate(
    (engine, stop): (&Engine, &AtomicBool),
    plan: &Plan,
    given: Option<&[f32]>,
    text: &[Blocks],
    seed: Digest,
    mut disturb: impl FnMut(&mut [f32]),
    mut after: impl FnMut(u32, &State) -> Result<ControlFlow<()>, RunError>,
) -> Result<(), RunError> {
    let mut trained = plan.adapter.initial(&plan.initial_seed, given);
    let mut moments = OptimizerState::default();
    for version in 0..plan.round.versions {
        let state = plan.state_at(version, given, None, &trained)?;
        let updates: Vec<Vec<f32>> = text
            .par_iter()
            .enumerate()
            .map(|(device, text)| {
                let assignment = Assignment { training: &plan.training, seed, device, version };
                let after = assignment.train(engine, &state, text, stop)?.parameters;
                let update: Vec<f32> = after.iter().zip(&state.trained).map(|(x, y)| x - y).collect();
                let norm = l2_norm(&update);
                let scale = if norm > plan.privacy.clip_norm { plan.privacy.clip_norm / norm } else { 1.0 };
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "at most 1, and an update is single precision"
                )]
                let scale = scale as f32;
                Ok(update.into_iter().map(|x| x * scale).collect())
            })
            .collect::<Result<_, TrainError>>()?;
        let mut mean = vec![0.0_f32; state.trained.len()];
        let share = 1.0 / text.len().max(1) as f32;
        for update in &updates {
            mean.iter_mut().zip(update).for_each(|(sum, x)| *sum += share * x);
        }
        disturb(&mut mean);
        moments.apply_at(plan.server, &mut trained, &plan.adapter.update_places(version), &mean);
        if after(version + 1, &plan.state_at(version + 1, given, None, &trained)?)?.is_break() {
            break;
        }
    }
    Ok(())
}
