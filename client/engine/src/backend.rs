//! Where and in what precision passes are computed: on the CPU with our own kernels, or on a device of candle's.

#[cfg_attr(not(feature = "candle"), path = "backend/no_candle.rs")]
pub(crate) mod candle;
pub(crate) mod compute;
pub(crate) mod device;
pub(crate) mod error;
pub(crate) mod executor;
mod request;
pub(crate) mod resident;
pub(crate) mod setup;
