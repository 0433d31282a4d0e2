//! RMSNorm: `y = w · x / sqrt(mean(x²) + ε)`, row by row, as in `layers::rms_norm`.

use candle_core::{D, Result, Tensor};

/// RMSNorm with the weight `w`: (row), for `x`: (…, row).
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm<'a> {
    pub(super) weight: &'a Tensor,
    /// ε.
    pub(super) eps: f64,
}

impl Norm<'_> {
    /// `1 / rms` of each row.
    fn inverse(&self, x: &Tensor) -> Result<Tensor> {
        (x.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?.recip()
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.broadcast_mul(&self.inverse(x)?)?.broadcast_mul(self.weight)
    }

    /// The gradient of `x`: with `i = 1 / rms` and `g = dy · w` it is `i · (g − x · i² · mean(g · x))`.
    pub(super) fn backward(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (inverse, g) = (self.inverse(x)?, dy.broadcast_mul(self.weight)?);
        let pull = (inverse.sqr()? * (&g * x)?.mean_keepdim(D::Minus1)?)?;
        (g - x.broadcast_mul(&pull)?)?.broadcast_mul(&inverse)
    }
}
