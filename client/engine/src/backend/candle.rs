//! The decoder on candle's tensors, for devices that our own kernels do not support.
//!
//! Forward and backward pass are those of `model::decoder`, written out in plain candle operations. candle's
//! autograd is not used: it would compute a gradient for each frozen weight and keep activations that nothing
//! needs. Weights are copied to the device once per engine, as bf16 where the device is a GPU, the base holds
//! bf16 and f32 was not asked for, else as f32; everything between two matrix products is f32. A layer with a
//! LoRA delta takes two products: one with the frozen weight, and a low-rank one with the factors.
//!
//! Tested on the CPU, with candle's own products and with those of MKL. On CUDA and Metal, and with Accelerate,
//! this code has never run, and no result of theirs has been compared with anything. It asks few operations of
//! a device: `matmul` of contiguous matrices and their transposes (MKL and CUDA take no other), element-wise
//! operations with broadcasting, sums and maxima of rows, `index_select`, `gather`, `cat`. Nothing is
//! scattered, so the device decides no order of summation except inside its own products and sums.
//!
//! Start reading at [`Decoder`]; `block` has what happens between the embedding and the loss.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

use crate::model::batch::{BatchShape, Sequence};
use crate::model::compute::Recompute;
use crate::model::config::DecoderConfig;
use crate::model::delta::{FoldedDeltas, LoraDeltas};
use crate::model::kv_cache::LogitsFor;
use adapter::LowRank;
use attention::{Attention, LayerKv};
use norm::Norm;
use weights::Block;

mod adapter;
mod attention;
mod block;
mod gradients;
mod loss;
mod memory;
mod norm;
mod open;
#[cfg(test)]
mod tests;
mod weights;

pub(crate) use adapter::Adapter;
pub(crate) use gradients::Gradients;
pub(crate) use memory::{copied_bytes, needed_bytes};
pub(crate) use open::check;
pub(crate) use weights::{Loaded, numbers};

/// A base on a device, and the settings of its passes.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    config: &'a DecoderConfig,
    loaded: &'a Loaded,
    recompute: Recompute,
    attention: Attention,
    /// Folded LoRA deltas of earlier epochs.
    folded_deltas: BTreeMap<adapter::At, LowRank>,
    rows: usize,
}

/// The key/value cache of incremental decoding, on the device.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    blocks: Vec<Option<LayerKv>>,
}

impl<'a> Decoder<'a> {
    /// A decoder for sequences of at most `length` tokens; fails if its tensors cannot be put on the device.
    pub(crate) fn new(
        config: &'a DecoderConfig,
        loaded: &'a Loaded,
        folded_deltas: &FoldedDeltas,
        recompute: Recompute,
        length: usize,
    ) -> Result<Self> {
        let device = &loaded.device;
        Ok(Self {
            config,
            loaded,
            recompute,
            attention: Attention::new(config, length, device)?,
            folded_deltas: adapter::folded_deltas(config, folded_deltas, device)?,
            rows: memory::rows(config, recompute, length, device),
        })
    }

    /// Rows (tokens) of one micro-batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Copies an adapter's LoRA deltas to the device.
    pub(crate) fn adapter(&self, deltas: &LoraDeltas<'_>) -> Result<Adapter<'_>> {
        Adapter::new(self.config, deltas, &self.folded_deltas, &self.loaded.device)
    }

    /// Gradients on the device that go on from `before`, a vector that [`Gradients::into_vec`] gave; from nothing
    /// if it is empty.
    pub(crate) fn gradients(&self, before: &[f32]) -> Result<Gradients> {
        Gradients::after(before, &self.loaded.device)
    }

    /// Returns the summed loss of a micro-batch's target tokens, and adds its gradient times `share` to
    /// `gradients`; fails like [`Self::loss`].
    pub(crate) fn gradient(
        &self,
        adapter: &Adapter<'_>,
        batch: &[Sequence<'_>],
        share: f32,
        gradients: &mut Gradients,
    ) -> Result<f64> {
        let (mut x, shape) = self.embed(batch)?;
        let lowest = adapter.lowest().unwrap_or(usize::MAX);
        // No gradient reaches the blocks below the lowest one with a delta, so nothing of them is saved.
        let (mut kept, mut inputs) = (BTreeMap::new(), BTreeMap::new());
        for at in 0..self.loaded.blocks.len() {
            let input = x.clone();
            let (after, keep) = self.block(adapter, at, x, shape)?;
            x = after;
            if at >= lowest {
                match self.recompute {
                    Recompute::Never => drop(kept.insert(at, keep)),
                    Recompute::Blocks => drop(inputs.insert(at, input)),
                }
            }
        }
        let (total, g) = self.loss_of(&x, batch, Some(share))?;
        drop(x);
        let Some(mut g) = g else { return Ok(total) };
        for at in (lowest..self.loaded.blocks.len()).rev() {
            let keep = match (kept.remove(&at), inputs.remove(&at)) {
                (Some(keep), _) => keep,
                (None, Some(input)) => self.block_until_ffn(adapter, at, input, shape)?,
                (None, None) => candle_core::bail!("nothing was kept of block {at}"),
            };
            let Some(before) = self.block_backward(adapter, at, keep, g, shape, at > lowest, gradients)?
            else {
                break;
            };
            g = before;
        }
        Ok(total)
    }

    /// Returns the summed loss of a micro-batch's target tokens; fails if it has sequences of several lengths, or
    /// a token outside the vocabulary.
    pub(crate) fn loss(&self, adapter: &Adapter<'_>, batch: &[Sequence<'_>]) -> Result<f64> {
        let (mut x, shape) = self.embed(batch)?;
        for at in 0..self.loaded.blocks.len() {
            x = self.block(adapter, at, x, shape)?.0;
        }
        Ok(self.loss_of(&x, batch, None)?.0)
    }

    /// Returns the logits after each of `tokens`, (tokens, vocab), or after the last one only, (1, vocab). The
    /// tokens continue the sequence in the cache `reading` and are added to it.
    pub(crate) fn logits(
        &self,
        adapter: &Adapter<'_>,
        reading: &mut Reading,
        tokens: &[u32],
        which: LogitsFor,
    ) -> Result<Vec<f32>> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        reading.blocks.resize(self.loaded.blocks.len(), None);
        let (mut x, _) = self.embed(&[Sequence { tokens, learned: &[] }])?;
        for (at, past) in reading.blocks.iter_mut().enumerate() {
            x = self.block_on(adapter, at, x, past)?;
        }
        let x = match which {
            LogitsFor::All => x,
            LogitsFor::Last => x.narrow(0, tokens.len().saturating_sub(1), 1)?,
        };
        let h = self.norm(&self.loaded.norm).forward(&x)?;
        weights::product(&h, self.loaded.head())?.flatten_all()?.to_vec1()
    }

    /// The embeddings of a batch, (rows, hidden), and its shape.
    fn embed(&self, batch: &[Sequence<'_>]) -> Result<(Tensor, BatchShape)> {
        let Some(shape) = BatchShape::of(batch) else {
            candle_core::bail!("sequences of one pass have one length");
        };
        let tokens: Vec<u32> = batch.iter().flat_map(|sequence| sequence.tokens).copied().collect();
        if let Some(token) = tokens.iter().find(|token| **token as usize >= self.config.vocab_size) {
            candle_core::bail!("token {token} is not below {}", self.config.vocab_size);
        }
        let rows = tokens.len();
        let tokens = Tensor::from_vec(tokens, rows, &self.loaded.device)?;
        let x = self.loaded.embed.index_select(&tokens, 0)?.to_dtype(DType::F32)?;
        Ok((x, shape))
    }

    fn norm<'w>(&self, weight: &'w Tensor) -> Norm<'w> {
        Norm { weight, eps: self.config.rms_norm_eps }
    }

    fn weights(&self, at: usize) -> &Block {
        &self.loaded.blocks[at]
    }
}
