//! A task behind its lock, and what is known of it without the lock.
//!
//! Whoever steps holds the lock by a [`Hold`]; when it goes, what others see of the task is brought up to date before the
//! lock is free. So whoever reads it sees the task as a step left it, never half of one.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::panicking;
use std::time::Duration;

use proto::admin::{PrivacySpent, TaskState, TaskStatus};
use proto::ids::{DeviceId, Digest, SessionId, TaskId, Timestamp};
use proto::message::Published;
use task::round::Steps;
use task::{Gathered, Spending, Task};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep_until};

use super::clock;
use super::entry::Entry;
use super::held::Phases;
use super::trouble::Trouble;

/// A step that takes longer is a long one: nobody waits for it whom another task can answer.
pub(super) const LONG_STEP: Duration = Duration::from_millis(50);

/// How old what an operator sees of counts may be while a task is always busy.
const SHOWN_AGAIN: Duration = Duration::from_millis(200);

/// A task behind its lock.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) id: TaskId,
    /// The plan's label.
    pub(super) name: String,
    /// What the plan's adapter is of.
    pub(super) base: Digest,
    /// The plan's most participations of one device.
    pub(super) participations: u32,
    entry: Arc<Mutex<Entry>>,
    /// When the step under way began, in milliseconds from the cell's beginning, from 1 on; 0 while there is none.
    stepping: AtomicU64,
    since: Instant,
    /// Whether a step broke off: nobody knows what it left.
    is_broken: AtomicBool,
    seen: RwLock<Seen>,
    shown: RwLock<Shown>,
    declined: Arc<RwLock<BTreeSet<DeviceId>>>,
    pub(super) trouble: Trouble,
    /// When something is due, if anything is.
    due: watch::Sender<Option<Timestamp>>,
    /// The steps of the open rounds, for whoever waits for the next.
    steps: watch::Sender<Arc<Steps>>,
    /// What all tasks tell of.
    phases: Arc<Phases>,
}

/// What a step left, as far as everybody has to know it at once.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) is_active: bool,
    /// Whether it is durable that the task is over.
    pub(super) is_over: bool,
    pub(super) rounds_charged: u64,
    pub(super) published: Published,
    /// Whether everything that was decided is durable.
    pub(super) is_saved: bool,
    /// Of the rounds that are known, over or not.
    sessions: Arc<BTreeSet<SessionId>>,
    open: Arc<Steps>,
    /// How often places of it came free; none where it gives no work.
    places: Option<u64>,
}

/// What operators see while a step is under way.
#[derive(Debug)]
struct Shown {
    status: TaskStatus,
    spent: PrivacySpent,
    of: Standing,
    /// How often devices had told the task something.
    talked: u64,
    at: Instant,
}

/// What of a task is shown as it is after each step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    state: TaskState,
    version: u32,
    spending: Spending,
    sums: u32,
    open: Steps,
}

impl Standing {
    fn of(task: &Task) -> Self {
        let (spending, open) = (task.spending(), task.open_rounds());
        let sums = task.gathered().map_or(0, Gathered::rounds);
        Self { state: task.record().state, version: task.version(), spending, sums, open }
    }
}

impl Seen {
    fn of(entry: &Entry) -> Self {
        let task = entry.task();
        Self {
            is_active: task.is_active(),
            is_over: entry.header().state.is_over(),
            rounds_charged: task.rounds_charged(),
            published: task.published(),
            is_saved: entry.is_saved(),
            sessions: Arc::new(task.sessions()),
            open: Arc::new(task.open_rounds()),
            places: task.is_active().then(|| task.openings_of_places()),
        }
    }
}

impl Cell {
    pub(super) fn new(entry: Entry, phases: Arc<Phases>) -> Self {
        let task = entry.task();
        let shown = Shown {
            status: task.status(),
            spent: task.spent(),
            of: Standing::of(task),
            talked: entry.talked(),
            at: Instant::now(),
        };
        Self {
            id: task.id(),
            name: task.plan().name.clone(),
            base: task.plan().base,
            participations: task.plan().privacy.participations,
            stepping: AtomicU64::new(0),
            since: Instant::now(),
            is_broken: AtomicBool::new(false),
            seen: RwLock::new(Seen::of(&entry)),
            shown: RwLock::new(shown),
            declined: entry.declined(),
            trouble: Trouble::of(task.id()),
            due: watch::Sender::new(task.poll_timeout()),
            steps: watch::Sender::new(Arc::new(task.open_rounds())),
            phases,
            entry: Arc::new(Mutex::new(entry)),
        }
    }

    /// Waits until the task is free. Nobody waits for that on a thread that may block: who holds the task needs such a thread for
    /// its step, and would wait for one that is never free.
    pub(super) async fn hold(self: Arc<Self>) -> Hold {
        let entry = Arc::clone(&self.entry).lock_owned().await;
        Hold { cell: self, entry }
    }

    /// The task, if it is free.
    pub(super) fn hold_now(self: Arc<Self>) -> Option<Hold> {
        let entry = Arc::clone(&self.entry).try_lock_owned().ok()?;
        Some(Hold { cell: self, entry })
    }

    /// Waits until the task is free, but not for a long step.
    pub(super) async fn hold_soon(self: Arc<Self>) -> Option<Hold> {
        let mut free = pin!(Arc::clone(&self.entry).lock_owned());
        loop {
            let is_long_at = self.stepping_since().unwrap_or_else(Instant::now) + LONG_STEP;
            tokio::select! {
                biased;
                entry = &mut free => return Some(Hold { cell: Arc::clone(&self), entry }),
                () = sleep_until(is_long_at) => {
                    if self.stepping_since().is_some_and(|since| since.elapsed() >= LONG_STEP) {
                        return None;
                    }
                }
            }
        }
    }

    /// Waits until the task was free, and leaves it to others.
    pub(super) async fn was_free(self: Arc<Self>) {
        drop(self.entry.lock().await);
    }

    fn stepping_since(&self) -> Option<Instant> {
        let millis = self.stepping.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.since + Duration::from_millis(millis))
    }

    /// What the task says, if it is free, by a look that is no step and may not wait.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Task) -> T) -> Option<T> {
        self.entry.try_lock().ok().map(|entry| look(entry.task()))
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether one of the rounds that are known is this session's.
    pub(super) fn has_session(&self, session: SessionId) -> bool {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).sessions.contains(&session)
    }

    pub(super) fn was_declined_by(&self, device: DeviceId) -> bool {
        self.declined.read().unwrap_or_else(PoisonError::into_inner).contains(&device)
    }

    /// Everything an operator may know: while a step is under way, as it was before.
    pub(super) fn status(&self) -> TaskStatus {
        let shown = || self.shown.read().unwrap_or_else(PoisonError::into_inner).status.clone();
        self.look(Task::status).unwrap_or_else(shown)
    }

    /// What devices have spent: while a step is under way, as it was before.
    pub(super) fn spent(&self) -> PrivacySpent {
        let shown = || self.shown.read().unwrap_or_else(PoisonError::into_inner).spent.clone();
        self.look(Task::spent).unwrap_or_else(shown)
    }

    pub(super) fn due(&self) -> watch::Receiver<Option<Timestamp>> {
        self.due.subscribe()
    }

    /// The steps of the open rounds, now and later.
    pub(super) fn steps(&self) -> watch::Receiver<Arc<Steps>> {
        self.steps.subscribe()
    }

    /// Brings up to date what others see.
    fn publish(&self, entry: &Entry) {
        let before = self.seen();
        let now = Seen::of(entry);
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = now.clone();
        self.show(entry);
        if now.open != before.open {
            self.phases.rounds.send_modify(|rounds| {
                for session in before.open.keys() {
                    rounds.remove(session);
                }
                rounds.extend(now.open.iter().map(|(session, phase)| (*session, *phase)));
                entry.metrics().steps(rounds, clock::now());
            });
            self.steps.send_replace(Arc::clone(&now.open));
        }
        if now.places != before.places {
            self.phases.places.send_modify(|known| {
                match now.places {
                    Some(places) => known.insert(self.id, places),
                    None => known.remove(&self.id),
                };
            });
        }
        if now.is_over && !before.is_over {
            // Whoever waits for what is due may end.
            self.due.send_replace(None);
        }
        let due = self.trouble.again().or_else(|| entry.task().poll_timeout());
        self.due.send_if_modified(|known| std::mem::replace(known, due) != due);
    }

    fn show(&self, entry: &Entry) {
        let (task, talked) = (entry.task(), entry.talked());
        let standing = Standing::of(task);
        let (of, is_fresh) = {
            let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
            (shown.of.clone(), shown.talked == talked || shown.at.elapsed() < SHOWN_AGAIN)
        };
        if standing == of && is_fresh {
            return;
        }
        // All devices are counted for it.
        let is_spent = (standing.state, standing.spending) != (of.state, of.spending);
        let (status, spent) = (task.status(), is_spent.then(|| task.spent()));
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        (shown.status, shown.of, shown.talked, shown.at) = (status, standing, talked, Instant::now());
        if let Some(spent) = spent {
            shown.spent = spent;
        }
    }
}

/// The lock of a task.
#[derive(Debug)]
pub(super) struct Hold {
    cell: Arc<Cell>,
    entry: OwnedMutexGuard<Entry>,
}

impl Hold {
    pub(super) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Whether an earlier step broke off.
    pub(super) fn is_broken(&self) -> bool {
        self.cell.is_broken.load(Ordering::Acquire)
    }

    /// A step begins: from now on it is known how long it takes. Waiting for a thread to run it is not part of it.
    pub(super) fn begin(&self) {
        let millis = u64::try_from(self.cell.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.cell.stepping.store(millis.saturating_add(1), Ordering::Release);
    }
}

impl Deref for Hold {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl DerefMut for Hold {
    fn deref_mut(&mut self) -> &mut Entry {
        &mut self.entry
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // What a step that broke off left is nothing to show, and nothing to go on with.
        if panicking() {
            self.cell.is_broken.store(true, Ordering::Release);
        } else {
            self.cell.publish(&self.entry);
        }
        self.cell.stepping.store(0, Ordering::Release);
    }
}
