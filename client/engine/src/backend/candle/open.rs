//! Opening devices of candle's.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::Device;

use crate::backend::device::{CandleDevice, DeviceError};

/// Opens a device once to see that it is there.
pub(crate) fn check(device: CandleDevice) -> Result<(), DeviceError> {
    open(device).map(drop)
}

/// Opens a device; fails where the program was not built for it, or it is not there.
pub(super) fn open(device: CandleDevice) -> Result<Device, DeviceError> {
    let built = match device {
        CandleDevice::Cpu => return Ok(Device::Cpu),
        CandleDevice::Cuda(_) => cfg!(feature = "cuda"),
        CandleDevice::Metal(_) => cfg!(feature = "metal"),
    };
    if !built {
        return Err(DeviceError::NotBuilt { device, feature: device.feature() });
    }
    // candle panics where the machine has fewer Apple GPUs than the number asks for.
    let opened = catch_unwind(AssertUnwindSafe(|| match device {
        CandleDevice::Cpu => Ok(Device::Cpu),
        CandleDevice::Cuda(number) => Device::new_cuda(number),
        CandleDevice::Metal(number) => Device::new_metal(number),
    }));
    match opened {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(DeviceError::NotOpened { device, reason: error.to_string() }),
        Err(_) => Err(DeviceError::NotOpened { device, reason: "there is none".to_owned() }),
    }
}
