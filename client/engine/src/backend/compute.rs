//! How an engine computes, and what that takes.

use crate::backend::candle;
use crate::backend::device::Backend;
use crate::base::Base;
use crate::kernels::matmul::Precision;
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
    pub precision: Option<Precision>,
    /// What is done to need less memory.
    pub recompute: Recompute,
    /// Where; the threads are of our own kernels and of candle's CPU, not of a vendor's library.
    pub backend: Backend,
}

impl Default for Compute {
    /// On the CPU with our own kernels, one thread, what suits the base, and nothing computed twice.
    fn default() -> Self {
        Self { threads: 1, precision: None, recompute: Recompute::Never, backend: Backend::Cpu }
    }
}

impl Compute {
    /// Bytes that passes over `batch` sequences of `length` tokens take beside the weights: what is kept between the
    /// two ways, the gradients of one block, each thread's part of an attention, and the logits; nothing where that is a
    /// GPU's own memory.
    pub fn needed_bytes(&self, base: &Base, batch: usize, length: usize) -> u64 {
        let config = base.config();
        if let Backend::Candle(device) = self.backend {
            return candle::needed_bytes(config, self.recompute, (batch, length), device);
        }
        let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_heads);
        // Bytes of a number that is kept, or packed on the left of a product.
        let (kept, packed) = match self.precision_for(base) {
            Precision::F32 => (4, 4),
            Precision::Int16 | Precision::Int8 => (2, 2),
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
        match self.backend {
            Backend::Cpu => 0,
            Backend::Candle(device) => candle::copied_bytes(config, device),
        }
    }

    /// The precision of products with `base`, in words.
    pub fn precision_name(&self, base: &Base) -> String {
        match self.backend {
            Backend::Cpu => self.precision_for(base).to_string(),
            Backend::Candle(device) => candle::numbers(base, device, self.precision),
        }
    }

    /// The precision as checkpoints name it: on a CPU by older names, so that one of before is still resumed.
    pub(crate) fn precision_in_checkpoint(&self, base: &Base) -> String {
        match (self.backend, self.precision_for(base)) {
            (Backend::Cpu, Precision::F32) => "Single".to_owned(),
            (Backend::Cpu, Precision::Int16) => "Short".to_owned(),
            (Backend::Cpu, Precision::Int8) => "Byte".to_owned(),
            (Backend::Candle(device), _) => candle::numbers(base, device, self.precision),
        }
    }

    /// In what numbers our own kernels compute products with `base`.
    pub fn precision_for(&self, base: &Base) -> Precision {
        let single = is_small(base.config()) || base.weights().is_single();
        let suits = if single { Precision::F32 } else { Precision::fine() };
        self.precision.map_or(suits, Precision::or_finer)
    }
}

/// Whether threads take whole sequences.
pub(super) fn is_small(config: &DecoderConfig) -> bool {
    config.hidden_size * config.intermediate_size <= SMALL
}
