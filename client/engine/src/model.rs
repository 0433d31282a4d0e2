//! The decoder: its shape, its weights, what an adapter adds to it, and the passes over it, forward and backward.

pub(crate) mod batch;
pub mod blocks;
pub(crate) mod compute;
pub mod config;
pub(crate) mod decoder;
pub(crate) mod delta;
pub(crate) mod gradient_target;
pub(crate) mod kv_cache;
pub(crate) mod micro_batch;
pub(crate) mod projection;
pub(crate) mod sample;
pub(crate) mod saved;
pub(crate) mod weights;
pub(crate) mod workspace;
