//! Settings of an engine's passes, and the memory that they take.

use crate::backend::candle;
use crate::backend::device::Backend;
use crate::base::Base;
use crate::kernels::matmul::Precision;
use crate::layers::attention::attention_numbers;
use crate::layers::cross_entropy::LOGITS;
use crate::model::batch::BatchShape;
use crate::model::compute::Recompute;
use crate::model::config::DecoderConfig;
use crate::model::micro_batch::rows_at_once;

/// Most weights of one MLP matrix for which threads take whole micro-batches instead of parts of products.
const SMALL: usize = 1 << 18;
/// Rows (tokens) of a micro-batch where threads take whole ones: at most half of a usual step, to balance the
/// threads.
pub(super) const ROWS_APART: usize = 128;
/// Rows (tokens) of a micro-batch where threads share each product.
pub(super) const ROWS_TOGETHER: usize = 512;

/// Settings of an engine's passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compute {
    /// Threads that it may use.
    pub threads: usize,
    /// Precision of products with the base's weights, or a finer one where the CPU has no instructions for it;
    /// `None` for the one that suits the base and the CPU.
    pub precision: Option<Precision>,
    /// Which activations are recomputed to save memory.
    pub recompute: Recompute,
    /// Where passes are computed. `threads` holds for our own kernels and candle's CPU, not for a vendor's
    /// library.
    pub backend: Backend,
}

impl Default for Compute {
    /// Our own kernels on one thread, the precision that suits the base, and no recomputation.
    fn default() -> Self {
        Self { threads: 1, precision: None, recompute: Recompute::Never, backend: Backend::Cpu }
    }
}

impl Compute {
    /// Host memory in bytes for one forward and backward pass over a batch, without the weights: saved
    /// activations, one block's gradients, each thread's attention scratch, logits. 0 on a GPU.
    pub fn needed_bytes(&self, base: &Base, shape: BatchShape) -> u64 {
        let config = base.config();
        if let Backend::Candle(device) = self.backend {
            return candle::needed_bytes(config, self.recompute, shape, device);
        }
        let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_heads);
        // Bytes of a saved value, and of a packed one of a product's left factor.
        let (kept, packed) = match self.precision_for(base) {
            Precision::F32 => (4, 4),
            Precision::Int16 | Precision::Int8 => (2, 2),
        };
        // Saved queries and keys before their norms.
        let raw = if config.qk_norm { q + kv } else { 0 };
        // Outputs of attention and MLP before their norms.
        let outputs = if config.gemma.is_some() { 2 * hidden } else { 0 };
        let block = kept * (2 * hidden + 2 * q + 2 * kv + raw + 2 * inner + outputs) + 4 * heads;
        let blocks = match self.recompute {
            Recompute::Never => config.num_layers * block,
            Recompute::Blocks => 4 * config.num_layers * hidden + block,
        };
        let left = (2 * inner).max(hidden).max(q + 2 * kv);
        let once = 4 * (6 * hidden + outputs / 2 + 6 * inner + 4 * q + 4 * kv + raw + heads) + packed * left;
        let at_once = if is_small(config) { shape.rows() } else { rows_at_once(shape, ROWS_TOGETHER) };
        let logits = at_once.saturating_mul(config.vocab_size).min(LOGITS);
        let attention =
            4 * attention_numbers(heads / config.num_kv_heads, config.head_dim, shape.sequence_len);
        let beside = (4 + packed) * logits + self.threads.saturating_mul(attention);
        (at_once as u64).saturating_mul((blocks + once) as u64).saturating_add(beside as u64)
    }

    /// Host memory in bytes for training `trained` parameters, without the weights: a pass, and for each
    /// parameter its value, its gradient, first and second moment and start value.
    pub fn training_bytes(&self, base: &Base, trained: usize, shape: BatchShape) -> u64 {
        self.needed_bytes(base, shape).saturating_add(20 * trained as u64)
    }

    /// Host memory in bytes for the backend's copy of the weights: all of them as f32 on candle's CPU, the
    /// largest matrix while it is copied to a GPU, 0 with our own kernels.
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

    /// The precision's name in checkpoints. Our own kernels keep their older names, so that older checkpoints
    /// can still be resumed.
    pub(crate) fn precision_in_checkpoint(&self, base: &Base) -> String {
        match (self.backend, self.precision_for(base)) {
            (Backend::Cpu, Precision::F32) => "Single".to_owned(),
            (Backend::Cpu, Precision::Int16) => "Short".to_owned(),
            (Backend::Cpu, Precision::Int8) => "Byte".to_owned(),
            (Backend::Candle(device), _) => candle::numbers(base, device, self.precision),
        }
    }

    /// Precision in which our own kernels compute products with `base`.
    pub fn precision_for(&self, base: &Base) -> Precision {
        let single = is_small(base.config()) || base.weights().is_single();
        let suits = if single { Precision::F32 } else { Precision::fine() };
        self.precision.map_or(suits, Precision::or_finer)
    }
}

/// Whether the model is so small that threads take whole micro-batches.
pub(super) fn is_small(config: &DecoderConfig) -> bool {
    config.hidden_size * config.intermediate_size <= SMALL
}
