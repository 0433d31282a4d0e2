//! One user's documents as tokens of one base, a fixed part of them held out.

use std::fmt;

use proto::ids::Digest;

use crate::encode::{EncodedDocument, Encoder};
use crate::notes::Notes;
use crate::template::ChatTemplate;
use crate::{TextError, UserText};
use engine::base::{Base, Tokens};
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
    notes: Notes,
}

impl fmt::Debug for Corpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bos: _, train, held_out, notes } = self;
        let refused = notes.refused();
        write!(f, "Corpus({} documents, {} held out, {refused} refused)", train.len(), held_out.len())
    }
}

impl Corpus {
    /// Splits `text` into tokens of `base`, conversations as the base's chat template renders them; fails when nothing
    /// is left to train on, or there are conversations and the template does not work.
    ///
    /// Without a template a turn is a line `role: what is said`. A conversation that the template refuses or does not
    /// write in full, or of which it cannot be told what the assistant says, is counted in [`Corpus::notes`].
    ///
    /// A document is held out by its own digest, whatever else there is: if the digest's first eight bytes, as a
    /// number, are in the lowest tenth. Two documents or more are always on both sides: where none is in the tenth,
    /// the lowest is held out, and where all are, the highest is trained on. A single one is trained on.
    pub fn new(base: &Base, text: &UserText) -> Result<Self, TextError> {
        let corpus = Self::new_while(base, text, &|| true)?;
        // It was told to go on with every document, so there is none only where there are no documents.
        corpus.ok_or_else(|| no_text(text, Notes::default()))
    }

    /// [`Corpus::new`] for a base whose weights were not read.
    pub fn of_tokens(tokens: &Tokens, text: &UserText) -> Result<Self, TextError> {
        let corpus = Self::read_while(tokens, text, &|| true)?;
        corpus.ok_or_else(|| no_text(text, Notes::default()))
    }

    /// [`Corpus::new`] that asks before each document whether to go on; nothing where it was told not to.
    pub fn new_while(
        base: &Base,
        text: &UserText,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, TextError> {
        Self::read_while(base.tokens(), text, go_on)
    }

    fn read_while(
        tokens: &Tokens,
        text: &UserText,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, TextError> {
        let encoder = encoder(tokens, text)?;
        let (mut documents, mut notes) = (Vec::new(), Notes::default());
        for (digest, document) in text.identified() {
            if !go_on() {
                return Ok(None);
            }
            match encoder.encode(document)? {
                Ok(EncodedDocument { encoded, thoughts_left_out }) => {
                    notes.spelled_control += u64::from(encoder.spells_control(document));
                    notes.other_control += u64::from(encoder.spells_another_s_control(document));
                    notes.without_thoughts += u64::from(thoughts_left_out > 0);
                    documents.push((digest, encoded));
                }
                Err(why) => *notes.left_out.entry(why).or_default() += 1,
            }
        }
        if documents.is_empty() {
            return Err(no_text(text, notes));
        }
        let digests: Vec<Digest> = documents.iter().map(|(digest, _)| **digest).collect();
        let mut corpus = Self { bos: tokens.bos(), train: Vec::new(), held_out: Vec::new(), notes };
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

    /// Conversations that are left out, for whatever reason in [`Corpus::notes`].
    pub fn refused(&self) -> u64 {
        self.notes.refused()
    }

    /// What became of the documents on their way.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Tokens that are learned, and tokens that are given, on both sides and without those that open documents.
    pub fn learned_and_given(&self) -> (u64, u64) {
        let documents = || self.train.iter().chain(&self.held_out);
        let all: u64 = documents().map(|document| document.tokens().len() as u64).sum();
        let is_learned =
            |document: &Encoded| document.learned().iter().filter(|learned| **learned).count() as u64;
        let learned: u64 = documents().map(is_learned).sum();
        (learned, all - learned)
    }
}

/// What splits a text into a base's tokens; fails where there are conversations and the base's template does not work.
pub(super) fn encoder<'a>(tokens: &'a Tokens, text: &UserText) -> Result<Encoder<'a>, TextError> {
    let has_turns = text.documents().any(crate::Document::has_turns);
    let template = has_turns.then(|| ChatTemplate::of(tokens)).transpose()?;
    Ok(Encoder::new(tokens, template).with_spelled(text.control_tokens()))
}

fn no_text(text: &UserText, notes: Notes) -> TextError {
    TextError::NoText { notes: Box::new(notes), reading: Box::new(text.reading().clone()) }
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
