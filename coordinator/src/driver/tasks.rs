//! All tasks, in the order of their creation, each behind a lock of its own.
//!
//! Nobody waits for a task while holding another, so none waits in a circle. What all share is behind locks that are held
//! for a look or a change in memory, and for nothing else: the list here, who is enrolled, what is public, what a task
//! shows. One task at a time is created, which takes no lock of another.

use std::sync::{Arc, PoisonError, RwLock};

use aggregation::IdentityPublic;
use proto::admin::{TaskState, TaskStatus};
use proto::ids::{Digest, SessionId, TaskId};
use proto::message::Rejection;
use proto::plan::{Plan, vector_to_bytes};
use proto::shown::shown;
use rand_core::CryptoRng;
use shell::store::Batch;
use task::spool::Spooler;
use task::{Counted, EnrollmentLog, Task};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::cell::Cell;
use super::clock::now;
use super::entry::{Answer, Entry, Kept};
use super::error::DriverError;
use super::frozen::check_frozen;
use super::held::Phases;
use crate::records::{self, TaskHeader};

/// The tasks.
#[derive(Debug)]
pub(super) struct Tasks {
    kept: Arc<Kept>,
    enrolling: Enrolling,
    spooler: Arc<dyn Spooler>,
    cells: RwLock<Arc<Vec<Arc<Cell>>>>,
    /// The place in the order of creation that the next task has.
    next: Arc<Mutex<u64>>,
    created: watch::Sender<()>,
    /// The step of each open round, and the places that came free.
    pub(super) phases: Arc<Phases>,
}

/// By whom devices are enrolled.
#[derive(Clone, Debug)]
pub struct Enrolling {
    /// The key of the authority.
    pub authority: IdentityPublic,
    /// What it writes down, where it does.
    pub log: Option<EnrollmentLog>,
}

impl Enrolling {
    /// The task, with rounds about the log.
    fn to(&self, task: Task) -> Task {
        match &self.log {
            Some(log) => task.with_log(log.clone()),
            None => task,
        }
    }
}

/// An authority without a log.
impl From<IdentityPublic> for Enrolling {
    fn from(authority: IdentityPublic) -> Self {
        Self { authority, log: None }
    }
}

/// The turn to create a task.
pub(super) type Turn = OwnedMutexGuard<u64>;

impl Tasks {
    /// Restores every task.
    pub(super) fn restore(
        kept: Arc<Kept>,
        enrolling: Enrolling,
        spooler: Arc<dyn Spooler>,
    ) -> Result<Self, DriverError> {
        let phases = Arc::new(Phases::default());
        let (mut cells, mut next) = (Vec::new(), 0);
        for (id, header) in records::headers(&kept.store)? {
            next = header.order + 1;
            let task = records::load_task(&kept.store, &kept.artifacts, enrolling.authority, (id, &header))?;
            let task = enrolling.to(task.with_spooler(Arc::clone(&spooler)));
            let task = task.counting_from(now(), Counted::FromTheStart);
            let entry = Entry::new(task, header, Arc::clone(&kept));
            cells.push(Arc::new(Cell::new(entry, Arc::clone(&phases))));
        }
        Ok(Self {
            kept,
            enrolling,
            spooler,
            cells: RwLock::new(Arc::new(cells)),
            next: Arc::new(Mutex::new(next)),
            created: watch::Sender::new(()),
            phases,
        })
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Arc<Vec<Arc<Cell>>> {
        Arc::clone(&self.cells.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn find(&self, task: TaskId) -> Result<Arc<Cell>, Rejection> {
        let cells = self.all();
        cells.iter().find(|cell| cell.id == task).map(Arc::clone).ok_or(Rejection::UnknownTask)
    }

    pub(super) fn with_session(&self, session: SessionId) -> Result<Arc<Cell>, Rejection> {
        let cells = self.all();
        cells.iter().find(|cell| cell.has_session(session)).map(Arc::clone).ok_or(Rejection::UnknownSession)
    }

    /// Changes when a task was created.
    pub(super) fn created(&self) -> watch::Receiver<()> {
        self.created.subscribe()
    }

    /// Waits until nobody else creates a task.
    pub(super) async fn turn(&self) -> Turn {
        Arc::clone(&self.next).lock_owned().await
    }

    /// Starts a task. Blocks.
    pub(super) fn create(
        &self,
        next: &mut Turn,
        (plan, frozen): (&[u8], &[u8]),
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
        let task = match Task::new(TaskId(id), plan, given, self.enrolling.authority) {
            Ok(task) => task,
            Err(error) => return Ok(Err(unacceptable(&error))),
        };
        if let Some(other) = self.goes_on(&parsed.name) {
            return Ok(Err(unacceptable(&other)));
        }
        let Kept { store, artifacts, .. } = &*self.kept;
        // Before anything is written that a failure would leave behind.
        store.check_room()?;
        if frozen_digest.is_some() {
            artifacts.put(frozen)?;
        }
        let adapter = Digest(artifacts.put(&vector_to_bytes(task.adapter()))?);
        let optimizer = vector_to_bytes(&task.optimizer().to_vector());
        let header = TaskHeader {
            order: **next,
            state: TaskState::Active,
            plan: Digest(artifacts.put(plan)?),
            frozen: frozen_digest,
            initial: adapter,
            adapter,
            folded: None,
            optimizer: Digest(artifacts.put(&optimizer)?),
            rounds_charged: 0,
            last_round: 0,
            gathered: None,
            devices: 0,
        };
        let mut batch = Batch::new();
        records::put_header(&mut batch, task.id(), &header)?;
        store.commit_blocking(&batch)?;
        **next += 1;
        tracing::info!(task = %task.id(), versions = task.plan().round.versions, "task created");
        let status = task.status();
        let task = self.enrolling.to(task.with_spooler(Arc::clone(&self.spooler)));
        let task = task.counting_from(now(), Counted::FromItsBeginning);
        let entry = Entry::new(task, header, Arc::clone(&self.kept));
        let cell = Arc::new(Cell::new(entry, Arc::clone(&self.phases)));
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever goes through them has a list of before.
        Arc::make_mut(&mut cells).push(cell);
        drop(cells);
        // Not before it is in the list, which is where those look who are woken by this.
        self.phases.places.send_modify(|places| {
            places.insert(status.task, 0);
        });
        self.created.send_replace(());
        Ok(Ok(status))
    }

    /// Why no task may have this label: another one has it that goes on, and people name tasks by their labels.
    fn goes_on(&self, name: &str) -> Option<String> {
        let cells = self.all();
        let other = cells.iter().find(|cell| cell.name == name && !cell.seen().is_over)?;
        Some(format!(
            "task {} is called `{}` too, and goes on; give this one another name, or end that one first",
            other.id,
            shown(name)
        ))
    }
}

fn unacceptable(error: &impl std::fmt::Display) -> Rejection {
    Rejection::Unacceptable { request: "create task".into(), why: error.to_string() }
}
