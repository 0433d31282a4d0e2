//! Splitting of batches into micro-batches, for gradient accumulation. A row is one token.

use crate::model::batch::{BatchShape, Sequence};

/// Splits a batch into micro-batches of consecutive sequences of one length: at most `rows` rows each, but at
/// least one sequence.
pub(crate) fn micro_batches<'b, 's>(batch: &'b [Sequence<'s>], rows: usize) -> Vec<&'b [Sequence<'s>]> {
    let runs = batch.chunk_by(|left, right| left.tokens.len() == right.tokens.len());
    runs.flat_map(|run| run.chunks((rows / run[0].tokens.len().max(1)).max(1))).collect()
}

/// Rows of the largest micro-batch of a batch, with the limit `rows`.
pub(crate) fn rows_at_once(shape: BatchShape, rows: usize) -> usize {
    let most = (rows / shape.sequence_len.max(1)).max(1);
    BatchShape { batch_size: shape.batch_size.min(most), ..shape }.rows()
}
