//! LM head and cross-entropy, fused: the logits of only one chunk of rows exist at a time.

use candle_core::{DType, Result, Tensor};

use super::Decoder;
use crate::backend::candle::weights::{matmul_backward, product};
use crate::layers::cross_entropy::LOGITS;
use crate::model::batch::Sequence;

/// A GPU's limit on logits, in multiples of [`LOGITS`].
const GPU: usize = 8;

impl Decoder<'_> {
    /// The summed loss `−log softmax(norm(x) · Wᵀ)[next]` of the target tokens, `x`: (rows, hidden). Given a
    /// share, also its gradient times the share: `(softmax − one-hot) · W`, back through the norm; `None` if
    /// there is no target token.
    pub(super) fn loss_of(
        &self,
        x: &Tensor,
        batch: &[Sequence<'_>],
        share: Option<f32>,
    ) -> Result<(f64, Option<Tensor>)> {
        let device = &self.loaded.device;
        let (rows, next) = targets(batch);
        let all = x.dim(0)?;
        if rows.is_empty() {
            return Ok((0.0, None));
        }
        let picked = x.index_select(&Tensor::from_slice(&rows, rows.len(), device)?, 0)?;
        let norm = self.norm(&self.loaded.norm);
        let h = norm.forward(&picked)?;
        let count = rows.len();
        let next = Tensor::from_vec(next, count, device)?;
        let most = if device.is_cpu() { LOGITS } else { GPU * LOGITS };
        // Chunks of nearly one size: a last chunk of a few rows would still read all of the LM head.
        let chunks = count.div_ceil((most / self.config.vocab_size).max(1));
        let chunk = count.div_ceil(chunks);
        let (mut losses, mut gradients) = (Vec::new(), Vec::new());
        for first in (0..count).step_by(chunk) {
            let len = chunk.min(count - first);
            let part = (h.narrow(0, first, len)?, next.narrow(0, first, len)?);
            let (loss, gradient) = self.chunk(&part.0, &part.1, share)?;
            losses.push(loss);
            gradients.extend(gradient);
        }
        let losses: Vec<f32> = Tensor::cat(&losses, 0)?.to_vec1()?;
        let total = losses.into_iter().map(f64::from).sum();
        if gradients.is_empty() {
            return Ok((total, None));
        }
        let backward = norm.backward(&picked, &Tensor::cat(&gradients, 0)?)?;
        // Gathered, not scattered: rows without a target take an appended row of zeros. Nothing is summed, so
        // bits do not depend on an order.
        let mut from = vec![u32::try_from(count).map_err(candle_core::Error::wrap)?; all];
        for (at, row) in (0..).zip(&rows) {
            from[*row as usize] = at;
        }
        let backward = backward.pad_with_zeros(0, 0, 1)?;
        Ok((total, Some(backward.index_select(&Tensor::from_vec(from, all, device)?, 0)?)))
    }

    /// Each row's loss, and with a share the gradient of `h`.
    fn chunk(&self, h: &Tensor, next: &Tensor, share: Option<f32>) -> Result<(Tensor, Option<Tensor>)> {
        let head = self.loaded.head();
        let logits = product(h, head)?;
        let logits = logits.broadcast_sub(&logits.max_keepdim(1)?)?;
        let chosen = logits.gather(&next.unsqueeze(1)?.contiguous()?, 1)?;
        let p = logits.exp()?;
        let total = p.sum_keepdim(1)?;
        let loss = (total.log()? - chosen)?.flatten_all()?;
        let Some(share) = share.map(f64::from) else { return Ok((loss, None)) };
        let p = p.broadcast_mul(&(total.recip()? * share)?)?;
        let right = (head.index_select(next, 0)?.to_dtype(DType::F32)? * share)?;
        Ok((loss, Some((matmul_backward(&p, head)? - right)?)))
    }
}

/// Indices of the rows whose next token is a target, and those tokens.
fn targets(batch: &[Sequence<'_>]) -> (Vec<u32>, Vec<u32>) {
    let (mut rows, mut next) = (Vec::new(), Vec::new());
    let mut row = 0;
    for sequence in batch {
        for (at, token) in sequence.tokens.iter().enumerate() {
            if at > 0 && sequence.learned.get(at) == Some(&true) {
                rows.push(row - 1);
                next.push(*token);
            }
            row += 1;
        }
    }
    (rows, next)
}
