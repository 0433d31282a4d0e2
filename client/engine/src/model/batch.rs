//! The input of a forward or backward pass: token sequences with their loss masks.

use crate::model::blocks::Block;

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
