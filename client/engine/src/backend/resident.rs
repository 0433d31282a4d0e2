//! A base's weights on a candle device.

use std::sync::{Arc, OnceLock};

use crate::backend::candle::Loaded;
use crate::backend::compute::Compute;
use crate::backend::device::{Backend, DeviceError};
use crate::base::Base;

/// A base's weights on a candle device, loaded when they are first needed; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resident(Arc<OnceLock<Loaded>>);

impl Resident {
    /// The loaded weights, which are loaded on the first call; `None` with our own kernels.
    ///
    /// Fails if the device cannot be opened, or the base does not fit it. A failure is not remembered: a GPU
    /// that is full now may have room in the next training window.
    pub(crate) fn get(&self, base: &Base, compute: Compute) -> Result<Option<&Loaded>, DeviceError> {
        let Backend::Candle(device) = compute.backend else { return Ok(None) };
        if let Some(loaded) = self.0.get() {
            return Ok(Some(loaded));
        }
        let loaded = Loaded::new(base, device, compute.precision)?;
        Ok(Some(self.0.get_or_init(|| loaded)))
    }
}
