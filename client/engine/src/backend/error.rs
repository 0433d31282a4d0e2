//! Why a forward or backward pass failed.

use crate::backend::device::DeviceError;
use crate::kernels::error::ShapeError;

/// Why a forward or backward pass failed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// Shapes that do not fit one another, or values that cannot be computed with.
    #[error("tensor computation failed: {0}")]
    Shape(#[from] ShapeError),
    /// The device cannot be used, or the base does not fit it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// candle failed.
    #[cfg(feature = "candle")]
    #[error("tensor computation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}
