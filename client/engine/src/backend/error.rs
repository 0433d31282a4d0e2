//! Why a pass was not computed.

use crate::backend::device::DeviceError;
use crate::kernels::error::ShapeError;

/// Why a pass was not computed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// Shapes that do not fit, or numbers that cannot be computed with.
    #[error("tensor computation failed: {0}")]
    Shape(#[from] ShapeError),
    /// It cannot be computed on the device that it was to be.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// candle failed.
    #[cfg(feature = "candle")]
    #[error("tensor computation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}
