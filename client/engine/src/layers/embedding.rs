//! The residual stream: where it begins, and what is added to it.

use crate::kernels::error::{Result, bail};
use crate::kernels::matrix::Matrix;

/// The rows of `weight`: (vocab, hidden) of these tokens: (tokens, hidden).
pub(crate) fn embed(weight: &Matrix, tokens: &[u32], x: &mut [f32]) -> Result<()> {
    for (row, &token) in x.chunks_exact_mut(weight.columns()).zip(tokens) {
        let at = usize::try_from(token).unwrap_or(usize::MAX);
        if at >= weight.rows() {
            bail!("token {token} is not below {}", weight.rows());
        }
        weight.widen(at..at + 1, row)?;
    }
    Ok(())
}

/// Adds the gradient of the embedding's rows to `dw`.
pub(crate) fn embed_backward(tokens: &[u32], dx: &[f32], hidden: usize, dw: &mut [f32]) {
    for (dx, &token) in dx.chunks_exact(hidden).zip(tokens) {
        let at = usize::try_from(token).unwrap_or(usize::MAX);
        if let Some(dw) = dw.chunks_exact_mut(hidden).nth(at) {
            dw.iter_mut().zip(dx).for_each(|(dw, dx)| *dw += dx);
        }
    }
}
