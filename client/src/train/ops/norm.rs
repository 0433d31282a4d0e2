//! `y = w · x / sqrt(mean(x²) + ε)`, row by row (Zhang and Sennrich 2019, arXiv 1910.07467).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{read, slice, sum};

/// `x`: (rows, hidden), `w`: (hidden).
pub(crate) struct RmsNorm {
    /// ε.
    pub(crate) eps: f32,
}

impl RmsNorm {
    fn inverse(&self, row: &[f32]) -> f32 {
        1.0 / (sum(|i| row[i] * row[i], row.len()) / row.len() as f32 + self.eps).sqrt()
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice(x, x_layout)?, slice(w, w_layout)?);
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(w.len()) {
            let inverse = self.inverse(row);
            y.extend(row.iter().zip(w).map(|(x, w)| x * inverse * w));
        }
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    /// With `i = 1 / rms` and `g = dy · w`: `dx = i · (g − x · i² · mean(g · x))`, `dw = Σ dy · x · i`.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (shape, device) = (x.shape(), x.device());
        let hidden = w.elem_count();
        let (mut dx, mut dw) = (Vec::with_capacity(x.elem_count()), vec![0.0f32; hidden]);
        let (x_tracked, w_tracked) = (x.track_op(), w.track_op());
        read(&dy.contiguous()?, |dy| {
            read(x, |x| {
                read(w, |w| {
                    for (x, dy) in x.chunks_exact(hidden).zip(dy.chunks_exact(hidden)) {
                        let inverse = self.inverse(x);
                        if x_tracked {
                            let mean = sum(|i| dy[i] * w[i] * x[i], hidden) / hidden as f32;
                            let pull = inverse * inverse * mean;
                            let terms = dy.iter().zip(w).zip(x);
                            dx.extend(terms.map(|((dy, w), x)| inverse * (dy * w - x * pull)));
                        }
                        if w_tracked {
                            for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
                                *dw += dy * x * inverse;
                            }
                        }
                    }
                    Ok(())
                })
            })
        })?;
        let dx = if x_tracked { Some(Tensor::from_vec(dx, shape, device)?) } else { None };
        let dw = if w_tracked { Some(Tensor::from_vec(dw, w.shape(), device)?) } else { None };
        Ok((dx, dw))
    }
}
