//! Before a round: check in, load the plan, ask the policy, load, install, train.
//!
//! The policy is asked from the plan alone: what it refuses is neither fetched nor built.

use std::sync::Arc;

use privacy::Mechanism;
use proto::adapter::State;
use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::{Before, DeclineReason, Published, Rejection, Reply};
use proto::metrics::MetricName;
use proto::plan::{Plan, vector_from_bytes};
use rand_core::CryptoRng;

use crate::policy::{Breach, Policy};

use super::trainer_faults::Next;
use super::{
    Action, Ended, Event, FIRST_TEXT_MILLIS, LEAST_WAIT_MILLIS, LackingBase, LoadedBefore, Purpose, Session,
    Stage, Trained, Work, bounded,
};

/// How long a device waits after its own limits, or the coordinator, forbade it to take part: four hours.
pub(super) const REFUSED_MILLIS: u64 = 4 * 3_600_000;

/// How long a device waits after a step that failed.
pub(super) const FAILED_MILLIS: u64 = 60_000;

/// How long a device that waits for a window does not ask for a newer version.
pub(super) const AWAITED_MILLIS: u64 = 30 * 60_000;

/// How soon a device that declined a task asks for another.
const OTHER_TASK_MILLIS: u64 = 2_000;

/// Tasks that are declined one after the other; a device that declined so many asks as one that rests.
const MOST_DECLINED: usize = 32;

/// How often a device looks for new versions of a task that it does not train for a while: every quarter of an hour.
pub(super) const RESTING_MILLIS: u64 = 15 * 60_000;

/// Parses a plan, after checking that it is the one that was published.
pub(super) fn read_plan(published: &Published, plan: &[u8]) -> Result<Plan, Ended> {
    if Digest::of(plan) != published.plan {
        return Err(Ended::WrongArtifact("plan"));
    }
    Ok(Plan::parse(plan)?)
}

/// A version and its plan, of which nothing else was loaded yet.
#[derive(Debug)]
pub(super) struct Offer {
    published: Published,
    plan: Arc<Plan>,
    mechanism: Mechanism,
}

impl Offer {
    /// Parses the plan of a version, after checking that it allows the version.
    fn read(published: Published, plan_bytes: &[u8]) -> Result<Self, Ended> {
        let plan = read_plan(&published, plan_bytes)?;
        let mechanism = plan.mechanism_at(published.version, published.clip_norm)?;
        Ok(Self { published, plan: Arc::new(plan), mechanism })
    }

    /// Which version.
    pub(super) fn published(&self) -> Published {
        self.published
    }

    fn measures_gain(&self) -> bool {
        self.plan.privacy.metrics.iter().any(|metric| metric.name == MetricName::Gain)
    }

    /// What loads the rest.
    pub(super) fn action(&self, purpose: &Purpose) -> Action {
        let trains = matches!(purpose, Purpose::Train { .. });
        let frozen = self.plan.given_factors();
        let before = match purpose {
            Purpose::Train { before, .. } => before.filter(|_| self.measures_gain()),
            Purpose::Keep { .. } | Purpose::Await | Purpose::Refused(_) => None,
        };
        Action::Load { published: self.published, frozen, plan: Arc::clone(&self.plan), trains, before }
    }
}

impl Session {
    pub(super) fn outside(
        self,
        state: Stage,
        event: Event,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Self {
        match (state, event) {
            (Stage::Waiting | Stage::CheckingIn, Event::Replied(reply)) => self.checked_in(reply, now, rng),
            (Stage::Waiting | Stage::CheckingIn, Event::Rejected(rejection))
            | (Stage::Counting { .. }, Event::Rejected(rejection @ Rejection::NotEnrolled)) => {
                self.rejected(rejection, now)
            }
            (Stage::LoadingPlan { published, purpose }, Event::PlanLoaded(plan)) => {
                match (Offer::read(published, &plan), &purpose) {
                    (Ok(offer), _) => self.offered(Box::new(offer), purpose, now),
                    (Err(why), Purpose::Keep { retry_millis }) => {
                        let next = now.plus_millis((*retry_millis).max(FAILED_MILLIS));
                        self.put_aside(&published, now).end(why, next)
                    }
                    (Err(why @ Ended::Plan(_)), _) => {
                        let until = now.plus_millis(REFUSED_MILLIS);
                        self.decline(&published, DeclineReason::Plan, why, until)
                    }
                    (Err(why), _) => self.end(why, now.plus_millis(FAILED_MILLIS)),
                }
            }
            (Stage::Counting { charged, then }, Event::PlanLoaded(plan)) => {
                self.count(charged, &plan, then, now)
            }
            (Stage::Counting { charged, then }, Event::Rejected(rejection)) => {
                self.uncounted(charged, then, &rejection.reason(), now)
            }
            (Stage::RecordingFound { found, then }, Event::Recorded) => {
                let mut session = self;
                session.spending.add_found(&found, now);
                session.assigned(*then, now)
            }
            (Stage::Loading { offer, purpose }, Event::Loaded { adapter, frozen, folded, before }) => {
                let before = match &purpose {
                    Purpose::Train { before: wanted, .. } if offer.measures_gain() => {
                        wanted.map(|wanted| (wanted, before.unwrap_or_default()))
                    }
                    Purpose::Train { .. } | Purpose::Keep { .. } | Purpose::Await | Purpose::Refused(_) => {
                        None
                    }
                };
                let loaded = Loaded {
                    adapter: &adapter,
                    frozen: frozen.as_deref(),
                    folded: folded.as_deref(),
                    before,
                };
                let published = offer.published;
                match load(*offer, loaded, &self.device.policy) {
                    Ok(work) => self.loaded(Arc::new(work), purpose, now),
                    Err(why) if matches!(purpose, Purpose::Keep { .. }) => {
                        self.put_aside(&published, now).end(why, now.plus_millis(FAILED_MILLIS))
                    }
                    Err(why) => self.end(why, now.plus_millis(FAILED_MILLIS)),
                }
            }
            (Stage::Loading { offer, purpose }, Event::CannotTrain(breach)) => match purpose {
                Purpose::Train { .. } => self.refuse(&offer.published, breach, now),
                // Nothing was asked of it.
                Purpose::Keep { retry_millis } => {
                    self.put_aside(&offer.published, now).wait(now.plus_millis(retry_millis))
                }
                Purpose::Await => self.await_window(now),
                Purpose::Refused(breach) => self.refuse(&offer.published, breach, now),
            },
            // Nothing of the version is held meanwhile; one that the user has not yet is fetched for them.
            (Stage::Loading { offer, purpose: Purpose::Train { .. } }, Event::NoWindow) => {
                if self.has_all_of(&offer.published) {
                    return self.await_window(now);
                }
                self.to(Stage::Loading { offer, purpose: Purpose::Await })
            }
            (Stage::Training { .. }, Event::NoWindow) => self.interrupted(now),
            (Stage::LoadingPlan { published, purpose }, Event::Rejected(rejection)) => {
                self.not_fetched((published, &purpose), rejection, now)
            }
            (Stage::Loading { offer, purpose }, Event::Rejected(rejection)) => {
                self.not_fetched((offer.published, &purpose), rejection, now)
            }
            (Stage::Installing { work, purpose }, Event::Recorded) => self.kept(work, purpose, now),
            // Before anything is charged for what could not be sent.
            (Stage::Training { work }, Event::Trained(update)) if update.len() != work.trained_len() => {
                let (found, expected) = (update.len(), work.trained_len());
                let why = format!("the trainer gave {found} parameters where {expected} are trained");
                self.end(Ended::NotTrained(why), now.plus_millis(FAILED_MILLIS))
            }
            (Stage::Training { work }, Event::Trained(update)) => {
                let mut session = self;
                session.trainer_faults.succeeded(work.published.task);
                session.text_millis = FIRST_TEXT_MILLIS;
                session.to(Stage::Joining { trained: Trained { update: Arc::new(work.whole(update)), work } })
            }
            (Stage::Training { .. }, Event::NoText(why)) => {
                let mut session = self;
                let until = now.plus_millis(session.text_millis);
                session.text_millis = (2 * session.text_millis).min(RESTING_MILLIS);
                session.end(Ended::NoText(why), until)
            }
            (Stage::Training { work }, Event::TrainerFailed(why)) => {
                self.trainer_failed(work.published.task, why, now)
            }
            (Stage::Training { .. }, Event::NotTrained(why)) => {
                self.end(Ended::NotTrained(why), now.plus_millis(FAILED_MILLIS))
            }
            (Stage::Installing { work, purpose }, Event::CannotTrain(breach)) => match purpose {
                Purpose::Train { .. } => self.refuse(&work.published, breach, now),
                // Nothing was asked of it; and it is not fetched again soon for the same.
                Purpose::Keep { retry_millis } => {
                    self.put_aside(&work.published, now).end(breach, now.plus_millis(retry_millis))
                }
                Purpose::Await => {
                    let mut session = self.await_window(now);
                    session.ended = Some(breach.into());
                    session
                }
                Purpose::Refused(other) => self.refuse(&work.published, other, now),
            },
            (Stage::Training { work }, Event::CannotTrain(breach)) => {
                self.refuse(&work.published, breach, now)
            }
            (state @ Stage::Declining { .. }, Event::Replied(_) | Event::Rejected(_)) => {
                self.to(state).declined(now)
            }
            (state, _) => self.to(state),
        }
    }

    /// Tells the coordinator the category of why this device does not take part, and the user all of it.
    pub(super) fn decline(
        self,
        published: &Published,
        reason: DeclineReason,
        why: Ended,
        until: Timestamp,
    ) -> Self {
        self.to(Stage::Declining { published: *published, reason, why, until })
    }

    /// What is left to do when the coordinator has heard it, or cannot.
    pub(super) fn declined(mut self, now: Timestamp) -> Self {
        let Stage::Declining { published: Published { task, plan, .. }, why, until, .. } =
            std::mem::replace(&mut self.state, Stage::Waiting)
        else {
            return self.wait(now);
        };
        self.ended_task = Some(task);
        self.declined.retain(|_, (_, until)| *until > now);
        self.declined.insert(task, (plan, until));
        // There may be other tasks, which the coordinator gives before one that was declined; it cannot make the device hurry
        // through as many as it makes up.
        let next = if self.declined.len() < MOST_DECLINED { OTHER_TASK_MILLIS } else { RESTING_MILLIS };
        self.end(why, until.min(now.plus_millis(next)).max(now))
    }

    fn checked_in(mut self, reply: Reply, now: Timestamp, rng: &mut impl CryptoRng) -> Self {
        match reply {
            Reply::Wait { retry, latest, complete } => {
                self.complete = complete;
                self.told_millis = retry.most_millis;
                let least = if self.lacks_window { AWAITED_MILLIS } else { 0 };
                let retry_millis = bounded(retry, rng).max(least);
                let mut new = latest.into_iter().filter(|published| self.is_for_the_user(published, now));
                match (new.next(), new.next()) {
                    (None, _) => self.wait(now.plus_millis(retry_millis)),
                    // Where there are more, the next one is asked for soon.
                    (Some(published), further) => {
                        let retry_millis = further.map_or(retry_millis, |_| LEAST_WAIT_MILLIS);
                        self.to(Stage::LoadingPlan { published, purpose: Purpose::Keep { retry_millis } })
                    }
                }
            }
            Reply::Assignment(assignment) => {
                self.complete = false;
                self.assigned(assignment, now)
            }
            other @ (Reply::Chunk(_)
            | Reply::Offer { .. }
            | Reply::Roster { .. }
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

    /// What is to be done with a version, of which the plan is known.
    fn offered(self, offer: Box<Offer>, purpose: Purpose, now: Timestamp) -> Self {
        match purpose {
            Purpose::Train { before } => self.weigh(offer, before, now),
            Purpose::Keep { retry_millis } => {
                let Offer { published, plan, .. } = &*offer;
                if self.device.policy.knows(published.task, plan, &self.device.bases).is_ok() {
                    return self.to(Stage::Loading { offer, purpose });
                }
                // Nothing was asked of it, and it is not looked at again.
                let of_no_use = (published.task, published.version);
                let mut session = self;
                session.put_aside.insert(of_no_use, Timestamp(u64::MAX));
                session.wait(now.plus_millis(retry_millis))
            }
            Purpose::Await | Purpose::Refused(_) => self.to(Stage::Loading { offer, purpose }),
        }
    }

    /// Asks the policy, before anything else of the version is fetched or built.
    fn weigh(mut self, offer: Box<Offer>, before: Option<Before>, now: Timestamp) -> Self {
        let (published, policy) = (offer.published, &self.device.policy);
        if let Some(until) = self.trainer_faults.rests_until(published.task, now) {
            // It still looks for new versions meanwhile, as one that only holds them.
            let retry_millis = until.millis_since(now).min(RESTING_MILLIS);
            if self.has_all_of(&published) {
                return self.wait(now.plus_millis(retry_millis));
            }
            return self.offered(offer, Purpose::Keep { retry_millis }, now);
        }
        match policy.admit(published.task, &offer.plan, &self.device.bases, &self.spending, now) {
            Ok(()) => self.to(Stage::Loading { offer, purpose: Purpose::Train { before } }),
            Err(breach)
                if !self.has_all_of(&published) && policy.keeps(published.task, &breach, &self.spending) =>
            {
                self.to(Stage::Loading { offer, purpose: Purpose::Refused(breach) })
            }
            Err(breach) => {
                if let Breach::Base { wanted: base, .. } = breach
                    && policy.lacks_only_the_base(published.task, &offer.plan, &self.spending, now)
                {
                    self.lacking = Some(LackingBase { task: published.task, base });
                }
                self.refuse(&published, breach, now)
            }
        }
    }

    /// Tries again soon, or, after too many failures in a row, not for hours.
    fn trainer_failed(mut self, task: TaskId, why: String, now: Timestamp) -> Self {
        match self.trainer_faults.failed(task, now) {
            Next::TryAgain => self.end(Ended::TrainerFailed(why), now.plus_millis(FAILED_MILLIS)),
            Next::Rest { failed, until } => {
                let next = until.min(now.plus_millis(RESTING_MILLIS));
                self.end(Ended::TrainerRests { task, failed, why }, next)
            }
        }
    }

    /// Takes no part, and says so, but for a device that only rests.
    fn refuse(self, published: &Published, breach: Breach, now: Timestamp) -> Self {
        let refused = now.plus_millis(REFUSED_MILLIS);
        if let Breach::Resting { until, .. } = breach {
            // It still looks for new versions meanwhile.
            return self.end(breach, until.min(refused));
        }
        self.decline(published, breach.reason(), breach.into(), refused)
    }

    fn loaded(self, work: Arc<Work>, purpose: Purpose, now: Timestamp) -> Self {
        if self.has_all_of(&work.published) {
            self.kept(work, purpose, now)
        } else {
            self.to(Stage::Installing { work, purpose })
        }
    }

    fn kept(mut self, work: Arc<Work>, purpose: Purpose, now: Timestamp) -> Self {
        if work.published.version > 0 {
            self.installed.insert(work.published.task, work.published);
        }
        match purpose {
            Purpose::Train { .. } => self.to(Stage::Training { work }),
            Purpose::Keep { retry_millis } => self.wait(now.plus_millis(retry_millis)),
            Purpose::Await => self.await_window(now),
            Purpose::Refused(breach) => self.refuse(&work.published, breach, now),
        }
    }

    /// Waits until a window opens, or until there may be a newer version. The coordinator hears first that the device does
    /// not train, so that another one may; of one that gives work all the same no more is asked for a while.
    fn await_window(mut self, now: Timestamp) -> Self {
        if self.lacks_window {
            return self.wait(now.plus_millis(AWAITED_MILLIS));
        }
        self.lacks_window = true;
        self.to(Stage::CheckingIn)
    }

    /// The user is back while it trains. It may go on soon, so its place is kept for a while.
    fn interrupted(mut self, now: Timestamp) -> Self {
        self.lacks_window = true;
        self.wait(now.plus_millis(AWAITED_MILLIS))
    }

    /// The user's conditions allow to train.
    pub(super) fn window_opened(mut self, now: Timestamp) -> Self {
        let lacked = std::mem::take(&mut self.lacks_window);
        if lacked && matches!(self.state, Stage::Waiting | Stage::CheckingIn) {
            self.woken(now)
        } else {
            self
        }
    }

    /// A rejection that leaves nothing to be done with the update but to ask for newer work.
    pub(super) fn rejected(self, rejection: Rejection, now: Timestamp) -> Self {
        let millis = match rejection {
            Rejection::NotEnrolled | Rejection::ParticipationsSpent(_) => REFUSED_MILLIS,
            Rejection::Stale { .. } | Rejection::LeftOut | Rejection::UnknownTask => LEAST_WAIT_MILLIS,
            Rejection::Malformed { .. }
            | Rejection::UnknownSession
            | Rejection::UnknownArtifact
            | Rejection::NotInRoster
            | Rejection::WrongPhase { .. }
            | Rejection::Equivocation(_)
            | Rejection::Unacceptable { .. }
            | Rejection::Unavailable(_) => FAILED_MILLIS,
        };
        self.end(Ended::Rejected(rejection), now.plus_millis(millis))
    }
}

/// What was fetched of a version.
struct Loaded<'a> {
    adapter: &'a [u8],
    frozen: Option<&'a [u8]>,
    folded: Option<&'a [u8]>,
    before: Option<(Before, LoadedBefore)>,
}

/// Parses the rest of what was fetched, after checking that it is what was published, and builds what is trained.
fn load(
    Offer { published, plan, mechanism }: Offer,
    Loaded { adapter: adapter_bytes, frozen: frozen_bytes, folded: folded_bytes, before }: Loaded<'_>,
    policy: &Policy,
) -> Result<Work, Ended> {
    if Digest::of(adapter_bytes) != published.adapter {
        return Err(Ended::WrongArtifact("adapter"));
    }
    let adapter = vector_from_bytes(adapter_bytes).ok_or(Ended::WrongArtifact("adapter"))?;
    plan.adapter.check_trained(&adapter).map_err(|_| Ended::WrongArtifact("adapter"))?;
    let given = named("frozen factors", plan.given_factors(), frozen_bytes)?;
    let folded = named("change of earlier epochs", published.folded, folded_bytes)?;
    let version = published.version;
    let factors = plan.factors_at(version, given.as_deref());
    let factors = factors.map_err(|_| Ended::WrongArtifact("frozen factors"))?;
    let folded = plan.folded_at(version, folded.as_deref());
    let folded = folded.map_err(|_| Ended::WrongArtifact("change of earlier epochs"))?;
    let state = State::at(&plan.adapter, version, factors, folded, &adapter);
    let state = state.map_err(|_| Ended::WrongArtifact("adapter"))?;
    let class = plan.classes.and_then(|_| policy.class(&plan.adapter));
    let against = before.as_ref().map(|(wanted, _)| *wanted);
    if against.is_some_and(|wanted| wanted.version >= version) {
        return Err(Ended::WrongArtifact("version before"));
    }
    let before = before.map(|before| load_before(&plan, before, given.as_deref())).transpose()?;
    Ok(Work { published, plan: Plan::clone(&plan), mechanism, state, adapter, class, before, against })
}

/// Builds the version before in the same way.
fn load_before(
    plan: &Plan,
    (wanted, loaded): (Before, LoadedBefore),
    given: Option<&[f32]>,
) -> Result<State, Ended> {
    const WHAT: &str = "version before";
    let adapter = named(WHAT, Some(wanted.adapter), Some(&loaded.adapter))?;
    let adapter = adapter.ok_or(Ended::WrongArtifact(WHAT))?;
    let folded = named(WHAT, wanted.folded, loaded.folded.as_deref())?;
    let state = plan.state_at(wanted.version, given, folded.as_deref(), &adapter);
    state.map_err(|_| Ended::WrongArtifact(WHAT))
}

/// The numbers of an artefact that is known by its hash, where it is; other bytes than those are refused.
fn named(
    what: &'static str,
    digest: Option<Digest>,
    bytes: Option<&[u8]>,
) -> Result<Option<Vec<f32>>, Ended> {
    let Some(digest) = digest else { return Ok(None) };
    let bytes = bytes.filter(|bytes| Digest::of(bytes) == digest).ok_or(Ended::WrongArtifact(what))?;
    vector_from_bytes(bytes).map(Some).ok_or(Ended::WrongArtifact(what))
}
