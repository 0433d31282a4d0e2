//! Splitting of batches into micro-batches, for gradient accumulation. A row is one token.

use crate::model::batch::Sequence;

/// Splits a batch into micro-batches of consecutive sequences of one length: at most `rows` rows each, but at
/// least one sequence.
pub(crate) fn micro_batches<'b, 's>(batch: &'b [Sequence<'s>], rows: usize) -> Vec<&'b [Sequence<'s>]> {
    let runs = batch.chunk_by(|left, right| left.tokens.len() == right.tokens.len());
    runs.flat_map(|run| run.chunks((rows / run[0].tokens.len().max(1)).max(1))).collect()
}

/// Rows of the largest micro-batch of `batch` sequences of `length` tokens, with the limit `rows`.
pub(crate) fn rows_at_once(batch: usize, length: usize, rows: usize) -> usize {
    batch.min((rows / length.max(1)).max(1)).saturating_mul(length)
}
