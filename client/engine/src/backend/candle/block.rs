//! Forward and backward pass of one decoder block.

use candle_core::{Result, Tensor};

use super::Decoder;
use crate::backend::candle::adapter::{Adapter, At};
use crate::backend::candle::attention::{LayerKv, merge};
use crate::backend::candle::gradients::Gradients;
use crate::backend::candle::weights::{matmul_backward, product};
use crate::model::batch::BatchShape;
use crate::model::projection::Projection;

/// Saved activations of a block.
#[derive(Debug)]
pub(super) struct Kept {
    /// The block's input: (rows, hidden).
    x: Tensor,
    /// Queries and keys after RoPE, and values: (batch, heads or kv heads, length, width).
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// Queries and keys before their norms, where the model has QK norms.
    raw: Option<[Tensor; 2]>,
    /// Log-sum-exp of each attention row.
    logs: Tensor,
    /// Attention output, before the output projection: like the queries.
    mixed: Tensor,
    /// The residual stream before the second norm: (rows, hidden).
    middle: Tensor,
    /// Outputs of the gate and up projections: (rows, inner).
    gate: Tensor,
    up: Tensor,
}

impl Decoder<'_> {
    /// Forward pass of one block, with its saved activations.
    pub(super) fn block(
        &self,
        adapter: &Adapter<'_>,
        layer: usize,
        x: Tensor,
        shape: BatchShape,
    ) -> Result<(Tensor, Kept)> {
        let kept = self.block_until_ffn(adapter, layer, x, shape)?;
        let after = self.after(adapter, layer, &kept)?;
        Ok((after, kept))
    }

    /// Forward pass of one block in incremental decoding: `x` continues the one sequence in the cache `past`,
    /// to which its keys and values are added.
    pub(super) fn block_on(
        &self,
        adapter: &Adapter<'_>,
        layer: usize,
        x: Tensor,
        past: &mut Option<LayerKv>,
    ) -> Result<Tensor> {
        let shape = BatchShape { batch_size: 1, sequence_len: x.dim(0)? };
        let kept = self.until_inner(adapter, layer, x, shape, past.take())?;
        let after = self.after(adapter, layer, &kept)?;
        *past = Some(LayerKv { k: kept.k, v: kept.v });
        Ok(after)
    }

    /// Forward pass of one block up to the outputs of the gate and up projections.
    pub(super) fn block_until_ffn(
        &self,
        adapter: &Adapter<'_>,
        layer: usize,
        x: Tensor,
        shape: BatchShape,
    ) -> Result<Kept> {
        self.until_inner(adapter, layer, x, shape, None)
    }

    fn until_inner(
        &self,
        adapter: &Adapter<'_>,
        layer: usize,
        x: Tensor,
        shape: BatchShape,
        past: Option<LayerKv>,
    ) -> Result<Kept> {
        let (block, attention) = (self.weights(layer), &self.attention);
        let linear = |projection, x: &Tensor| self.linear(adapter, (layer, projection), x);
        let normed = self.norm(&block.input_norm).forward(&x)?;
        let mut q = attention.split(&linear(Projection::Q, &normed)?, shape)?;
        let mut k = attention.split(&linear(Projection::K, &normed)?, shape)?;
        let mut v = attention.split(&linear(Projection::V, &normed)?, shape)?;
        let mut raw = None;
        if let Some([q_norm, k_norm]) = &block.head_norms {
            let normed = (self.norm(q_norm).forward(&q)?, self.norm(k_norm).forward(&k)?);
            raw = Some([q, k]);
            (q, k) = normed;
        }
        let read = past.as_ref().map_or(Ok(0), |past| past.k.dim(2))?;
        (q, k) = (attention.rotate(&q, read)?, attention.rotate(&k, read)?);
        if let Some(past) = past {
            (k, v) = (Tensor::cat(&[past.k, k], 2)?, Tensor::cat(&[past.v, v], 2)?);
        }
        let (mixed, logs) = attention.forward(&q, &k, &v)?;
        let middle = (&x + linear(Projection::O, &merge(&mixed)?)?)?;
        let normed = self.norm(&block.post_norm).forward(&middle)?;
        let (gate, up) = (linear(Projection::Gate, &normed)?, linear(Projection::Up, &normed)?);
        Ok(Kept { x, q, k, v, raw, logs, mixed, middle, gate, up })
    }

    /// The rest of a block's forward pass: SwiGLU, down projection and residual connection.
    fn after(&self, adapter: &Adapter<'_>, layer: usize, kept: &Kept) -> Result<Tensor> {
        let inner = swiglu(&kept.gate, &kept.up)?;
        &kept.middle + self.linear(adapter, (layer, Projection::Down), &inner)?
    }

    /// Returns the gradient of a block's input from that of its output, `g`, or `None` unless something `below`
    /// has a gradient; adds those of the trained factors to `gradients`.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing")]
    pub(super) fn block_backward(
        &self,
        adapter: &Adapter<'_>,
        layer: usize,
        kept: Kept,
        g: Tensor,
        shape: BatchShape,
        below: bool,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let (block, attention) = (self.weights(layer), &self.attention);
        let Kept { x, q, k, v, raw, logs, mixed, middle, gate, up } = kept;
        let mut backward = |terms: &[(Projection, &Tensor)], x: &Tensor| {
            self.linears_backward(adapter, layer, terms, x, true, gradients)
        };

        let inner = swiglu(&gate, &up)?;
        let dinner = backward(&[(Projection::Down, &g)], &inner)?;
        let (dgate, dup) = swiglu_backward(&gate, &up, &some(dinner)?)?;
        let norm = self.norm(&block.post_norm);
        let dnormed =
            backward(&[(Projection::Gate, &dgate), (Projection::Up, &dup)], &norm.forward(&middle)?)?;
        let g = (g + norm.backward(&middle, &some(dnormed)?)?)?;

        let dmixed = backward(&[(Projection::O, &g)], &merge(&mixed)?)?;
        let dmixed = attention.split(&some(dmixed)?, shape)?;
        let (dq, dk, dv) = attention.backward((&q, &k, &v), (&mixed, &logs, &dmixed))?;
        let (mut dq, mut dk) = (attention.rotate_backward(&dq)?, attention.rotate_backward(&dk)?);
        if let (Some([q, k]), Some([q_norm, k_norm])) = (&raw, &block.head_norms) {
            dq = self.norm(q_norm).backward(q, &dq)?;
            dk = self.norm(k_norm).backward(k, &dk)?;
        }
        let (dq, dk, dv) = (merge(&dq)?, merge(&dk)?, merge(&dv)?);
        let norm = self.norm(&block.input_norm);
        let terms = [(Projection::Q, &dq), (Projection::K, &dk), (Projection::V, &dv)];
        match self.linears_backward(adapter, layer, &terms, &norm.forward(&x)?, below, gradients)? {
            Some(dnormed) => Ok(Some((g + norm.backward(&x, &dnormed)?)?)),
            None => Ok(None),
        }
    }

    /// `x · Wᵀ + bias`, plus the layer's deltas.
    fn linear(&self, adapter: &Adapter<'_>, at: At, x: &Tensor) -> Result<Tensor> {
        let linear = self.weights(at.0).linear(at.1);
        let mut y = product(x, &linear.weight)?;
        if let Some(bias) = &linear.bias {
            y = y.broadcast_add(bias)?;
        }
        adapter.forward(at, x, y)
    }

    /// Returns the gradient of the common input `x` of linear layers, if something `below` needs it; adds those
    /// of their trained factors to `gradients`.
    fn linears_backward(
        &self,
        adapter: &Adapter<'_>,
        layer: usize,
        terms: &[(Projection, &Tensor)],
        x: &Tensor,
        below: bool,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for (projection, dy) in terms {
            let weight = &self.weights(layer).linear(*projection).weight;
            let dx = if below { Some(matmul_backward(dy, weight)?) } else { None };
            let dx = adapter.backward((layer, *projection), (x, dy), dx, gradients)?;
            sum = match (sum, dx) {
                (Some(sum), Some(dx)) => Some((sum + dx)?),
                (sum, dx) => sum.or(dx),
            };
        }
        Ok(sum)
    }
}

/// `1 / (1 + e^−x)`.
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// `gate · σ(gate) · up`.
fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    (gate * sigmoid(gate)?)? * up
}

/// The gradients of `gate` and `up` from the gradient `d` of their SwiGLU.
fn swiglu_backward(gate: &Tensor, up: &Tensor, d: &Tensor) -> Result<(Tensor, Tensor)> {
    let s = sigmoid(gate)?;
    let silu = (gate * &s)?;
    // σ · (1 + gate · (1 − σ)) = σ + silu · (1 − σ).
    let slope = (&s + (&silu * s.affine(-1.0, 1.0)?)?)?;
    Ok((((d * up)? * slope)?, (d * silu)?))
}

/// Unwraps the gradient of a layer's input; fails if it was not computed.
fn some(gradient: Option<Tensor>) -> Result<Tensor> {
    match gradient {
        Some(gradient) => Ok(gradient),
        None => candle_core::bail!("no gradient was made of a layer's input"),
    }
}
