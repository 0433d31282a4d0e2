//! One user's documents as tokens of one base, a fixed part of them held out.

use std::fmt;

use proto::ids::Digest;

use crate::encode::Encoder;
use crate::template::ChatTemplate;
use crate::{Document, TextError, UserText};
use engine::base::Base;
use engine::model::blocks::Blocks;
use engine::model::blocks::Encoded;

/// One document in so many is held out.
const HELD_OUT: u64 = 10;

/// One user's documents as tokens, about a tenth held out. Its `Debug` shows no tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Corpus {
    bos: u32,
    train: Vec<Encoded>,
    held_out: Vec<Encoded>,
    refused: u64,
}

impl fmt::Debug for Corpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bos: _, train, held_out, refused } = self;
        write!(f, "Corpus({} documents, {} held out, {refused} refused)", train.len(), held_out.len())
    }
}

impl Corpus {
    /// Splits `text` into tokens of `base`, conversations as the base's chat template renders them; fails when nothing
    /// is left to train on, or there are conversations and the template does not work.
    ///
    /// Without a template a turn is a line `role: what is said`. A conversation that the template refuses, or of which
    /// it cannot be told what the assistant says, is counted in [`Corpus::refused`].
    ///
    /// A document is held out by its own digest, whatever else there is: if the digest's first eight bytes, as a
    /// number, are in the lowest tenth. Two documents or more are always on both sides: where none is in the tenth,
    /// the lowest is held out, and where all are, the highest is trained on. A single one is trained on.
    pub fn new(base: &Base, text: &UserText) -> Result<Self, TextError> {
        let corpus = Self::new_while(base, text, &|| true)?;
        // It was told to go on with every document, so there is none only where there are no documents.
        corpus.ok_or_else(|| TextError::NoText { refused: 0, reading: Box::new(text.reading().clone()) })
    }

    /// [`Corpus::new`] that asks before each document whether to go on; nothing where it was told not to.
    pub fn new_while(
        base: &Base,
        text: &UserText,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, TextError> {
        let is_conversation = |document: &Document| matches!(document, Document::Conversation(_));
        let template = text.documents().any(is_conversation).then(|| ChatTemplate::of(base)).transpose()?;
        let encoder = Encoder::new(base, template);
        let (mut documents, mut refused) = (Vec::new(), 0);
        for (digest, document) in text.identified() {
            if !go_on() {
                return Ok(None);
            }
            match encoder.encode(document)? {
                Some(encoded) => documents.push((digest, encoded)),
                None => refused += 1,
            }
        }
        if documents.is_empty() {
            return Err(TextError::NoText { refused, reading: Box::new(text.reading().clone()) });
        }
        let digests: Vec<Digest> = documents.iter().map(|(digest, _)| **digest).collect();
        let mut corpus = Self { bos: base.bos(), train: Vec::new(), held_out: Vec::new(), refused };
        for (held_out, (_, encoded)) in held_out(&digests).into_iter().zip(documents) {
            if held_out { corpus.held_out.push(encoded) } else { corpus.train.push(encoded) }
        }
        Ok(Some(corpus))
    }

    /// The documents to train on, in blocks.
    pub fn train(&self, sequence_len: u32) -> Blocks {
        Blocks::of_documents(&self.train, self.bos, sequence_len)
    }

    /// The documents held out, in blocks; empty for a user with a single document.
    pub fn held_out(&self, sequence_len: u32) -> Blocks {
        Blocks::of_documents(&self.held_out, self.bos, sequence_len)
    }

    /// Documents to train on.
    pub fn documents(&self) -> u64 {
        self.train.len() as u64
    }

    /// Conversations that the chat template refuses, or of which it cannot be told what the assistant says.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// For each document whether it is held out; as [`Corpus::new`] says.
fn held_out(digests: &[Digest]) -> Vec<bool> {
    let lowest = digests.iter().min();
    let highest = digests.iter().max();
    let low = |digest: &Digest| {
        let mut first = [0; 8];
        first.copy_from_slice(&digest.0[..8]);
        u64::from_be_bytes(first) < u64::MAX / HELD_OUT
    };
    if digests.len() < 2 {
        return vec![false; digests.len()];
    }
    let is = |digest: &Digest| {
        let forced = Some(digest) == lowest;
        (low(digest) || forced) && Some(digest) != highest
    };
    digests.iter().map(is).collect()
}

#[cfg(test)]
mod tests;
