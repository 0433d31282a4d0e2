//! Products with weights that are dequantized to f32 a panel at a time: for every CPU, and for sizes too small to pack.

use crate::kernels::buffer::resized;
use crate::kernels::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::matmul::scratch::{Scratch, THREAD_SCRATCH, ThreadScratch};
use crate::kernels::matmul::weight::{Accumulate, Destination, Weight, widen_together};
use crate::kernels::pool::Team;
use crate::kernels::view::View;

/// Dequantized weights that one thread holds at a time, in elements.
const PANEL: usize = 1 << 16;
/// Dequantized weights that all threads share at a time, in elements.
pub(super) const SHARED: usize = 1 << 18;

/// Width of a column panel of the result: a multiple of the register tile, and few enough weights for a thread's cache.
///
/// Independent of the number of threads, because `gemm`'s order of summation may depend on the width.
fn width(depth: usize) -> usize {
    ((PANEL / depth.max(1)) / 48 * 48).clamp(48, 192)
}

/// As [`super::forward`] for rows in memory, in f32: each thread dequantizes the panels that it multiplies.
pub(super) fn forward_plain(
    team: Team,
    x: View<'_>,
    products: Vec<(Weight<'_>, Destination<'_>)>,
) -> Result<()> {
    let mut parts = Vec::new();
    for (weight, y) in products {
        let width = width(x.columns);
        for (i, y) in y.column_parts(width).enumerate() {
            parts.push((weight, i * width, y));
        }
    }
    team.try_each(parts, |(weight, first, Destination { out: y, accumulate })| {
        let rows = first..first + y.columns();
        if let Some(plain) = weight.plain() {
            return gemm(1.0, x, plain.rows(rows).t(), accumulate.beta(), y);
        }
        THREAD_SCRATCH.with_borrow_mut(|ThreadScratch { panel, .. }| {
            let panel = resized(panel, rows.len() * x.columns);
            weight.widen(first, panel)?;
            gemm(1.0, x, View::whole(panel, x.columns).t(), accumulate.beta(), y)
        })
    })
}

/// As [`super::backward`] for one weight, in f32: all threads dequantize some rows, then multiply by them.
pub(super) fn backward_plain(
    team: Team,
    scratch: &mut Scratch,
    dy: View<'_>,
    weight: Weight<'_>,
    mut dx: Destination<'_>,
) -> Result<()> {
    if let Some(plain) = weight.plain() {
        return columns_plain(team, dy, plain, dx);
    }
    let (rows, columns) = (weight.matrix.rows(), weight.matrix.columns());
    let height = (SHARED / columns).max(1);
    for from in (0..rows).step_by(height) {
        let here = from..(from + height).min(rows);
        let w = widen_together(team, &mut scratch.weights, weight, here.clone())?;
        columns_plain(team, dy.columns(here), w, dx.borrow())?;
        dx.accumulate = Accumulate::Add;
    }
    Ok(())
}

/// `dx = dy · w` or `dx += dy · w`, in column panels.
fn columns_plain(team: Team, dy: View<'_>, w: View<'_>, dx: Destination<'_>) -> Result<()> {
    let width = width(256);
    let parts = dx.column_parts(width).enumerate().collect();
    team.try_each(parts, |(i, Destination { out: dx, accumulate }): (usize, Destination<'_>)| {
        gemm(1.0, dy, w.columns(i * width..i * width + dx.columns()), accumulate.beta(), dx)
    })
}
