//! Memory of products that is used again by the next ones.

use std::cell::RefCell;

#[cfg(target_arch = "x86_64")]
use super::packed;

/// Memory of products that is used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(super) weights: Vec<f32>,
    /// Rows times the first factors of pairs, side by side.
    #[cfg(target_arch = "x86_64")]
    pub(super) inner: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pub(super) lefts: Vec<packed::Left>,
}

/// What each thread packs weights into, used again by its next product.
#[derive(Debug, Default)]
pub(super) struct ThreadScratch {
    pub(super) panel: Vec<f32>,
    /// Rows before they are packed.
    #[cfg(target_arch = "x86_64")]
    pub(super) made: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pub(super) right: packed::Right,
    /// Of what goes beside a product.
    #[cfg(target_arch = "x86_64")]
    pub(super) beside: Vec<packed::Right>,
    /// Of the part of a result that is being made.
    #[cfg(target_arch = "x86_64")]
    pub(super) sums: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pub(super) lines: packed::Lines,
}

thread_local! {
    pub(super) static THREAD_SCRATCH: RefCell<ThreadScratch> = RefCell::default();
}
