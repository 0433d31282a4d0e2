//! Tokenized documents with loss masks, concatenated and cut into training blocks of one length.

use std::fmt;

/// A tokenized document with its loss mask. `Debug` shows no tokens.
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
    /// A document whose every token counts in the loss.
    pub fn plain(tokens: Vec<u32>) -> Self {
        let learned = vec![true; tokens.len()];
        Self { tokens, learned }
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The loss mask: for each token, whether it counts in the loss.
    pub fn learned(&self) -> &[bool] {
        &self.learned
    }

    /// Appends a token; `learned` says whether it counts in the loss.
    pub fn push(&mut self, token: u32, learned: bool) {
        self.tokens.push(token);
        self.learned.push(learned);
    }

    /// Appends another document.
    pub fn extend(&mut self, other: &Self) {
        self.tokens.extend_from_slice(&other.tokens);
        self.learned.extend_from_slice(&other.learned);
    }

    /// Whether every token counts in the loss.
    pub fn is_plain(&self) -> bool {
        self.learned.iter().all(|learned| *learned)
    }
}

/// One training sequence with its loss mask. `Debug` shows no tokens.
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
    /// Copies a block; its first token never counts in the loss, because no token precedes it.
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

    /// The loss mask: for each token, whether it is a target (predicted and counted in the loss); the first
    /// never is.
    pub fn learned(&self) -> &[bool] {
        &self.learned
    }

    fn targets(&self) -> usize {
        self.learned.iter().filter(|learned| **learned).count()
    }
}

/// Training blocks of one length, cut from concatenated documents, each with at least one target token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    blocks: Vec<Block>,
}

impl Blocks {
    /// Concatenates `bos` and each document's tokens, and cuts the result into blocks of `sequence_len` tokens,
    /// at least 2; every token but a block's first counts in the loss.
    ///
    /// A rest that fills no block is dropped, and so is a last block that ends exactly with the text. A text of
    /// at most one block becomes a single block, which may be shorter.
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

    /// Concatenates documents with loss masks, each after `bos` unless it begins with it, and cuts them like
    /// [`Blocks::new`], except that no block is without a target token.
    ///
    /// Where a block would have no target, tokens are skipped so that the next run of targets has as much
    /// context as possible: the block ends with the run or, if the run is longer than half a block, the run
    /// begins in the block's middle.
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

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Number of target tokens, those that count in the loss.
    pub fn targets(&self) -> u64 {
        self.blocks.iter().map(|block| block.targets() as u64).sum()
    }

    /// At most `most` of the blocks, from the one at `from` on, where after the last comes the first.
    #[must_use]
    pub fn some(&self, from: usize, most: usize) -> Self {
        let all = self.blocks.len();
        let blocks =
            (0..most.min(all)).filter_map(|at| self.blocks.get((from % all.max(1) + at) % all.max(1)));
        Self { blocks: blocks.cloned().collect() }
    }

    /// The blocks of both, in order.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.blocks.extend(other.blocks);
        self
    }

    /// What a digest of a text as tokens is taken of: each block after its length, and behind each token whether it counts in
    /// the loss. Other tokens, another mask or other cuts are other bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let tokens: usize = self.blocks.iter().map(|block| block.tokens.len()).sum();
        let mut bytes = Vec::with_capacity(8 * self.blocks.len() + 5 * tokens);
        for block in &self.blocks {
            bytes.extend_from_slice(&(block.tokens.len() as u64).to_be_bytes());
            for (token, learned) in block.tokens.iter().zip(&block.learned) {
                bytes.extend_from_slice(&token.to_be_bytes());
                bytes.push(u8::from(*learned));
            }
        }
        bytes
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
