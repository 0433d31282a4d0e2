//! The input of a forward or backward pass: token sequences with their loss masks, and their shape.

use crate::model::blocks::Block;

/// The shape of a batch of sequences of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences.
    pub batch_size: usize,
    /// Tokens of each sequence.
    pub sequence_len: usize,
}

impl BatchShape {
    /// The shape of these sequences; `None` if they are not of one length.
    pub(crate) fn of(batch: &[Sequence<'_>]) -> Option<Self> {
        let sequence_len = batch.first().map_or(0, |sequence| sequence.tokens.len());
        let same = batch.iter().all(|sequence| sequence.tokens.len() == sequence_len);
        same.then_some(Self { batch_size: batch.len(), sequence_len })
    }

    /// Tokens of all sequences, each of which is a row.
    pub(crate) fn rows(self) -> usize {
        self.batch_size.saturating_mul(self.sequence_len)
    }
}

/// One token sequence and its loss mask: `learned[i]` says whether token `i` is a target, that is, predicted
/// from the tokens before it and counted in the loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence<'a> {
    pub(crate) tokens: &'a [u32],
    pub(crate) learned: &'a [bool],
}

impl<'a> Sequence<'a> {
    /// The sequence of a training block.
    pub(crate) fn of(block: &'a Block) -> Self {
        Self { tokens: block.tokens(), learned: block.learned() }
    }

    /// Number of target tokens, those that count in the loss. The first token is none: nothing predicts it.
    pub(crate) fn targets(&self) -> usize {
        self.learned.iter().skip(1).filter(|learned| **learned).count()
    }
}
