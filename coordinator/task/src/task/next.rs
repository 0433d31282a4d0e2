//! From a mean update to the state of the next version, and the end of an epoch.

use proto::adapter::{AdapterError, Folded};
use proto::plan::RefreshPlan;

use super::Task;
use super::earlier::Earlier;
use crate::optimizer::OptimizerState;

/// What a sum makes of the state.
pub(super) struct NextState {
    pub(super) adapter: Vec<f32>,
    /// Where an epoch ends, or what earlier ones left is another.
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
        self.fold(refresh, from, &adapter, self.record.folded.as_deref())
    }

    /// The state of the next version where it has the parameters of an earlier one: as they are, or, where the epoch is
    /// another, folded into what that one's epochs left.
    pub(super) fn restored(&self, earlier: &Earlier) -> Result<NextState, AdapterError> {
        let (plan, next) = (&self.plan, self.version() + 1);
        let begins_between = (earlier.before.version + 1..=next).any(|version| plan.folds_at(version));
        let Some(refresh) = plan.refresh.filter(|_| begins_between) else {
            let optimizer = OptimizerState::default();
            return Ok(NextState { adapter: earlier.adapter.clone(), folded: None, optimizer });
        };
        self.fold(refresh, earlier.before.version, &earlier.adapter, earlier.folded.as_deref())
    }

    /// An epoch that begins after the version with these parameters.
    fn fold(
        &self,
        refresh: RefreshPlan,
        version: u32,
        adapter: &[f32],
        folded: Option<&[f32]>,
    ) -> Result<NextState, AdapterError> {
        let (plan, spec) = (&self.plan, &self.plan.adapter);
        let before: Folded = plan.folded_at(version, folded)?;
        let factors = plan.factors_at(version, self.given.as_deref())?;
        let pairs = spec.pairs(&factors, adapter)?;
        let folded = before.plus(&pairs, spec.rank, spec.scale(), refresh.accumulated_rank);
        let adapter = spec.initial(&plan.initial_seed, None);
        Ok(NextState { adapter, folded: Some(folded.to_vector()), optimizer: OptimizerState::default() })
    }
}
