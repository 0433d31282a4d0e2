//! What a pass is made over.

use crate::model::blocks::Block;

/// Tokens, and which of them are learned: those that are predicted and count in the loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence<'a> {
    pub(crate) tokens: &'a [u32],
    pub(crate) learned: &'a [bool],
}

impl<'a> Sequence<'a> {
    /// A block of a user's text.
    pub(crate) fn of(block: &'a Block) -> Self {
        Self { tokens: block.tokens(), learned: block.learned() }
    }

    /// Tokens that count in the loss.
    pub(crate) fn targets(&self) -> usize {
        self.learned.iter().skip(1).filter(|learned| **learned).count()
    }
}
