//! CPU kernels on slices of f32: matrix products and vectorized loops, for the instruction set of the CPU.
//!
//! All unsafe code and all CPU detection of the engine are here. Nothing here knows of a decoder. Start with
//! [`matmul`], the products with frozen weights; [`simd`] has the vectorized loops and [`pool`] the threads.

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
