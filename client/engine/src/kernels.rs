//! Slices in, slices out: products and sums of numbers, with the vector instructions that the CPU has.
//!
//! All unsafe code of the engine and all detection of the CPU are here. Nothing here knows of a decoder.

pub(crate) mod buffer;
pub(crate) mod error;
pub(crate) mod gemm;
pub(crate) mod instructions;
pub(crate) mod matmul;
pub(crate) mod matrix;
pub(crate) mod pool;
pub(crate) mod quantized;
pub(crate) mod simd;
pub(crate) mod view;

/// Rounds to the nearest f32.
#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
pub(crate) fn narrow(x: f64) -> f32 {
    x as f32
}
