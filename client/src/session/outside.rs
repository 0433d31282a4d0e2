//! Before a round: check in, load, install, train.

use std::sync::Arc;

use proto::adapter::Factors;
use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::{DeclineReason, Published, Rejection, Reply};
use proto::plan::{Plan, vector_from_bytes};

use crate::policy::Breach;

use super::{Ended, Event, Purpose, Session, State, Trained, Work};

/// How long a device waits after its own limits, or the coordinator, forbade it to take part: four hours.
pub(super) const REFUSED_MILLIS: u64 = 4 * 3_600_000;

/// How long a device waits after a step that failed.
const FAILED_MILLIS: u64 = 60_000;

impl Session {
    pub(super) fn outside(self, state: State, event: Event, now: Timestamp) -> Self {
        match (state, event) {
            (State::Waiting | State::CheckingIn, Event::Replied(reply)) => self.checked_in(reply, now),
            (State::Waiting | State::CheckingIn, Event::Rejected(rejection)) => self.rejected(rejection, now),
            (State::Loading { published, purpose }, Event::Loaded { plan, adapter, frozen }) => {
                match load(published, &plan, &adapter, frozen.as_deref()) {
                    Ok(work) => self.loaded(Arc::new(work), purpose, now),
                    Err(why @ Ended::Plan(_)) => {
                        let until = now.plus_millis(REFUSED_MILLIS);
                        self.decline(published.task, DeclineReason::Plan, why, until)
                    }
                    Err(why) => self.end(why, now.plus_millis(FAILED_MILLIS)),
                }
            }
            (State::Loading { .. }, Event::Rejected(rejection)) => {
                self.end(Ended::Rejected(rejection), now.plus_millis(FAILED_MILLIS))
            }
            (State::Installing { work, purpose }, Event::Recorded) => self.kept(work, purpose, now),
            (State::Training { work }, Event::Trained(update)) => {
                self.to(State::Joining { trained: Trained { work, update: Arc::new(update) } })
            }
            (State::Training { .. }, Event::NotTrained(why)) => {
                self.end(Ended::NotTrained(why), now.plus_millis(FAILED_MILLIS))
            }
            (state @ State::Declining { .. }, Event::Replied(_) | Event::Rejected(_)) => {
                self.to(state).declined(now)
            }
            (state, _) => self.to(state),
        }
    }

    /// Tells the coordinator the category of why this device does not take part, and the user all of it.
    fn decline(self, task: TaskId, reason: DeclineReason, why: Ended, until: Timestamp) -> Self {
        self.to(State::Declining { task, reason, why, until })
    }

    /// What is left to do when the coordinator has heard it, or cannot.
    pub(super) fn declined(mut self, now: Timestamp) -> Self {
        let State::Declining { why, until, .. } = std::mem::replace(&mut self.state, State::Waiting) else {
            return self.wait(now);
        };
        self.end(why, until.max(now))
    }

    fn checked_in(mut self, reply: Reply, now: Timestamp) -> Self {
        match reply {
            Reply::Wait { retry_millis, latest, complete } => {
                self.complete = complete;
                match latest {
                    Some(published) if self.installed != Some(published) => {
                        self.to(State::Loading { published, purpose: Purpose::Keep { retry_millis } })
                    }
                    Some(_) | None => self.wait(now.plus_millis(retry_millis)),
                }
            }
            Reply::Assignment(published) => {
                self.complete = false;
                self.to(State::Loading { published, purpose: Purpose::Train })
            }
            other @ (Reply::Chunk(_)
            | Reply::Offer { .. }
            | Reply::Roster(_)
            | Reply::Drawn(_)
            | Reply::Inbox { .. }
            | Reply::Received
            | Reply::Survivors(_)
            | Reply::Quorum(_)
            | Reply::Over(_)) => {
                let why = Ended::WrongReply { request: "check-in", reply: other.name() };
                self.end(why, now.plus_millis(FAILED_MILLIS))
            }
        }
    }

    fn loaded(self, work: Arc<Work>, purpose: Purpose, now: Timestamp) -> Self {
        if self.installed == Some(work.published) {
            self.kept(work, purpose, now)
        } else {
            self.to(State::Installing { work, purpose })
        }
    }

    fn kept(mut self, work: Arc<Work>, purpose: Purpose, now: Timestamp) -> Self {
        self.installed = Some(work.published);
        if let Purpose::Keep { retry_millis } = purpose {
            return self.wait(now.plus_millis(retry_millis));
        }
        let task = work.published.task;
        let admitted = self.device.policy.admit(task, &work.plan, self.device.base, &self.spending, now);
        match admitted {
            Ok(()) => self.to(State::Training { work }),
            Err(breach @ Breach::Resting { until, .. }) => {
                // It still looks for new versions meanwhile.
                self.end(breach, until.min(now.plus_millis(REFUSED_MILLIS)))
            }
            Err(breach) => {
                let until = now.plus_millis(REFUSED_MILLIS);
                self.decline(task, breach.reason(), breach.into(), until)
            }
        }
    }

    /// A rejection that leaves nothing to be done with the update but to ask for newer work.
    pub(super) fn rejected(self, rejection: Rejection, now: Timestamp) -> Self {
        let millis = match rejection {
            Rejection::NotEnrolled | Rejection::ParticipationsSpent(_) => REFUSED_MILLIS,
            Rejection::Stale { .. } | Rejection::LeftOut | Rejection::UnknownTask => 0,
            Rejection::Malformed { .. }
            | Rejection::UnknownSession
            | Rejection::UnknownArtefact
            | Rejection::NotInRoster
            | Rejection::WrongPhase { .. }
            | Rejection::Equivocation(_)
            | Rejection::Unacceptable { .. }
            | Rejection::Unavailable(_) => FAILED_MILLIS,
        };
        self.end(Ended::Rejected(rejection), now.plus_millis(millis))
    }
}

/// Parses what was fetched, after checking that it is what was published.
fn load(
    published: Published,
    plan_bytes: &[u8],
    adapter_bytes: &[u8],
    frozen_bytes: Option<&[u8]>,
) -> Result<Work, Ended> {
    if Digest::of(plan_bytes) != published.plan {
        return Err(Ended::WrongArtefact("plan"));
    }
    if Digest::of(adapter_bytes) != published.adapter {
        return Err(Ended::WrongArtefact("adapter"));
    }
    let plan = Plan::parse(plan_bytes)?;
    let adapter = vector_from_bytes(adapter_bytes).ok_or(Ended::WrongArtefact("adapter"))?;
    plan.adapter.check_trained(&adapter).map_err(|_| Ended::WrongArtefact("adapter"))?;
    let frozen = match (&plan.adapter.factors, frozen_bytes) {
        (Factors::Seeded(seed), _) => plan.adapter.seeded_factors(seed),
        (Factors::Given(digest), Some(bytes)) if Digest::of(bytes) == *digest => {
            vector_from_bytes(bytes).ok_or(Ended::WrongArtefact("frozen factors"))?
        }
        (Factors::Given(_), _) => return Err(Ended::WrongArtefact("frozen factors")),
    };
    plan.adapter.check_frozen(&frozen).map_err(|_| Ended::WrongArtefact("frozen factors"))?;
    let mechanism = plan.mechanism_at(published.clip_norm)?;
    Ok(Work { published, plan, mechanism, frozen, adapter })
}
