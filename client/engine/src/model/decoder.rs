//! The decoder: forward pass from tokens to loss or logits, and backward pass from the loss to the gradient
//! target.
//!
//! The backward pass is written by hand, without autograd, so that the saved activations are known. For each
//! block they are the residual stream at both norms, queries and keys after RoPE (and before their norms, where
//! the model has QK norms), values, each attention row's log-sum-exp, the attention output if the output
//! projection has a gradient, and the outputs of the gate and up projections. The rest is recomputed: norms and
//! SwiGLU cost one pass over memory.
//!
//! Start reading at [`Decoder::gradient`]; `backward` is the backward pass of one block.

mod backward;
mod fused;

use half::{bf16, f16};

use crate::kernels::buffer::resized;
use crate::kernels::error::{Result, bail};
use crate::kernels::matmul::{Accumulate, Destination, Precision, Rows, Scratch, TILE_ROWS, Weight, forward};
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::pool::Team;
use crate::kernels::view::{View, ViewMut};
use crate::layers::attention::Attention;
use crate::layers::cross_entropy::{Loss, cross_entropy};
use crate::layers::embedding::{embed, embed_backward};
use crate::layers::rms_norm::RmsNorm;
use crate::layers::swiglu::Gate;
use crate::model::batch::{BatchShape, Sequence};
use crate::model::compute::Recompute;
use crate::model::config::{DecoderConfig, Ropes};
use crate::model::delta::LoraDeltas;
use crate::model::gradient_target::GradientTarget;
use crate::model::kv_cache::{KvCache, LayerKv, LogitsFor};
use crate::model::projection::Projection;
use crate::model::saved::{ActivationPrecision, Saved};
use crate::model::weights::{BlockWeights, Weights};
use crate::model::workspace::{SavedBlock, Workspace};

/// A base with its LoRA deltas, and the settings of its passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) weights: &'a Weights,
    pub(crate) deltas: &'a LoraDeltas<'a>,
    pub(crate) ropes: &'a Ropes,
    pub(crate) precision: Precision,
    pub(crate) team: Team,
    pub(crate) recompute: Recompute,
}

/// Which activations of a block the forward pass saves, and where.
#[derive(Clone, Copy, Debug)]
struct SaveBlock {
    /// Index into the workspace's saved blocks.
    at: usize,
    /// Whether to save the attention output, which the output projection's gradient needs as its input.
    mixed: bool,
}

impl Decoder<'_> {
    /// Returns the summed loss of all target tokens and adds its gradient, times `share`, to `wanted`.
    ///
    /// Fails if the sequences are not of one length, or a token is outside the vocabulary.
    pub(crate) fn gradient(
        &self,
        space: &mut Workspace,
        batch: &[Sequence<'_>],
        share: f32,
        mut wanted: GradientTarget<'_>,
    ) -> Result<f64> {
        let shape = shape(batch)?;
        let lowest = wanted.lowest(self.deltas);
        let (rows, hidden) = (shape.rows(), self.config.hidden_size);
        self.embed(space, batch)?;
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            let keep = match self.recompute {
                Recompute::Never => {
                    let mixed = wanted.wants(self.deltas, (layer, Projection::O));
                    Some(SaveBlock { at: layer, mixed })
                }
                Recompute::Blocks => {
                    space.save_input(layer);
                    None
                }
            };
            self.block(space, keep, layer, block, shape, None)?;
        }
        let loss = self.loss_of(space, batch, Some((share, &mut wanted)))?;
        for (layer, block) in self.weights.blocks.iter().enumerate().rev() {
            let below = layer > lowest || wanted.embedding().is_some();
            if layer < lowest {
                break;
            }
            let keep = match self.recompute {
                Recompute::Never => layer,
                Recompute::Blocks => {
                    let Workspace { x, inputs, .. } = space;
                    x[..rows * hidden].copy_from_slice(&inputs[layer][..rows * hidden]);
                    let mixed = wanted.wants(self.deltas, (layer, Projection::O));
                    let keep = Some(SaveBlock { at: 0, mixed });
                    if block.output_norms.is_some() {
                        self.block(space, keep, layer, block, shape, None)?;
                    } else {
                        self.block_until_ffn(space, keep, layer, block, shape, None)?;
                        space.save_gate_and_up(0, self.team, self.config.intermediate_size, self.keep());
                    }
                    0
                }
            };
            self.block_backward(space, keep, layer, block, shape, &mut wanted, below)?;
        }
        if let Some(rest) = wanted.embedding() {
            for (i, sequence) in batch.iter().enumerate() {
                let dx = &space.g[i * shape.sequence_len * hidden..(i + 1) * shape.sequence_len * hidden];
                embed_backward(sequence.tokens, dx, hidden, &mut rest.embed);
            }
        }
        Ok(loss)
    }

    /// Returns the summed loss of all target tokens; fails like [`Self::gradient`].
    pub(crate) fn loss(&self, space: &mut Workspace, batch: &[Sequence<'_>]) -> Result<f64> {
        let shape = shape(batch)?;
        self.embed(space, batch)?;
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            self.block(space, None, layer, block, shape, None)?;
        }
        self.loss_of(space, batch, None)
    }

    /// Returns the logits after each of `tokens`, (tokens, vocab), or after the last one only, (1, vocab). The
    /// tokens continue the sequence in `cache` and are added to it.
    pub(crate) fn logits(
        &self,
        space: &mut Workspace,
        cache: &mut KvCache,
        tokens: &[u32],
        which: LogitsFor,
    ) -> Result<Vec<f32>> {
        let hidden = self.config.hidden_size;
        cache.blocks.resize_with(self.weights.blocks.len(), Default::default);
        self.embed(space, &[Sequence { tokens, learned: &[] }])?;
        let shape = BatchShape { batch_size: 1, sequence_len: tokens.len() };
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            self.block(space, None, layer, block, shape, Some(&mut cache.blocks[layer]))?;
        }
        let rows = match which {
            LogitsFor::All => 0..tokens.len(),
            LogitsFor::Last => tokens.len().saturating_sub(1)..tokens.len(),
        };
        let head = self.weights.head();
        let mut logits = vec![0.0; rows.len() * head.rows()];
        let Workspace { x, normed, scratch, .. } = space;
        let x = &x[rows.start * hidden..rows.end * hidden];
        let normed = resized(normed, x.len());
        self.norm(&self.weights.norm).forward(self.team, x, normed);
        let out = Destination::overwrite(ViewMut::whole(&mut logits, head.rows()));
        let x = View::whole(normed, hidden);
        forward(self.team, self.precision.forward(), scratch, x, vec![(plain(head), out)])?;
        Ok(logits)
    }

    fn norm<'w>(&self, weight: &'w [f32]) -> RmsNorm<'w> {
        #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
        let eps = self.config.rms_norm_eps as f32;
        RmsNorm { weight, eps }
    }

    fn embed(&self, space: &mut Workspace, batch: &[Sequence<'_>]) -> Result<()> {
        let hidden = self.config.hidden_size;
        let rows: usize = batch.iter().map(|sequence| sequence.tokens.len()).sum();
        let mut rest = resized(&mut space.x, rows * hidden);
        for sequence in batch {
            let (x, later) = rest.split_at_mut(sequence.tokens.len() * hidden);
            embed(&self.weights.embed, sequence.tokens, x)?;
            rest = later;
        }
        if let Some(scale) = self.embedding_scale() {
            space.x.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }

    /// What the embedding is multiplied by, rounded as its own numbers are: the square root of its width in Gemma 3.
    fn embedding_scale(&self) -> Option<f32> {
        self.config.gemma.as_ref()?;
        let scale = (self.config.hidden_size as f32).sqrt();
        Some(match self.weights.embed.numbers() {
            Numbers::F32(_) | Numbers::Quantized(_) => scale,
            Numbers::F16(_) => f16::from_f32(scale).to_f32(),
            Numbers::Bf16(_) => bf16::from_f32(scale).to_f32(),
        })
    }

    fn gate(&self) -> Gate {
        if self.config.gemma.is_some() { Gate::Gelu } else { Gate::Silu }
    }

    /// Adds the norm of what attention or MLP gave, `output`, to the residual stream `x`, and saves what they gave.
    fn add_normed(
        &self,
        (x, output): (&mut [f32], &[f32]),
        norm: &[f32],
        save: Option<&mut Saved>,
        memory: &mut Vec<f32>,
    ) {
        let normed = resized(memory, output.len());
        self.norm(norm).forward(self.team, output, normed);
        x.iter_mut().zip(normed.iter()).for_each(|(x, y)| *x += y);
        if let Some(save) = save {
            save.copy(self.team, output, norm.len(), self.keep());
        }
    }

    /// Forward pass of one block, from `space.x` to `space.x`; saves its activations if `keep` is given.
    fn block(
        &self,
        space: &mut Workspace,
        keep: Option<SaveBlock>,
        layer: usize,
        block: &BlockWeights,
        shape: BatchShape,
        cache: Option<&mut LayerKv>,
    ) -> Result<()> {
        self.block_until_ffn(space, keep, layer, block, shape, cache)?;
        let rows = shape.rows();
        let Workspace { x, inner, gate, up, kept, scratch, output, normed, .. } = space;
        let columns = self.config.intermediate_size;
        let mut kept = keep.and_then(|keep| kept.get_mut(keep.at));
        let save_to = match (kept.as_deref_mut(), self.keep()) {
            (Some(SavedBlock { gate, up, .. }), ActivationPrecision::I16) => {
                Some([gate, up].map(|kept| kept.parts_to_save((rows, columns), TILE_ROWS)))
            }
            _ => None,
        };
        let input = fused::gated(self.gate(), (gate, up), columns, save_to, inner);
        if let Some([_, norm]) = &block.output_norms {
            resized(output, x.len());
            let outputs = vec![(Projection::Down, &mut *output)];
            self.forward(scratch, layer, block, input, outputs, Accumulate::Overwrite)?;
            let save = kept.as_deref_mut().map(|kept| &mut kept.outputs[1]);
            self.add_normed((x, output), norm, save, normed);
        } else {
            let outputs = vec![(Projection::Down, &mut *x)];
            self.forward(scratch, layer, block, input, outputs, Accumulate::Add)?;
        }
        if let (Some(kept), ActivationPrecision::F32) = (kept, self.keep()) {
            kept.gate.take(self.team, gate, columns, ActivationPrecision::F32);
            kept.up.take(self.team, up, columns, ActivationPrecision::F32);
        }
        Ok(())
    }

    /// The norm of the residual stream `x`, as lazy rows; `x` itself is saved to `save`, if given.
    fn normed<'r>(
        &self,
        weight: &'r [f32],
        x: &'r [f32],
        save: Option<&'r mut Saved>,
        memory: &'r mut Vec<f32>,
    ) -> Rows<'r> {
        let columns = weight.len();
        let save_to = match (save, self.keep()) {
            (Some(save), ActivationPrecision::I16) => {
                Some(save.parts_to_save((x.len() / columns, columns), TILE_ROWS))
            }
            (Some(save), ActivationPrecision::F32) => {
                save.copy(self.team, x, columns, ActivationPrecision::F32);
                None
            }
            (None, _) => None,
        };
        fused::normed(self.norm(weight), x, save_to, memory)
    }

    /// Forward pass of one block up to the outputs of the gate and up projections, which stay in `space`.
    fn block_until_ffn(
        &self,
        space: &mut Workspace,
        keep: Option<SaveBlock>,
        layer: usize,
        block: &BlockWeights,
        shape: BatchShape,
        cache: Option<&mut LayerKv>,
    ) -> Result<()> {
        let (rows, hidden, team) = (shape.rows(), self.config.hidden_size, self.team);
        let (q_width, kv_width) =
            (self.config.num_heads * self.config.head_dim, self.config.num_kv_heads * self.config.head_dim);
        if let Some(keep) = keep
            && space.kept.len() <= keep.at
        {
            space.kept.resize_with(keep.at + 1, SavedBlock::default);
        }
        let Workspace {
            x,
            normed,
            q,
            k,
            v,
            raw: [raw_q, raw_k],
            logs,
            mixed,
            gate,
            up,
            kept,
            scratch,
            output,
            ..
        } = space;
        let mut kept = keep.and_then(|keep| kept.get_mut(keep.at));
        resized(q, rows * q_width);
        resized(k, rows * kv_width);
        resized(v, rows * kv_width);
        let outputs = vec![(Projection::Q, &mut *q), (Projection::K, &mut *k), (Projection::V, &mut *v)];
        let save = kept.as_deref_mut().map(|kept| &mut kept.x);
        let input = self.normed(&block.input_norm, &x[..rows * hidden], save, normed);
        self.forward(scratch, layer, block, input, outputs, Accumulate::Overwrite)?;
        if let Some([q_norm, k_norm]) = &block.head_norms {
            for (x, raw, norm) in [(&mut *q, &mut *raw_q, q_norm), (&mut *k, &mut *raw_k, k_norm)] {
                resized(raw, x.len()).copy_from_slice(x);
                self.norm(norm).forward(team, raw, x);
            }
        }
        let past = cache.as_ref().map_or(0, |past| past.keys.len() / kv_width);
        let attention = self.attention(layer, shape.sequence_len, past);
        attention.rotate(team, q, k);
        resized(mixed, rows * q_width);
        resized(logs, rows * self.config.num_heads);
        match cache {
            None => attention.forward(team, (q, k, v), mixed, logs)?,
            Some(past) => {
                past.keys.extend_from_slice(k);
                past.values.extend_from_slice(v);
                attention.forward(team, (q, &past.keys, &past.values), mixed, logs)?;
            }
        }
        let input = View::whole(mixed, q_width).into();
        if let Some([norm, _]) = &block.output_norms {
            resized(output, x.len());
            let outputs = vec![(Projection::O, &mut *output)];
            self.forward(scratch, layer, block, input, outputs, Accumulate::Overwrite)?;
            let save = kept.as_deref_mut().map(|kept| &mut kept.outputs[0]);
            self.add_normed((x, output), norm, save, normed);
        } else {
            let outputs = vec![(Projection::O, &mut *x)];
            self.forward(scratch, layer, block, input, outputs, Accumulate::Add)?;
        }
        if let Some(kept) = kept.as_deref_mut() {
            kept.q.take(team, q, q_width, self.keep());
            kept.k.take(team, k, kv_width, self.keep());
            kept.v.take(team, v, kv_width, self.keep());
            if block.head_norms.is_some() {
                kept.raw[0].take(team, raw_q, q_width, self.keep());
                kept.raw[1].take(team, raw_k, kv_width, self.keep());
            }
            if keep.is_some_and(|keep| keep.mixed) {
                kept.mixed.take(team, mixed, q_width, self.keep());
            }
            std::mem::swap(&mut kept.logs, logs);
        }
        resized(gate, rows * self.config.intermediate_size);
        resized(up, rows * self.config.intermediate_size);
        let outputs = vec![(Projection::Gate, gate), (Projection::Up, up)];
        let save = kept.map(|kept| &mut kept.middle);
        let input = self.normed(&block.post_norm, &x[..rows * hidden], save, normed);
        self.forward(scratch, layer, block, input, outputs, Accumulate::Overwrite)
    }

    /// Precision of saved activations: that of the products.
    fn keep(&self) -> ActivationPrecision {
        match self.precision {
            Precision::F32 => ActivationPrecision::F32,
            Precision::Int16 | Precision::Int8 => ActivationPrecision::I16,
        }
    }

    fn attention(&self, layer: usize, length: usize, past: usize) -> Attention<'_> {
        let DecoderConfig { num_heads: heads, num_kv_heads: kv_heads, head_dim: width, .. } = *self.config;
        let local = self.config.local(layer);
        let rope = local.and(self.ropes.local.as_ref()).unwrap_or(&self.ropes.whole);
        let (window, scale) = (local.map_or(usize::MAX, |gemma| gemma.window), self.config.attention_scale());
        Attention { length, past, heads, kv_heads, width, scale, window, rope }
    }

    /// Forward pass of linear layers of one block that share the input `x`, with biases and LoRA deltas.
    fn forward(
        &self,
        scratch: &mut Scratch,
        layer: usize,
        block: &BlockWeights,
        x: Rows<'_>,
        outputs: Vec<(Projection, &mut Vec<f32>)>,
        accumulate: Accumulate,
    ) -> Result<()> {
        let mut products = Vec::new();
        for (projection, out) in outputs {
            let linear = block.linear(projection);
            let mut out = ViewMut::whole(out, linear.weight.rows());
            let mut accumulate = accumulate;
            if let Some(bias) = &linear.bias {
                // Write the bias first, then add the product.
                for row in 0..out.rows() {
                    let row = out.row(row);
                    match accumulate {
                        Accumulate::Overwrite => row.copy_from_slice(bias),
                        Accumulate::Add => row.iter_mut().zip(bias.iter()).for_each(|(x, b)| *x += b),
                    }
                }
                accumulate = Accumulate::Add;
            }
            let weight = self.deltas.weight((layer, projection), &linear.weight);
            products.push((weight, Destination { out, accumulate }));
        }
        forward(self.team, self.precision.forward(), scratch, x, products)
    }

    /// The summed loss of the residual stream in `space.x`, by final norm, LM head and cross-entropy. Given a
    /// share and a target, also its gradient, times the share: of the stream to `space.g`, of norm and head to
    /// the target.
    fn loss_of(
        &self,
        space: &mut Workspace,
        batch: &[Sequence<'_>],
        backward: Option<(f32, &mut GradientTarget<'_>)>,
    ) -> Result<f64> {
        let (hidden, team) = (self.config.hidden_size, self.team);
        let (mut rows, mut next) = (Vec::new(), Vec::new());
        let mut first = 0;
        for sequence in batch {
            for (i, (token, learned)) in sequence.tokens.iter().zip(sequence.learned).enumerate().skip(1) {
                if *learned {
                    rows.push(first + i - 1);
                    next.push(*token);
                }
            }
            first += sequence.tokens.len();
        }
        let Workspace { x, g, normed, dnormed, middle, scratch, logits, .. } = space;
        let x = &x[..first * hidden];
        let picked = resized(middle, rows.len() * hidden);
        for (to, &row) in picked.chunks_exact_mut(hidden).zip(&rows) {
            to.copy_from_slice(&x[row * hidden..(row + 1) * hidden]);
        }
        let norm = self.norm(&self.weights.norm);
        let h = resized(normed, picked.len());
        norm.forward(team, picked, h);
        let (weight, memory) = (plain(self.weights.head()), (scratch, logits));
        let Some((share, wanted)) = backward else {
            return cross_entropy(team, self.precision, memory, weight, (h, &next), Loss::Alone);
        };
        let dh = resized(dnormed, h.len());
        let mut rest = wanted.embedding();
        let dw = rest.as_deref_mut().map(|rest| rest.head.as_mut().unwrap_or(&mut rest.embed).as_mut_slice());
        let loss = Loss::Rows { share, dh: &mut *dh, dw };
        let total = cross_entropy(team, self.precision, memory, weight, (h, &next), loss)?;
        if let Some(rest) = rest {
            norm.weight_backward(picked, dh, &mut rest.norm);
        }
        // Scatter the gradient of the rows with a target token among all rows.
        let picked_backward = &mut h[..];
        picked_backward.fill(0.0);
        norm.backward(team, picked, dh, picked_backward);
        let g = resized(g, first * hidden);
        g.fill(0.0);
        for (from, &row) in picked_backward.chunks_exact(hidden).zip(&rows) {
            g[row * hidden..(row + 1) * hidden].copy_from_slice(from);
        }
        Ok(total)
    }
}

/// A weight without LoRA deltas.
fn plain(matrix: &Matrix) -> Weight<'_> {
    Weight { matrix, pairs: [None; 2] }
}

/// The shape of a batch; fails if sequences and loss masks are not of one length.
fn shape(batch: &[Sequence<'_>]) -> Result<BatchShape> {
    match BatchShape::of(batch) {
        Some(shape) if batch.iter().all(|sequence| sequence.learned.len() == shape.sequence_len) => Ok(shape),
        Some(_) | None => bail!("sequences of one pass have one length"),
    }
}
