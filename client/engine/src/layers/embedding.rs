//! Token embedding: `x = W[tokens]`, with `W`: (vocab, hidden), `tokens`: (tokens) and `x`: (tokens, hidden).

use crate::kernels::error::{Result, bail};
use crate::kernels::matrix::Matrix;

/// Writes the rows of `weight` of these tokens to `x`; fails if a token is not in the vocabulary.
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

/// Accumulates the gradient of the embedding in `dw`: (vocab, hidden), from `dx`: (tokens, hidden).
pub(crate) fn embed_backward(tokens: &[u32], dx: &[f32], hidden: usize, dw: &mut [f32]) {
    for (dx, &token) in dx.chunks_exact(hidden).zip(tokens) {
        let at = usize::try_from(token).unwrap_or(usize::MAX);
        if let Some(dw) = dw.chunks_exact_mut(hidden).nth(at) {
            dw.iter_mut().zip(dx).for_each(|(dw, dx)| *dw += dx);
        }
    }
}
