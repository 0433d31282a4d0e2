//! `y = x · Wᵀ + bias`, and the same with `W + s · B · A` in the place of `W`.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::{product, read, slice, whole, with_storage};

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
        let (rows, outputs) = (x_layout.dims()[0], w_layout.dims()[0]);
        let mut y = product((x, x_layout), (w, &w_layout.transpose(0, 1)?))?;
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
        let (dy, x, w) = (dy.detach().contiguous()?, (x.track_op(), x.detach()), (w.track_op(), w.detach()));
        let dx = if x.0 { Some(dy.matmul(&w.1)?) } else { None };
        let dw = if w.0 { Some(dy.t()?.matmul(&x.1)?) } else { None };
        Ok((dx, dw))
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
}

impl LoraLinear {
    /// `W + s · B · A`: (outputs, inputs).
    fn changed(&self, a: (&CpuStorage, &Layout), b: (&CpuStorage, &Layout)) -> Result<Vec<f32>> {
        let mut changed = product(b, a)?;
        read(&self.weight, |weight| {
            for (x, w) in changed.iter_mut().zip(weight) {
                *x = w + self.scale * *x;
            }
            Ok(())
        })?;
        Ok(changed)
    }
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
        let (rows, inputs, outputs) = (x_layout.dims()[0], a_layout.dims()[1], b_layout.dims()[0]);
        let changed = CpuStorage::F32(self.changed((a, a_layout), (b, b_layout))?);
        let mut y = product((x, x_layout), (&changed, &whole((outputs, inputs)).transpose(0, 1)?))?;
        add_bias(&mut y, self.bias.as_ref())?;
        Ok((CpuStorage::F32(y), (rows, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x_tracked, a_tracked, b_tracked) = (x.track_op(), a.track_op(), b.track_op());
        let (dy, x, a, b) = (dy.detach().contiguous()?, x.detach(), a.detach(), b.detach());
        let scale = f64::from(self.scale);
        let dx = if x_tracked {
            let changed =
                with_storage(&a, |sa, la| with_storage(&b, |sb, lb| self.changed((sa, la), (sb, lb))))?;
            let changed = Tensor::from_vec(changed, self.weight.shape(), x.device())?;
            Some(dy.matmul(&changed)?)
        } else {
            None
        };
        // dA = s · (dy · B)ᵀ · x, dB = s · dyᵀ · (x · Aᵀ)
        let da = if a_tracked { Some((dy.matmul(&b)?.t()?.matmul(&x)? * scale)?) } else { None };
        let db = if b_tracked { Some((dy.t()?.matmul(&x.matmul(&a.t()?)?)? * scale)?) } else { None };
        Ok((dx, da, db))
    }
}

fn add_bias(y: &mut [f32], bias: Option<&Tensor>) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    with_storage(bias, |storage, layout| {
        let bias = slice(storage, layout)?;
        for row in y.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        Ok(())
    })
}
