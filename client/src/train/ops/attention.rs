//! Causal attention of grouped heads with rotary positions (Su et al. 2021, arXiv 2104.09864, in the
//! half-split form), from the projections' outputs to the output layer's input.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::gemm::{Matrix, MatrixMut, gemm};
use super::{exp, most, read, slice, sum};

/// Queries of one product; keys after the last of them are not looked at.
const QUERIES: usize = 32;

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
/// For each head, `P = softmax(Q · Kᵀ)`: (length, length), in tiles of [`QUERIES`] rows up to the diagonal.
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

/// Rotated inputs and the attention weights.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Scaled as well.
    q: Vec<f32>,
    k: Vec<f32>,
    /// The tiles one after the other.
    p: Vec<f32>,
}

/// Some queries of one head.
struct Tile {
    /// Where the first query is in `q`.
    q: usize,
    /// Where the first key of the sequence is in `k`.
    k: usize,
    /// Position of the first query.
    first: usize,
    queries: usize,
    /// Positions up to the last query's.
    keys: usize,
}

impl Attention {
    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn tiles(&self) -> impl Iterator<Item = Tile> {
        let (length, width, group) = (self.length, self.width, self.heads / self.kv_heads);
        let (q_step, k_step) = (self.heads * width, self.kv_heads * width);
        (0..self.batch).flat_map(move |b| {
            (0..self.heads).flat_map(move |h| {
                (0..length).step_by(QUERIES).map(move |first| {
                    let queries = QUERIES.min(length - first);
                    let q = (b * length + first) * q_step + h * width;
                    let k = b * length * k_step + h / group * width;
                    Tile { q, k, first, queries, keys: first + queries }
                })
            })
        })
    }

    /// Turns each head's rows by their position's angle times `direction`, and scales them.
    fn turn(&self, x: &mut [f32], heads: usize, scale: f32, direction: f32) {
        let half = self.width / 2;
        let angles = self.rope.cos.chunks_exact(half).zip(self.rope.sin.chunks_exact(half)).take(self.length);
        for (row, (cos, sin)) in x.chunks_exact_mut(heads * self.width).zip(angles.cycle()) {
            for head in row.chunks_exact_mut(self.width) {
                let (x, y) = head.split_at_mut(half);
                for ((x, y), (cos, sin)) in x.iter_mut().zip(y).zip(cos.iter().zip(sin)) {
                    let (cos, sin) = (cos * scale, sin * scale * direction);
                    (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
                }
            }
        }
    }

    /// Numbers in all tiles.
    fn weights(&self) -> usize {
        self.tiles().map(|tile| tile.queries * tile.keys).sum()
    }
}

/// Scores of a tile become weights: each row sees the keys up to its own position.
fn softmax(scores: &mut [f32], tile: &Tile) {
    for (i, row) in scores.chunks_exact_mut(tile.keys).enumerate() {
        let (seen, unseen) = row.split_at_mut(tile.first + i + 1);
        let most = most(seen);
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
        let (q_step, k_step, width) = (self.heads * self.width, self.kv_heads * self.width, self.width);
        let (mut q, mut k) = (slice(q, q_layout)?.to_vec(), slice(k, k_layout)?.to_vec());
        let v = slice(v, v_layout)?;
        self.turn(&mut q, self.heads, self.scale(), 1.0);
        self.turn(&mut k, self.kv_heads, 1.0, 1.0);
        let mut out = vec![0.0; q.len()];
        let mut p = vec![0.0; self.weights()];
        let mut rest = p.as_mut_slice();
        for tile in self.tiles() {
            let Tile { queries, keys, .. } = tile;
            let (p, later) = rest.split_at_mut(queries * keys);
            rest = later;
            let (query, key) = (
                Matrix::part(&q[tile.q..], queries, width, q_step),
                Matrix::part(&k[tile.k..], keys, width, k_step),
            );
            gemm(1.0, query, key.t(), 0.0, MatrixMut::whole(p, keys))?;
            softmax(p, &tile);
            let value = Matrix::part(&v[tile.k..], keys, width, k_step);
            let out = MatrixMut::part(&mut out[tile.q..], queries, width, q_step);
            gemm(1.0, Matrix::whole(p, keys), value, 0.0, out)?;
        }
        if self.saved.set(Saved { q, k, p }).is_err() {
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
        let (q_step, k_step, width) = (self.heads * self.width, self.kv_heads * self.width, self.width);
        let mut dq = vec![0.0; saved.q.len()];
        let (mut dk, mut dv) = (vec![0.0; saved.k.len()], vec![0.0; saved.k.len()]);
        let mut scratch = vec![0.0; QUERIES * self.length];
        read(&dout.contiguous()?, |dout| {
            read(v, |v| {
                let mut rest = saved.p.as_slice();
                for tile in self.tiles() {
                    let Tile { queries, keys, .. } = tile;
                    let (p, later) = rest.split_at(queries * keys);
                    rest = later;
                    let ds = &mut scratch[..queries * keys];
                    let dout = Matrix::part(&dout[tile.q..], queries, width, q_step);
                    let dvalue = MatrixMut::part(&mut dv[tile.k..], keys, width, k_step);
                    gemm(1.0, Matrix::whole(p, keys).t(), dout, 1.0, dvalue)?;
                    let value = Matrix::part(&v[tile.k..], keys, width, k_step);
                    gemm(1.0, dout, value.t(), 0.0, MatrixMut::whole(ds, keys))?;
                    for (i, (ds, p)) in ds.chunks_exact_mut(keys).zip(p.chunks_exact(keys)).enumerate() {
                        let (ds, unseen) = ds.split_at_mut(tile.first + i + 1);
                        let p = &p[..ds.len()];
                        let mean = sum(|j| p[j] * ds[j], ds.len());
                        ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - mean));
                        unseen.fill(0.0);
                    }
                    let key = Matrix::part(&saved.k[tile.k..], keys, width, k_step);
                    let dquery = MatrixMut::part(&mut dq[tile.q..], queries, width, q_step);
                    gemm(1.0, Matrix::whole(ds, keys), key, 0.0, dquery)?;
                    let query = Matrix::part(&saved.q[tile.q..], queries, width, q_step);
                    let dkey = MatrixMut::part(&mut dk[tile.k..], keys, width, k_step);
                    gemm(1.0, Matrix::whole(ds, keys).t(), query, 1.0, dkey)?;
                }
                Ok(())
            })
        })?;
        self.turn(&mut dq, self.heads, self.scale(), -1.0);
        self.turn(&mut dk, self.kv_heads, 1.0, -1.0);
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((tensor(dq, q)?, tensor(dk, k)?, tensor(dv, v)?))
    }
}
