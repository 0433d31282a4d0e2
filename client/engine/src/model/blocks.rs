//! Documents joined and cut into blocks of one length.

use std::fmt;

/// A document's tokens. Its `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    tokens: Vec<u32>,
    learned: Vec<bool>,
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} tokens)", self.tokens.len())
    }
}

impl Encoded {
    /// A document of which every token is learned.
    pub fn plain(tokens: Vec<u32>) -> Self {
        let learned = vec![true; tokens.len()];
        Self { tokens, learned }
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// For each token whether it is learned.
    pub fn learned(&self) -> &[bool] {
        &self.learned
    }

    /// Adds one token, and whether it is learned.
    pub fn push(&mut self, token: u32, learned: bool) {
        self.tokens.push(token);
        self.learned.push(learned);
    }

    /// Adds what another document has.
    pub fn extend(&mut self, other: &Self) {
        self.tokens.extend_from_slice(&other.tokens);
        self.learned.extend_from_slice(&other.learned);
    }

    /// Whether all of it is learned.
    pub fn is_plain(&self) -> bool {
        self.learned.iter().all(|learned| *learned)
    }
}

/// One sequence to train on, and which of its tokens count. Its `Debug` shows no tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    tokens: Vec<u32>,
    learned: Vec<bool>,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} of {} tokens learned)", self.targets(), self.tokens.len())
    }
}

impl Block {
    /// Cuts a block out; its first token is never learned, because nothing comes before it.
    fn cut(tokens: &[u32], learned: &[bool]) -> Self {
        let mut learned = learned.to_vec();
        if let Some(first) = learned.first_mut() {
            *first = false;
        }
        Self { tokens: tokens.to_vec(), learned }
    }

    /// The tokens, at least two.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// For each token, whether it is predicted and counts in the loss; the first never does.
    pub fn learned(&self) -> &[bool] {
        &self.learned
    }

    fn targets(&self) -> usize {
        self.learned.iter().filter(|learned| **learned).count()
    }
}

/// Token sequences of one length, cut from joined documents; each has a token that is learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    blocks: Vec<Block>,
}

impl Blocks {
    /// Joins `bos` and each document's tokens, and cuts the whole into blocks of `sequence_len`; every token but a
    /// block's first is learned.
    ///
    /// The rest that fills no block is left out, and so is a last block that ends exactly with the text;
    /// a text of at most one block is a single, shorter block.
    pub fn new(documents: &[Vec<u32>], bos: u32, sequence_len: u32) -> Self {
        let mut joined = Encoded::default();
        for document in documents {
            joined.push(bos, true);
            for token in document {
                joined.push(*token, true);
            }
        }
        Self::cut(&joined, sequence_len)
    }

    /// Joins documents of which some tokens are learned, each behind `bos` if it does not begin with it, and cuts
    /// the whole as [`Blocks::new`] does, with one difference: no block holds nothing but what is given.
    ///
    /// Where a block would begin that has nothing to learn, tokens are left out until the next learned ones have as
    /// much as possible of what is given before them: the block ends with them, or, where they are more than half a
    /// block, they begin in its middle.
    pub fn of_documents(documents: &[Encoded], bos: u32, sequence_len: u32) -> Self {
        let mut joined = Encoded::default();
        for document in documents {
            if document.tokens().first() != Some(&bos) {
                joined.push(bos, document.is_plain());
            }
            joined.extend(document);
        }
        Self::cut(&joined, sequence_len)
    }

    fn cut(joined: &Encoded, sequence_len: u32) -> Self {
        let length = usize::try_from(sequence_len).unwrap_or(usize::MAX).max(2);
        let (tokens, learned) = (joined.tokens(), joined.learned());
        let block = |start: usize, end: usize| Block::cut(&tokens[start..end], &learned[start..end]);
        let mut blocks = Vec::new();
        if tokens.len() <= length {
            blocks.push(block(0, tokens.len()));
        }
        let mut at = 0;
        while at + length < tokens.len() {
            let Some(next) = next_learned(learned, at + 1) else { break };
            if next >= at + length {
                let run = learned[next..].iter().take_while(|learned| **learned).count();
                at = next + run.min(length / 2) - length;
            }
            blocks.push(block(at, at + length));
            at += length;
        }
        blocks.retain(|block| block.targets() > 0);
        Self { blocks }
    }

    /// How many blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Tokens that are learned.
    pub fn targets(&self) -> u64 {
        self.blocks.iter().map(|block| block.targets() as u64).sum()
    }

    /// The blocks of both, in order.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.blocks.extend(other.blocks);
        self
    }

    /// The blocks themselves.
    pub fn as_slice(&self) -> &[Block] {
        &self.blocks
    }
}

fn next_learned(learned: &[bool], from: usize) -> Option<usize> {
    let found = learned.get(from..)?.iter().position(|learned| *learned)?;
    Some(from + found)
}

#[cfg(test)]
mod tests;
