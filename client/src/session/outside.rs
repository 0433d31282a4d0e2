//! Before a round: check in, load, install, train.

use std::sync::Arc;

use proto::adapter::State;
use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::{DeclineReason, Published, Rejection, Reply};
use proto::plan::{Plan, vector_from_bytes};

use crate::policy::{Breach, Policy};

use super::{Ended, Event, LONGEST_WAIT_MILLIS, Purpose, Session, Stage, Trained, Work};

/// How long a device waits after its own limits, or the coordinator, forbade it to take part: four hours.
pub(super) const REFUSED_MILLIS: u64 = 4 * 3_600_000;

/// How long a device waits after a step that failed.
const FAILED_MILLIS: u64 = 60_000;

impl Session {
    pub(super) fn outside(self, state: Stage, event: Event, now: Timestamp) -> Self {
        match (state, event) {
            (Stage::Waiting | Stage::CheckingIn, Event::Replied(reply)) => self.checked_in(reply, now),
            (Stage::Waiting | Stage::CheckingIn, Event::Rejected(rejection)) => self.rejected(rejection, now),
            (Stage::Loading { published, purpose }, Event::Loaded { plan, adapter, frozen, folded }) => {
                let policy = &self.device.policy;
                match load(published, (&plan, &adapter), frozen.as_deref(), folded.as_deref(), policy) {
                    Ok(work) => self.loaded(Arc::new(work), purpose, now),
                    Err(why @ Ended::Plan(_)) => {
                        let until = now.plus_millis(REFUSED_MILLIS);
                        self.decline(published.task, DeclineReason::Plan, why, until)
                    }
                    Err(why) => self.end(why, now.plus_millis(FAILED_MILLIS)),
                }
            }
            (Stage::Loading { .. }, Event::Rejected(rejection)) => {
                self.end(Ended::Rejected(rejection), now.plus_millis(FAILED_MILLIS))
            }
            (Stage::Installing { work, purpose }, Event::Recorded) => self.kept(work, purpose, now),
            (Stage::Training { work }, Event::Trained(update)) => {
                self.to(Stage::Joining { trained: Trained { update: Arc::new(work.whole(update)), work } })
            }
            (Stage::Training { .. }, Event::NotTrained(why)) => {
                self.end(Ended::NotTrained(why), now.plus_millis(FAILED_MILLIS))
            }
            (state @ Stage::Declining { .. }, Event::Replied(_) | Event::Rejected(_)) => {
                self.to(state).declined(now)
            }
            (state, _) => self.to(state),
        }
    }

    /// Tells the coordinator the category of why this device does not take part, and the user all of it.
    fn decline(self, task: TaskId, reason: DeclineReason, why: Ended, until: Timestamp) -> Self {
        self.to(Stage::Declining { task, reason, why, until })
    }

    /// What is left to do when the coordinator has heard it, or cannot.
    pub(super) fn declined(mut self, now: Timestamp) -> Self {
        let Stage::Declining { why, until, .. } = std::mem::replace(&mut self.state, Stage::Waiting) else {
            return self.wait(now);
        };
        self.end(why, until.max(now))
    }

    fn checked_in(mut self, reply: Reply, now: Timestamp) -> Self {
        match reply {
            Reply::Wait { retry_millis, latest, complete } => {
                self.complete = complete;
                let retry_millis = retry_millis.min(LONGEST_WAIT_MILLIS);
                match latest {
                    Some(published) if self.installed != Some(published) => {
                        self.to(Stage::Loading { published, purpose: Purpose::Keep { retry_millis } })
                    }
                    Some(_) | None => self.wait(now.plus_millis(retry_millis)),
                }
            }
            Reply::Assignment(published) => {
                self.complete = false;
                self.to(Stage::Loading { published, purpose: Purpose::Train })
            }
            other @ (Reply::Chunk(_)
            | Reply::Offer { .. }
            | Reply::Roster(_)
            | Reply::Drawn(_)
            | Reply::Inbox { .. }
            | Reply::Received
            | Reply::Survivors(_)
            | Reply::Evidence(_)
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
            self.to(Stage::Installing { work, purpose })
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
            Ok(()) => self.to(Stage::Training { work }),
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
    (plan_bytes, adapter_bytes): (&[u8], &[u8]),
    frozen_bytes: Option<&[u8]>,
    folded_bytes: Option<&[u8]>,
    policy: &Policy,
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
    let given = named("frozen factors", plan.given_factors(), frozen_bytes)?;
    let folded = named("change of earlier epochs", published.folded, folded_bytes)?;
    let version = published.version;
    let factors = plan.factors_at(version, given.as_deref());
    let factors = factors.map_err(|_| Ended::WrongArtefact("frozen factors"))?;
    let folded = plan.folded_at(version, folded.as_deref());
    let folded = folded.map_err(|_| Ended::WrongArtefact("change of earlier epochs"))?;
    let state = State::at(&plan.adapter, version, factors, folded, &adapter);
    let state = state.map_err(|_| Ended::WrongArtefact("adapter"))?;
    let mechanism = plan.mechanism_at(version, published.clip_norm)?;
    let class = plan.classes.and_then(|_| policy.class(&plan.adapter));
    Ok(Work { published, plan, mechanism, state, adapter, class })
}

/// The numbers of an artefact that is known by its hash, where it is; other bytes than those are refused.
fn named(
    what: &'static str,
    digest: Option<Digest>,
    bytes: Option<&[u8]>,
) -> Result<Option<Vec<f32>>, Ended> {
    let Some(digest) = digest else { return Ok(None) };
    let bytes = bytes.filter(|bytes| Digest::of(bytes) == digest).ok_or(Ended::WrongArtefact(what))?;
    vector_from_bytes(bytes).map(Some).ok_or(Ended::WrongArtefact(what))
}
