//! Device and host memory of a pass, and the size of micro-batches that keeps within it.

use candle_core::Device;

use crate::backend::candle::attention::QUERIES;
use crate::backend::device::CandleDevice;
use crate::layers::cross_entropy::LOGITS;
use crate::model::batch::BatchShape;
use crate::model::compute::Recompute;
use crate::model::config::DecoderConfig;
use crate::model::micro_batch::rows_at_once;
use crate::model::weights::tensor_shapes;

/// Rows (tokens) of a micro-batch on the CPU.
pub(super) const ROWS: usize = 512;
/// Most rows (tokens) of a micro-batch on a GPU, and most 4-byte values that they may take there.
pub(super) const GPU_ROWS: usize = 4096;
const GPU_NUMBERS: usize = 1 << 30;

/// Rows (tokens) of one micro-batch of sequences of at most `length` tokens, as many as fit the device.
pub(super) fn rows(config: &DecoderConfig, recompute: Recompute, length: usize, device: &Device) -> usize {
    if device.is_cpu() { ROWS } else { gpu_rows(config, recompute, length) }
}

pub(super) fn gpu_rows(config: &DecoderConfig, recompute: Recompute, length: usize) -> usize {
    (GPU_NUMBERS / row_numbers(config, recompute, length).max(1)).clamp(1, GPU_ROWS)
}

/// f32 values that one row takes on the device: saved activations, and what the backward pass of one block
/// holds at a time.
fn row_numbers(config: &DecoderConfig, recompute: Recompute, length: usize) -> usize {
    let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let raw = if config.qk_norm { q + kv } else { 0 };
    let kept = 2 * hidden + 2 * q + 2 * kv + raw + config.num_heads + 2 * inner;
    let blocks = match recompute {
        Recompute::Never => config.num_layers * kept,
        Recompute::Blocks => config.num_layers * hidden + kept,
    };
    let scores = 5 * config.num_heads * length.min(QUERIES);
    blocks + 6 * hidden + 6 * inner + 4 * (q + kv) + scores
}

/// Host memory in bytes for one forward and backward pass over a batch, without the weights. 0 on a GPU.
pub(crate) fn needed_bytes(
    config: &DecoderConfig,
    recompute: Recompute,
    shape: BatchShape,
    device: CandleDevice,
) -> u64 {
    if device.is_gpu() {
        return 0;
    }
    let at_once = rows_at_once(shape, ROWS);
    let logits = 3 * LOGITS.min(at_once * config.vocab_size);
    4 * (at_once * row_numbers(config, recompute, shape.sequence_len) + logits) as u64
}

/// Host memory in bytes for the device's copy of the weights: all of them as f32 on the CPU, the largest matrix
/// while it is copied to a GPU.
pub(crate) fn copied_bytes(config: &DecoderConfig, device: CandleDevice) -> u64 {
    let shapes = tensor_shapes(config);
    let counts = shapes.values().map(|shape| shape.iter().product::<usize>() as u64);
    4 * if device.is_gpu() { counts.max().unwrap_or(0) } else { counts.sum() }
}
