//! The decoder: forwards from tokens to a loss, and backwards from the loss to what is trained.
//!
//! Written out and not taped, so that what is kept between the two ways is known: for each block the residual
//! stream at its two norms, the queries, keys and values, what attention mixed of them where the output projection
//! learns, and the two halves of the feed-forward part. The rest is a pass over memory away and is made again.

mod backward;
mod fused;

use crate::kernels::buffer::sized;
use crate::kernels::error::{Result, bail};
use crate::kernels::matmul::{Add, Arithmetic, Rows, Scratch, TOGETHER, Weight, forward};
use crate::kernels::matrix::Matrix;
use crate::kernels::pool::Team;
use crate::kernels::view::{View, ViewMut};
use crate::layers::attention::Attention;
use crate::layers::cross_entropy::{Loss, cross_entropy};
use crate::layers::embedding::{embed, embed_back};
use crate::layers::rms_norm::RmsNorm;
use crate::layers::rope::Rope;
use crate::model::batch::Sequence;
use crate::model::compute::Recompute;
use crate::model::config::DecoderConfig;
use crate::model::delta::Changes;
use crate::model::gradient_target::Wanted;
use crate::model::kv_cache::{Cache, Past, Which};
use crate::model::projection::Projection;
use crate::model::saved::{Keep, Stored};
use crate::model::weights::{BlockWeights, Weights};
use crate::model::workspace::{Kept, Workspace};

/// A base, what is added to it, and how it is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) weights: &'a Weights,
    pub(crate) changes: &'a Changes<'a>,
    pub(crate) rope: &'a Rope,
    pub(crate) arithmetic: Arithmetic,
    pub(crate) team: Team,
    pub(crate) recompute: Recompute,
}

/// Where what the way back needs of a block stays.
#[derive(Clone, Copy, Debug)]
struct Keeping {
    /// In the workspace.
    at: usize,
    /// Whether the output projection learns, and needs its input.
    mixed: bool,
}

impl Decoder<'_> {
    /// The sum of the losses of all learned tokens; adds their gradient, times `share`, to what is wanted.
    ///
    /// All sequences have one length.
    pub(crate) fn gradient(
        &self,
        space: &mut Workspace,
        batch: &[Sequence<'_>],
        share: f32,
        mut wanted: Wanted<'_>,
    ) -> Result<f64> {
        let length = length(batch)?;
        let lowest = wanted.lowest(self.changes);
        let (rows, hidden) = (batch.len() * length, self.config.hidden_size);
        self.embed(space, batch)?;
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            let keep = match self.recompute {
                Recompute::Never => {
                    let mixed = wanted.wants(self.changes, (layer, Projection::O));
                    Some(Keeping { at: layer, mixed })
                }
                Recompute::Blocks => {
                    space.keep_input(layer);
                    None
                }
            };
            self.block(space, keep, layer, block, (batch.len(), length), None)?;
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
                    let mixed = wanted.wants(self.changes, (layer, Projection::O));
                    let keep = Some(Keeping { at: 0, mixed });
                    self.block_until_inner(space, keep, layer, block, (batch.len(), length), None)?;
                    space.keep_halves(0, self.team, self.config.intermediate_size, self.keep());
                    0
                }
            };
            self.block_back(space, keep, layer, block, (batch.len(), length), &mut wanted, below)?;
        }
        if let Some(rest) = wanted.embedding() {
            for (i, sequence) in batch.iter().enumerate() {
                let dx = &space.g[i * length * hidden..(i + 1) * length * hidden];
                embed_back(sequence.tokens, dx, hidden, &mut rest.embed);
            }
        }
        Ok(loss)
    }

    /// The sum of the losses of all learned tokens.
    pub(crate) fn loss(&self, space: &mut Workspace, batch: &[Sequence<'_>]) -> Result<f64> {
        let length = length(batch)?;
        self.embed(space, batch)?;
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            self.block(space, None, layer, block, (batch.len(), length), None)?;
        }
        self.loss_of(space, batch, None)
    }

    /// The logits after each of `tokens`, which follow what `cache` has read: (tokens, vocab), or those after the
    /// last one.
    pub(crate) fn logits(
        &self,
        space: &mut Workspace,
        cache: &mut Cache,
        tokens: &[u32],
        which: Which,
    ) -> Result<Vec<f32>> {
        let hidden = self.config.hidden_size;
        cache.blocks.resize_with(self.weights.blocks.len(), Default::default);
        self.embed(space, &[Sequence { tokens, learned: &[] }])?;
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            self.block(space, None, layer, block, (1, tokens.len()), Some(&mut cache.blocks[layer]))?;
        }
        let rows = match which {
            Which::All => 0..tokens.len(),
            Which::Last => tokens.len().saturating_sub(1)..tokens.len(),
        };
        let head = self.weights.head();
        let mut logits = vec![0.0; rows.len() * head.rows()];
        let Workspace { x, normed, scratch, .. } = space;
        let x = &x[rows.start * hidden..rows.end * hidden];
        let normed = sized(normed, x.len());
        self.norm(&self.weights.norm).forward(self.team, x, normed);
        let (weight, out) = (plain(head), ViewMut::whole(&mut logits, head.rows()));
        let x = View::whole(normed, hidden);
        forward(self.team, self.arithmetic.there(), scratch, x, vec![(weight, out, Add::ToNothing)])?;
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
        let mut rest = sized(&mut space.x, rows * hidden);
        for sequence in batch {
            let (x, later) = rest.split_at_mut(sequence.tokens.len() * hidden);
            embed(&self.weights.embed, sequence.tokens, x)?;
            rest = later;
        }
        Ok(())
    }

    /// One block, from `space.x` to `space.x`; what the way back needs is kept, if it is wanted.
    fn block(
        &self,
        space: &mut Workspace,
        keep: Option<Keeping>,
        layer: usize,
        block: &BlockWeights,
        shape: (usize, usize),
        cache: Option<&mut Past>,
    ) -> Result<()> {
        self.block_until_inner(space, keep, layer, block, shape, cache)?;
        let rows = shape.0 * shape.1;
        let Workspace { x, inner, gate, up, kept, scratch, .. } = space;
        let columns = self.config.intermediate_size;
        let mut kept = keep.and_then(|keep| kept.get_mut(keep.at));
        let places = match (kept.as_deref_mut(), self.keep()) {
            (Some(Kept { gate, up, .. }), Keep::Half) => {
                Some([gate, up].map(|kept| kept.parts_to_store((rows, columns), TOGETHER)))
            }
            _ => None,
        };
        let input = fused::gated((gate, up), columns, places, inner);
        let outputs = vec![(Projection::Down, &mut *x)];
        self.forward(scratch, layer, block, input, outputs, Add::ToWhatIsThere)?;
        if let (Some(kept), Keep::Whole) = (kept, self.keep()) {
            kept.gate.take(self.team, gate, columns, Keep::Whole);
            kept.up.take(self.team, up, columns, Keep::Whole);
        }
        Ok(())
    }

    /// The normed rows of the residual stream, which is kept where there is a place.
    fn normed<'r>(
        &self,
        weight: &'r [f32],
        x: &'r [f32],
        place: Option<&'r mut Stored>,
        memory: &'r mut Vec<f32>,
    ) -> Rows<'r> {
        let columns = weight.len();
        let places = match (place, self.keep()) {
            (Some(place), Keep::Half) => Some(place.parts_to_store((x.len() / columns, columns), TOGETHER)),
            (Some(place), Keep::Whole) => {
                place.copy(self.team, x, columns, Keep::Whole);
                None
            }
            (None, _) => None,
        };
        fused::normed(self.norm(weight), x, places, memory)
    }

    /// One block up to the two halves of the feed-forward part, which stay in `space`.
    fn block_until_inner(
        &self,
        space: &mut Workspace,
        keep: Option<Keeping>,
        layer: usize,
        block: &BlockWeights,
        (batch, length): (usize, usize),
        cache: Option<&mut Past>,
    ) -> Result<()> {
        let (rows, hidden, team) = (batch * length, self.config.hidden_size, self.team);
        let (q_width, kv_width) =
            (self.config.num_heads * self.config.head_dim, self.config.num_kv_heads * self.config.head_dim);
        if let Some(keep) = keep
            && space.kept.len() <= keep.at
        {
            space.kept.resize_with(keep.at + 1, Kept::default);
        }
        let Workspace {
            x, normed, q, k, v, raw: [raw_q, raw_k], logs, mixed, gate, up, kept, scratch, ..
        } = space;
        let mut kept = keep.and_then(|keep| kept.get_mut(keep.at));
        sized(q, rows * q_width);
        sized(k, rows * kv_width);
        sized(v, rows * kv_width);
        let outputs = vec![(Projection::Q, &mut *q), (Projection::K, &mut *k), (Projection::V, &mut *v)];
        let place = kept.as_deref_mut().map(|kept| &mut kept.x);
        let input = self.normed(&block.input_norm, &x[..rows * hidden], place, normed);
        self.forward(scratch, layer, block, input, outputs, Add::ToNothing)?;
        if let Some([q_norm, k_norm]) = &block.head_norms {
            for (x, raw, norm) in [(&mut *q, &mut *raw_q, q_norm), (&mut *k, &mut *raw_k, k_norm)] {
                sized(raw, x.len()).copy_from_slice(x);
                self.norm(norm).forward(team, raw, x);
            }
        }
        let past = cache.as_ref().map_or(0, |past| past.keys.len() / kv_width);
        let attention = self.attention(length, past);
        attention.turn(team, q, k);
        sized(mixed, rows * q_width);
        sized(logs, rows * self.config.num_heads);
        match cache {
            None => attention.forward(team, (q, k, v), mixed, logs)?,
            Some(past) => {
                past.keys.extend_from_slice(k);
                past.values.extend_from_slice(v);
                attention.forward(team, (q, &past.keys, &past.values), mixed, logs)?;
            }
        }
        let input = View::whole(mixed, q_width).into();
        self.forward(scratch, layer, block, input, vec![(Projection::O, &mut *x)], Add::ToWhatIsThere)?;
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
        sized(gate, rows * self.config.intermediate_size);
        sized(up, rows * self.config.intermediate_size);
        let outputs = vec![(Projection::Gate, gate), (Projection::Up, up)];
        let place = kept.map(|kept| &mut kept.middle);
        let input = self.normed(&block.post_norm, &x[..rows * hidden], place, normed);
        self.forward(scratch, layer, block, input, outputs, Add::ToNothing)
    }

    /// How numbers are kept: as fine as they are computed.
    fn keep(&self) -> Keep {
        match self.arithmetic {
            Arithmetic::Single => Keep::Whole,
            Arithmetic::Short | Arithmetic::Byte => Keep::Half,
        }
    }

    fn attention(&self, length: usize, past: usize) -> Attention<'_> {
        let DecoderConfig { num_heads: heads, num_kv_heads: kv_heads, head_dim: width, .. } = *self.config;
        Attention { length, past, heads, kv_heads, width, rope: self.rope }
    }

    /// Some linear layers of one block with one input.
    fn forward(
        &self,
        scratch: &mut Scratch,
        layer: usize,
        block: &BlockWeights,
        x: Rows<'_>,
        outputs: Vec<(Projection, &mut Vec<f32>)>,
        add: Add,
    ) -> Result<()> {
        let mut products = Vec::new();
        for (projection, out) in outputs {
            let linear = block.linear(projection);
            let mut out = ViewMut::whole(out, linear.weight.rows());
            let mut add = add;
            if let Some(bias) = &linear.bias {
                // The bias first, and the product is added to it.
                for row in 0..out.rows() {
                    let row = out.row(row);
                    match add {
                        Add::ToNothing => row.copy_from_slice(bias),
                        Add::ToWhatIsThere => row.iter_mut().zip(bias.iter()).for_each(|(x, b)| *x += b),
                    }
                }
                add = Add::ToWhatIsThere;
            }
            products.push((self.changes.weight((layer, projection), &linear.weight), out, add));
        }
        forward(self.team, self.arithmetic.there(), scratch, x, products)
    }

    /// The loss of what is in `space.x`; with a share, its gradient in `space.g`.
    fn loss_of(
        &self,
        space: &mut Workspace,
        batch: &[Sequence<'_>],
        back: Option<(f32, &mut Wanted<'_>)>,
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
        let picked = sized(middle, rows.len() * hidden);
        for (to, &row) in picked.chunks_exact_mut(hidden).zip(&rows) {
            to.copy_from_slice(&x[row * hidden..(row + 1) * hidden]);
        }
        let norm = self.norm(&self.weights.norm);
        let h = sized(normed, picked.len());
        norm.forward(team, picked, h);
        let (weight, memory) = (plain(self.weights.head()), (scratch, logits));
        let Some((share, wanted)) = back else {
            return cross_entropy(team, self.arithmetic, memory, weight, (h, &next), Loss::Alone);
        };
        let dh = sized(dnormed, h.len());
        let mut rest = wanted.embedding();
        let dw = rest.as_deref_mut().map(|rest| rest.head.as_mut().unwrap_or(&mut rest.embed).as_mut_slice());
        let loss = Loss::Rows { share, dh: &mut *dh, dw };
        let total = cross_entropy(team, self.arithmetic, memory, weight, (h, &next), loss)?;
        if let Some(rest) = rest {
            norm.weight_back(picked, dh, &mut rest.norm);
        }
        // The gradient of the picked rows, put back among the others.
        let picked_back = &mut h[..];
        picked_back.fill(0.0);
        norm.backward(team, picked, dh, picked_back);
        let g = sized(g, first * hidden);
        g.fill(0.0);
        for (from, &row) in picked_back.chunks_exact(hidden).zip(&rows) {
            g[row * hidden..(row + 1) * hidden].copy_from_slice(from);
        }
        Ok(total)
    }
}

/// A matrix that no adapter changes.
fn plain(matrix: &Matrix) -> Weight<'_> {
    Weight { matrix, pairs: [None; 2] }
}

/// The one length of all sequences.
fn length(batch: &[Sequence<'_>]) -> Result<usize> {
    let length = batch.first().map_or(0, |sequence| sequence.tokens.len());
    if batch.iter().any(|sequence| sequence.tokens.len() != length || sequence.learned.len() != length) {
        bail!("sequences of one pass have one length");
    }
    Ok(length)
}
