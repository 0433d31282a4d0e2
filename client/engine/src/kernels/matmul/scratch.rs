//! Scratch buffers of matrix products, reused by the next ones.

use std::cell::RefCell;

#[cfg(target_arch = "x86_64")]
use super::packed;

/// Scratch buffers that all threads of a product share.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Dequantized rows of a weight.
    pub(super) weights: Vec<f32>,
    /// `scale · A · xᵀ` (forward) or `scale · Bᵀ · dyᵀ` (backward) of one low-rank pair: (rank, rows).
    #[cfg(target_arch = "x86_64")]
    pub(super) inner: Vec<f32>,
    /// Packed rows of the product, then those of its low-rank updates.
    #[cfg(target_arch = "x86_64")]
    pub(super) lefts: Vec<packed::Left>,
}

/// Scratch buffers of one thread.
#[derive(Debug, Default)]
pub(super) struct ThreadScratch {
    /// A dequantized panel of weights.
    pub(super) panel: Vec<f32>,
    /// Lazily computed rows before they are packed.
    #[cfg(target_arch = "x86_64")]
    pub(super) made: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pub(super) right: packed::Right,
    /// Packed right factors of the low-rank updates.
    #[cfg(target_arch = "x86_64")]
    pub(super) beside: Vec<packed::Right>,
    /// Accumulators of the column panel that is being computed.
    #[cfg(target_arch = "x86_64")]
    pub(super) sums: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pub(super) lines: packed::Lines,
}

thread_local! {
    pub(super) static THREAD_SCRATCH: RefCell<ThreadScratch> = RefCell::default();
}
