//! How an engine computes, and what that takes.

use crate::backend::candle;
use crate::backend::device::Place;
use crate::base::Base;
use crate::kernels::matmul::Arithmetic;
use crate::layers::attention::attention_numbers;
use crate::layers::cross_entropy::LOGITS;
use crate::model::compute::Recompute;
use crate::model::config::DecoderConfig;
use crate::model::micro_batch::rows_at_once;

/// Weights of one feed-forward matrix below which threads take whole sequences instead of parts of products.
const SMALL: usize = 1 << 18;
/// Rows of a micro-batch where threads take sequences: half a step's usual rows or fewer, for their balance.
pub(super) const ROWS_APART: usize = 128;
/// Rows of a micro-batch where threads share products.
pub(super) const ROWS_TOGETHER: usize = 512;

/// How an engine computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compute {
    /// Threads that it may use.
    pub threads: usize,
    /// In what numbers products with the base are computed, or finer where the CPU has no instructions for them; none
    /// for what suits the base and the CPU.
    pub arithmetic: Option<Arithmetic>,
    /// What is done to need less memory.
    pub recompute: Recompute,
    /// Where; the threads are of our own kernels and of candle's CPU, not of a vendor's library.
    pub place: Place,
}

impl Default for Compute {
    /// On the CPU with our own kernels, one thread, what suits the base, and nothing computed twice.
    fn default() -> Self {
        Self { threads: 1, arithmetic: None, recompute: Recompute::Never, place: Place::Own }
    }
}

impl Compute {
    /// Bytes that passes over `batch` sequences of `length` tokens take beside the weights: what is kept between the
    /// two ways, the gradients of one block, each thread's part of an attention, and the logits; nothing where that is a
    /// GPU's own memory.
    pub fn needed_bytes(&self, base: &Base, batch: usize, length: usize) -> u64 {
        let config = base.config();
        if let Place::Candle(device) = self.place {
            return candle::needed_bytes(config, self.recompute, (batch, length), device);
        }
        let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_heads);
        // Bytes of a number that is kept, or packed on the left of a product.
        let (kept, packed) = match self.arithmetic_for(base) {
            Arithmetic::Single => (4, 4),
            Arithmetic::Short | Arithmetic::Byte => (2, 2),
        };
        // Queries and keys before their norms.
        let raw = if config.qk_norm { q + kv } else { 0 };
        let block = kept * (2 * hidden + 2 * q + 2 * kv + raw + 2 * inner) + 4 * heads;
        let blocks = match self.recompute {
            Recompute::Never => config.num_layers * block,
            Recompute::Blocks => 4 * config.num_layers * hidden + block,
        };
        let left = (2 * inner).max(hidden).max(q + 2 * kv);
        let once = 4 * (6 * hidden + 6 * inner + 4 * q + 4 * kv + raw + heads) + packed * left;
        let at_once = if is_small(config) {
            batch.saturating_mul(length)
        } else {
            rows_at_once(batch, length, ROWS_TOGETHER)
        };
        let logits = at_once.saturating_mul(config.vocab_size).min(LOGITS);
        let attention = 4 * attention_numbers(heads / config.num_kv_heads, config.head_dim, length);
        let beside = (4 + packed) * logits + self.threads.saturating_mul(attention);
        (at_once as u64).saturating_mul((blocks + once) as u64).saturating_add(beside as u64)
    }

    /// Bytes that a training of `trained` parameters takes beside the weights: the passes, and of each parameter its
    /// value, its gradient, two moments and where it began.
    pub fn training_bytes(&self, base: &Base, trained: usize, (batch, length): (usize, usize)) -> u64 {
        self.needed_bytes(base, batch, length).saturating_add(20 * trained as u64)
    }

    /// Bytes of this machine's memory that a base's weights take once more at the place: all of them, as f32, on
    /// candle's CPU; the largest matrix on its way to a GPU.
    pub fn copied_bytes(&self, config: &DecoderConfig) -> u64 {
        match self.place {
            Place::Own => 0,
            Place::Candle(device) => candle::copied_bytes(config, device),
        }
    }

    /// In what numbers products with `base` are computed, in words.
    pub fn numbers_for(&self, base: &Base) -> String {
        match self.place {
            Place::Own => format!("{:?}", self.arithmetic_for(base)),
            Place::Candle(device) => candle::numbers(base, device, self.arithmetic),
        }
    }

    /// In what numbers our own kernels compute products with `base`.
    pub fn arithmetic_for(&self, base: &Base) -> Arithmetic {
        let single = is_small(base.config()) || base.weights().is_single();
        let suits = if single { Arithmetic::Single } else { Arithmetic::fine() };
        self.arithmetic.map_or(suits, Arithmetic::or_finer)
    }
}

/// Whether threads take whole sequences.
pub(super) fn is_small(config: &DecoderConfig) -> bool {
    config.hidden_size * config.intermediate_size <= SMALL
}
