//! A base on a device of candle's.

use std::sync::{Arc, OnceLock};

use crate::backend::candle::Loaded;
use crate::backend::compute::Compute;
use crate::backend::device::{Backend, DeviceError};
use crate::base::Base;

/// The base on a device of candle's, put there when it is first needed; those made of one share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resident(Arc<OnceLock<Loaded>>);

impl Resident {
    /// The base where it is computed; none where our own kernels compute.
    ///
    /// Fails where the device cannot be opened, or the base does not fit it. That is not kept: a GPU that is full now
    /// may have room in the next window.
    pub(crate) fn get(&self, base: &Base, compute: Compute) -> Result<Option<&Loaded>, DeviceError> {
        let Backend::Candle(device) = compute.backend else { return Ok(None) };
        if let Some(loaded) = self.0.get() {
            return Ok(Some(loaded));
        }
        let loaded = Loaded::new(base, device, compute.precision)?;
        Ok(Some(self.0.get_or_init(|| loaded)))
    }
}
