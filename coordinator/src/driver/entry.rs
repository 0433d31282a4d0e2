//! One task, where it is kept, and each step that it takes: what its machine decides is durable before anybody is told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use proto::admin::TaskStatus;
use proto::ids::{DeviceId, Digest, TaskId, Timestamp};
use proto::message::{CheckIn, Rejection, Reply, Request};
use rand_core::CryptoRng;
use shell::store::{Batch, Store};
use task::round::{Opened, Opening};
use task::{Spending, Task, TaskEffect};

use super::error::DriverError;
use crate::artifacts::Artifacts;
use crate::kept_log;
use crate::known::KnownDevices;
use crate::metrics::Metrics;
use crate::records::{self, TaskHeader};
use crate::traces::Traces;
use crate::traces::book::{Book, Writing};

/// An answer, or the failure that ends all serving.
pub(super) type Answer<T> = Result<Result<T, Rejection>, DriverError>;

/// What all tasks share.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) store: Store,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) known: Arc<KnownDevices>,
    pub(super) metrics: Arc<Metrics>,
    /// Whether no round is opened any more.
    pub(super) draining: AtomicBool,
    /// Where it is told what tasks do, once that is said.
    pub(super) traces: OnceLock<Traces>,
    /// What devices may fetch.
    public: RwLock<BTreeSet<Digest>>,
}

impl Kept {
    pub(super) fn new(
        store: Store,
        artifacts: Arc<Artifacts>,
        known: Arc<KnownDevices>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (draining, traces) = (AtomicBool::new(false), OnceLock::new());
        Self { store, artifacts, known, metrics, draining, traces, public: RwLock::default() }
    }

    /// The spans of open rounds, where there are any.
    pub(super) fn book(&self) -> Option<&Arc<Book>> {
        self.traces.get().and_then(Traces::book)
    }

    pub(super) fn is_public(&self, digest: &Digest) -> bool {
        self.public.read().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    fn publish(&self, digests: impl IntoIterator<Item = Digest>) {
        self.public.write().unwrap_or_else(PoisonError::into_inner).extend(digests);
    }
}

/// A task and what is durable of it.
#[derive(Debug)]
pub(super) struct Entry {
    task: Task,
    kept: Arc<Kept>,
    /// As it was last made durable.
    header: TaskHeader,
    /// What had changed when devices were last counted for it.
    counted: Option<(Spending, u64)>,
    /// What its machine has decided and the disk has not taken yet.
    unsaved: Vec<TaskEffect>,
    /// How often devices told it something, beside that they ask for work.
    talked: u64,
    /// Who said that it does not take part, for those who ask without the task.
    declined: Arc<RwLock<BTreeSet<DeviceId>>>,
}

impl Entry {
    /// A task whose header is durable.
    pub(super) fn new(mut task: Task, header: TaskHeader, kept: Arc<Kept>) -> Self {
        kept.publish([header.plan, header.initial, header.adapter]);
        kept.publish(header.frozen);
        let versions = &task.record().versions;
        kept.publish(versions.iter().flat_map(|version| [Some(version.adapter), version.folded]).flatten());
        if header.state.is_over() {
            task.let_go();
        }
        Self { task, kept, header, counted: None, unsaved: Vec::new(), talked: 0, declined: Arc::default() }
    }

    pub(super) fn task(&self) -> &Task {
        &self.task
    }

    pub(super) fn task_mut(&mut self) -> &mut Task {
        &mut self.task
    }

    pub(super) fn artifacts(&self) -> &Artifacts {
        &self.kept.artifacts
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.kept.metrics
    }

    pub(super) fn header(&self) -> &TaskHeader {
        &self.header
    }

    pub(super) fn declined(&self) -> Arc<RwLock<BTreeSet<DeviceId>>> {
        Arc::clone(&self.declined)
    }

    pub(super) fn talked(&self) -> u64 {
        self.talked
    }

    /// Whether everything that was decided is durable.
    pub(super) fn is_saved(&self) -> bool {
        self.unsaved.is_empty()
    }

    /// What the task says to a device.
    pub(super) fn handle(
        &mut self,
        device: DeviceId,
        request: Request,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Answer<Reply> {
        if self.kept.draining.load(Ordering::Acquire) {
            self.task.drain();
        }
        let answer = self.task.handle(device, request, now, rng);
        self.talked += 1;
        self.note_declined(device);
        self.persist()?;
        Ok(answer)
    }

    /// What the task has for a device that asks for work: nothing where no version could come of those that are enrolled. Where
    /// it may not take part any more, it is looked whether enough are left that may.
    pub(super) fn check_in(
        &mut self,
        device: DeviceId,
        only_keeps: bool,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Answer<Reply> {
        let only_keeps = only_keeps || self.task.is_short_of_devices(self.kept.known.count());
        let asks = || Request::CheckIn(CheckIn { only_keeps, declined: Vec::new() });
        let was_active = self.task.is_active();
        let answer = self.task.handle(device, asks(), now, rng);
        self.talked += 1;
        self.persist()?;
        if !was_active || matches!(answer, Ok(Reply::Assignment(_))) {
            return Ok(answer);
        }
        self.end_if_spent()?;
        // It may be over for the device too now.
        Ok(if self.task.is_active() { answer } else { self.task.handle(device, asks(), now, rng) })
    }

    /// Ends a task for which too few devices are left. All devices are counted, so they are counted again only when
    /// something has changed that counts.
    fn end_if_spent(&mut self) -> Result<(), DriverError> {
        let spending = self.task.spending();
        if self.counted == Some((spending, self.kept.known.changes())) {
            return Ok(());
        }
        let (enrolled, changes) = self.kept.known.all_enrolled();
        self.task.end_if_spent(&enrolled);
        self.counted = Some((spending, changes));
        self.persist()
    }

    pub(super) fn stop(&mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<TaskStatus> {
        self.task.stop(now, rng);
        self.persist()?;
        Ok(Ok(self.task.status()))
    }

    pub(super) fn resume(&mut self) -> Answer<TaskStatus> {
        if !self.task.resume() {
            let why = "the task is not paused".to_owned();
            return Ok(Err(Rejection::Unacceptable { request: "resume task".into(), why }));
        }
        self.persist()?;
        tracing::info!(task = %self.task.id(), "task resumed");
        Ok(Ok(self.task.status()))
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<()> {
        self.task.handle_timeout(now, rng);
        self.persist()?;
        Ok(Ok(()))
    }

    pub(super) fn abort_rounds(&mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<()> {
        self.task.abort_rounds(now, rng);
        self.persist()?;
        Ok(Ok(()))
    }

    /// A sum that is due to be opened: to be asked after each step until there is none.
    pub(super) fn take_opening(&mut self, now: Timestamp) -> Option<Opening> {
        self.task.take_opening(now)
    }

    /// Takes what came of an opening.
    pub(super) fn opened(&mut self, opened: Opened, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<()> {
        self.task.opened(opened, now, rng);
        self.persist()?;
        Ok(Ok(()))
    }

    fn note_declined(&self, device: DeviceId) {
        let declines = self.task.was_declined_by(device);
        let known = || self.declined.read().unwrap_or_else(PoisonError::into_inner).contains(&device);
        if declines != known() {
            let mut declined = self.declined.write().unwrap_or_else(PoisonError::into_inner);
            if declines {
                declined.insert(device)
            } else {
                declined.remove(&device)
            };
        }
    }

    /// Makes durable what a task's machine has decided: artefacts first, then all records in one transaction. Where that
    /// fails, all of it is kept, to be made durable later.
    pub(super) fn persist(&mut self) -> Result<(), DriverError> {
        while let Some(effect) = self.task.poll_effect() {
            self.unsaved.push(effect);
        }
        let mut writing = self.kept.book().map(|book| book.decided(&self.task, &self.unsaved));
        let saved = self.save(writing.as_mut());
        if let Some(writing) = writing {
            writing.ended(saved.is_ok());
        }
        saved
    }

    fn save(&mut self, mut writing: Option<&mut Writing>) -> Result<(), DriverError> {
        let id = self.task.id();
        let artifacts = Arc::clone(&self.kept.artifacts);
        let put = |bytes: &[u8], writing: &mut Option<&mut Writing>| {
            timed(writing, "write artifact", || artifacts.put(bytes)).map(Digest)
        };
        let (mut batch, mut header) = (Batch::new(), self.header.clone());
        let (mut published, mut gathers) = (Vec::new(), false);
        for effect in &self.unsaved {
            match effect {
                TaskEffect::FixSurvivors { round, survivors } => {
                    records::insert_survivors(&mut batch, id, *round, survivors)?;
                }
                TaskEffect::Charge { devices, .. } => {
                    for (device, count) in devices {
                        records::put_participations(&mut batch, id, *device, *count)?;
                    }
                }
                // What is kept is what there is now, with all sums that came since.
                TaskEffect::Gathered { .. } => gathers = true,
                TaskEffect::Commit { completed_by: _, version, adapter, folded, optimizer, roster } => {
                    header.adapter = put(adapter, &mut writing)?;
                    if let Some(folded) = folded {
                        header.folded = Some(put(folded, &mut writing)?);
                    }
                    header.optimizer = put(optimizer, &mut writing)?;
                    records::insert_version(&mut batch, id, version)?;
                    kept_log::will_log(&mut batch, id, (self.task.published().plan, version, *roster))?;
                    published.extend([Some(header.adapter), header.folded].into_iter().flatten());
                }
                TaskEffect::Excluded { .. }
                | TaskEffect::Aborted { .. }
                | TaskEffect::Paused { .. }
                | TaskEffect::End(_) => {}
            }
        }
        let record = self.task.record();
        header.gathered = match &record.gathered {
            Some(gathered) if gathers => {
                let bytes = gathered.to_bytes().map_err(|error| DriverError::Broken(error.to_string()))?;
                Some(put(&bytes, &mut writing)?)
            }
            Some(_) => header.gathered,
            None => None,
        };
        header.state = record.state;
        header.rounds_charged = record.rounds_charged;
        header.last_round = record.last_round;
        header.devices = record.devices;
        if header != self.header {
            records::put_header(&mut batch, id, &header)?;
        }
        if !batch.is_empty() {
            let commit = || self.kept.metrics.commit(|| self.kept.store.commit_blocking(&batch));
            timed(&mut writing, "write records", commit)?;
        }
        let before = std::mem::replace(&mut self.header, header);
        if let Some(sums) = before.gathered.filter(|sums| self.header.gathered != Some(*sums)) {
            // Nobody needs them any more; what stays behind is only an orphan.
            if let Err(error) = self.kept.artifacts.remove(&sums.0) {
                tracing::warn!(task = %id, %error, "sums of a version that are not needed any more stay on the disk");
            }
        }
        self.kept.publish(published);
        for effect in self.unsaved.drain(..) {
            self.kept.metrics.durable(&effect);
            log(id, &effect);
        }
        if self.header.state.is_over() {
            self.task.let_go();
        }
        Ok(())
    }
}

/// Writes something; how long that takes is told where it is traced.
fn timed<T>(writing: &mut Option<&mut Writing>, what: &'static str, write: impl FnOnce() -> T) -> T {
    match writing {
        Some(writing) => writing.write(what, write),
        None => write(),
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
        TaskEffect::Gathered { round } => tracing::info!(%task, round, "sum gathered"),
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
