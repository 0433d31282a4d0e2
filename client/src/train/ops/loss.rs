//! The output layer and the cross-entropy in one: no more logits exist at a time than one chunk of rows.

use candle_core::{Result, bail};

use super::{exp_all, most, vectorised};
use crate::train::gemm::gemm;
use crate::train::product::{Add, Arithmetic, Scratch, Weight, backward, forward};
use crate::train::team::Team;
use crate::train::view::{View, ViewMut};

/// Most logits that exist at a time: 48 MiB.
pub(crate) const LOGITS: usize = 12 << 20;

/// What is computed along with the loss.
#[derive(Debug)]
pub(crate) enum Loss<'a> {
    /// Nothing else.
    Alone,
    /// The gradient of the rows, each row's times `share`.
    Rows {
        share: f32,
        /// Like the rows.
        dh: &'a mut [f32],
        /// The gradient of the output layer is added to it, where it is wanted: (vocab, hidden).
        dw: Option<&'a mut [f32]>,
    },
}

/// The sum of `−log softmax(h · Wᵀ)[next]` over all rows, `h`: (rows, hidden), `next`: (rows).
///
/// The gradient, (softmax − one-hot) · W, is made along with the loss, because it needs the same logits.
pub(crate) fn cross_entropy(
    team: Team,
    arithmetic: Arithmetic,
    (scratch, logits): (&mut Scratch, &mut Vec<f32>),
    weight: Weight<'_>,
    (h, next): (&[f32], &[u32]),
    mut loss: Loss<'_>,
) -> Result<f64> {
    let (vocab, hidden) = (weight.matrix.rows(), weight.matrix.columns());
    if let Some(next) = next.iter().find(|next| usize::try_from(**next).map_or(true, |next| next >= vocab)) {
        bail!("token {next} is not below {vocab}");
    }
    // Chunks of nearly one size, so that the last is not a few rows for all the output layer's weights.
    let chunks = next.len().div_ceil((LOGITS / vocab).max(1)).max(1);
    let chunk = next.len().div_ceil(chunks).max(1);
    logits.resize(logits.len().max(chunk * vocab), 0.0);
    let mut total = 0.0;
    for first in (0..next.len()).step_by(chunk) {
        let rows = first..(first + chunk).min(next.len());
        let part = View::whole(h, hidden).rows(rows.clone());
        let logits = &mut logits[..rows.len() * vocab];
        forward(
            team,
            arithmetic,
            scratch,
            part,
            vec![(weight, ViewMut::whole(logits, vocab))],
            Add::ToNothing,
        )?;
        let mut losses = vec![(0.0f32, 0.0f32); rows.len()];
        let parts = logits.chunks_exact_mut(vocab).zip(losses.iter_mut().zip(&next[rows.clone()])).collect();
        team.each(parts, |(row, (loss, next)): (&mut [f32], (&mut (f32, f32), &u32))| {
            *loss = row_loss(row, *next);
        });
        total += losses.iter().map(|(loss, _)| f64::from(*loss)).sum::<f64>();
        if let Loss::Rows { share, dh, dw } = &mut loss {
            let dh = &mut dh[rows.start * hidden..rows.end * hidden];
            let gradients = View::whole(logits, vocab);
            backward(
                team,
                arithmetic,
                scratch,
                &[(gradients, weight)],
                ViewMut::whole(dh, hidden),
                Add::ToNothing,
            )?;
            // What all of a row is divided by is left to the last, where rows are shorter.
            let factors = losses.iter().map(|(_, total)| *share / total);
            for (row, factor) in dh.chunks_exact_mut(hidden).zip(factors.clone()) {
                for x in row {
                    *x *= factor;
                }
            }
            if let Some(dw) = dw {
                let mut part = h[rows.start * hidden..rows.end * hidden].to_vec();
                for (row, factor) in part.chunks_exact_mut(hidden).zip(factors) {
                    for x in row {
                        *x *= factor;
                    }
                }
                gemm(1.0, gradients.t(), View::whole(&part, hidden), 1.0, ViewMut::whole(dw, hidden))?;
            }
        }
    }
    Ok(total)
}

vectorised! {
/// The loss of one row of logits, which become `total · (softmax − one-hot)`, and `total`.
fn row_loss(row: &mut [f32], next: u32) -> (f32, f32) {
    let next = next as usize; // Below the row's length, which was checked.
    let most = most(row);
    let chosen = row[next] - most;
    let total = exp_all(row, most);
    row[next] -= total;
    (total.ln() - chosen, total)
}
}
