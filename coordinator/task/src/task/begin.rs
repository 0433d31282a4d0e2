//! A further round of the version that is being made: what it is about, and until when it may be joined.

use aggregation::Context;
use proto::ids::{Digest, SessionId, Timestamp};
use proto::message::Rejection;
use proto::plan::model_digest;
use rand_core::CryptoRng;

use super::{POLL_MILLIS, Task};
use crate::enrollment_log::RoundLog;
use crate::round::{Round, RoundParams};

impl Task {
    /// Opens a round that devices join until this time, or for as long as the plan says.
    pub(super) fn open_round(
        &mut self,
        until: Option<Timestamp>,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<SessionId, Rejection> {
        if self.is_draining {
            return Err(Rejection::Unavailable("the coordinator is stopping".to_owned()));
        }
        let log = match &self.log {
            None => None,
            Some(log) => Some(RoundLog::now(log).ok_or_else(|| {
                Rejection::Unavailable("the enrollment authority signed no head of its log yet".to_owned())
            })?),
        };
        let mut session = SessionId([0; 32]);
        rng.fill_bytes(&mut session.0);
        let spool = self.spooler.open(session).map_err(|error| {
            Rejection::Unavailable(format!("no place for the inputs of a round: {error}"))
        })?;
        self.record.last_round += 1;
        let params = self.round_params(session, log);
        let deadline = until.unwrap_or_else(|| now.plus_millis(params.join_millis));
        self.rounds.begin(Round::until(params, spool, (now, deadline)));
        Ok(session)
    }

    /// What the newest version is known by in a round.
    fn model_digest(&self) -> Digest {
        let before = self.record.before.as_ref().map(|earlier| &earlier.before);
        model_digest(&self.plan, &self.published(), before)
    }

    fn round_params(&self, session: SessionId, log: Option<RoundLog>) -> RoundParams {
        let plan = &self.plan.round;
        RoundParams {
            context: Context {
                session: aggregation::SessionId(session.0),
                task: aggregation::TaskId(self.id.0),
                round: self.record.last_round,
                model_digest: aggregation::ModelDigest(self.model_digest().0),
                plan_digest: aggregation::PlanDigest(self.plan_digest.0),
                len: self.mechanism.contribution_len(),
                ring_bits: self.mechanism.ring_bits(),
                report_goal: plan.report_goal as usize,
                cohort: plan.cohort as usize,
                corrupt: self.plan.corrupt_devices(),
                missing_fraction_permille: plan.missing_permille,
                log: log.as_ref().map(|log| *log.head().head()),
            },
            log,
            cohort: plan.cohort as usize,
            report_goal: plan.report_goal as usize,
            authority: self.authority,
            join_millis: plan.join_millis,
            step_millis: plan.step_millis,
            grace_millis: plan.grace_millis,
            poll_millis: POLL_MILLIS,
        }
    }
}
