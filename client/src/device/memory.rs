//! Whether a device has the layers of a plan, and the memory for it, before anything of it is fetched.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::process::available_bytes;
use proto::metrics::MetricName;
use proto::plan::Plan;
use session::policy::Breach;

use super::run::Running;
use crate::error::Error;
use crate::trainer::Trainer;

impl Running {
    /// Whether this device has the layers that a plan adapts, and the memory for what the plan makes it load and build, and
    /// for the training where it is to train.
    pub(super) async fn fits(&self, plan: Arc<Plan>, trains: bool) -> Result<Result<(), Breach>, Error> {
        if self.trainer.bases().contains(&plan.base) {
            let own: BTreeSet<String> = self.trainer.layers(plan.base).into_iter().collect();
            if let Some(foreign) = plan.adapter.modules.iter().find(|module| !own.contains(&module.name)) {
                return Ok(Err(Breach::Layer(foreign.name.clone())));
            }
        }
        let trainer = Arc::clone(&self.trainer);
        let planned = self.asked(move || planned_bytes(trainer.as_ref(), &plan, trains)).await?;
        // A device that stops looks no further.
        Ok(planned.map_or(Ok(()), |bytes| self.policy.memory(bytes, available_bytes())))
    }
}

/// Bytes that a plan makes a device hold beside the base: frozen and trained parameters, and what is made of them for the
/// user; and what the training takes, where it trains.
fn planned_bytes(trainer: &dyn Trainer, plan: &Plan, trains: bool) -> u64 {
    let size = |tokens: u32| usize::try_from(tokens).unwrap_or(usize::MAX);
    let (frozen, trained) = (plan.adapter.frozen_len() as u64, plan.adapter.trained_len() as u64);
    // What earlier epochs left: both factors, at the rank that is kept of them.
    let folded = plan.refresh.map_or(0, |refresh| {
        let sides =
            plan.adapter.modules.iter().map(|module| u64::from(module.inputs) + u64::from(module.outputs));
        sides.fold(0_u64, u64::saturating_add).saturating_mul(refresh.accumulated_rank.into())
    });
    let state = frozen.saturating_add(folded).saturating_add(trained);
    let held = state.saturating_add(2 * trained).saturating_mul(4);
    if !trains {
        return held;
    }
    // The version before, where it is measured against; and a copy of each on the way to a trainer.
    let is_measured = plan.privacy.metrics.iter().any(|metric| metric.name == MetricName::Gain);
    let states = if is_measured { 2 } else { 1 };
    let held = held.saturating_add(state.saturating_mul(4 * (2 * states - 1)));
    let trained = plan.adapter.trained_len();
    let taken = trainer.training_bytes(
        plan.base,
        trained,
        size(plan.training.batch_size),
        size(plan.training.sequence_len),
    );
    held.saturating_add(taken)
}
