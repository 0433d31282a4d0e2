//! The residual stream: where it begins, and what is added to it.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::{read, slice};

/// `w`: (vocab, hidden), result: the rows of the tokens: (tokens, hidden).
pub(crate) struct Embedding {
    pub(crate) tokens: Vec<u32>,
}

impl Embedding {
    /// Each token's numbers in `w`, in order.
    fn rows(&self, vocab: usize, hidden: usize) -> Result<Vec<std::ops::Range<usize>>> {
        let row = |&token: &u32| match usize::try_from(token) {
            Ok(at) if at < vocab => Ok(at * hidden..(at + 1) * hidden),
            _ => bail!("token {token} is not below {vocab}"),
        };
        self.tokens.iter().map(row).collect()
    }
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, w: &CpuStorage, w_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (vocab, hidden) = w_layout.shape().dims2()?;
        let w = slice(w, w_layout)?;
        let mut x = Vec::with_capacity(self.tokens.len() * hidden);
        for row in self.rows(vocab, hidden)? {
            x.extend_from_slice(&w[row]);
        }
        Ok((CpuStorage::F32(x), (self.tokens.len(), hidden).into()))
    }

    fn bwd(&self, w: &Tensor, _x: &Tensor, dx: &Tensor) -> Result<Option<Tensor>> {
        let (vocab, hidden) = w.dims2()?;
        let mut dw = vec![0.0f32; vocab * hidden];
        let rows = self.rows(vocab, hidden)?;
        read(&dx.contiguous()?, |dx| {
            for (row, dx) in rows.into_iter().zip(dx.chunks_exact(hidden)) {
                dw[row].iter_mut().zip(dx).for_each(|(dw, dx)| *dw += dx);
            }
            Ok(())
        })?;
        Tensor::from_vec(dw, w.shape(), w.device()).map(Some)
    }
}

/// `x + y`, of one shape.
pub(crate) struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "residual-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if x_layout.shape() != y_layout.shape() {
            bail!("cannot add {:?} to {:?}", y_layout.shape(), x_layout.shape());
        }
        let sum = added(slice(x, x_layout)?, slice(y, y_layout)?);
        Ok((CpuStorage::F32(sum), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _y: &Tensor,
        _sum: &Tensor,
        dsum: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(dsum.clone()), Some(dsum.clone())))
    }
}

/// `x + y` outside a pass.
pub(crate) fn total(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let sum = read(&x.contiguous()?, |x| read(&y.contiguous()?, |y| Ok(added(x, y))))?;
    Tensor::from_vec(sum, x.shape(), x.device())
}

fn added(x: &[f32], y: &[f32]) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}
