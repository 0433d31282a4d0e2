//! What a device believes about a session; every key and signature is bound to it.

use thiserror::Error;

use crate::{hash, log::Head, modular::Ring};

/// The name of a session, never used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(pub [u8; 32]);

/// The name of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId(pub [u8; 16]);

/// The digest of the version that was trained from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelDigest(pub [u8; 32]);

/// The digest of the training and privacy plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanDigest(pub [u8; 32]);

/// What one session is for, as one party was told it.
///
/// Its digest goes into every signature and commitment, so two parties with
/// different contexts cannot take part in the same session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The session, never used before.
    pub session: SessionId,
    /// The task.
    pub task: TaskId,
    /// The round of the task.
    pub round: u64,
    /// The digest of the model version that was trained from.
    pub model_digest: ModelDigest,
    /// The digest of the training and privacy plan.
    pub plan_digest: PlanDigest,
    /// Coordinates of every vector.
    pub len: usize,
    /// Bits of a coordinate, 1 to 32.
    pub ring_bits: u32,
    /// Fewest survivors for which a sum may be revealed, at least 1.
    pub report_goal: usize,
    /// Most devices of a roster: the plan's cohort. In a larger one there could
    /// be more corrupt devices than are reckoned with.
    pub cohort: usize,
    /// Most devices of any roster of the session that may be corrupt, f: of the
    /// plan's cohort, however small the roster is, since nobody knows which of
    /// the cohort are in it ([`corrupt_devices`](crate::corrupt_devices)).
    ///
    /// Quorum, graph and bounds on shares are sized by it, as the noise is, so
    /// a device must not accept less than its own policy assumes.
    pub corrupt: usize,
    /// Thousandths of the cohort that may vanish (δ), below 1000. The graph of
    /// a cohort above [`MAX_COMPLETE`](crate::MAX_COMPLETE) is sized by it.
    pub missing_fraction_permille: u16,
    /// The log of enrollments in which all devices of a roster must be, as its
    /// authority signed it; none where the authority keeps no log. That it is
    /// part of the context means that no two devices of a round believe in two
    /// logs.
    pub log: Option<Head>,
}

/// Why a context cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ContextError {
    /// The width is not one of a ring that is used here.
    #[error("{bits} bits a coordinate, expected 1 to 32")]
    RingBits {
        /// The width.
        bits: u32,
    },
    /// A sum of nobody's vectors may be revealed.
    #[error("report goal is 0, expected at least 1")]
    ReportGoal,
    /// Nobody need be left.
    #[error("{permille} thousandths may vanish, expected fewer than 1000")]
    MissingFraction {
        /// The thousandths.
        permille: u16,
    },
}

impl Context {
    /// Fails if a value is outside its range.
    pub fn check(&self) -> Result<(), ContextError> {
        self.ring().map(drop)
    }

    /// The digest that everything in the session is bound to.
    pub fn digest(&self) -> [u8; 32] {
        hash::digest(
            "context",
            &[
                &self.session.0,
                &self.task.0,
                &self.round.to_be_bytes(),
                &self.model_digest.0,
                &self.plan_digest.0,
                &hash::length(self.len),
                &self.ring_bits.to_be_bytes(),
                &hash::length(self.report_goal),
                &hash::length(self.cohort),
                &hash::length(self.corrupt),
                &self.missing_fraction_permille.to_be_bytes(),
                self.log.map(|head| head.digest()).as_ref().map_or(&[], <[u8; 32]>::as_slice),
            ],
        )
    }

    /// The ring of the coordinates. Fails as [`Context::check`] does.
    pub(crate) fn ring(&self) -> Result<Ring, ContextError> {
        if self.report_goal == 0 {
            return Err(ContextError::ReportGoal);
        }
        if self.missing_fraction_permille >= 1000 {
            return Err(ContextError::MissingFraction { permille: self.missing_fraction_permille });
        }
        Ring::new(self.ring_bits).ok_or(ContextError::RingBits { bits: self.ring_bits })
    }
}

/// A context and the roster that it is over: what masks and envelopes between
/// two devices are bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RosterContext {
    pub(crate) session: SessionId,
    pub(crate) context_digest: [u8; 32],
    pub(crate) roster_root: [u8; 32],
}

impl RosterContext {
    pub(crate) fn new(ctx: &Context, roster_root: [u8; 32]) -> Self {
        Self { session: ctx.session, context_digest: ctx.digest(), roster_root }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            session: SessionId([1; 32]),
            task: TaskId([2; 16]),
            round: 3,
            model_digest: ModelDigest([4; 32]),
            plan_digest: PlanDigest([5; 32]),
            len: 6,
            ring_bits: 20,
            report_goal: 7,
            cohort: 100,
            corrupt: 5,
            missing_fraction_permille: 300,
            log: None,
        }
    }

    #[test]
    fn every_field_is_in_the_digest() {
        let mut changed = vec![context(); 12];
        changed[1].session.0[0] = 9;
        changed[2].task.0[0] = 9;
        changed[3].round = 9;
        changed[4].model_digest.0[0] = 9;
        changed[5].plan_digest.0[0] = 9;
        changed[6].len = 9;
        changed[7].ring_bits = 9;
        changed[8].report_goal = 9;
        changed[9].corrupt = 9;
        changed[10].missing_fraction_permille = 9;
        changed[11].cohort = 9;
        let digests: std::collections::BTreeSet<_> = changed.iter().map(Context::digest).collect();
        assert_eq!(digests.len(), changed.len());
    }

    #[test]
    fn values_outside_their_range_are_named() {
        let mut bits = context();
        bits.ring_bits = 33;
        assert_eq!(bits.check(), Err(ContextError::RingBits { bits: 33 }));
        let mut goal = context();
        goal.report_goal = 0;
        assert_eq!(goal.check(), Err(ContextError::ReportGoal));
        let mut missing = context();
        missing.missing_fraction_permille = 1000;
        assert_eq!(missing.check(), Err(ContextError::MissingFraction { permille: 1000 }));
        assert_eq!(context().check(), Ok(()));
    }
}
