//! RMSNorm, `y = w ∘ x / sqrt(mean(x²) + ε)`, row by row (Zhang and Sennrich 2019, arXiv 1910.07467).
//!
//! `x` and `y`: (rows, hidden), `w`: (hidden). Start with [`RmsNorm::forward`].

use crate::kernels::pool::Team;
use crate::kernels::simd::{sum, vectorized};

/// An RMSNorm of rows (weight: (hidden)), or of every head of every row (weight: (head width)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RmsNorm<'a> {
    pub(crate) weight: &'a [f32],
    /// ε.
    pub(crate) eps: f32,
}

impl RmsNorm<'_> {
    #[inline(always)]
    fn inverse(&self, row: &[f32]) -> f32 {
        1.0 / (sum([row], |[x]| x * x) / row.len() as f32 + self.eps).sqrt()
    }

    #[inline(always)]
    fn row(&self, x: &[f32], y: &mut [f32]) {
        let inverse = self.inverse(x);
        for (y, (x, w)) in y.iter_mut().zip(x.iter().zip(self.weight)) {
            *y = x * inverse * w;
        }
    }

    /// With `i = 1 / rms` and `g = dy · w`: `dx += i · (g − x · i² · mean(g · x))`.
    #[inline(always)]
    fn row_backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let (w, inverse) = (self.weight, self.inverse(x));
        let len = x.len().min(dy.len()).min(w.len());
        let (x, dy, w) = (&x[..len], &dy[..len], &w[..len]);
        let mean = sum([dy, w, x], |[dy, w, x]| dy * w * x) / len as f32;
        let pull = inverse * inverse * mean;
        for (dx, (x, (dy, w))) in dx.iter_mut().zip(x.iter().zip(dy.iter().zip(w))) {
            *dx += inverse * (dy * w - x * pull);
        }
    }

    /// The forward pass on the calling thread; `y`: like `x`.
    pub(crate) fn some(&self, x: &[f32], y: &mut [f32]) {
        rows(self, x, y);
    }

    /// Accumulates the gradient of `x` in `dx`, on the calling thread.
    pub(crate) fn rows_backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        rows_backward(self, x, dy, dx);
    }

    /// The forward pass; `y`: like `x`.
    pub(crate) fn forward(&self, team: Team, x: &[f32], y: &mut [f32]) {
        let hidden = self.weight.len();
        let share = team.rows(x.len() / hidden, hidden) * hidden;
        let parts = y.chunks_mut(share).zip(x.chunks(share)).collect();
        team.each(parts, |(y, x): (&mut [f32], &[f32])| rows(self, x, y));
    }

    /// Accumulates the gradient of `x` in `dx`.
    pub(crate) fn backward(&self, team: Team, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let hidden = self.weight.len();
        let share = team.rows(x.len() / hidden, hidden) * hidden;
        let parts = dx.chunks_mut(share).zip(x.chunks(share).zip(dy.chunks(share))).collect();
        team.each(parts, |(dx, (x, dy)): (&mut [f32], (&[f32], &[f32]))| {
            rows_backward(self, x, dy, dx);
        });
    }

    /// Accumulates the gradient of `w`, `Σ dy ∘ x / rms` over all rows, in `dw`.
    pub(crate) fn weight_backward(&self, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let hidden = self.weight.len();
        for (x, dy) in x.chunks_exact(hidden).zip(dy.chunks_exact(hidden)) {
            let inverse = self.inverse(x);
            for (dw, (x, dy)) in dw.iter_mut().zip(x.iter().zip(dy)) {
                *dw += dy * x * inverse;
            }
        }
    }
}

vectorized! {
    fn rows(norm: &RmsNorm<'_>, x: &[f32], y: &mut [f32]) {
        let hidden = norm.weight.len();
        for (y, x) in y.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden)) {
            norm.row(x, y);
        }
    }
}

vectorized! {
    fn rows_backward(norm: &RmsNorm<'_>, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let hidden = norm.weight.len();
        let rows = x.chunks_exact(hidden).zip(dy.chunks_exact(hidden));
        for (dx, (x, dy)) in dx.chunks_exact_mut(hidden).zip(rows) {
            norm.row_backward(x, dy, dx);
        }
    }
}
