//! What operators ask of the tasks beyond their status, and the way back to an earlier version.
//!
//! What is only looked at waits for no long step where a task says it at once, and else for the step that is under way.

use std::sync::Arc;

use proto::admin::{Candidates, DeviceTask, TaskStatus};
use proto::ids::{DeviceId, Digest, TaskId, Timestamp};
use proto::message::Rejection;
use proto::plan::vector_from_bytes;
use rand::rngs::SysRng;
use rand_core::{CryptoRng, UnwrapErr};
use task::{RollBackError, Task};

use super::cell::Cell;
use super::entry::{Answer, Entry};
use super::error::DriverError;
use super::{Driver, now};
use crate::records::RecordError;

impl Driver {
    /// Who of the enrolled devices may take part in a task once more.
    pub async fn candidates(&self, task: TaskId) -> Result<Candidates, Rejection> {
        let cell = self.tasks.find(task)?;
        let (enrolled, _) = self.known().all_enrolled();
        self.see(cell, move |task| task.candidates(&enrolled)).await
    }

    /// How often each device was charged, over all tasks.
    pub async fn participations(&self, devices: Vec<DeviceId>) -> Result<Vec<u32>, Rejection> {
        let (devices, mut all) = (Arc::new(devices), Vec::new());
        all.resize(devices.len(), 0_u32);
        for cell in self.tasks.all().iter() {
            let devices = Arc::clone(&devices);
            let spent = move |task: &Task| devices.iter().map(|device| task.spent_by(*device).0).collect();
            let spent: Vec<u32> = self.see(Arc::clone(cell), spent).await?;
            all.iter_mut().zip(spent).for_each(|(all, one)| *all = all.saturating_add(one));
        }
        Ok(all)
    }

    /// The tasks in which a device was charged, is shut out, or that it declined.
    pub async fn tasks_of(&self, device: DeviceId) -> Result<Vec<DeviceTask>, Rejection> {
        let mut tasks = Vec::new();
        for cell in self.tasks.all().iter() {
            let task = self.see(Arc::clone(cell), move |task| of(task, device)).await?;
            if task.participations > 0 || task.excluded || task.declined.is_some() {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// What a task says: at once where it is free, and else after the step that is under way. Who waits holds no thread: the step
    /// needs one itself, and there are only so many.
    async fn see<T: Send + 'static>(
        &self,
        cell: Arc<Cell>,
        look: impl FnOnce(&Task) -> T + Send + 'static,
    ) -> Result<T, Rejection> {
        let hold = match Arc::clone(&cell).hold_now() {
            Some(hold) => hold,
            None => cell.hold().await,
        };
        self.apart(move || look(hold.task())).await
    }

    /// Gives a task's next version the parameters of an earlier one; durable when this returns.
    pub async fn roll_back(&self, task: TaskId, version: u32) -> Result<TaskStatus, Rejection> {
        let cell = self.tasks.find(task)?;
        self.step(cell, move |entry| entry.roll_back(version, now(), &mut UnwrapErr(SysRng))).await
    }
}

fn of(task: &Task, device: DeviceId) -> DeviceTask {
    let (participations, participations_allowed, epsilon) = task.spent_by(device);
    let privacy = &task.plan().privacy;
    DeviceTask {
        task: task.id(),
        name: task.plan().name.clone(),
        participations,
        participations_allowed,
        epsilon,
        delta: privacy.delta,
        mode: privacy.mode,
        declined: task.declined_by(device),
        excluded: task.excludes(device),
    }
}

impl Entry {
    /// Gives the next version the parameters of an earlier one.
    fn roll_back(&mut self, version: u32, now: Timestamp, rng: &mut impl CryptoRng) -> Answer<TaskStatus> {
        if let Err(error) = self.task().may_roll_back(version) {
            return Ok(Err(refused(&error)));
        }
        let (adapter, folded) = self.parameters(version)?;
        if let Err(error) = self.task_mut().roll_back((version, adapter, folded), now, rng) {
            return Ok(Err(refused(&error)));
        }
        self.persist()?;
        tracing::info!(task = %self.task().id(), version, "an operator rolled the task back");
        Ok(Ok(self.task().status()))
    }

    /// The trained parameters of a version, and what the epochs before it left.
    fn parameters(&self, version: u32) -> Result<(Vec<f32>, Option<Vec<f32>>), DriverError> {
        let known = self.task().record().versions.iter().find(|known| known.version == version);
        let (adapter, folded) = match known {
            Some(known) => (known.adapter, known.folded),
            None => (self.header().initial, None),
        };
        let vector = |what, digest: Digest| {
            let malformed = RecordError::Malformed { what, of: self.task().id().to_string() };
            vector_from_bytes(&self.artifacts().get(&digest.0)?).ok_or(malformed)
        };
        let folded = folded.map(|digest| vector("folded change", digest)).transpose()?;
        Ok((vector("adapter", adapter)?, folded))
    }
}

fn refused(error: &RollBackError) -> Rejection {
    Rejection::Unacceptable { request: "roll back".into(), why: error.to_string() }
}
