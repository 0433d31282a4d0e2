//! What the driver owns, one step at a time: the tasks in the order of their creation, and where they are kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aggregation::IdentityPublic;
use proto::admin::{PrivacySpent, TaskState, TaskStatus};
use proto::ids::{DeviceId, Digest, TaskId, Timestamp};
use proto::message::{Charged, MOST_LATEST, Rejection, Reply, Request};
use proto::plan::{Plan, vector_to_bytes};
use proto::shown::shown;
use rand_core::CryptoRng;
use shell::store::{Batch, Store};
use task::round::{Opened, Opening};
use task::spool::Spooler;
use task::{Counted, Spending, Task, TaskEffect};

use super::held::Phases;
use super::{DriverError, check_frozen};
use crate::artifacts::Artifacts;
use crate::records::{self, TaskHeader};

mod operators;

/// What a device is told while there is no task at all, in milliseconds.
const NO_TASK_MILLIS: u64 = 30_000;

/// An answer, or the failure that ends all serving.
type Answer<T> = Result<Result<T, Rejection>, DriverError>;

#[derive(Debug)]
pub(super) struct State {
    store: Store,
    artifacts: Arc<Artifacts>,
    authority: IdentityPublic,
    spooler: Arc<dyn Spooler>,
    tasks: Vec<Entry>,
    /// What devices may fetch.
    public: BTreeSet<Digest>,
    /// How often a device was enrolled or revoked since the start.
    enrollments: Arc<AtomicU64>,
    draining: bool,
}

#[derive(Debug)]
struct Entry {
    task: Task,
    /// As it was last made durable.
    header: TaskHeader,
    /// What had changed when devices were last counted for it.
    counted: Option<(Spending, u64)>,
    /// What its machine has decided and the disk has not taken yet.
    unsaved: Vec<TaskEffect>,
}

impl State {
    pub(super) fn open(
        store: Store,
        artifacts: Arc<Artifacts>,
        authority: IdentityPublic,
        spooler: Arc<dyn Spooler>,
        enrollments: Arc<AtomicU64>,
    ) -> Result<Self, DriverError> {
        let (tasks, public) = (Vec::new(), BTreeSet::new());
        let mut state =
            Self { store, artifacts, authority, spooler, tasks, public, enrollments, draining: false };
        for (id, header) in records::headers(&state.store)? {
            let task = records::load_task(&state.store, &state.artifacts, authority, (id, &header))?;
            state.admit(task.counting_from(super::now(), Counted::FromTheStart), header);
        }
        Ok(state)
    }

    pub(super) fn handle(
        &mut self,
        device: DeviceId,
        request: Request,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Answer<Reply> {
        let index = match &request {
            Request::CheckIn => return self.check_in(device, now, rng),
            Request::Fetch { .. } => return Ok(Err(Rejection::UnknownArtifact)),
            Request::Decline { task, .. } => match self.index(*task) {
                None => return Ok(Err(Rejection::UnknownTask)),
                Some(index) => index,
            },
            Request::Join { task, .. } => match self.index(*task) {
                None => return Ok(Err(Rejection::UnknownTask)),
                Some(index) if self.draining && self.tasks[index].task.open_round().is_none() => {
                    return Ok(Err(Rejection::Unavailable("the coordinator is stopping".to_owned())));
                }
                Some(index) => index,
            },
            Request::Advertise { session, .. }
            | Request::Draw { session, .. }
            | Request::ShareKeys { session, .. }
            | Request::MaskedChunk { session, .. }
            | Request::MaskedDone { session, .. }
            | Request::Agree { session, .. }
            | Request::Unmask { session, .. } => {
                match self.tasks.iter().position(|entry| entry.task.has_session(*session)) {
                    None => return Ok(Err(Rejection::UnknownSession)),
                    Some(index) => index,
                }
            }
        };
        let answer = self.tasks[index].task.handle(device, request, now, rng);
        self.persist(index)?;
        Ok(answer)
    }

    /// The active task that has work for the device, first those that it did not decline, of these the one with the fewest
    /// rounds so far, of these the oldest; else the newest
    /// task's wait. So tasks take turns, and all devices that ask at a time come to the same one, which fills its round.
    fn check_in(&mut self, device: DeviceId, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<Reply> {
        let mut active: Vec<usize> =
            (0..self.tasks.len()).filter(|index| self.tasks[*index].task.is_active()).collect();
        active.sort_by_key(|index| {
            let task = &self.tasks[*index].task;
            (task.was_declined_by(device), task.rounds_charged())
        });
        for index in active {
            let answer = self.tasks[index].task.handle(device, Request::CheckIn, now, rng);
            self.persist(index)?;
            if let Ok(Reply::Assignment(mut assignment)) = answer {
                let of_others = self.charged_elsewhere(device, assignment.published.task);
                assignment.charges.extend(of_others.take(MOST_LATEST - assignment.charges.len()));
                return Ok(Ok(Reply::Assignment(assignment)));
            }
            // This one may not take part any more: are there enough that may?
            self.end_if_spent(index)?;
        }
        self.wait(device, now, rng)
    }

    /// How often the device was charged in other tasks than this one, the newest first: a device that was restored from a
    /// backup learns of all that it spent before it spends more.
    fn charged_elsewhere(&self, device: DeviceId, task: TaskId) -> impl Iterator<Item = Charged> {
        let charged = move |entry: &Entry| entry.task.charged(device);
        self.tasks.iter().rev().filter_map(charged).filter(move |charged| charged.published.task != task)
    }

    /// The answer where there is nothing to do: when to ask again, whether all tasks are over for the device, and what came of
    /// those that it took part in, and of the newest.
    fn wait(&mut self, device: DeviceId, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<Reply> {
        let Some(newest) = self.tasks.len().checked_sub(1) else {
            return Ok(Ok(Reply::wait(NO_TASK_MILLIS)));
        };
        let (mut retry, mut is_over, mut all) = (u64::MAX, true, Vec::new());
        for index in 0..=newest {
            let answer = self.tasks[index].task.handle(device, Request::CheckIn, now, rng);
            self.persist(index)?;
            match answer {
                Ok(Reply::Wait { retry_millis, latest, complete }) => {
                    retry = retry.min(retry_millis);
                    is_over &= complete;
                    let is_its = index == newest || self.tasks[index].task.charged(device).is_some();
                    all.extend(latest.into_iter().filter(|_| is_its));
                }
                // One that has become active meanwhile.
                other => return Ok(other),
            }
        }
        let latest = all.split_off(all.len().saturating_sub(MOST_LATEST));
        Ok(Ok(Reply::Wait { retry_millis: retry, latest, complete: is_over }))
    }

    /// Ends a task for which too few devices are left. All devices are counted, so they are counted again only when
    /// something has changed that counts.
    fn end_if_spent(&mut self, index: usize) -> Result<(), DriverError> {
        let entry = &mut self.tasks[index];
        let changes = (entry.task.spending(), self.enrollments.load(Ordering::Acquire));
        if entry.counted == Some(changes) {
            return Ok(());
        }
        let devices = records::devices(&self.store)?;
        let enrolled: Vec<DeviceId> =
            devices.iter().filter(|device| !device.revoked).map(|device| device.device).collect();
        entry.task.end_if_spent(&enrolled);
        entry.counted = Some(changes);
        self.persist(index)
    }

    pub(super) fn create(
        &mut self,
        plan: &[u8],
        frozen: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Answer<TaskStatus> {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let parsed = match Plan::parse(plan) {
            Ok(parsed) => parsed,
            Err(error) => return Ok(Err(unacceptable(&error))),
        };
        let (frozen_digest, given) = match check_frozen(&parsed, frozen) {
            Ok(checked) => checked.unzip(),
            Err(error) => return Ok(Err(unacceptable(&error))),
        };
        let task = match Task::new(TaskId(id), plan, given, self.authority) {
            Ok(task) => task,
            Err(error) => return Ok(Err(unacceptable(&error))),
        };
        if let Some(other) = self.goes_on(&parsed.name) {
            return Ok(Err(unacceptable(&other)));
        }
        // Before anything is written that a failure would leave behind.
        self.store.check_room()?;
        if frozen_digest.is_some() {
            self.artifacts.put(frozen)?;
        }
        let adapter = Digest(self.artifacts.put(&vector_to_bytes(task.adapter()))?);
        let optimizer = vector_to_bytes(&task.optimizer().to_vector());
        let header = TaskHeader {
            order: self.tasks.last().map_or(0, |entry| entry.header.order + 1),
            state: TaskState::Active,
            plan: Digest(self.artifacts.put(plan)?),
            frozen: frozen_digest,
            initial: adapter,
            adapter,
            folded: None,
            optimizer: Digest(self.artifacts.put(&optimizer)?),
            rounds_charged: 0,
            last_round: 0,
        };
        let mut batch = Batch::new();
        records::put_header(&mut batch, task.id(), &header)?;
        self.store.commit_blocking(&batch)?;
        tracing::info!(task = %task.id(), versions = task.plan().round.versions, "task created");
        let status = task.status();
        self.admit(task.counting_from(super::now(), Counted::FromItsBeginning), header);
        Ok(Ok(status))
    }

    /// Why no task may have this label: another one has it that goes on, and people name tasks by their labels.
    fn goes_on(&self, name: &str) -> Option<String> {
        let other = self
            .tasks
            .iter()
            .find(|entry| entry.task.plan().name == name && !entry.header.state.is_over())?;
        Some(format!(
            "task {} is called `{}` too, and goes on; give this one another name, or end that one first",
            other.task.id(),
            shown(name)
        ))
    }

    pub(super) fn stop(
        &mut self,
        task: TaskId,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Answer<TaskStatus> {
        let Some(index) = self.index(task) else { return Ok(Err(Rejection::UnknownTask)) };
        self.tasks[index].task.stop(now, rng);
        self.persist(index)?;
        Ok(Ok(self.tasks[index].task.status()))
    }

    pub(super) fn resume(&mut self, task: TaskId) -> Answer<TaskStatus> {
        let Some(index) = self.index(task) else { return Ok(Err(Rejection::UnknownTask)) };
        if !self.tasks[index].task.resume() {
            let why = "the task is not paused".to_owned();
            return Ok(Err(Rejection::Unacceptable { request: "resume task".into(), why }));
        }
        self.persist(index)?;
        tracing::info!(%task, "task resumed");
        Ok(Ok(self.tasks[index].task.status()))
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<()> {
        for index in 0..self.tasks.len() {
            self.tasks[index].task.handle_timeout(now, rng);
            self.persist(index)?;
        }
        Ok(Ok(()))
    }

    pub(super) fn abort_rounds(&mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<()> {
        for index in 0..self.tasks.len() {
            self.tasks[index].task.abort_round(now, rng);
            self.persist(index)?;
        }
        Ok(Ok(()))
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// The step of each open round.
    pub(super) fn phases(&self) -> Phases {
        self.tasks.iter().filter_map(|entry| entry.task.open_round()).collect()
    }

    pub(super) fn open_rounds(&self) -> usize {
        self.tasks.iter().filter(|entry| entry.task.open_round().is_some()).count()
    }

    /// The sums that are due to be opened, each with its task: to be asked after each step.
    pub(super) fn take_openings(&mut self, now: Timestamp) -> Vec<(TaskId, Opening)> {
        let taken = |entry: &mut Entry| Some((entry.task.id(), entry.task.take_opening(now)?));
        self.tasks.iter_mut().filter_map(taken).collect()
    }

    /// Takes what came of an opening.
    pub(super) fn opened(
        &mut self,
        task: TaskId,
        opened: Opened,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Answer<()> {
        let Some(index) = self.index(task) else { return Ok(Ok(())) };
        self.tasks[index].task.opened(opened, now, rng);
        self.persist(index)?;
        Ok(Ok(()))
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.tasks.iter().filter_map(|entry| entry.task.poll_timeout()).min()
    }

    pub(super) fn is_public(&self, digest: &Digest) -> bool {
        self.public.contains(digest)
    }

    pub(super) fn status(&self, task: TaskId) -> Option<TaskStatus> {
        self.index(task).map(|index| self.tasks[index].task.status())
    }

    pub(super) fn base(&self, task: TaskId) -> Option<Digest> {
        self.index(task).map(|index| self.tasks[index].task.plan().base)
    }

    pub(super) fn spent(&self, task: TaskId) -> Option<PrivacySpent> {
        self.index(task).map(|index| self.tasks[index].task.spent())
    }

    pub(super) fn statuses(&self) -> Vec<TaskStatus> {
        self.tasks.iter().map(|entry| entry.task.status()).collect()
    }

    fn index(&self, task: TaskId) -> Option<usize> {
        self.tasks.iter().position(|entry| entry.task.id() == task)
    }

    fn admit(&mut self, task: Task, header: TaskHeader) {
        self.public.extend([header.plan, header.initial, header.adapter]);
        self.public.extend(header.frozen);
        let versions = &task.record().versions;
        self.public
            .extend(versions.iter().flat_map(|version| [Some(version.adapter), version.folded]).flatten());
        let task = task.with_spooler(Arc::clone(&self.spooler));
        self.tasks.push(Entry { task, header, counted: None, unsaved: Vec::new() });
    }

    /// Makes durable what an earlier step has decided and the disk did not take then.
    pub(super) fn persist_rest(&mut self) -> Result<(), DriverError> {
        (0..self.tasks.len()).try_for_each(|index| self.persist(index))
    }

    /// Whether everything that was decided of a task is durable.
    pub(super) fn is_saved(&self, task: TaskId) -> bool {
        self.index(task).is_none_or(|index| self.tasks[index].unsaved.is_empty())
    }

    /// Fails while the disk has too little room for a commit.
    pub(super) fn check_room(&self) -> Result<(), DriverError> {
        Ok(self.store.check_room()?)
    }

    /// Whether a write has failed half-way: then only a restart recovers.
    pub(super) fn is_stopped(&self) -> bool {
        self.store.is_stopped()
    }

    /// Makes durable what a task's machine has decided: artefacts first, then all records in one transaction. Where that
    /// fails, all of it is kept, to be made durable later.
    fn persist(&mut self, index: usize) -> Result<(), DriverError> {
        let entry = &mut self.tasks[index];
        let id = entry.task.id();
        while let Some(effect) = entry.task.poll_effect() {
            entry.unsaved.push(effect);
        }
        let (mut batch, mut header) = (Batch::new(), entry.header.clone());
        let mut published = Vec::new();
        for effect in &entry.unsaved {
            match effect {
                TaskEffect::FixSurvivors { round, survivors } => {
                    records::insert_survivors(&mut batch, id, *round, survivors)?;
                }
                TaskEffect::Charge { devices, .. } => {
                    for (device, count) in devices {
                        records::put_participations(&mut batch, id, *device, *count)?;
                    }
                }
                TaskEffect::Commit { version, adapter, folded, optimizer } => {
                    header.adapter = Digest(self.artifacts.put(adapter)?);
                    if let Some(folded) = folded {
                        header.folded = Some(Digest(self.artifacts.put(folded)?));
                    }
                    header.optimizer = Digest(self.artifacts.put(optimizer)?);
                    records::insert_version(&mut batch, id, version)?;
                    published.extend([Some(header.adapter), header.folded].into_iter().flatten());
                }
                TaskEffect::Excluded { .. }
                | TaskEffect::Aborted { .. }
                | TaskEffect::Paused { .. }
                | TaskEffect::End(_) => {}
            }
        }
        let record = entry.task.record();
        header.state = record.state;
        header.rounds_charged = record.rounds_charged;
        header.last_round = record.last_round;
        if header != entry.header {
            records::put_header(&mut batch, id, &header)?;
        }
        if !batch.is_empty() {
            self.store.commit_blocking(&batch)?;
        }
        entry.header = header;
        self.public.extend(published);
        for effect in entry.unsaved.drain(..) {
            log(id, &effect);
        }
        Ok(())
    }
}

fn log(task: TaskId, effect: &TaskEffect) {
    match effect {
        TaskEffect::FixSurvivors { round, survivors } => {
            tracing::info!(%task, round, survivors = survivors.len(), "survivors fixed");
        }
        TaskEffect::Charge { round, devices } => {
            tracing::info!(%task, round, devices = devices.len(), "participations charged");
        }
        TaskEffect::Commit { version, .. } => {
            let (round, epsilon) = (version.round, version.epsilon);
            tracing::info!(%task, version = version.version, round, epsilon, "version committed");
            if let Some(restores) = version.restores.filter(|_| !version.rolled_back) {
                tracing::warn!(
                    %task,
                    "version {} was worse than the one before, by what its devices measured: version {} has the \
                     parameters of version {restores} again",
                    version.version - 1,
                    version.version
                );
            }
        }
        TaskEffect::Excluded { round, device, why } => {
            tracing::warn!(%task, round, %device, why, "device excluded");
        }
        TaskEffect::Aborted { round, outcome } => tracing::warn!(%task, round, %outcome, "round aborted"),
        TaskEffect::Paused { worse: [first, second] } => tracing::warn!(
            %task,
            "the task waits for its operator: versions {first} and {second} were each worse than the one before"
        ),
        TaskEffect::End(state) => tracing::info!(%task, ?state, "task ended"),
    }
}

fn unacceptable(error: &impl std::fmt::Display) -> Rejection {
    Rejection::Unacceptable { request: "create task".into(), why: error.to_string() }
}
