//! The shell around the tasks: it owns them, the store and the artefacts, reads the clock, and makes every
//! effect durable before the reply leaves.
//!
//! Each task has a lock of its own, and one step of it at a time holds that. A step runs to its end on a thread of its own,
//! even when its caller has gone: what a machine has decided is never lost half-way. The opening of a sum, which may take
//! minutes, is not part of a step. What operators ask, and what is only fetched, waits for no step; a device that asks for
//! work passes by a task whose step takes long.
//!
//! A disk that takes nothing more (it is full) is a state of a task and no end: what its machine has decided waits until it
//! is durable, no reply leaves before that and no step comes between, devices are told to ask again, and everything that is
//! only read goes on. When a write has failed half-way nobody knows what is durable, so every later call is refused; a
//! restart recovers.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::admin::{PrivacySpent, TaskStatus};
use proto::ids::{DeviceId, Digest, TaskId};
use proto::message::{Chunk, Rejection, Reply, Request, Window};
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use shell::store::{Store, StoreError};
use task::held::{Awaits, LONGEST_HELD_MILLIS};
use task::spool::Spooler;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

use crate::artifacts::Artifacts;
use crate::artifacts::parts::{PartReader, READERS};
use crate::known::KnownDevices;
use crate::metrics::{Metrics, Question};
use crate::seldom::Seldom;

mod cell;
mod check_in;
mod clock;
mod entry;
mod error;
mod frozen;
mod held;
mod openings;
mod operators;
mod tasks;
mod timers;
mod traced;
mod trouble;

pub use clock::{now, put_ahead};
pub use error::DriverError;
pub use frozen::{FrozenError, check_frozen};

use cell::{Cell, Hold};
use entry::{Answer, Entry, Kept};
pub use tasks::Enrolling;
use tasks::Tasks;

/// The longest that a question is held.
pub const LONGEST_HELD: Duration = Duration::from_millis(LONGEST_HELD_MILLIS);

/// How long a step that is under way holds up the end of the open rounds.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// What a device is told while the disk takes nothing, in milliseconds.
const TROUBLED_MILLIS: u64 = 10_000;

/// The tasks, their store and their artefacts. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Driver {
    tasks: Arc<Tasks>,
    kept: Arc<Kept>,
    reader: Arc<PartReader>,
    /// One for each artefact that may be read now.
    readers: Arc<Semaphore>,
    /// How many sums are being opened.
    under_way: Arc<watch::Sender<usize>>,
    failed: Arc<watch::Sender<bool>>,
}

/// Whether an answer only says to wait for what others do, and not for the disk.
fn waits_for_others(awaits: Awaits, answer: &Reply) -> bool {
    let is_for_the_disk =
        matches!(*answer, Reply::Wait { retry, .. } if retry == Window::at(TROUBLED_MILLIS));
    !is_for_the_disk && awaits.is_only_to_wait(answer)
}

impl Driver {
    /// Restores every task from the store, and who is enrolled. Rounds that were open are gone. Unfinished inputs go to
    /// `spooler`.
    pub fn open(
        store: Store,
        artifacts: Artifacts,
        enrolling: impl Into<Enrolling>,
        spooler: Arc<dyn Spooler>,
    ) -> Result<Self, DriverError> {
        let artifacts = Arc::new(artifacts);
        let known = Arc::new(KnownDevices::read(&store)?);
        let metrics = Arc::new(Metrics::default());
        let kept = Arc::new(Kept::new(store, Arc::clone(&artifacts), known, metrics));
        Ok(Self {
            tasks: Arc::new(Tasks::restore(Arc::clone(&kept), enrolling.into(), spooler)?),
            kept,
            reader: Arc::new(PartReader::new(artifacts)),
            readers: Arc::new(Semaphore::new(READERS)),
            under_way: Arc::new(watch::Sender::new(0)),
            failed: Arc::new(watch::Sender::new(false)),
        })
    }

    /// Answers one request of a device; what it brings about is durable when this returns.
    pub async fn handle(&self, device: DeviceId, request: Request) -> Result<Reply, Rejection> {
        let question = self.metrics().asked_for(request.name());
        let answer = self.decided(device, request).await;
        Self::is_given(device, question, &answer);
        answer
    }

    /// The answer to a request, which may be held yet.
    async fn decided(&self, device: DeviceId, request: Request) -> Result<Reply, Rejection> {
        let of_round = request.session().is_some();
        match self.ask(device, request).await {
            // What it asked for may have been done, or not yet; the same request again is safe.
            Err(Rejection::Unavailable(_)) if (of_round || self.is_troubled()) && !self.has_failed() => {
                Ok(Reply::wait(TROUBLED_MILLIS))
            }
            other => other,
        }
    }

    /// A device is given an answer: it is counted, and said.
    fn is_given(device: DeviceId, question: Question, answer: &Result<Reply, Rejection>) {
        let name = question.name();
        question.answered(answer);
        match answer {
            Ok(reply) => tracing::debug!(%device, request = name, reply = reply.name(), "answered"),
            Err(rejection @ Rejection::Unavailable(_)) => {
                static SAID: Seldom = Seldom::new();
                if SAID.may_say(now()) {
                    tracing::error!(%device, request = name, %rejection, "could not answer");
                }
            }
            Err(rejection) => tracing::debug!(%device, request = name, %rejection, "refused"),
        }
    }

    async fn ask(&self, device: DeviceId, request: Request) -> Result<Reply, Rejection> {
        let cell = match &request {
            Request::CheckIn(asks) => return self.check_in(device, asks.clone()).await,
            Request::Fetch { digest, offset } => return self.fetch(*digest, *offset).await.map(Reply::Chunk),
            Request::Decline { task, .. } | Request::Join { task, .. } => self.tasks.find(*task),
            Request::Advertise { session, .. }
            | Request::Draw { session, .. }
            | Request::ShareKeys { session, .. }
            | Request::MaskedChunk { session, .. }
            | Request::MaskedDone { session, .. }
            | Request::Agree { session, .. }
            | Request::Unmask { session, .. } => self.tasks.with_session(*session),
        };
        self.check_failed()?;
        self.step(cell?, move |entry| entry.handle(device, request, now(), &mut UnwrapErr(SysRng))).await
    }

    /// Answers a request of a device as [`Driver::handle`] does, and holds one that waits for others until what it waits for
    /// came, or for so `long`. Whoever drops it asks no more.
    pub async fn answer(
        &self,
        device: DeviceId,
        request: Request,
        long: Duration,
    ) -> Result<Reply, Rejection> {
        let until = Instant::now() + long;
        let awaits = Awaits::of(&request);
        let cell = match awaits {
            // What it takes to answer at once is not kept beside a question that is held.
            Awaits::Nothing => return Box::pin(self.handle(device, request)).await,
            Awaits::Place => {
                let places = self.tasks.phases.places.subscribe();
                return self.hold((device, &request), until, places, |before, now| before != now).await;
            }
            Awaits::Round(task) => self.tasks.find(task),
            Awaits::Step(session) => self.tasks.with_session(session),
        };
        match cell {
            Ok(cell) => {
                let (asks, steps) = ((device, &request), cell.steps());
                self.hold(asks, until, steps, |before, now| awaits.came_in_round(before, now)).await
            }
            // There is nothing to wait for.
            Err(_) => Box::pin(self.handle(device, request)).await,
        }
    }

    /// Asks, and holds an answer that waits for others until what is waited for came, by what is watched.
    async fn hold<T: Clone>(
        &self,
        (device, request): (DeviceId, &Request),
        until: Instant,
        mut watched: watch::Receiver<T>,
        came: impl Fn(&T, &T) -> bool,
    ) -> Result<Reply, Rejection> {
        let (awaits, question) = (Awaits::of(request), self.metrics().asked_for(request.name()));
        let mut held = None;
        let answer = loop {
            // From before the answer, so that nothing is missed that comes right after it.
            let before = watched.borrow_and_update().clone();
            let asked = Instant::now();
            let answer = Box::pin(self.decided(device, request.clone())).await;
            if !answer.as_ref().is_ok_and(|answer| waits_for_others(awaits, answer)) {
                break answer;
            }
            held.get_or_insert_with(|| self.metrics().holds());
            let comes = watched.wait_for(|now| came(&before, now));
            if timeout_at(until, comes).await.is_err() {
                let held_millis = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                break answer.map(|answer| awaits.after(answer, held_millis));
            }
        };
        drop(held);
        Self::is_given(device, question, &answer);
        answer
    }

    /// A part of an artefact that belongs to a task. What the server optimiser carries on does not.
    pub async fn fetch(&self, digest: Digest, offset: u64) -> Result<Chunk, Rejection> {
        if !self.kept.is_public(&digest) {
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

    /// Who is enrolled. Where that changes, who may take part is counted again.
    pub fn known(&self) -> &KnownDevices {
        &self.kept.known
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.kept.metrics
    }

    /// Whether it has stopped serving because the store or the disk failed.
    pub fn is_failed(&self) -> bool {
        *self.failed.borrow()
    }

    /// Starts a task; durable when this returns.
    pub async fn create_task(&self, plan: Vec<u8>, frozen: Vec<u8>) -> Result<TaskStatus, Rejection> {
        let (driver, mut turn) = (self.clone(), self.tasks.turn().await);
        let created = spawn_blocking(move || {
            driver.check_failed()?;
            match driver.tasks.create(&mut turn, (&plan, &frozen), &mut UnwrapErr(SysRng)) {
                Ok(answer) => answer,
                Err(error) if driver.may_pass(&error) => Err(trouble::passing(&error)),
                Err(error) => Err(driver.fail(&error)),
            }
        });
        created.await.unwrap_or_else(|error| Err(self.broken(&error.to_string())))
    }

    /// Ends a task; durable when this returns.
    pub async fn stop_task(&self, task: TaskId) -> Result<TaskStatus, Rejection> {
        self.step(self.tasks.find(task)?, |entry| entry.stop(now(), &mut UnwrapErr(SysRng))).await
    }

    /// Lets a task go on that paused itself; durable when this returns.
    pub async fn resume_task(&self, task: TaskId) -> Result<TaskStatus, Rejection> {
        self.step(self.tasks.find(task)?, Entry::resume).await
    }

    /// One task. What is said of it waits for no step: while one is under way, it is what was before.
    pub async fn show(&self, task: TaskId) -> Result<TaskStatus, Rejection> {
        let cell = self.tasks.find(task)?;
        self.apart(move || cell.status()).await
    }

    /// The base of one task.
    pub fn base(&self, task: TaskId) -> Result<Digest, Rejection> {
        Ok(self.tasks.find(task)?.base)
    }

    /// What the devices of one task have spent, as [`Driver::show`] says it.
    pub async fn spent(&self, task: TaskId) -> Result<PrivacySpent, Rejection> {
        let cell = self.tasks.find(task)?;
        self.apart(move || cell.spent()).await
    }

    /// All tasks, in the order of their creation, each as [`Driver::show`] says it.
    pub async fn list(&self) -> Vec<TaskStatus> {
        let tasks = self.tasks.all();
        let listed = self.apart(move || tasks.iter().map(|cell| cell.status()).collect()).await;
        // What broke off ends all serving.
        listed.unwrap_or_default()
    }

    /// Whether everything that was decided of a task is durable.
    pub fn is_durable(&self, task: TaskId) -> bool {
        self.tasks.find(task).is_ok_and(|cell| cell.seen().is_saved)
    }

    /// Runs what counts many devices on a thread of its own.
    async fn apart<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Rejection> {
        spawn_blocking(run).await.map_err(|error| self.broken(&error.to_string()))
    }

    /// Opens no more rounds, gives the open ones until `limit` to end, then ends them. Where a step goes on for more than a
    /// second then, the open rounds of its task are left as a crash leaves them.
    pub async fn drain(&self, limit: Duration) {
        self.kept.draining.store(true, Ordering::Release);
        if timeout(limit, self.no_open_round()).await.is_err() {
            tracing::warn!("open rounds did not end in time and are aborted");
        }
        let aborting =
            self.tasks.all().iter().map(|cell| self.abort(Arc::clone(cell))).collect::<JoinSet<()>>();
        if timeout(ABORT_LIMIT, aborting.join_all()).await.is_err() {
            tracing::error!("a step of a task does not end; its open rounds are left as a crash leaves them");
        }
    }

    /// Ends the open rounds of a task, after its step that is under way: one that did not know yet that no more rounds are
    /// opened is before it.
    fn abort(&self, cell: Arc<Cell>) -> impl Future<Output = ()> + use<> {
        let driver = self.clone();
        async move {
            let task = cell.id;
            let aborted = driver.step(cell, |entry| entry.abort_rounds(now(), &mut UnwrapErr(SysRng))).await;
            if let Err(rejection) = aborted {
                tracing::error!(%task, %rejection, "open rounds could not be aborted in order");
            }
        }
    }

    /// Ends when no round is open, and no sum is being opened.
    async fn no_open_round(&self) {
        let (mut rounds, mut under_way) = (self.tasks.phases.rounds.subscribe(), self.under_way.subscribe());
        if rounds.wait_for(BTreeMap::is_empty).await.is_err() {
            return;
        }
        if under_way.wait_for(|openings| *openings == 0).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Ends when each task was free once: while one never is, those who take part in it are not served.
    pub async fn pulse(&self) {
        for cell in self.tasks.all().iter() {
            Arc::clone(cell).was_free().await;
        }
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
            tracing::error!(%error, "stopped serving; mend the disk or the database, and restart to recover");
        }
        stopped()
    }

    /// Why nothing is written now, and for how many seconds; `None` while all is well.
    pub fn trouble(&self) -> Option<(String, u64)> {
        let (began, why) = self.tasks.all().iter().filter_map(|cell| cell.trouble.told()).min()?;
        Some((why, now().0.saturating_sub(began.0) / 1000))
    }

    /// Says what a failure outside a step means: one of a write that broke off ends all serving, another passes.
    pub fn store_failed(&self, store: &Store, error: StoreError) -> Rejection {
        let error = DriverError::Store(error);
        if store.is_stopped() { self.fail(&error) } else { trouble::passing(&error) }
    }

    /// Runs one step of a task to its end, whoever still waits for it.
    async fn step<T: Send + 'static>(
        &self,
        cell: Arc<Cell>,
        run: impl FnOnce(&mut Entry) -> Answer<T> + Send + 'static,
    ) -> Result<T, Rejection> {
        let mut hold = cell.hold().await;
        let driver = self.clone();
        let step = spawn_blocking(move || driver.step_in(&mut hold, run));
        step.await.unwrap_or_else(|error| Err(self.broken(&error.to_string())))
    }

    /// The same where the task is held already, on a thread that may block.
    fn step_in<T>(&self, hold: &mut Hold, run: impl FnOnce(&mut Entry) -> Answer<T>) -> Result<T, Rejection> {
        self.check_failed()?;
        if hold.is_broken() {
            return Err(self.broken("an earlier one of the task did"));
        }
        hold.begin();
        hold.cell().trouble.check(now())?;
        // What an earlier step has decided and the disk did not take then.
        let outcome = hold.persist().and_then(|()| run(hold));
        self.settle(hold, outcome)
    }

    /// What came of a step, while its task is still held: nobody may come between a failure and its mark.
    fn settle<T>(&self, hold: &mut Hold, outcome: Answer<T>) -> Result<T, Rejection> {
        match outcome {
            Ok(answer) => {
                let trouble = &hold.cell().trouble;
                if trouble.is_there() && self.kept.store.check_room().is_ok() {
                    trouble.is_over();
                }
                while let Some(opening) = hold.take_opening(now()) {
                    self.open_apart(Arc::clone(hold.cell()), opening);
                }
                answer
            }
            Err(error) if self.may_pass(&error) => Err(hold.cell().trouble.begins(&error)),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Whether the same may succeed later: nothing was begun, and no write has failed half-way.
    fn may_pass(&self, error: &DriverError) -> bool {
        error.passes() && !self.kept.store.is_stopped()
    }

    fn is_troubled(&self) -> bool {
        self.tasks.all().iter().any(|cell| cell.trouble.is_there())
    }

    fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }

    fn check_failed(&self) -> Result<(), Rejection> {
        if self.has_failed() { Err(stopped()) } else { Ok(()) }
    }

    fn broken(&self, why: &str) -> Rejection {
        self.fail(&DriverError::Broken(why.to_owned()))
    }
}

fn stopped() -> Rejection {
    Rejection::Unavailable("the coordinator has stopped after a failed write".to_owned())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what runs at the same time is spawned")]
mod tests;
