//! The output layer fused with the cross-entropy loss, so that only the logits of one chunk of rows are in memory.
//!
//! `loss = Σ −log softmax(h · Wᵀ)[next]`, `dh = share · (softmax − one-hot) · W`, `dW = share · (softmax − one-hot)ᵀ ·
//! h`; `h`: (rows, hidden), `W`: (vocab, hidden), `next`: (rows). Start with [`cross_entropy()`].

use crate::kernels::buffer::at_least;
use crate::kernels::error::{Result, bail};
use crate::kernels::gemm::gemm;
use crate::kernels::matmul::{Destination, Precision, Scratch, Weight, backward, forward};
use crate::kernels::pool::Team;
use crate::kernels::simd::{exp, exp_all, most, sum, vectorized};
use crate::kernels::view::{View, ViewMut};

/// Most logits in memory at a time, unless one row has more: 48 MiB.
pub(crate) const LOGITS: usize = 12 << 20;

/// What is computed along with the loss.
#[derive(Debug)]
pub(crate) enum Loss<'a> {
    /// Nothing else.
    Alone,
    /// The gradient of the rows, scaled by `share`.
    Rows {
        share: f32,
        /// Overwritten with the gradient of `h`: (rows, hidden).
        dh: &'a mut [f32],
        /// Accumulates the gradient of the output layer, if wanted: (vocab, hidden).
        dw: Option<&'a mut [f32]>,
    },
}

/// The sum of `−log softmax(h · Wᵀ)[next]` over all rows; fails if a token of `next` is not in the vocabulary, or if a
/// weight to be quantized is not finite.
///
/// `h`: (rows, hidden), `next`: (rows). The gradient is computed along with the loss because it needs the same logits.
pub(crate) fn cross_entropy(
    team: Team,
    precision: Precision,
    (scratch, logits): (&mut Scratch, &mut Vec<f32>),
    weight: Weight<'_>,
    (h, next): (&[f32], &[u32]),
    mut loss: Loss<'_>,
) -> Result<f64> {
    let (vocab, hidden) = (weight.matrix.rows(), weight.matrix.columns());
    if let Some(next) = next.iter().find(|next| usize::try_from(**next).map_or(true, |next| next >= vocab)) {
        bail!("token {next} is not below {vocab}");
    }
    // Chunks of nearly equal size: a short last one would read all of the output layer's weights for a few rows.
    let chunks = next.len().div_ceil((LOGITS / vocab).max(1)).max(1);
    let chunk = next.len().div_ceil(chunks).max(1);
    // 8 bits are precise enough for the rest if the likely tokens are computed separately in f32, forward and backward.
    let bytes = match precision {
        Precision::F32 => precision,
        Precision::Int16 | Precision::Int8 => Precision::Int8.or_finer(),
    };
    let forward_precision = if matches!(loss, Loss::Rows { .. }) { bytes } else { precision.forward() };
    let mut total = 0.0;
    for first in (0..next.len()).step_by(chunk) {
        let rows = first..(first + chunk).min(next.len());
        let part = View::whole(h, hidden).rows(rows.clone());
        let logits = at_least(logits, rows.len() * vocab);
        forward(
            team,
            forward_precision,
            scratch,
            part,
            vec![(weight, Destination::overwrite(ViewMut::whole(logits, vocab)))],
        )?;
        let mut losses = vec![RowLoss::default(); rows.len()];
        let parts =
            logits.chunks_exact_mut(vocab).zip(losses.iter_mut().zip(&next[rows.clone()])).enumerate();
        let parts = parts.map(|(i, (row, (loss, next)))| (part.row(i), row, loss, *next as usize)).collect();
        let apart = matches!(loss, Loss::Rows { .. }) && precision != Precision::F32;
        team.try_each(parts, |(h, row, loss, next): (&[f32], &mut [f32], &mut RowLoss, usize)| {
            // In bounds: every next token was checked to be below `vocab`.
            let mut chosen = row[next];
            let (most, mut total) = exponentials(row);
            let likely = if apart { likely(row, next, total) } else { Vec::new() };
            if forward_precision == Precision::Int8 {
                let before = total;
                let mut weights = vec![0.0; hidden];
                for &token in &likely {
                    weight.widen(token, &mut weights)?;
                    let logit = sum([h, &weights], |[h, w]| h * w);
                    // `exp` clamps its argument, which must not hide an infinite logit.
                    let better = if (logit - most).is_finite() { exp(logit - most) } else { f32::NAN };
                    total += better - std::mem::replace(&mut row[token], better);
                    if token == next {
                        chosen = logit;
                    }
                }
                // If nearly all of the total was subtracted, the rest has lost its precision: sum again.
                if total < before / 16.0 {
                    total = sum([&*row], |[x]| x);
                }
            }
            row[next] -= total;
            let apart = likely.into_iter().map(|token| (token, std::mem::take(&mut row[token]))).collect();
            *loss = RowLoss { loss: total.ln() - (chosen - most), total, apart };
            Result::Ok(())
        })?;
        total += losses.iter().map(|row| f64::from(row.loss)).sum::<f64>();
        if let Loss::Rows { share, dh, dw } = &mut loss {
            let dh = &mut dh[rows.start * hidden..rows.end * hidden];
            let gradients = View::whole(logits, vocab);
            let into = Destination::overwrite(ViewMut::whole(dh, hidden));
            backward(team, bytes, scratch, gradients, &[weight], into)?;
            let parts = dh.chunks_exact_mut(hidden).zip(&losses).collect();
            team.try_each(parts, |(dh, row): (&mut [f32], &RowLoss)| {
                let mut weights = if row.apart.is_empty() { Vec::new() } else { vec![0.0; hidden] };
                for &(token, gradient) in &row.apart {
                    weight.matrix.widen(token..token + 1, &mut weights)?;
                    for (dh, w) in dh.iter_mut().zip(&weights) {
                        *dh += gradient * w;
                    }
                }
                // Divide by the softmax's denominator here, where a row has `hidden` elements and not `vocab`.
                for dh in dh {
                    *dh *= *share / row.total;
                }
                Result::Ok(())
            })?;
            if let Some(dw) = dw {
                let mut part = h[rows.start * hidden..rows.end * hidden].to_vec();
                for (part, row) in part.chunks_exact_mut(hidden).zip(&losses) {
                    for x in part {
                        *x *= *share / row.total;
                    }
                }
                for (logits, row) in logits.chunks_exact_mut(vocab).zip(&losses) {
                    row.apart.iter().for_each(|&(token, gradient)| logits[token] = gradient);
                }
                let gradients = View::whole(logits, vocab);
                gemm(1.0, gradients.t(), View::whole(&part, hidden), 1.0, ViewMut::whole(dw, hidden))?;
            }
        }
    }
    Ok(total)
}

/// The loss of one row; its logits are replaced with `total · (softmax − one-hot)`.
#[derive(Clone, Debug, Default)]
struct RowLoss {
    loss: f32,
    /// The softmax's denominator, `Σ exp(logit − largest logit)`.
    total: f32,
    /// The next token and those with large gradients, with these gradients, which are set to zero in the row.
    apart: Vec<(usize, f32)>,
}

/// Gradients above this fraction of the total are multiplied separately in f32: quantized in one block with them, the
/// others would be rounded to a few integers.
const LARGE: f32 = 1.0 / 256.0;

vectorized! {
    /// The tokens of a row of `total · softmax` with large gradients: `next`, then those more probable than [`LARGE`].
    fn likely(row: &[f32], next: usize, total: f32) -> Vec<usize> {
        const CHUNK: usize = 256;
        let mut tokens = vec![next];
        for (i, some) in row.chunks(CHUNK).enumerate() {
            if most(some) > LARGE * total {
                let of_all = some.iter().enumerate().map(|(j, x)| (i * CHUNK + j, *x));
                let large = of_all.filter(|(token, x)| *token != next && *x > LARGE * total);
                tokens.extend(large.map(|(token, _)| token));
            }
        }
        tokens
    }
}

vectorized! {
    /// Replaces logits with `total · softmax`; returns the largest logit and `total`.
    fn exponentials(row: &mut [f32]) -> (f32, f32) {
        let most = most(row);
        (most, exp_all(row, most))
    }
}
