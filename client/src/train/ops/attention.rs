//! Causal attention of grouped heads with rotary positions (Su et al. 2021, arXiv 2104.09864, in the
//! half-split form), from the projections' outputs to the output layer's input.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::{exp, product, read, slice, sum, transposed, whole};

/// Cosines and sines of the rotary angles: (length, width / 2) each.
#[derive(Debug)]
pub(crate) struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// The angles `position · theta^(−2i / width)`, in f32 like the programs that trained the bases.
    pub(crate) fn new(length: usize, width: usize, theta: f64) -> Self {
        let half = width / 2;
        let (mut cos, mut sin) = (Vec::with_capacity(length * half), Vec::with_capacity(length * half));
        for position in 0..length {
            for i in 0..half {
                let frequency = narrow(theta.powf(-((2 * i) as f64) / width as f64));
                let angle = f64::from(position as f32 * frequency);
                cos.push(narrow(angle.cos()));
                sin.push(narrow(angle.sin()));
            }
        }
        Self { cos, sin }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(x: f64) -> f32 {
    x as f32
}

/// `q`: (batch · length, heads · width), `k` and `v`: (batch · length, kv heads · width), result: like `q`.
///
/// Inside, the heads that share a key are one matrix: `Q`: (batch · kv heads, group · length, width),
/// `K` and `V`: (batch · kv heads, length, width), `P = softmax(Q · Kᵀ)`: (batch · kv heads, group · length, length).
pub(crate) struct Attention {
    pub(crate) batch: usize,
    pub(crate) length: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) width: usize,
    pub(crate) rope: Arc<Rope>,
    /// What the gradient needs again; filled by the forward pass.
    pub(crate) saved: OnceLock<Saved>,
}

/// Rotated and regrouped inputs, and the attention weights.
#[derive(Debug)]
pub(crate) struct Saved {
    q: CpuStorage,
    k: CpuStorage,
    v: CpuStorage,
    p: CpuStorage,
}

/// How a head's rows turn on their way between the two orders.
#[derive(Clone, Copy)]
enum Turn {
    /// By the position's angle, then scaled.
    Forward(f32),
    /// Scaled, by the negative angle: the transpose of [`Turn::Forward`].
    Back(f32),
    /// Not at all.
    None,
}

impl Attention {
    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn groups(&self) -> usize {
        self.batch * self.kv_heads
    }

    /// Rows of one matrix of queries.
    fn query_rows(&self) -> usize {
        self.heads / self.kv_heads * self.length
    }

    /// Each row's offset in (batch, length, heads, width), its offset in (batch, heads, length, width), its position.
    fn rows(&self, heads: usize) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (batch, length, width) = (self.batch, self.length, self.width);
        (0..batch).flat_map(move |b| {
            (0..heads).flat_map(move |h| {
                (0..length).map(move |t| {
                    (((b * length + t) * heads + h) * width, ((b * heads + h) * length + t) * width, t)
                })
            })
        })
    }

    fn turn(&self, turn: Turn, t: usize, from: &[f32], to: &mut [f32]) {
        let half = self.width / 2;
        let (scale, direction) = match turn {
            Turn::None => return to.copy_from_slice(from),
            Turn::Forward(scale) => (scale, 1.0),
            Turn::Back(scale) => (scale, -1.0),
        };
        let angles = t * half..(t + 1) * half;
        let (cos, sin) = (&self.rope.cos[angles.clone()], &self.rope.sin[angles]);
        let ((x, y), (out_x, out_y)) = (from.split_at(half), to.split_at_mut(half));
        for i in 0..half {
            let (cos, sin) = (cos[i] * scale, sin[i] * scale * direction);
            out_x[i] = x[i] * cos - y[i] * sin;
            out_y[i] = y[i] * cos + x[i] * sin;
        }
    }

    /// From the projections' order to one matrix a head.
    fn split(&self, x: &[f32], heads: usize, turn: Turn) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        for (joined, split, t) in self.rows(heads) {
            self.turn(turn, t, &x[joined..joined + self.width], &mut out[split..split + self.width]);
        }
        out
    }

    /// From one matrix a head to the projections' order.
    fn join(&self, x: &[f32], heads: usize, turn: Turn) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        for (joined, split, t) in self.rows(heads) {
            self.turn(turn, t, &x[split..split + self.width], &mut out[joined..joined + self.width]);
        }
        out
    }

    /// Scores become weights: row `i` sees the keys up to its own position.
    fn softmax(&self, scores: &mut [f32]) {
        for (i, row) in scores.chunks_exact_mut(self.length).enumerate() {
            let (seen, unseen) = row.split_at_mut(i % self.length + 1);
            let most = seen.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
            for x in &mut *seen {
                *x = exp(*x - most);
            }
            let inverse = 1.0 / sum(|j| seen[j], seen.len());
            for x in &mut *seen {
                *x *= inverse;
            }
            unseen.fill(0.0);
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (groups, rows, length, width) = (self.groups(), self.query_rows(), self.length, self.width);
        let q = CpuStorage::F32(self.split(slice(q, q_layout)?, self.heads, Turn::Forward(self.scale())));
        let k = CpuStorage::F32(self.split(slice(k, k_layout)?, self.kv_heads, Turn::Forward(1.0)));
        let v = CpuStorage::F32(self.split(slice(v, v_layout)?, self.kv_heads, Turn::None));
        let mut p = product((&q, &whole((groups, rows, width))), (&k, &transposed(groups, length, width)))?;
        self.softmax(&mut p);
        let p = CpuStorage::F32(p);
        let out = product((&p, &whole((groups, rows, length))), (&v, &whole((groups, length, width))))?;
        let out = self.join(&out, self.heads, Turn::None);
        if self.saved.set(Saved { q, k, v, p }).is_err() {
            bail!("attention is computed once");
        }
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    /// `dV = Pᵀ · dO`, `dP = dO · Vᵀ`, `dS = P · (dP − Σ P · dP)`, `dQ = dS · K`, `dK = dSᵀ · Q`.
    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(saved) = self.saved.get() else { bail!("attention has a gradient after it is computed") };
        let (groups, rows, length, width) = (self.groups(), self.query_rows(), self.length, self.width);
        let (queries, keys) = (whole((groups, rows, width)), whole((groups, length, width)));
        let (weights, weights_t) = (whole((groups, rows, length)), transposed(groups, rows, length));
        let dout = read(&dout.contiguous()?, |dout| Ok(self.split(dout, self.heads, Turn::None)))?;
        let dout = CpuStorage::F32(dout);
        let dv = product((&saved.p, &weights_t), (&dout, &queries))?;
        let mut ds = product((&dout, &queries), (&saved.v, &transposed(groups, length, width)))?;
        let p = slice(&saved.p, &whole(groups * rows * length))?;
        for (i, (ds, p)) in ds.chunks_exact_mut(length).zip(p.chunks_exact(length)).enumerate() {
            let seen = i % length + 1;
            let mean = sum(|j| p[j] * ds[j], seen);
            ds[..seen].iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - mean));
            ds[seen..].fill(0.0);
        }
        let ds = CpuStorage::F32(ds);
        let dq = product((&ds, &weights), (&saved.k, &keys))?;
        let dk = product((&ds, &weights_t), (&saved.q, &queries))?;
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((
            tensor(self.join(&dq, self.heads, Turn::Back(self.scale())), q)?,
            tensor(self.join(&dk, self.kv_heads, Turn::Back(1.0)), k)?,
            tensor(self.join(&dv, self.kv_heads, Turn::None), v)?,
        ))
    }
}
