//! The decoder model: config, weights, LoRA deltas, forward and backward pass, saved activations and KV cache.
//!
//! Start reading at `decoder`, which computes the loss, its gradient and the logits.

pub(crate) mod batch;
pub mod blocks;
pub(crate) mod compute;
pub mod config;
pub(crate) mod decoder;
pub(crate) mod delta;
pub mod gemma;
pub(crate) mod gradient_target;
pub(crate) mod kv_cache;
pub(crate) mod micro_batch;
pub(crate) mod projection;
pub(crate) mod sample;
pub(crate) mod saved;
pub(crate) mod weights;
pub(crate) mod workspace;
