//! Matrix products with frozen weights: forward `y = x · Wᵀ`, backward `dx = dy · W`.
//!
//! `x`: (rows, inputs), `W`: (outputs, inputs), `y`: (rows, outputs). Start with [`forward`] and [`backward`]; large
//! products go to `tiled`, the packed GEMM, others to `plain`.
//!
//! Weights are dequantized and packed a panel at a time, so a base stays in memory in the type of its file. For batches
//! of a few hundred rows packing costs a few percent of the product.
//!
//! The packed path computes an adapter's low-rank update as a product of its own in f32, `y += s · (x · Aᵀ) · Bᵀ`, so
//! that the frozen weights are rounded alike in every step. The plain path, which rounds nothing to integers, adds
//! `s · B · A` to the f32 panel.

#[cfg(target_arch = "x86_64")]
mod packed;
mod plain;
mod precision;
mod rows;
mod scratch;
mod small;
#[cfg(test)]
mod tests;
pub(crate) mod thin;
#[cfg(target_arch = "x86_64")]
mod tiled;
mod weight;

use crate::kernels::error::{Result, bail};
use crate::kernels::matrix::Matrix;
use crate::kernels::pool::Team;
use plain::{backward_plain, forward_plain};
pub use precision::Precision;
pub(crate) use rows::{LazyRows, Make, Rows, TILE_ROWS, in_shares};
pub(crate) use scratch::Scratch;
pub(crate) use small::small;
pub(crate) use weight::{Accumulate, Destination, LowRank, Weight};

/// `y = x · Wᵀ`, or `y += x · Wᵀ`, for every weight and its `y`; fails if the shapes do not match, or if a weight to be
/// quantized is not finite.
///
/// `x`: (rows, inputs), `y`: (rows, outputs).
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "tiles are of that CPU"))]
pub(crate) fn forward<'a>(
    team: Team,
    precision: Precision,
    scratch: &mut Scratch,
    x: impl Into<Rows<'a>>,
    products: Vec<(Weight<'_>, Destination<'_>)>,
) -> Result<()> {
    let x = x.into();
    let fit = |(weight, y): &(Weight<'_>, Destination<'_>)| {
        let (rows, columns) = (weight.matrix.rows(), weight.matrix.columns());
        x.widths() == [columns] && (y.out.rows(), y.out.columns()) == (x.count(), rows)
    };
    if let Some((weight, y)) = products.iter().find(|product| !fit(product)) {
        bail!("cannot make {} × {} of {x:?} and {:?}", y.out.rows(), y.out.columns(), weight.matrix);
    }
    #[cfg(target_arch = "x86_64")]
    if tiled::fits(precision, &x) {
        return tiled::forward(team, precision, scratch, x, products);
    }
    match x.in_memory(team)[..] {
        [x] => forward_plain(team, x, products),
        ref xs => bail!("{} matrices instead of one to be multiplied", xs.len()),
    }
}

/// `dx = Σ dy · W` over all weights, or `dx += Σ dy · W`; fails as [`forward`] does.
///
/// `dys`: (rows, outputs) of each weight, `dx`: (rows, inputs).
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "tiles are of that CPU"))]
pub(crate) fn backward<'a>(
    team: Team,
    precision: Precision,
    scratch: &mut Scratch,
    dys: impl Into<Rows<'a>>,
    weights: &[Weight<'_>],
    mut dx: Destination<'_>,
) -> Result<()> {
    let dys = dys.into();
    let matrices = weights.iter().map(|weight| weight.matrix);
    if !matrices.clone().map(Matrix::rows).eq(dys.widths())
        || matrices.clone().any(|matrix| matrix.columns() != dx.out.columns())
        || dys.count() != dx.out.rows()
    {
        let matrices: Vec<_> = matrices.collect();
        bail!("cannot make {} × {} of {dys:?} and {matrices:?}", dx.out.rows(), dx.out.columns());
    }
    #[cfg(target_arch = "x86_64")]
    if tiled::fits(precision, &dys) {
        return tiled::backward(team, precision, scratch, dys, weights, dx);
    }
    for (dy, weight) in dys.in_memory(team).into_iter().zip(weights) {
        backward_plain(team, scratch, dy, *weight, dx.borrow())?;
        dx.accumulate = Accumulate::Add;
    }
    Ok(())
}
