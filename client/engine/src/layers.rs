//! What a decoder does between two products, one layer a file, each forward and backward, on slices of f32.
//!
//! Every function is one pass over memory, shared by a [`Team`](crate::kernels::pool::Team).

#![expect(
    clippy::inline_always,
    reason = "what is not inlined into `vectorised` is not compiled for the CPU's vector instructions"
)]

pub(crate) mod attention;
pub(crate) mod cross_entropy;
pub(crate) mod embedding;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod swiglu;
#[cfg(test)]
mod tests;
