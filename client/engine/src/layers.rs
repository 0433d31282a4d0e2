//! The layers of a decoder other than its linear projections, one a file, forward and backward, on slices of f32.
//!
//! Functions that take a [`Team`](crate::kernels::pool::Team) share their rows or heads among its threads; the others
//! run on the calling thread. Start with [`rms_norm`], the simplest; [`attention`] and [`cross_entropy`] have matrix
//! products of their own.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined into `vectorized` is not compiled for the CPU's vector instructions"
)]

pub(crate) mod attention;
pub(crate) mod cross_entropy;
pub(crate) mod embedding;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod swiglu;
#[cfg(test)]
mod tests;
