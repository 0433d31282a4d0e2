//! What operators ask of the tasks beyond their status.

use std::sync::atomic::Ordering;

use proto::admin::{Candidates, DeviceTask, TaskStatus};
use proto::ids::{DeviceId, TaskId};
use proto::message::Rejection;
use rand::rngs::SysRng;
use rand_core::UnwrapErr;

use super::{Driver, now};

impl Driver {
    /// How often a device was enrolled or revoked since the start.
    pub(crate) fn enrollments(&self) -> u64 {
        self.enrollments.load(Ordering::Acquire)
    }

    /// Who of the enrolled devices may take part in a task once more.
    pub async fn candidates(&self, task: TaskId, enrolled: &[DeviceId]) -> Result<Candidates, Rejection> {
        self.state.lock().await.candidates(task, enrolled).ok_or(Rejection::UnknownTask)
    }

    /// How often each device was charged, over all tasks.
    pub async fn participations(&self, devices: &[DeviceId]) -> Vec<u32> {
        self.state.lock().await.participations(devices)
    }

    /// The tasks in which a device was charged, is shut out, or that it declined.
    pub async fn tasks_of(&self, device: DeviceId) -> Vec<DeviceTask> {
        self.state.lock().await.tasks_of(device)
    }

    /// Gives a task's next version the parameters of an earlier one; durable when this returns.
    pub async fn roll_back(&self, task: TaskId, version: u32) -> Result<TaskStatus, Rejection> {
        self.step(move |state| state.roll_back(task, version, now(), &mut UnwrapErr(SysRng))).await
    }
}
