//! The shell around the tasks: it owns them, the store and the artefacts, reads the clock, and makes every
//! effect durable before the reply leaves.
//!
//! A step runs to its end on a thread of its own, even when its caller has gone: what a machine has decided
//! is never lost half-way. One step at a time holds the state; the opening of a sum, which may take minutes, is
//! not part of a step.
//!
//! A disk that takes nothing more (it is full) is a state and no end: what a machine has decided waits until it is
//! durable, no reply leaves before that and no step comes between, devices are told to ask again, and everything that is
//! only read goes on. When a write has failed half-way nobody knows what is durable, so every later call is refused; a
//! restart recovers.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module reads the clock")]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aggregation::IdentityPublic;
use proto::adapter::{AdapterError, Factors};
use proto::admin::{PrivacySpent, TaskStatus};
use proto::files::FileError;
use proto::ids::{DeviceId, Digest, TaskId, Timestamp};
use proto::message::{Chunk, Rejection, Reply, Request};
use proto::plan::{Plan, vector_from_bytes};
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use shell::store::{Store, StoreError};
use task::spool::Spooler;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::artifacts::parts::{PartReader, READERS};
use crate::artifacts::{ArtifactError, Artifacts};
use crate::records::RecordError;
use crate::seldom::Seldom;

mod held;
mod openings;
mod operators;
mod state;
mod trouble;

pub use held::LONGEST_HELD;
use held::{Awaits, Phases};
use state::State;
use trouble::Trouble;

/// The shortest sleep of the timer, so that a clock that stands still costs no processor.
const LEAST_SLEEP_MILLIS: u64 = 5;

/// How soon it is looked again whether the disk takes what is to be written, in milliseconds.
const AGAIN_MILLIS: u64 = 1_000;

/// What a device is told while the disk takes nothing, in milliseconds.
const TROUBLED_MILLIS: u64 = 10_000;

/// Why the coordinator cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds is not what it should.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An artefact could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
    /// A step broke off.
    #[error("a step broke off: {0}")]
    Broken(String),
}

impl DriverError {
    /// Whether the same may succeed later, because nothing was begun: a disk that is full, an artefact that could not be
    /// written or read. What cannot be written at all, or contradicts what is there, never will.
    fn passes(&self) -> bool {
        match self {
            Self::File(_) | Self::Record(RecordError::Artifact(ArtifactError::File(_))) => true,
            Self::Store(error) | Self::Record(RecordError::Store(error)) => {
                matches!(error, StoreError::DiskFull { .. } | StoreError::Engine { .. } | StoreError::File(_))
            }
            Self::Record(_) | Self::Broken(_) => false,
        }
    }
}

/// Frozen factors that are not the plan's.
#[derive(Debug, thiserror::Error)]
pub enum FrozenError {
    /// The plan draws its factors from a seed.
    #[error("the plan draws its frozen factors from a seed, but {0} bytes of factors came with it")]
    NotWanted(usize),
    /// Other factors than the plan names.
    #[error("the plan names frozen factors {expected}, those that came hash to {found}")]
    Digest {
        /// What the plan names.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The bytes are not whole numbers.
    #[error("frozen factors are little-endian f32, 4 bytes each; found {0} bytes")]
    Bytes(usize),
    /// The numbers are not factors of the plan's adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

/// The tasks, their store and their artefacts. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Driver {
    state: Arc<Mutex<State>>,
    reader: Arc<PartReader>,
    /// One for each artefact that may be read now.
    readers: Arc<Semaphore>,
    due: Arc<watch::Sender<Due>>,
    /// The step of each open round, for whoever waits for the next.
    phases: Arc<watch::Sender<Phases>>,
    /// How often a device was enrolled or revoked since the start.
    enrollments: Arc<AtomicU64>,
    /// How many sums are being opened.
    under_way: Arc<watch::Sender<usize>>,
    trouble: Arc<Trouble>,
    failed: Arc<watch::Sender<bool>>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    /// When a step is due to close, if one is.
    at: Option<Timestamp>,
    open_rounds: usize,
}

/// The system's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Checks an operator's factors against a plan, and gives their hash and their numbers where the plan names some.
pub fn check_frozen(plan: &Plan, frozen: &[u8]) -> Result<Option<(Digest, Vec<f32>)>, FrozenError> {
    let Factors::Given(expected) = plan.adapter.factors else {
        let none = frozen.is_empty();
        return if none { Ok(None) } else { Err(FrozenError::NotWanted(frozen.len())) };
    };
    let found = Digest::of(frozen);
    if found != expected {
        return Err(FrozenError::Digest { expected, found });
    }
    let factors = vector_from_bytes(frozen).ok_or(FrozenError::Bytes(frozen.len()))?;
    plan.adapter.check_given(&factors)?;
    Ok(Some((found, factors)))
}

impl Driver {
    /// Restores every task from the store. Rounds that were open are gone. Unfinished inputs go to `spooler`.
    pub fn open(
        store: Store,
        artifacts: Artifacts,
        authority: IdentityPublic,
        spooler: Arc<dyn Spooler>,
    ) -> Result<Self, DriverError> {
        let artifacts = Arc::new(artifacts);
        let enrollments = Arc::new(AtomicU64::new(0));
        let state = State::open(store, Arc::clone(&artifacts), authority, spooler, Arc::clone(&enrollments))?;
        Ok(Self {
            enrollments,
            state: Arc::new(Mutex::new(state)),
            reader: Arc::new(PartReader::new(artifacts)),
            readers: Arc::new(Semaphore::new(READERS)),
            due: Arc::new(watch::Sender::new(Due::default())),
            phases: Arc::default(),
            under_way: Arc::new(watch::Sender::new(0)),
            trouble: Arc::default(),
            failed: Arc::new(watch::Sender::new(false)),
        })
    }

    /// Answers one request of a device; what it brings about is durable when this returns.
    pub async fn handle(&self, device: DeviceId, request: Request) -> Result<Reply, Rejection> {
        let (name, of_round) = (request.name(), request.session().is_some());
        let answer = if let Request::Fetch { digest, offset } = request {
            self.fetch(digest, offset).await.map(Reply::Chunk)
        } else {
            self.step(move |state| state.handle(device, request, now(), &mut UnwrapErr(SysRng))).await
        };
        let answer = match answer {
            // What it asked for may have been done, or not yet; the same request again is safe.
            Err(Rejection::Unavailable(_))
                if (of_round || self.trouble.is_there()) && !*self.failed.borrow() =>
            {
                Ok(Reply::wait(TROUBLED_MILLIS))
            }
            other => other,
        };
        match &answer {
            Ok(reply) => tracing::debug!(%device, request = name, reply = reply.name(), "answered"),
            Err(rejection @ Rejection::Unavailable(_)) => {
                static SAID: Seldom = Seldom::new();
                if SAID.may_say(now()) {
                    tracing::error!(%device, request = name, %rejection, "could not answer");
                }
            }
            Err(rejection) => tracing::debug!(%device, request = name, %rejection, "refused"),
        }
        answer
    }

    /// Answers a request of a device as [`Driver::handle`] does, and holds one that waits for others until what it waits for
    /// came, or for so `long`. Whoever drops it asks no more.
    pub async fn answer(
        &self,
        device: DeviceId,
        request: Request,
        long: Duration,
    ) -> Result<Reply, Rejection> {
        let awaits = Awaits::of(&request);
        if awaits == Awaits::Nothing {
            return self.handle(device, request).await;
        }
        let until = Instant::now() + long;
        let mut phases = self.phases.subscribe();
        loop {
            // From before the answer, so that nothing is missed that comes right after it.
            let before = phases.borrow_and_update().clone();
            let answer = self.handle(device, request.clone()).await;
            if !matches!(answer, Ok(Reply::Wait { retry_millis, .. }) if retry_millis < TROUBLED_MILLIS) {
                return answer;
            }
            let came = phases.wait_for(|now| awaits.came(&before, now));
            if timeout_at(until, came).await.is_err() {
                return answer;
            }
        }
    }

    /// A part of an artefact that belongs to a task. What the server optimiser carries on does not.
    pub async fn fetch(&self, digest: Digest, offset: u64) -> Result<Chunk, Rejection> {
        if !self.state.lock().await.is_public(&digest) {
            return Err(Rejection::UnknownArtifact);
        }
        let (reader, turn) = (Arc::clone(&self.reader), Arc::clone(&self.readers).acquire_owned().await);
        let read = spawn_blocking(move || {
            let _turn = turn;
            reader.chunk(digest, offset)
        });
        match read.await {
            Ok(Ok(chunk)) => chunk.ok_or(Rejection::UnknownArtifact),
            Ok(Err(error)) => {
                static SAID: Seldom = Seldom::new();
                if SAID.may_say(now()) {
                    tracing::error!(%error, "an artefact of a task cannot be read");
                }
                Err(Rejection::Unavailable("an artefact cannot be read".to_owned()))
            }
            Err(error) => Err(self.broken(&error.to_string())),
        }
    }

    /// A device was enrolled or revoked: who may take part is counted again.
    pub fn devices_changed(&self) {
        self.enrollments.fetch_add(1, Ordering::AcqRel);
    }

    /// Starts a task; durable when this returns.
    pub async fn create_task(&self, plan: Vec<u8>, frozen: Vec<u8>) -> Result<TaskStatus, Rejection> {
        self.step(move |state| state.create(&plan, &frozen, &mut UnwrapErr(SysRng))).await
    }

    /// Ends a task; durable when this returns.
    pub async fn stop_task(&self, task: TaskId) -> Result<TaskStatus, Rejection> {
        self.step(move |state| state.stop(task, now(), &mut UnwrapErr(SysRng))).await
    }

    /// Lets a task go on that paused itself; durable when this returns.
    pub async fn resume_task(&self, task: TaskId) -> Result<TaskStatus, Rejection> {
        self.step(move |state| state.resume(task)).await
    }

    /// One task.
    pub async fn show(&self, task: TaskId) -> Result<TaskStatus, Rejection> {
        self.state.lock().await.status(task).ok_or(Rejection::UnknownTask)
    }

    /// The base of one task.
    pub async fn base(&self, task: TaskId) -> Result<Digest, Rejection> {
        self.state.lock().await.base(task).ok_or(Rejection::UnknownTask)
    }

    /// What the devices of one task have spent.
    pub async fn spent(&self, task: TaskId) -> Result<PrivacySpent, Rejection> {
        self.state.lock().await.spent(task).ok_or(Rejection::UnknownTask)
    }

    /// All tasks, in the order of their creation.
    pub async fn list(&self) -> Vec<TaskStatus> {
        self.state.lock().await.statuses()
    }

    /// Closes what is due when it is due, for ever.
    pub async fn run_timers(&self) {
        let mut due = self.due.subscribe();
        loop {
            let next = due.borrow_and_update().at;
            let until_next = async {
                match next {
                    None => pending().await,
                    Some(at) => {
                        let millis = at.millis_since(now()).max(LEAST_SLEEP_MILLIS);
                        sleep(Duration::from_millis(millis)).await;
                    }
                }
            };
            tokio::select! {
                () = until_next => self.close_due().await,
                changed = due.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Opens no more rounds, gives the open ones until `limit` to end, then ends them.
    pub async fn drain(&self, limit: Duration) {
        self.state.lock().await.drain();
        if timeout(limit, self.no_open_round()).await.is_err() {
            tracing::warn!("open rounds did not end in time and are aborted");
        }
        let aborted = self.step(|state| state.abort_rounds(now(), &mut UnwrapErr(SysRng))).await;
        if let Err(rejection) = aborted {
            tracing::error!(%rejection, "open rounds could not be aborted in order");
        }
    }

    /// Ends when no round is open, and no sum is being opened.
    async fn no_open_round(&self) {
        let (mut due, mut under_way) = (self.due.subscribe(), self.under_way.subscribe());
        while self.state.lock().await.open_rounds() > 0 {
            if due.changed().await.is_err() {
                return;
            }
        }
        if under_way.wait_for(|openings| *openings == 0).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Ends when the tasks' state was free once: while it never is, nobody is served.
    pub async fn pulse(&self) {
        drop(self.state.lock().await);
    }

    /// Ends when the driver has stopped serving because the store or the disk failed.
    pub async fn failed(&self) {
        let mut failed = self.failed.subscribe();
        if failed.wait_for(|failed| *failed).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Stops serving, because what is durable is not known any more.
    pub fn fail(&self, error: &DriverError) -> Rejection {
        if !self.failed.send_replace(true) {
            tracing::error!(%error, "stopped serving; mend the disk and restart to recover");
        }
        stopped()
    }

    async fn close_due(&self) {
        // A refusal was logged by whatever failed, and says when to look again.
        let closed = self.step(|state| state.handle_timeout(now(), &mut UnwrapErr(SysRng))).await;
        if closed.is_err() && *self.failed.borrow() {
            pending::<()>().await;
        }
    }

    /// Runs one step over the state to its end, whoever still waits for it.
    async fn step<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut State) -> Result<Result<T, Rejection>, DriverError> + Send + 'static,
    ) -> Result<T, Rejection> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let driver = self.clone();
        let step = spawn_blocking(move || driver.step_in(&mut state, run));
        step.await.unwrap_or_else(|error| Err(self.broken(&error.to_string())))
    }

    /// Whether everything that was decided of a task is durable.
    pub async fn is_durable(&self, task: TaskId) -> bool {
        self.state.lock().await.is_saved(task)
    }

    /// The same where the state is at hand, on a thread that may block.
    fn step_in<T>(
        &self,
        state: &mut State,
        run: impl FnOnce(&mut State) -> Result<Result<T, Rejection>, DriverError>,
    ) -> Result<T, Rejection> {
        if *self.failed.borrow() {
            return Err(stopped());
        }
        self.trouble.check(now())?;
        let outcome = state.persist_rest().and_then(|()| run(state));
        // While the state is still locked: nobody may come between a failure and its mark.
        match outcome {
            Ok(answer) => {
                if self.trouble.is_there() && state.check_room().is_ok() {
                    self.trouble.is_over();
                }
                for (task, opening) in state.take_openings(now()) {
                    self.open_apart(task, opening);
                }
                self.set_due(Due { at: state.poll_timeout(), open_rounds: state.open_rounds() });
                let phases = state.phases();
                self.phases.send_if_modified(|known| std::mem::replace(known, phases.clone()) != phases);
                answer
            }
            Err(error) if error.passes() && !state.is_stopped() => {
                let again = now().plus_millis(AGAIN_MILLIS);
                self.set_due(Due { at: Some(again), open_rounds: state.open_rounds() });
                Err(self.trouble.begins(&error))
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn set_due(&self, due: Due) {
        self.due.send_if_modified(|known| std::mem::replace(known, due) != due);
    }

    /// Why nothing is written now, and for how many seconds; `None` while all is well.
    pub fn trouble(&self) -> Option<(String, u64)> {
        self.trouble.told(now())
    }

    /// Says what a failure outside a step means: one of a write that broke off ends all serving, another passes.
    pub fn store_failed(&self, store: &Store, error: StoreError) -> Rejection {
        let error = DriverError::Store(error);
        if store.is_stopped() { self.fail(&error) } else { trouble::passing(&error) }
    }

    fn broken(&self, why: &str) -> Rejection {
        self.fail(&DriverError::Broken(why.to_owned()))
    }
}

impl From<ArtifactError> for DriverError {
    fn from(error: ArtifactError) -> Self {
        Self::Record(error.into())
    }
}

fn stopped() -> Rejection {
    Rejection::Unavailable("the coordinator has stopped after a failed write".to_owned())
}

#[cfg(test)]
mod tests;
