//! The decoder's operations, each with its gradient written out and checked against finite differences.
//!
//! All work on contiguous f32, on the calling thread of the CPU. Matrix products go through `gemm`; everything
//! between two products is one pass over memory.

mod attention;
mod gemm;
mod linear;
mod loss;
mod norm;
mod stream;
mod swiglu;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

pub(crate) use attention::{Attention, Rope};
pub(crate) use linear::{Linear, LoraLinear};
pub(crate) use loss::CrossEntropy;
pub(crate) use norm::RmsNorm;
pub(crate) use stream::{Add, Embedding, total};
pub(crate) use swiglu::SwiGlu;

/// The numbers of a contiguous argument of a forward pass.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<f32>()?[from..to]),
        None => bail!("an operation of the decoder needs contiguous numbers, found {layout:?}"),
    }
}

/// Runs `f` on the numbers of a contiguous tensor.
fn read<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(slice(storage, layout)?),
        Storage::Cuda(_) | Storage::Metal(_) => bail!("the decoder's operations run on the CPU"),
    }
}

/// `e^x` within two units in the last place for |x| ≤ 87, without branches, so that loops of it become vector code.
///
/// `e^x = 2^n · e^r` with `n = round(x / ln 2)`; `e^r` is a Taylor polynomial on |r| ≤ ln 2 / 2.
#[inline]
fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first exact in few bits (Cody and Waite).
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.388_888_9e-3 + r * 1.984_127e-4;
    let p = 8.333_334e-3 + r * p;
    let p = 4.166_666_8e-2 + r * p;
    let p = 1.666_666_7e-1 + r * p;
    let p = 0.5 + r * p;
    let p = 1.0 + r * (1.0 + r * p);
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[inline]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum in eight lanes, so that it becomes vector code and has one order everywhere.
#[inline]
fn sum(values: impl Fn(usize) -> f32, len: usize) -> f32 {
    let mut lanes = [0.0f32; 8];
    let full = len / 8 * 8;
    for at in (0..full).step_by(8) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += values(at + lane);
        }
    }
    let rest: f32 = (full..len).map(&values).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The largest number, in eight lanes for the same reason.
#[inline]
fn most(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let (full, rest) = values.as_chunks::<8>();
    for eight in full {
        for (lane, x) in lanes.iter_mut().zip(eight) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, x| most.max(*x))
}

#[cfg(test)]
mod tests;
