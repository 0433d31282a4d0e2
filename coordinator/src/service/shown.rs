//! What operators are shown: tasks with who may take part in them, devices with what they have spent.

use std::sync::Arc;

use proto::admin::{AdminReply, DeviceDetail, DeviceQuery, DeviceStatus, TaskStatus};
use proto::ids::{DeviceId, TaskId};
use proto::message::Rejection;

use super::{AdminService, apart};
use crate::driver;

impl AdminService {
    /// A task, and who may take part in it.
    pub(crate) async fn task(&self, task: TaskId) -> Result<TaskStatus, Rejection> {
        let mut status = self.driver.show(task).await?;
        let mut candidates = self.driver.candidates(task).await?;
        candidates.last_call_unix_secs = self.registry.seen.newest_unix_secs();
        candidates.trouble = self.trouble().await?.map(|(why, _)| why).unwrap_or_default();
        status.candidates = Some(candidates);
        Ok(status)
    }

    /// The devices that a query wants.
    pub(super) async fn devices(&self, query: DeviceQuery) -> Result<AdminReply, Rejection> {
        let (devices, more) = Arc::clone(&self.registry).listed(query, driver::now()).await?;
        let ids: Vec<DeviceId> = devices.iter().map(|device| device.device).collect();
        let participations = self.driver.participations(ids).await?;
        let with = |(device, participations)| DeviceStatus { participations, ..device };
        Ok(AdminReply::Devices { devices: devices.into_iter().zip(participations).map(with).collect(), more })
    }

    /// A device, and what it has spent.
    pub(super) async fn device(&self, device: DeviceId) -> Result<DeviceDetail, Rejection> {
        let status = Arc::clone(&self.registry).one(device).await?;
        let tasks = self.driver.tasks_of(device).await?;
        let participations = tasks.iter().fold(0_u32, |sum, task| sum.saturating_add(task.participations));
        let attested = Arc::clone(&self.registry).attested_by(device).await?;
        Ok(DeviceDetail { status: DeviceStatus { participations, ..status }, tasks, attested })
    }

    /// Why the coordinator writes nothing now, and for how many seconds; none while it does.
    pub(super) async fn trouble(&self) -> Result<Option<(String, u64)>, Rejection> {
        let store = self.registry.store.clone();
        // Nothing may have been written since the disk became full.
        let full = apart(move || store.check_room().err().map(|error| (error.to_string(), 0))).await?;
        Ok(self.driver.trouble().or(full))
    }
}
