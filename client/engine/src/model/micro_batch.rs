//! Batches, cut into micro-batches of a limited number of rows.

use crate::model::batch::Sequence;

/// A batch's micro-batches: neighbours of one length, a limited number of rows each.
pub(crate) fn micro_batches<'b, 's>(batch: &'b [Sequence<'s>], rows: usize) -> Vec<&'b [Sequence<'s>]> {
    let runs = batch.chunk_by(|left, right| left.tokens.len() == right.tokens.len());
    runs.flat_map(|run| run.chunks((rows / run[0].tokens.len().max(1)).max(1))).collect()
}

/// Most rows of such a micro-batch of `batch` sequences of `length` tokens.
pub(crate) fn rows_at_once(batch: usize, length: usize, rows: usize) -> usize {
    batch.min((rows / length.max(1)).max(1)).saturating_mul(length)
}
