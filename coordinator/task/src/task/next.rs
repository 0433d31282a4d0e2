//! From a mean update to the state of the next version, and the end of an epoch.

use proto::adapter::{AdapterError, Folded};

use super::Task;
use crate::optimizer::OptimizerState;

/// What a sum makes of the state.
pub(super) struct NextState {
    pub(super) adapter: Vec<f32>,
    /// Where an epoch ends.
    pub(super) folded: Option<Vec<f32>>,
    pub(super) optimizer: OptimizerState,
}

impl Task {
    /// What the mean update makes of the state: trained parameters, what the epochs left where one ends, and the
    /// optimiser's moments. Where an epoch ends, what is trained begins at zero again, and so do the moments: they
    /// are of directions that are trained no more.
    pub(super) fn next_state(&self, mean: &[f32]) -> Result<NextState, AdapterError> {
        let (plan, from) = (&self.plan, self.version());
        let (mut adapter, mut optimizer) = (self.record.adapter.clone(), self.record.optimizer.clone());
        optimizer.apply_at(plan.server, &mut adapter, &plan.adapter.update_places(from), mean);
        let Some(refresh) = plan.refresh.filter(|_| plan.folds_at(from + 1)) else {
            return Ok(NextState { adapter, folded: None, optimizer });
        };
        let before: Folded = plan.folded_at(from, self.record.folded.as_deref())?;
        let factors = plan.factors_at(from, self.given.as_deref())?;
        let spec = &plan.adapter;
        let pairs = spec.pairs(&factors, &adapter)?;
        let folded = before.plus(&pairs, spec.rank, spec.scale(), refresh.accumulated_rank);
        let adapter = spec.initial(&plan.initial_seed, None);
        Ok(NextState { adapter, folded: Some(folded.to_vector()), optimizer: OptimizerState::default() })
    }
}
