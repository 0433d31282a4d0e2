//! Backends that compute forward and backward passes: our own CPU kernels, or candle's tensors on a CPU or GPU.
//!
//! Start reading at `executor`, which runs passes on either; `compute` has the settings, `device` the choice of
//! a device.

#[cfg_attr(not(feature = "candle"), path = "backend/no_candle.rs")]
pub(crate) mod candle;
pub(crate) mod compute;
pub(crate) mod device;
pub(crate) mod error;
pub(crate) mod executor;
pub(crate) mod partial_step;
mod request;
pub(crate) mod resident;
pub(crate) mod setup;
