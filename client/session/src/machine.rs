//! The device's side of the protocol, as a pure machine.
//!
//! [`Session::action`] says what the shell must do now; [`Session::handle`] takes what came of it and returns
//! the next state. Keys and masks live in the state and nowhere else. `machine/outside.rs` holds the steps
//! before a round (check in, load, train), `machine/inside.rs` those of the round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aggregation::log::Seen;
use aggregation::{Credential, IdentityKey, IdentityPublic};
use proto::ids::{DeviceId, Digest, TaskId, Timestamp};
use proto::message::{
    Assignment, Before, Charged, CheckIn, DeclineReason, MOST_LATEST, Published, Rejection, Request, Window,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::policy::{Breach, Policy};
use crate::spending::{Found, Spending};
use crate::update::Update;

mod assigned;
mod ended;
mod events;
mod inside;
mod keeping;
mod log;
mod outside;
mod renewal;
mod state;
mod trainer_faults;
mod work;

use assigned::Uncounted;
pub use ended::{Ended, Withheld};
pub use events::{Action, Event, LoadedBefore};
pub use renewal::Lifetime;
use renewal::{Renewal, Then};
pub use state::SessionState;
use trainer_faults::TrainerFaults;
pub use work::Work;

/// First wait after a call that did not get through, in milliseconds; doubled up to [`LONGEST_BACKOFF_MILLIS`].
const FIRST_BACKOFF_MILLIS: u64 = 500;
const LONGEST_BACKOFF_MILLIS: u64 = 60_000;

/// The longest wait of a device that asked for work and was not heard, in milliseconds: an hour.
const LONGEST_UNHEARD_MILLIS: u64 = 3_600_000;

/// First wait after no text was found to train on, in milliseconds; doubled each time, up to a quarter of an hour.
const FIRST_TEXT_MILLIS: u64 = 10_000;

/// The shortest wait before anything is asked again, whatever a coordinator says, in milliseconds: none can make a device
/// ask without end.
const LEAST_WAIT_MILLIS: u64 = 250;

/// How far above the last round in which a device signed, or above 0, the number of a round may be. A coordinator counts
/// rounds up by one, so an honest one stays below this in a year in which it opens eight rounds a second; and one that
/// lies cannot use all numbers up with a single round.
const MOST_ROUNDS_AHEAD: u64 = 1 << 28;

/// The longest wait that a coordinator may ask for, in milliseconds: a day.
const LONGEST_WAIT_MILLIS: u64 = 24 * 3_600_000;

/// What a device is.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub device: DeviceId,
    /// Its long-lived signing key.
    pub identity: IdentityKey,
    /// The enrolment authority's statement about it, as the device began with it.
    pub credential: Credential,
    /// The enrollment authority's key. Where its credential has a place in the authority's log, it takes part in rounds
    /// about that log and no others.
    pub authority: IdentityPublic,
    /// The hashes of the bases that it holds.
    pub bases: Vec<Digest>,
    /// Its own limits.
    pub policy: Policy,
}

/// What the ledger keeps of a device's word in a round, before it leaves: the signature over the sharers with whom it
/// masked, and the answer that helps to open the sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The task.
    pub task: TaskId,
    /// The round.
    pub round: u64,
    /// The hash of what was signed: of the sharers, or, of an answer, of the transcript.
    #[serde(alias = "transcript")]
    pub statement: Digest,
}

/// What was trained and waits for a round.
#[derive(Clone, Debug)]
struct Trained {
    work: Arc<Work>,
    update: Arc<Update>,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    CheckingIn,
    /// Asking for the next certificate, before it asks for work or for a place with what was trained.
    Renewing {
        has_certificate: bool,
        then: Then,
    },
    LoadingPlan {
        published: Published,
        purpose: Purpose,
    },
    /// Learning from a plan what the rounds cost for which the coordinator charged this device and its ledger did not,
    /// before what it was given to train from is looked at.
    Counting {
        charged: Charged,
        then: Box<Assignment>,
    },
    RecordingFound {
        found: Found,
        then: Box<Assignment>,
    },
    Loading {
        offer: Box<outside::Offer>,
        purpose: Purpose,
    },
    Installing {
        work: Arc<Work>,
        purpose: Purpose,
    },
    Training {
        work: Arc<Work>,
    },
    Declining {
        published: Published,
        reason: DeclineReason,
        why: Ended,
        until: Timestamp,
    },
    Joining {
        trained: Trained,
    },
    Round {
        trained: Trained,
        step: Box<inside::Step>,
    },
}

/// What a version is loaded for.
#[derive(Clone, Debug)]
enum Purpose {
    /// To train from it, and to measure it against the version before.
    Train { before: Option<Before> },
    /// Only to have it; the next check-in is after so many milliseconds.
    Keep { retry_millis: u64 },
    /// Only to have it, because no window is open in which to train it.
    Await,
    /// Only to have it, because this forbids to train it.
    Refused(Breach),
}

/// One device's side of the protocol.
#[derive(Debug)]
pub struct Session {
    device: Arc<Device>,
    /// The enrolment authority's newest statement about it.
    credential: Credential,
    /// Absent where what this device shows never ends.
    renewal: Option<Renewal>,
    state: Stage,
    /// Nothing is done before then.
    pause: Option<Timestamp>,
    backoff_millis: u64,
    /// The longest that the coordinator told it to wait when it asked for work last, in milliseconds.
    told_millis: u64,
    /// Its user's conditions forbade to train when it was given work last, and did not allow it since.
    lacks_window: bool,
    /// The version that this device holds of each task.
    installed: BTreeMap<TaskId, Published>,
    spending: Spending,
    /// The last round of each task in which this device signed with whom it masked.
    signed: BTreeMap<TaskId, u64>,
    /// When it took part in drawing a graph, within the last day.
    drawn: Vec<Timestamp>,
    /// What it has seen of the log of its enrollment authority.
    seen: Option<Seen>,
    /// The tasks that the user left.
    forgotten: BTreeSet<TaskId>,
    trainer_faults: TrainerFaults,
    /// When the user's text is looked for again, where there was none.
    text_millis: u64,
    complete: bool,
    ended: Option<Ended>,
    /// The task that it is about, where it is about one.
    ended_task: Option<TaskId>,
    /// Tasks whose charges by the coordinator cannot be counted.
    uncounted: BTreeMap<TaskId, Uncounted>,
    /// Tasks that were declined, by the plan, and until when the same is not said again.
    declined: BTreeMap<TaskId, (Digest, Timestamp)>,
    /// Versions that were offered for the user and could not be kept: when each is looked at again.
    put_aside: BTreeMap<(TaskId, u32), Timestamp>,
    /// A base that is not here and without which nothing else keeps the device from a task.
    lacking: Option<LackingBase>,
}

/// A base that a task needs and that the device does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LackingBase {
    /// The task.
    pub task: TaskId,
    /// The base.
    pub base: Digest,
}

impl Session {
    /// A device that has not checked in yet. `spending` is what its ledger says, `installed` the version
    /// that it holds of each task.
    pub fn new(
        device: Arc<Device>,
        spending: Spending,
        installed: impl IntoIterator<Item = Published>,
        now: Timestamp,
    ) -> Self {
        Self {
            credential: device.credential.clone(),
            renewal: None,
            device,
            state: Stage::Waiting,
            pause: Some(now),
            backoff_millis: FIRST_BACKOFF_MILLIS,
            told_millis: 0,
            lacks_window: false,
            installed: installed.into_iter().map(|published| (published.task, published)).collect(),
            spending,
            signed: BTreeMap::new(),
            drawn: Vec::new(),
            seen: None,
            forgotten: BTreeSet::new(),
            trainer_faults: TrainerFaults::default(),
            text_millis: FIRST_TEXT_MILLIS,
            complete: false,
            ended: None,
            ended_task: None,
            uncounted: BTreeMap::new(),
            declined: BTreeMap::new(),
            put_aside: BTreeMap::new(),
            lacking: None,
        }
    }

    /// The same device, whose ledger says that it signed these statements.
    #[must_use]
    pub fn having_signed(mut self, signed: impl IntoIterator<Item = Signed>) -> Self {
        for Signed { task, round, .. } in signed {
            let last = self.signed.entry(task).or_default();
            *last = round.max(*last);
        }
        self
    }

    /// The same device, which took part in drawing graphs at these times.
    #[must_use]
    pub fn having_drawn(mut self, times: Vec<Timestamp>) -> Self {
        self.drawn = times;
        self
    }

    /// The same device, which has seen this of the log of its enrollment authority.
    #[must_use]
    pub const fn having_seen(mut self, seen: Option<Seen>) -> Self {
        self.seen = seen;
        self
    }

    /// The same device, whose user left these tasks.
    #[must_use]
    pub fn having_forgotten(mut self, tasks: BTreeSet<TaskId>) -> Self {
        self.forgotten = tasks;
        self
    }

    /// The user leaves a task: whatever is done of it ends now, and it is neither trained nor installed any more.
    pub fn forget(&mut self, task: TaskId) {
        self.forgotten.insert(task);
        self.installed.remove(&task);
        if self.at_work_on().is_some_and(|published| published.task == task) {
            (self.state, self.pause) = (Stage::CheckingIn, None);
        }
    }

    /// The user takes a task back that they had left.
    pub fn rejoin(&mut self, task: TaskId) {
        self.declined.remove(&task);
        if self.forgotten.remove(&task) && matches!(self.state, Stage::Waiting) {
            (self.state, self.pause) = (Stage::CheckingIn, None);
        }
    }

    /// What the shell must do now.
    pub fn action(&self) -> Action {
        if let Some(until) = self.pause {
            return Action::Sleep(until);
        }
        match &self.state {
            Stage::Waiting | Stage::CheckingIn => Action::Send(Request::CheckIn(self.asks())),
            Stage::Renewing { has_certificate, .. } => Action::Renew { has_certificate: *has_certificate },
            Stage::LoadingPlan { published, .. } => Action::LoadPlan(*published),
            Stage::Counting { charged, .. } => Action::LoadPlan(charged.published),
            Stage::RecordingFound { found, .. } => Action::RecordFound(found.clone()),
            Stage::Loading { offer, purpose } => offer.action(purpose),
            Stage::Installing { work, .. } => Action::Install(Arc::clone(work)),
            Stage::Training { work } => Action::Train(Arc::clone(work)),
            Stage::Declining { published, reason, .. } => {
                Action::Send(Request::Decline { task: published.task, reason: *reason })
            }
            Stage::Joining { trained } => {
                let published = trained.work.published;
                let (task, version, class) = (published.task, published.version, trained.work.class);
                let log_seen = self.seen.map_or(0, |seen| seen.head.size);
                Action::Send(Request::Join { task, version, class, log_seen })
            }
            Stage::Round { trained, step } => step.action(trained),
        }
    }

    /// The next state. An event that does not belong to the state changes nothing.
    #[must_use]
    pub fn handle(mut self, event: Event, now: Timestamp, rng: &mut impl CryptoRng) -> Self {
        match event {
            Event::Woke => {
                if self.pause.is_some_and(|until| until <= now) {
                    self.woken(now)
                } else {
                    self
                }
            }
            Event::WindowOpened => self.window_opened(now),
            Event::ClockStepped => self.clock_stepped().woken(now),
            Event::CertificateEnded => self.certificate_ended(now, rng),
            // Saying no is a courtesy: a device does not insist.
            Event::Unreachable if matches!(self.state, Stage::Declining { .. }) => self.declined(now),
            Event::Unreachable | Event::Rejected(Rejection::Unavailable(_)) => self.unfetched(now, rng),
            event @ (Event::Replied(_)
            | Event::Rejected(_)
            | Event::PlanLoaded(_)
            | Event::Loaded { .. }
            | Event::Trained(_)
            | Event::NotTrained(_)
            | Event::NoText(_)
            | Event::TrainerFailed(_)
            | Event::CannotTrain(_)
            | Event::NoWindow
            | Event::Renewed { .. }
            | Event::LeavesRound
            | Event::Recorded) => {
                self.backoff_millis = FIRST_BACKOFF_MILLIS;
                let state = std::mem::replace(&mut self.state, Stage::Waiting);
                match state {
                    Stage::Round { trained, step } => self.inside(trained, *step, event, now, rng),
                    Stage::Joining { trained } => self.joining(trained, event, now, rng),
                    Stage::Renewing { has_certificate, then } => {
                        self.renewed(has_certificate, then, event, now)
                    }
                    outside @ (Stage::Waiting
                    | Stage::CheckingIn
                    | Stage::LoadingPlan { .. }
                    | Stage::Counting { .. }
                    | Stage::RecordingFound { .. }
                    | Stage::Loading { .. }
                    | Stage::Installing { .. }
                    | Stage::Training { .. }
                    | Stage::Declining { .. }) => self.outside(outside, event, now, rng),
                }
            }
        }
    }

    /// The name of the state, for people.
    pub fn state(&self) -> SessionState {
        match &self.state {
            Stage::Waiting if self.lacks_window => SessionState::AwaitingWindow,
            Stage::Waiting => SessionState::Waiting,
            Stage::CheckingIn => SessionState::CheckingIn,
            Stage::Renewing { .. } => SessionState::Renewing,
            Stage::LoadingPlan { .. } | Stage::Counting { .. } => SessionState::LoadingPlan,
            Stage::RecordingFound { .. } => SessionState::RecordingFound,
            Stage::Loading { .. } => SessionState::Loading,
            Stage::Installing { .. } => SessionState::Installing,
            Stage::Training { .. } => SessionState::Training,
            Stage::Declining { .. } => SessionState::Declining,
            Stage::Joining { .. } => SessionState::Joining,
            Stage::Round { step, .. } => step.state(),
        }
    }

    /// The version that this device holds of a task.
    pub fn installed(&self, task: TaskId) -> Option<Published> {
        self.installed.get(&task).copied()
    }

    fn holds(&self, published: &Published) -> bool {
        self.installed.get(&published.task) == Some(published)
    }

    /// Whether the coordinator said that there will be no more work, and its last version is installed.
    pub fn is_complete(&self) -> bool {
        self.complete && matches!(self.state, Stage::Waiting)
    }

    /// The version that it takes part with now; none where it waits or asks for one.
    pub fn at_work_on(&self) -> Option<Published> {
        match &self.state {
            Stage::Waiting | Stage::CheckingIn | Stage::Declining { .. } => None,
            Stage::Renewing { then, .. } => then.published(),
            Stage::LoadingPlan { published, .. } => Some(*published),
            Stage::Counting { then, .. } | Stage::RecordingFound { then, .. } => Some(then.published),
            Stage::Loading { offer, .. } => Some(offer.published()),
            Stage::Installing { work, .. } | Stage::Training { work } => Some(work.published),
            Stage::Joining { trained } | Stage::Round { trained, .. } => Some(trained.work.published),
        }
    }

    /// Why the last attempt to take part ended, once; `None` where nothing ended since the last call.
    pub fn take_ended(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    /// The task that the last of them was about, once.
    pub fn take_ended_task(&mut self) -> Option<TaskId> {
        self.ended_task.take()
    }

    /// A base that is to be fetched from the coordinator, once each time that a task was declined for want of it.
    pub fn take_lacking_base(&mut self) -> Option<LackingBase> {
        self.lacking.take()
    }

    /// Tries the same again later, each time about twice as much later, and not when all others do. Who only asks whether
    /// there is work comes within the window that it was told last: when a coordinator is back, its devices do not come at once.
    fn back_off(mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Self {
        let mut window = Window::around(self.backoff_millis);
        if matches!(self.state, Stage::Waiting | Stage::CheckingIn) {
            window.most_millis = self.told_millis.min(LONGEST_UNHEARD_MILLIS).max(window.most_millis);
        }
        self.pause = Some(now.plus_millis(window.choose(rng)));
        self.backoff_millis = (2 * self.backoff_millis).min(LONGEST_BACKOFF_MILLIS);
        self
    }

    /// What it says of itself when it asks for work.
    fn asks(&self) -> CheckIn {
        let declined = self.declined.keys().copied().take(MOST_LATEST).collect();
        CheckIn { only_keeps: self.lacks_window, declined }
    }

    fn wait(mut self, until: Timestamp) -> Self {
        self.state = Stage::Waiting;
        self.pause = Some(until);
        self
    }

    fn to(mut self, state: Stage) -> Self {
        self.state = state;
        self
    }

    /// The same state again, within a window, but no sooner and no later than a device waits.
    fn again(mut self, state: Stage, now: Timestamp, window: Window, rng: &mut impl CryptoRng) -> Self {
        self.state = state;
        self.pause = Some(now.plus_millis(bounded(window, rng)));
        self
    }

    fn end(mut self, why: impl Into<Ended>, until: Timestamp) -> Self {
        self.ended = Some(why.into());
        self.wait(until)
    }
}

/// A moment in the window that the coordinator asked for, between the shortest and the longest that a device keeps to.
fn bounded(window: Window, rng: &mut impl CryptoRng) -> u64 {
    window.choose(rng).clamp(LEAST_WAIT_MILLIS, LONGEST_WAIT_MILLIS)
}

#[cfg(test)]
mod tests;
