//! Causal grouped-query attention with RoPE, forward and backward, a tile of queries at a time.

use candle_core::{D, Device, Result, Tensor};

use crate::kernels::narrow;
use crate::model::batch::BatchShape;
use crate::model::config::DecoderConfig;

/// Queries of one tile; keys after the last of them are skipped.
pub(super) const QUERIES: usize = 512;

/// The causal mask's value for a key that a query must not see; finite, because not every GPU's exponential
/// takes an infinity.
const UNSEEN: f32 = -1e30;

/// Shape of an attention layer, with RoPE tables and causal mask.
#[derive(Debug)]
pub(super) struct Attention {
    heads: usize,
    kv_heads: usize,
    width: usize,
    /// (length, width / 2) each.
    cos: Tensor,
    sin: Tensor,
    /// Causal mask of a tile's queries against their own keys: (queries, queries).
    triangle: Tensor,
}

/// Cached keys after RoPE and values of one block: (batch, kv heads, length, width).
#[derive(Clone, Debug)]
pub(super) struct LayerKv {
    pub(super) k: Tensor,
    pub(super) v: Tensor,
}

/// A tile of queries, of all heads.
struct Tile {
    /// Index of the first query, and the number of queries.
    first: usize,
    queries: usize,
    /// Keys before that of the first query.
    past: usize,
    /// (batch · kv heads, heads / kv heads · queries, width).
    query: Tensor,
    /// (batch · kv heads, keys, width).
    keys: Tensor,
    values: Tensor,
}

#[derive(Clone, Copy)]
enum Way {
    Forward,
    Back,
}

impl Attention {
    pub(super) fn new(config: &DecoderConfig, length: usize, device: &Device) -> Result<Self> {
        let (cos, sin) = angles(config, length, device)?;
        let side = length.clamp(1, QUERIES);
        let score = |i| if i % side > i / side { UNSEEN } else { 0.0 };
        let triangle = Tensor::from_vec((0..side * side).map(score).collect(), (side, side), device)?;
        let DecoderConfig { num_heads: heads, num_kv_heads: kv_heads, head_dim: width, .. } = *config;
        Ok(Self { heads, kv_heads, width, cos, sin, triangle })
    }

    /// Splits (batch · length, heads · width) into heads: (batch, heads, length, width).
    pub(super) fn split(&self, x: &Tensor, shape: BatchShape) -> Result<Tensor> {
        let BatchShape { batch_size, sequence_len } = shape;
        let heads = x.dim(1)? / self.width;
        x.reshape((batch_size, sequence_len, heads, self.width))?.transpose(1, 2)?.contiguous()
    }

    /// Applies RoPE to `x`: (batch, heads, length, width), whose first position is `past`.
    pub(super) fn rotate(&self, x: &Tensor, past: usize) -> Result<Tensor> {
        self.turned(x, past, Way::Forward)
    }

    /// The backward pass of RoPE: rotates gradients back, from position 0 on.
    pub(super) fn rotate_backward(&self, dx: &Tensor) -> Result<Tensor> {
        self.turned(dx, 0, Way::Back)
    }

    fn turned(&self, x: &Tensor, past: usize, way: Way) -> Result<Tensor> {
        let (length, half) = (x.dim(2)?, self.width / 2);
        let (cos, sin) = (self.cos.narrow(0, past, length)?, self.sin.narrow(0, past, length)?);
        let sin = match way {
            Way::Forward => sin,
            Way::Back => sin.neg()?,
        };
        let (left, right) = (x.narrow(3, 0, half)?.contiguous()?, x.narrow(3, half, half)?.contiguous()?);
        let turned_left = (left.broadcast_mul(&cos)? - right.broadcast_mul(&sin)?)?;
        let turned_right = (right.broadcast_mul(&cos)? + left.broadcast_mul(&sin)?)?;
        Tensor::cat(&[turned_left, turned_right], D::Minus1)
    }

    /// The attention output `softmax(q · kᵀ / √width) · v` with a causal mask, and each row's log-sum-exp,
    /// (batch · heads, length, 1). `q`: (batch, heads, length, width); `k` and `v`: (batch, kv heads, past +
    /// length, width).
    pub(super) fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (mut outs, mut logs) = (Vec::new(), Vec::new());
        for tile in self.tiles(q, k, v)? {
            let tile = tile?;
            let scores = self.scores(&tile)?;
            let most = scores.max_keepdim(2)?;
            let p = scores.broadcast_sub(&most)?.exp()?;
            let total = p.sum_keepdim(2)?;
            logs.push((total.log()? + most)?);
            let p = tile.grouped(&p.broadcast_div(&total)?)?;
            outs.push(self.by_head(&p.matmul(&tile.values)?, &tile)?);
        }
        Ok((Tensor::cat(&outs, 2)?, Tensor::cat(&logs, 1)?))
    }

    /// The gradients of `q`, `k` and `v` from `dout`; shapes as in [`Self::forward`], without a past. `P` is
    /// recomputed from the log-sum-exp: `dV = Pᵀ · dO`, `dP = dO · Vᵀ`, `dS = P · (dP − Σ dO · O) / √width`,
    /// `dQ = dS · K`, `dK = dSᵀ · Q`.
    pub(super) fn backward(
        &self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        (out, logs, dout): (&Tensor, &Tensor, &Tensor),
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let length = q.dim(2)?;
        let means = (out * dout)?.sum_keepdim(3)?;
        let mut dqs = Vec::new();
        let mut both: Option<(Tensor, Tensor)> = None;
        for tile in self.tiles(q, k, v)? {
            let tile = tile?;
            let (first, queries) = (tile.first, tile.queries);
            let p = self.scores(&tile)?.broadcast_sub(&logs.narrow(1, first, queries)?)?.exp()?;
            let dout = tile.grouped(&dout.narrow(2, first, queries)?.contiguous()?)?;
            let mean = means.narrow(2, first, queries)?.contiguous()?.reshape(((), queries, 1))?;
            let dp = dout.matmul(&tile.values.t()?)?.reshape(p.shape())?;
            let ds = (p.mul(&dp.broadcast_sub(&mean)?)? * self.scale())?;
            let (p, ds) = (tile.grouped(&p)?, tile.grouped(&ds)?);
            dqs.push(self.by_head(&ds.matmul(&tile.keys)?, &tile)?);
            let dk = ds.t()?.matmul(&tile.query)?.pad_with_zeros(1, 0, length - first - queries)?;
            let dv = p.t()?.matmul(&dout)?.pad_with_zeros(1, 0, length - first - queries)?;
            both = Some(match both {
                Some((k, v)) => ((k + dk)?, (v + dv)?),
                None => (dk, dv),
            });
        }
        let Some((dk, dv)) = both else { candle_core::bail!("attention over no rows") };
        Ok((Tensor::cat(&dqs, 2)?, dk.reshape(k.shape())?, dv.reshape(v.shape())?))
    }

    fn scale(&self) -> f64 {
        1.0 / (self.width as f64).sqrt()
    }

    fn tiles(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<impl Iterator<Item = Result<Tile>>> {
        let (batch, _, length, width) = q.dims4()?;
        let (parts, all) = (batch * self.kv_heads, k.dim(2)?);
        let flat = |x: &Tensor| x.reshape((parts, all, width));
        let (q, k, v) = (q.clone(), flat(k)?, flat(v)?);
        let tile = move |first: usize| {
            let queries = QUERIES.min(length - first);
            let past = all - length + first;
            let query = q.narrow(2, first, queries)?.contiguous()?;
            Ok(Tile {
                first,
                queries,
                past,
                query: query.reshape((parts, (), width))?,
                keys: k.narrow(1, 0, past + queries)?.contiguous()?,
                values: v.narrow(1, 0, past + queries)?.contiguous()?,
            })
        };
        Ok((0..length).step_by(QUERIES).map(tile))
    }

    /// `q · kᵀ / √width` of a tile plus the causal mask: (batch · heads, queries, keys).
    fn scores(&self, tile: &Tile) -> Result<Tensor> {
        let scores = (tile.query.matmul(&tile.keys.t()?)? * self.scale())?;
        let scores = scores.reshape(((), tile.queries, tile.past + tile.queries))?;
        if tile.queries == 1 {
            return Ok(scores);
        }
        let own = self.triangle.narrow(0, 0, tile.queries)?.narrow(1, 0, tile.queries)?.contiguous()?;
        scores.broadcast_add(&own.pad_with_zeros(1, tile.past, 0)?)
    }

    /// Splits (batch · kv heads, heads / kv heads · queries, width) into heads: (batch, heads, queries, width).
    fn by_head(&self, x: &Tensor, tile: &Tile) -> Result<Tensor> {
        x.reshape(((), self.heads, tile.queries, self.width))
    }
}

impl Tile {
    /// Groups the query heads of one key/value head: (batch · heads, queries, any) or (batch, heads, queries,
    /// any) to (batch · kv heads, heads / kv heads · queries, any).
    fn grouped(&self, x: &Tensor) -> Result<Tensor> {
        x.reshape((self.keys.dim(0)?, (), x.dim(D::Minus1)?))
    }
}

/// Joins heads: (batch, heads, length, width) to (batch · length, heads · width).
pub(super) fn merge(x: &Tensor) -> Result<Tensor> {
    let (batch, heads, length, width) = x.dims4()?;
    x.transpose(1, 2)?.contiguous()?.reshape((batch * length, heads * width))
}

/// RoPE tables: cosines and sines of `position · frequency`, (length, width / 2) each.
fn angles(config: &DecoderConfig, length: usize, device: &Device) -> Result<(Tensor, Tensor)> {
    let frequencies: Vec<f32> = config.rope_frequencies().into_iter().map(narrow).collect();
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for position in 0..length {
        for frequency in &frequencies {
            let angle = f64::from(position as f32 * frequency);
            cos.push(narrow(angle.cos()));
            sin.push(narrow(angle.sin()));
        }
    }
    let shape = (length, frequencies.len());
    Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
}
