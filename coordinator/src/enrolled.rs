//! Who is enrolled, as it was counted last: whoever asks how many may take part reads no store for it.

use std::sync::{Arc, Mutex, PoisonError};

use proto::ids::DeviceId;

/// Who is enrolled, as it was counted last; it is counted again when a device was enrolled or revoked.
#[derive(Debug, Default)]
pub struct EnrolledDevices {
    counted: Mutex<Option<(u64, Arc<[DeviceId]>)>>,
}

impl EnrolledDevices {
    /// The devices after so many changes, counted by `count` where that has not been done since. Fails where it does.
    pub(crate) fn after<E>(
        &self,
        changes: u64,
        count: impl FnOnce() -> Result<Vec<DeviceId>, E>,
    ) -> Result<Arc<[DeviceId]>, E> {
        // What is in it is whole after each change.
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, devices)) = &*counted
            && *then == changes
        {
            return Ok(Arc::clone(devices));
        }
        let devices: Arc<[DeviceId]> = count()?.into();
        *counted = Some((changes, Arc::clone(&devices)));
        Ok(devices)
    }
}
