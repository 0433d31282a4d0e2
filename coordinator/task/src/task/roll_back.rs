//! Back to an earlier version by an operator's will: the next version has its parameters again.
//!
//! No round makes it, so nobody is charged and nothing is measured of it: it is neither judged nor counts as one that was worse.
//! It is one of the versions that the plan wants.

use proto::admin::{TaskState, VersionStatus};
use proto::ids::{Digest, Timestamp};
use proto::message::Outcome;
use proto::plan::vector_to_bytes;
use rand_core::CryptoRng;

use super::earlier::Earlier;
use super::next::NextState;
use super::refusal::RollBackError;
use super::{Task, TaskEffect};
use crate::gain::content;

impl Task {
    /// Whether the task may go back to a version now; to be asked before its parameters are read. Fails where it may not.
    pub fn may_roll_back(&self, version: u32) -> Result<(), RollBackError> {
        let newest = self.version();
        if self.record.state.is_over() {
            return Err(RollBackError::Over);
        }
        if version > newest {
            return Err(RollBackError::Unknown { version, newest });
        }
        let of = |version| content(&self.record.versions, version);
        if of(version) == of(newest) {
            return Err(RollBackError::Same { version, newest });
        }
        match self.rounds.open().find(|round| !round.is_joinable()) {
            Some(round) => Err(RollBackError::UnderWay { round: round.number() }),
            None => Ok(()),
        }
    }

    /// Gives the next version the parameters of an earlier one: its trained ones, and what the epochs before it left. Rounds
    /// that devices still join end, and sums that were gathered for a version are let go. Where that was the last version that
    /// the plan wants, the task is complete.
    pub fn roll_back(
        &mut self,
        (version, adapter, folded): (u32, Vec<f32>, Option<Vec<f32>>),
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<(), RollBackError> {
        self.may_roll_back(version)?;
        let refuse = |source| RollBackError::Parameters { version, source };
        self.plan.adapter.check_trained(&adapter).map_err(refuse)?;
        let next = self.restored(&Earlier::new(version, adapter, folded)).map_err(refuse)?;
        // Those too that are waited for: a version that they would have made is none any more.
        self.version_is_over();
        self.rounds.abort(Outcome::Stopped);
        self.perform(now, rng);
        self.commit_earlier(version, next, now);
        Ok(())
    }

    fn commit_earlier(&mut self, version: u32, next: NextState, now: Timestamp) {
        let NextState { adapter, folded, optimizer } = next;
        let restores = content(&self.record.versions, version);
        let made = self.version() + 1;
        let bytes = vector_to_bytes(&adapter);
        self.adapter_digest = Digest::of(&bytes);
        (self.record.adapter, self.record.optimizer, self.record.before) = (adapter, optimizer, None);
        self.classes.clear();
        let folded = folded.map(|folded| {
            let bytes = vector_to_bytes(&folded);
            self.folded_digest = Some(Digest::of(&bytes));
            self.record.folded = Some(folded);
            bytes
        });
        self.prepare_mechanism(made, &[]);
        let version = VersionStatus {
            version: made,
            cohort: 0,
            survivors: 0,
            round: self.record.last_round,
            rounds: 0,
            epsilon: self.epsilon(),
            adapter: self.adapter_digest,
            folded: self.folded_digest,
            committed_unix_millis: now.0,
            clip_norm: self.mechanism.params().clip_norm.get(),
            metrics: Vec::new(),
            restores: Some(restores),
            rolled_back: true,
        };
        self.record.versions.push(version.clone());
        self.funnels.next(made, now);
        self.selection.published((1, 1));
        let optimizer = vector_to_bytes(&self.record.optimizer.to_vector());
        self.effects.push_back(TaskEffect::Commit {
            completed_by: None,
            version: Box::new(version),
            adapter: bytes,
            folded,
            optimizer,
            roster: None,
        });
        if made >= self.plan.round.versions {
            self.end(TaskState::Complete);
        }
    }
}
