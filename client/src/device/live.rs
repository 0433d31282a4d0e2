//! What a device does now, for whoever asks while it runs, and the user's word to it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::Published;
use serde::{Deserialize, Serialize};
use session::conditions::{Judgment, Phase, Usage};
use tokio::sync::{Notify, oneshot, watch};

use super::Status;
use super::clock::{now, uptime};
use super::forget::Forgotten;
use super::meter::Meter;
use super::seen::Seen;
use crate::coordinator_clock::Answered;
use crate::error::Error;
use crate::store::{DeviceStore, DeviceStoreError, Entry, Journal, Note, State};

const PAUSED: &str = "paused-until";

/// The name of the events that something went wrong.
const PROBLEM: &str = "problem";

/// What a running device does, at one moment. Times are in milliseconds since 1970 by the device's clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Now {
    /// What the protocol does: `waiting for a window`, `training`, ….
    pub state: String,
    /// Since when.
    pub since: u64,
    /// When it asks its coordinator next, where it waits for that.
    pub next_check_in: Option<u64>,
    /// The bases that it trains on.
    #[serde(default)]
    pub bases: Vec<Digest>,
    /// The bases that come from the coordinator: bytes that are here, and all.
    #[serde(default)]
    pub fetching_bases: BTreeMap<Digest, (u64, u64)>,
    /// The version that it takes part with.
    pub work: Option<Published>,
    /// The step that the training is in, and how many there are.
    pub training: Option<(u32, u32)>,
    /// Whether it may train.
    pub may_train: bool,
    /// Whether it may send and fetch.
    pub may_transfer: bool,
    /// `closed`, `settling`, `open` or `resting`; `overridden` where the conditions do not matter.
    pub window: String,
    /// When the window opens if all stays as it is.
    pub opens: Option<u64>,
    /// The conditions of a start, or in a window those of going on.
    pub conditions: Vec<Judgment>,
    /// The conditions of a transfer.
    pub transfer: Vec<Judgment>,
    /// When and why a window closed last.
    pub last_preemption: Option<Preemption>,
    /// What went wrong last.
    pub last_problem: Option<Note>,
    /// Until when the user paused it; `u64::MAX` is until they resume it.
    pub paused_until: Option<u64>,
    /// Seconds trained since the device's day began.
    pub trained_secs_today: u64,
    /// Bytes sent and fetched since the device's day began.
    pub transferred_today: u64,
    /// When its coordinator answered last, and what its clock says; none where it has not answered since the device began.
    #[serde(default)]
    pub answered: Option<Answered>,
}

/// A window that a condition closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preemption {
    /// When, in milliseconds since 1970.
    pub unix_millis: u64,
    /// The conditions that did not hold any more.
    pub why: String,
}

/// What a user asks of a device that runs, for the device to do between two actions.
pub(super) enum Ask {
    /// To leave a task and to delete what is there of it.
    Forget(TaskId, oneshot::Sender<Result<Forgotten, Error>>),
    /// To take part in a task again that was forgotten.
    Rejoin(TaskId, oneshot::Sender<Result<bool, Error>>),
}

/// What is durable of a device, for whoever cannot open its folder because it runs.
#[derive(Clone, Default)]
struct Kept {
    entries: Arc<Vec<Entry>>,
    status: Arc<Status>,
}

/// What a running device tells and is told.
pub(super) struct Live {
    now: watch::Sender<Now>,
    kept: watch::Sender<Kept>,
    paused: watch::Sender<Option<Timestamp>>,
    asks: Mutex<Vec<Ask>>,
    /// Whether to end as soon as the device is at work on no version.
    leaves: AtomicBool,
    /// Told whenever something was asked.
    pub(super) asked: Notify,
    /// What is used up of the day.
    pub(super) meter: Arc<Meter>,
    state: State,
    journal: Journal,
}

/// Until when the user paused the device, by what is kept.
pub(super) fn paused_until(state: &State) -> Result<Option<Timestamp>, DeviceStoreError> {
    Ok(state.get::<Option<Timestamp>>(PAUSED)?.flatten())
}

impl Live {
    pub(super) fn open(store: &DeviceStore) -> Result<Self, DeviceStoreError> {
        let (state, journal) = (store.state(), store.journal());
        let meter = Arc::new(Meter::open(store.folder().to_owned(), store.state())?);
        let paused = paused_until(&state)?;
        Ok(Self {
            now: watch::Sender::new(Now { paused_until: paused.map(|until| until.0), ..Now::default() }),
            kept: watch::Sender::default(),
            paused: watch::Sender::new(paused),
            asks: Mutex::default(),
            leaves: AtomicBool::new(false),
            asked: Notify::new(),
            meter,
            state,
            journal,
        })
    }

    pub(super) fn paused(&self) -> watch::Receiver<Option<Timestamp>> {
        self.paused.subscribe()
    }

    /// What was asked since the last call.
    pub(super) fn asks(&self) -> Vec<Ask> {
        std::mem::take(&mut *self.asks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether to end as soon as the device is at work on no version.
    pub(super) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// Tells what is durable from now on.
    pub(super) fn keeps(&self, store: &DeviceStore) -> Result<(), Error> {
        let status = Arc::new(Status::of(store)?);
        self.kept.send_modify(|kept| {
            kept.status = status;
            if kept.entries.len() != store.entries().len() {
                kept.entries = Arc::new(store.entries().to_vec());
            }
        });
        Ok(())
    }

    /// Tells on which bases it trains.
    pub(super) fn trains_on(&self, bases: Vec<Digest>) {
        self.now.send_modify(|shown| shown.bases = bases);
    }

    /// Tells how much of a base has come; nothing where it comes no more.
    pub(super) fn fetches(&self, base: Digest, progress: Option<(u64, u64)>) {
        self.now.send_modify(|shown| match progress {
            Some(progress) => drop(shown.fetching_bases.insert(base, progress)),
            None => drop(shown.fetching_bases.remove(&base)),
        });
    }

    /// Tells the device to end as soon as it is at work on no version.
    pub(super) fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// Tells when the coordinator answered last.
    pub(super) fn answered(&self, answered: Option<Answered>) {
        self.now.send_if_modified(|shown| {
            let is_new = answered.is_some() && shown.answered != answered;
            if is_new {
                shown.answered = answered;
            }
            is_new
        });
    }

    /// Tells what the protocol does from now on.
    pub(super) fn does(&self, state: &str, work: Option<Published>, next_check_in: Option<Timestamp>) {
        self.now.send_if_modified(|shown| {
            let next_check_in = next_check_in.map(|at| at.0);
            if shown.state == state && shown.work == work && shown.next_check_in == next_check_in {
                return false;
            }
            if shown.state != state {
                state.clone_into(&mut shown.state);
                shown.since = now().0;
                shown.training = None;
            }
            (shown.work, shown.next_check_in) = (work, next_check_in);
            true
        });
    }

    /// Tells what was seen of the machine.
    pub(super) fn seen(&self, seen: &Seen, usage: &Usage) {
        let (at, day) = (uptime(), now().0);
        let by_day = |millis: u64| day.saturating_add(millis.saturating_sub(at.0));
        self.now.send_modify(|shown| {
            (shown.may_train, shown.may_transfer) = (seen.may_train, seen.may_transfer);
            (shown.conditions, shown.transfer) = (seen.judged.clone(), seen.transfer.clone());
            match seen.phase {
                None => "overridden",
                Some(Phase::Closed) => "closed",
                Some(Phase::Settling { .. }) => "settling",
                Some(Phase::Open { .. }) => "open",
                Some(Phase::Resting { .. }) => "resting",
            }
            .clone_into(&mut shown.window);
            shown.opens = match seen.phase {
                Some(Phase::Resting { until }) => Some(by_day(until.0)),
                Some(Phase::Closed | Phase::Settling { .. } | Phase::Open { .. }) | None => None,
            };
            shown.paused_until = usage.paused_until.map(|until| until.0);
            shown.trained_secs_today = usage.trained_today.as_secs();
            shown.transferred_today = usage.transferred_today;
        });
    }

    /// Tells how far a training is.
    pub(super) fn trains(&self, step: u32, of: u32) {
        self.now.send_if_modified(|shown| {
            let is_new = shown.training != Some((step, of));
            shown.training = Some((step, of));
            is_new
        });
    }

    pub(super) fn preempted(&self, preemption: Preemption) {
        self.note("preempted", &preemption.why);
        self.now.send_modify(|shown| shown.last_preemption = Some(preemption));
    }

    /// Something went wrong, and the device goes on.
    pub(super) fn problem(&self, why: &str) {
        let note = self.note(PROBLEM, why);
        self.now.send_modify(|shown| shown.last_problem = Some(note));
    }

    /// What went wrong last.
    pub(super) fn last_problem(&self) -> Option<String> {
        self.now.borrow().last_problem.as_ref().map(|problem| problem.what.clone())
    }

    /// Writes an event to the journal.
    pub(super) fn note(&self, event: &str, what: &str) -> Note {
        let note = Note { unix_millis: now().0, event: event.to_owned(), what: what.to_owned() };
        // What went wrong is a warning of its own.
        if event != PROBLEM {
            tracing::info!("{event}: {what}");
        }
        self.journal.note(&note);
        note
    }
}

/// A handle of a device for whoever asks what it does and tells it what its user wants, while it runs and before.
#[derive(Clone)]
pub struct Control {
    pub(super) live: Arc<Live>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// What the device does now.
    pub fn now(&self) -> Now {
        self.live.now.borrow().clone()
    }

    /// Tells what the device does whenever that changes.
    pub fn subscribe(&self) -> watch::Receiver<Now> {
        self.live.now.subscribe()
    }

    /// The ledger's records as the running device has them, oldest first.
    pub fn entries(&self) -> Arc<Vec<Entry>> {
        Arc::clone(&self.live.kept.borrow().entries)
    }

    /// What the running device is and holds.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.live.kept.borrow().status)
    }

    /// What the device did, oldest first; the newest events are kept.
    pub fn journal(&self) -> Result<Vec<Note>, Error> {
        Ok(self.live.journal.notes().map_err(DeviceStoreError::from)?)
    }

    /// Neither trains nor transfers until then, or with `None` until [`Self::resume`]. A training stops within a second
    /// and is kept. It outlives a restart.
    pub fn pause(&self, until: Option<Timestamp>) -> Result<(), Error> {
        self.set_paused(Some(until.unwrap_or(Timestamp(u64::MAX))))
    }

    /// Until when the user paused it, where that is still to come; `Timestamp(u64::MAX)` is until they resume it.
    pub fn paused_until(&self) -> Option<Timestamp> {
        self.live.paused.borrow().filter(|until| *until > now())
    }

    /// Takes into account that the host program sent or fetched so many bytes for this device, such as of a base.
    pub fn transferred(&self, bytes: u64) {
        self.live.meter.transferred(bytes);
    }

    /// What the device has used of its day, whether it runs or not.
    pub fn usage(&self) -> Usage {
        self.live.meter.usage(now(), *self.live.paused.borrow())
    }

    /// Writes down what the device has used of its day; while it runs, it does that itself.
    pub fn keep_usage(&self) {
        self.live.meter.keep();
    }

    /// Tells whoever asks what the host program does before it lets the device run, such as fetching a base.
    pub fn prepares(&self, what: &str) {
        self.live.does(what, None, None);
    }

    /// Tells whoever asks, and the journal, what went wrong for the host program.
    pub fn failed(&self, why: &str) {
        self.live.problem(why);
    }

    /// Ends the run of the device, with [`Finished::Stopped`](super::Finished), as soon as it is at work on no version: no
    /// training and no round is lost by it.
    pub fn leave_when_free(&self) {
        self.live.leave();
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<(), Error> {
        self.set_paused(None)
    }

    /// Leaves a task, as [`Device::forget`](super::Device::forget); the running device does it.
    pub async fn forget(&self, task: TaskId) -> Result<Forgotten, Error> {
        self.ask(|answer| Ask::Forget(task, answer)).await
    }

    /// Takes part in a forgotten task again, as [`Device::rejoin`](super::Device::rejoin).
    pub async fn rejoin(&self, task: TaskId) -> Result<bool, Error> {
        self.ask(|answer| Ask::Rejoin(task, answer)).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Ask) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.live.asks.lock().unwrap_or_else(PoisonError::into_inner).push(ask(answer));
        self.live.asked.notify_one();
        answered.await.unwrap_or_else(|_| Err(Error::Thread("the device ended meanwhile".to_owned())))
    }

    fn set_paused(&self, until: Option<Timestamp>) -> Result<(), Error> {
        self.live.state.put(PAUSED, &until).map_err(DeviceStoreError::from)?;
        self.live.note(if until.is_some() { "paused" } else { "resumed" }, "by the user");
        self.live.paused.send_replace(until);
        self.live.kept.send_modify(|kept| {
            Arc::make_mut(&mut kept.status).paused_until = until.map(|until| until.0);
        });
        Ok(())
    }
}
