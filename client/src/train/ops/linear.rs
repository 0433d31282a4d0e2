//! `y = x · Wᵀ + bias`, and the same with `W + s · B · A` in the place of `W`.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::gemm::{Matrix, MatrixMut, gemm};
use super::{read, slice};

/// `x`: (rows, inputs), `w`: (outputs, inputs), result: (rows, outputs).
///
/// The gradient of `w` is computed only where `w` is tracked, that of `x` likewise.
pub(crate) struct Linear {
    /// (outputs); frozen.
    pub(crate) bias: Option<Tensor>,
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = w_layout.shape().dims2()?;
        let rows = x_layout.dims()[0];
        let (x, w) = (Matrix::whole(slice(x, x_layout)?, inputs), Matrix::whole(slice(w, w_layout)?, inputs));
        let mut y = product(1.0, x, w.t(), (rows, outputs))?;
        add_bias(&mut y, self.bias.as_ref())?;
        Ok((CpuStorage::F32(y), (rows, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs) = w.dims2()?;
        let rows = x.dims()[0];
        read(&dy.contiguous()?, |dy| {
            let dy = Matrix::whole(dy, outputs);
            let dx = if x.track_op() {
                let dx = read(w, |w| product(1.0, dy, Matrix::whole(w, inputs), (rows, inputs)))?;
                Some(Tensor::from_vec(dx, x.shape(), x.device())?)
            } else {
                None
            };
            let dw = if w.track_op() {
                let dw = read(x, |x| product(1.0, dy.t(), Matrix::whole(x, inputs), (outputs, inputs)))?;
                Some(Tensor::from_vec(dw, w.shape(), w.device())?)
            } else {
                None
            };
            Ok((dx, dw))
        })
    }
}

/// `y = x · (W + s · B · A)ᵀ + bias`, with `x`: (rows, inputs), `a`: (rank, inputs), `b`: (outputs, rank).
///
/// The changed weight lives for one pass only: making it costs `outputs · inputs · rank`, less than taking
/// every row through both factors as soon as there are more rows than the smaller side of `W`.
pub(crate) struct LoraLinear {
    /// `W`: (outputs, inputs); frozen.
    pub(crate) weight: Tensor,
    /// (outputs); frozen.
    pub(crate) bias: Option<Tensor>,
    /// `s`.
    pub(crate) scale: f32,
    /// `W + s · B · A`; filled by the forward pass.
    pub(crate) changed: OnceLock<Vec<f32>>,
}

impl CustomOp3 for LoraLinear {
    fn name(&self) -> &'static str {
        "lora-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = self.weight.dims2()?;
        let (rows, rank) = (x_layout.dims()[0], a_layout.dims()[0]);
        let (a, b) = (Matrix::whole(slice(a, a_layout)?, inputs), Matrix::whole(slice(b, b_layout)?, rank));
        let mut changed = read(&self.weight, |weight| Ok(weight.to_vec()))?;
        gemm(self.scale, b, a, 1.0, MatrixMut::whole(&mut changed, inputs))?;
        let x = Matrix::whole(slice(x, x_layout)?, inputs);
        let mut y = product(1.0, x, Matrix::whole(&changed, inputs).t(), (rows, outputs))?;
        add_bias(&mut y, self.bias.as_ref())?;
        if self.changed.set(changed).is_err() {
            bail!("a changed layer is computed once");
        }
        Ok((CpuStorage::F32(y), (rows, outputs).into()))
    }

    /// `dx = dy · (W + s · B · A)`, `dA = s · (dy · B)ᵀ · x`, `dB = s · dyᵀ · (x · Aᵀ)`.
    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(changed) = self.changed.get() else { bail!("a layer has a gradient after it is computed") };
        let (outputs, inputs) = self.weight.dims2()?;
        let (rows, rank) = (x.dims()[0], a.dims()[0]);
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        read(&dy.contiguous()?, |dy| {
            let dy = Matrix::whole(dy, outputs);
            let dx = if x.track_op() {
                tensor(product(1.0, dy, Matrix::whole(changed, inputs), (rows, inputs))?, x)?
            } else {
                None
            };
            let da = if a.track_op() {
                let low = read(b, |b| product(1.0, dy, Matrix::whole(b, rank), (rows, rank)))?;
                let low = Matrix::whole(&low, rank).t();
                let da = read(x, |x| product(self.scale, low, Matrix::whole(x, inputs), (rank, inputs)))?;
                tensor(da, a)?
            } else {
                None
            };
            let db = if b.track_op() {
                let low = read(x, |x| {
                    read(a, |a| {
                        product(1.0, Matrix::whole(x, inputs), Matrix::whole(a, inputs).t(), (rows, rank))
                    })
                })?;
                tensor(product(self.scale, dy.t(), Matrix::whole(&low, rank), (outputs, rank))?, b)?
            } else {
                None
            };
            Ok((dx, da, db))
        })
    }
}

/// `scale · left · right`: (rows, columns).
fn product(
    scale: f32,
    left: Matrix<'_>,
    right: Matrix<'_>,
    (rows, columns): (usize, usize),
) -> Result<Vec<f32>> {
    let mut out = vec![0.0; rows * columns];
    gemm(scale, left, right, 0.0, MatrixMut::part(&mut out, rows, columns, columns))?;
    Ok(out)
}

fn add_bias(y: &mut [f32], bias: Option<&Tensor>) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    read(bias, |bias| {
        for row in y.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        Ok(())
    })
}
