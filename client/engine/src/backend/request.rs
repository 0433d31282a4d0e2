//! Which backend a request becomes on this machine.

use crate::backend::candle;
use crate::backend::device::{Backend, CandleDevice, DeviceError, DeviceRequest};

impl DeviceRequest {
    /// The backend to use; a candle device is opened once to check that it is there. Fails if a requested
    /// device was not built for or cannot be opened; [`Self::Auto`] never fails.
    pub fn resolve(self) -> Result<Backend, DeviceError> {
        match self {
            Self::Auto => {
                let opens = |device: &CandleDevice| candle::check(*device).is_ok();
                let found = [CandleDevice::Cuda(0), CandleDevice::Metal(0)].into_iter().find(opens);
                Ok(found.map_or(Backend::Cpu, Backend::Candle))
            }
            Self::At(Backend::Cpu) => Ok(Backend::Cpu),
            Self::At(backend @ Backend::Candle(device)) => candle::check(device).map(|()| backend),
        }
    }
}
