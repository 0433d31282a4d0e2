//! What an operator asks of the tasks beyond their status, and the way back to an earlier version.

use proto::admin::{Candidates, DeviceTask, TaskStatus};
use proto::ids::{DeviceId, Digest, TaskId, Timestamp};
use proto::message::Rejection;
use proto::plan::vector_from_bytes;
use rand_core::CryptoRng;
use task::Task;

use super::{Answer, State};
use crate::driver::DriverError;
use crate::records::RecordError;

impl State {
    pub(in crate::driver) fn candidates(&self, task: TaskId, enrolled: &[DeviceId]) -> Option<Candidates> {
        self.index(task).map(|index| self.tasks[index].task.candidates(enrolled))
    }

    /// How often each device was charged, over all tasks.
    pub(in crate::driver) fn participations(&self, devices: &[DeviceId]) -> Vec<u32> {
        let of = |device: &DeviceId| {
            let charged = self.tasks.iter().map(|entry| entry.task.spent_by(*device).0);
            charged.fold(0, u32::saturating_add)
        };
        devices.iter().map(of).collect()
    }

    /// The tasks in which a device was charged, is shut out, or that it declined.
    pub(in crate::driver) fn tasks_of(&self, device: DeviceId) -> Vec<DeviceTask> {
        let of = |task: &Task| {
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
        };
        let tasks = self.tasks.iter().map(|entry| of(&entry.task));
        tasks.filter(|task| task.participations > 0 || task.excluded || task.declined.is_some()).collect()
    }

    /// Gives a task's next version the parameters of an earlier one.
    pub(in crate::driver) fn roll_back(
        &mut self,
        task: TaskId,
        version: u32,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Answer<TaskStatus> {
        let Some(index) = self.index(task) else { return Ok(Err(Rejection::UnknownTask)) };
        if let Err(error) = self.tasks[index].task.may_roll_back(version) {
            return Ok(Err(refused(&error)));
        }
        let (adapter, folded) = self.parameters(index, version)?;
        if let Err(error) = self.tasks[index].task.roll_back((version, adapter, folded), now, rng) {
            return Ok(Err(refused(&error)));
        }
        self.persist(index)?;
        tracing::info!(%task, version, "an operator rolled the task back");
        Ok(Ok(self.tasks[index].task.status()))
    }

    /// The trained parameters of a version, and what the epochs before it left.
    fn parameters(&self, index: usize, version: u32) -> Result<(Vec<f32>, Option<Vec<f32>>), DriverError> {
        let entry = &self.tasks[index];
        let known = entry.task.record().versions.iter().find(|known| known.version == version);
        let (adapter, folded) = match known {
            Some(known) => (known.adapter, known.folded),
            None => (entry.header.initial, None),
        };
        let vector = |what, digest: Digest| {
            let malformed = RecordError::Malformed { what, of: entry.task.id().to_string() };
            vector_from_bytes(&self.artifacts.get(&digest.0)?).ok_or(malformed)
        };
        let folded = folded.map(|digest| vector("folded change", digest)).transpose()?;
        Ok((vector("adapter", adapter)?, folded))
    }
}

fn refused(error: &task::RollBackError) -> Rejection {
    Rejection::Unacceptable { request: "roll back".into(), why: error.to_string() }
}
