//! Which versions a device keeps for its user, and what is not in the way of others.

use proto::ids::Timestamp;
use proto::message::{Published, Rejection};
use rand_core::CryptoRng;

use super::outside::{FAILED_MILLIS, RESTING_MILLIS};
use super::{Ended, LONGEST_BACKOFF_MILLIS, Purpose, Session, Stage};

impl Session {
    /// A version that could not be kept for the user is not in the way of others: it is looked at again a while later.
    pub(super) fn put_aside(mut self, published: &Published, now: Timestamp) -> Self {
        self.put_aside.retain(|_, until| *until > now);
        self.put_aside.insert((published.task, published.version), now.plus_millis(RESTING_MILLIS));
        self
    }

    /// What the coordinator turned away that was to be fetched.
    pub(super) fn not_fetched(
        self,
        (published, purpose): (Published, &Purpose),
        rejection: Rejection,
        now: Timestamp,
    ) -> Self {
        let session =
            if matches!(purpose, Purpose::Keep { .. }) { self.put_aside(&published, now) } else { self };
        session.end(Ended::Rejected(rejection), now.plus_millis(FAILED_MILLIS))
    }

    /// The coordinator could not be reached, or could not answer. What is fetched for the user alone is put aside, and who
    /// tried for long to fetch what it is to train from asks whether that is still so.
    pub(super) fn unfetched(mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Self {
        let (published, purpose) = match &self.state {
            Stage::LoadingPlan { published, purpose } => (*published, purpose),
            Stage::Loading { offer, purpose } => (offer.published(), purpose),
            Stage::Counting { charged, .. } => {
                if self.backoff_millis < LONGEST_BACKOFF_MILLIS {
                    return self.unanswered(now, rng);
                }
                // What it was given to train from may be another by now.
                let task = charged.published.task;
                let mut session = self.cannot_count(task, "the plan does not come", now);
                session.state = Stage::CheckingIn;
                return session.unanswered(now, rng);
            }
            Stage::Waiting
            | Stage::CheckingIn
            | Stage::Renewing { .. }
            | Stage::RecordingFound { .. }
            | Stage::Installing { .. }
            | Stage::Training { .. }
            | Stage::Declining { .. }
            | Stage::Joining { .. }
            | Stage::Round { .. } => return self.unanswered(now, rng),
        };
        if let Purpose::Keep { retry_millis } = purpose {
            let next = now.plus_millis((*retry_millis).max(FAILED_MILLIS));
            return self.put_aside(&published, now).wait(next);
        }
        if self.backoff_millis >= LONGEST_BACKOFF_MILLIS {
            self.state = Stage::CheckingIn;
        }
        self.unanswered(now, rng)
    }

    /// Whether the user has all that there is of a version: it is installed, or is version 0, which is the base with nothing
    /// learned.
    pub(super) fn has_all_of(&self, published: &Published) -> bool {
        self.holds(published) || published.version == 0
    }

    /// Whether a version is one to keep for the user beside any training: one that was trained, newer than what they have of
    /// the task, and not of a task that they left.
    pub(super) fn is_for_the_user(&self, published: &Published, now: Timestamp) -> bool {
        let held = self.installed(published.task).map_or(0, |held| held.version);
        published.version > held
            && !self.forgotten.contains(&published.task)
            && self.put_aside.get(&(published.task, published.version)).is_none_or(|until| *until <= now)
    }
}
