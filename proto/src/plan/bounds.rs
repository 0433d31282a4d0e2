//! The most that a plan may ask for: far above any real use, and low enough that a slip of an operator, or a
//! coordinator that lies, cannot keep a device busy for ever. Those of a training stand beside
//! [`TrainingPlan`](crate::training::TrainingPlan).

use super::{Plan, PlanError};
use crate::training::PlanValueError;

/// The most versions of a task, and the most rounds of it that one device takes part in: one an hour for eleven years.
pub const MAX_VERSIONS: u32 = 100_000;

/// The longest that a round, or one step of it, may wait, in milliseconds: a week.
pub const MAX_ROUND_MILLIS: u64 = 7 * 24 * 3_600_000;

/// The most rounds of one version: with the largest cohort more than a hundred thousand devices.
pub const MAX_ROUNDS: u32 = 128;

/// The highest rank of an adapter: drawing frozen factors takes time by its square.
pub const MAX_RANK: u32 = 512;

/// The highest rank of what earlier epochs left, and of what comes out: four times that of an adapter. Folding takes
/// time by its square.
pub const MAX_FOLDED_RANK: u32 = 4 * MAX_RANK;

impl Plan {
    /// Whether the plan asks for no more than anybody needs.
    pub(super) fn check_bounds(&self) -> Result<(), PlanError> {
        let (rank, refresh) = ("at most 512", "at most 2048");
        let (versions, millis) = ("at most 100000", "at most 604800000, a week");
        let round = &self.round;
        let folded = |rank: fn(&super::RefreshPlan) -> u32| self.refresh.as_ref().map_or(0, rank);
        for (name, found, most, wanted) in [
            ("adapter.rank", u64::from(self.adapter.rank), u64::from(MAX_RANK), rank),
            (
                "refresh.accumulated_rank",
                folded(|refresh| refresh.accumulated_rank).into(),
                MAX_FOLDED_RANK.into(),
                refresh,
            ),
            (
                "refresh.shipped_rank",
                folded(|refresh| refresh.shipped_rank).into(),
                MAX_FOLDED_RANK.into(),
                refresh,
            ),
            ("versions", round.versions.into(), MAX_VERSIONS.into(), versions),
            ("participations", self.privacy.participations.into(), MAX_VERSIONS.into(), versions),
            ("rounds", round.rounds.into(), MAX_ROUNDS.into(), "at most 128"),
            ("join_millis", round.join_millis, MAX_ROUND_MILLIS, millis),
            ("step_millis", round.step_millis, MAX_ROUND_MILLIS, millis),
            ("grace_millis", round.grace_millis, MAX_ROUND_MILLIS, millis),
        ] {
            if found > most {
                return Err(PlanValueError { name, wanted, found: found as f64 }.into());
            }
        }
        Ok(())
    }
}
