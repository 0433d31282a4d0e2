//! Documents as tokens, and which of them are learned.

use std::cell::OnceCell;
use std::ops::Range;

use tokenizers::Tokenizer;

use crate::Document;
use crate::control::Control;
use crate::render::{LeftOut, Rendered, render};
use crate::template::ChatTemplate;
use engine::Encoded;
use engine::base::Tokens;
use engine::base::tokenizer::EncodeError;
use engine::base::tokenizer::encode;
use engine::base::tokenizer::encode_fast;

/// Splits documents into tokens of one base.
///
/// What a user wrote never becomes a control token (an added token that the tokenizer calls special), even if it
/// spells one: it is split into the tokens of its letters, unless the user says otherwise of text without turns. Only where a chat template takes contents apart, so that it
/// cannot be told what is the template's, such a conversation is refused instead.
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The same, but blind to control tokens; made when a text first spells one.
    blind: OnceCell<Tokenizer>,
    control: Control,
    /// None where there is no conversation.
    template: Option<ChatTemplate>,
    /// What ends a completion.
    eos: Option<u32>,
    /// What control tokens are that somebody wrote in a text without turns.
    spelled: ControlTokens,
}

/// What becomes of text that spells a control token, in documents that are not turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ControlTokens {
    /// It is split into the tokens of its letters, so that no text can pass for what a template writes.
    #[default]
    AsLetters,
    /// It is the control token: for text to which a chat template was applied before.
    AsTokens,
}

/// A document as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EncodedDocument {
    pub(super) encoded: Encoded,
    /// Turns whose thoughts the chat template leaves out.
    pub(super) thoughts_left_out: u64,
}

impl EncodedDocument {
    fn of(encoded: Encoded) -> Self {
        Self { encoded, thoughts_left_out: 0 }
    }
}

impl<'a> Encoder<'a> {
    /// For documents among which there are conversations only if there is a template.
    pub(super) fn new(tokens: &'a Tokens, template: Option<ChatTemplate>) -> Self {
        Self::with(tokens.tokenizer(), template, tokens.eos())
    }

    /// The same for a tokenizer and the tokens that end a text.
    fn with(tokenizer: &'a Tokenizer, template: Option<ChatTemplate>, eos: &[u32]) -> Self {
        let control = Control::new(tokenizer, eos);
        let (blind, eos) = (OnceCell::new(), eos.first().copied());
        Self { tokenizer, blind, control, template, eos, spelled: ControlTokens::AsLetters }
    }

    /// The same, with what control tokens are in text without turns.
    pub(super) fn with_spelled(self, spelled: ControlTokens) -> Self {
        Self { spelled, ..self }
    }

    /// Whether a document spells a control token that is read as letters.
    pub(super) fn spells_control(&self, document: &Document) -> bool {
        let as_letters = document.has_turns() || self.spelled == ControlTokens::AsLetters;
        as_letters && document.parts().iter().any(|(_, part)| self.control.is_in(part))
    }

    /// Whether a document without turns spells control tokens of other bases, which are letters to this one.
    pub(super) fn spells_another_s_control(&self, document: &Document) -> bool {
        !document.has_turns() && document.parts().iter().any(|(_, part)| self.control.is_of_another(part))
    }

    /// The tokens of a document, or why a conversation cannot be rendered.
    pub(super) fn encode(
        &self,
        document: &Document,
    ) -> Result<Result<EncodedDocument, LeftOut>, EncodeError> {
        match document {
            Document::Plain(text) => {
                let is_blind = self.spelled == ControlTokens::AsLetters && self.control.is_in(text);
                let tokenizer = if is_blind { self.blind() } else { self.tokenizer };
                let tokens = encode_fast(tokenizer, text)?;
                Ok(Ok(EncodedDocument::of(Encoded::plain(tokens))))
            }
            Document::Completion { prompt, completion } => {
                let text = format!("{prompt}{completion}");
                let (all, learned) = (0..text.len(), prompt.len()..text.len());
                let contents = match self.spelled {
                    ControlTokens::AsLetters => vec![all],
                    ControlTokens::AsTokens => Vec::new(),
                };
                let mut encoded = self.rendered(&Rendered {
                    text,
                    contents,
                    learned: vec![learned],
                    thoughts_left_out: 0,
                })?;
                // One that ends with the token itself has it already.
                if let Some(eos) = self.eos.filter(|eos| encoded.tokens().last() != Some(eos)) {
                    encoded.push(eos, true);
                }
                Ok(Ok(EncodedDocument::of(encoded)))
            }
            Document::Conversation(conversation) => {
                let Some(template) = &self.template else { return Ok(Err(LeftOut::Refused)) };
                match render(template, conversation, &self.control) {
                    Ok(rendered) => {
                        let thoughts_left_out = rendered.thoughts_left_out;
                        Ok(Ok(EncodedDocument { encoded: self.rendered(&rendered)?, thoughts_left_out }))
                    }
                    Err(why) => Ok(Err(why)),
                }
            }
        }
    }

    fn rendered(&self, rendered: &Rendered) -> Result<Encoded, EncodeError> {
        let Rendered { text, contents, learned, thoughts_left_out: _ } = rendered;
        let mut encoded = Encoded::default();
        if !contents.iter().any(|content| self.control.is_in(&text[content.clone()])) {
            split(self.tokenizer, text, 0, learned, &mut encoded)?;
            return Ok(encoded);
        }
        // The template's own control tokens, and between them text in which there are none.
        let (mut at, mut from) = (0, 0);
        let mut contents = contents.iter().peekable();
        while at < text.len() {
            if let Some(content) = contents.next_if(|content| content.start <= at) {
                at = at.max(content.end);
            } else if let Some((len, id)) = self.control.at(text, at) {
                split(self.blind(), &text[from..at], from, learned, &mut encoded)?;
                encoded.push(id, overlaps(learned, &(at..at + len)));
                at += len;
                from = at;
            } else {
                at += 1;
            }
        }
        split(self.blind(), &text[from..], from, learned, &mut encoded)?;
        Ok(encoded)
    }

    fn blind(&self) -> &Tokenizer {
        self.blind.get_or_init(|| {
            let mut tokenizer = self.tokenizer.clone();
            tokenizer.set_encode_special_tokens(true);
            tokenizer
        })
    }
}

/// Appends the tokens of `text`, which begins at `offset` of the whole. A token is learned that has a letter of what is.
fn split(
    tokenizer: &Tokenizer,
    text: &str,
    offset: usize,
    learned: &[Range<usize>],
    into: &mut Encoded,
) -> Result<(), EncodeError> {
    if text.is_empty() {
        return Ok(());
    }
    let encoding = encode(tokenizer, text)?;
    for (token, (start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
        into.push(*token, overlaps(learned, &(start + offset..end + offset)));
    }
    Ok(())
}

fn overlaps(ranges: &[Range<usize>], part: &Range<usize>) -> bool {
    let after = ranges.partition_point(|range| range.end <= part.start);
    ranges.get(after).is_some_and(|range| range.start < part.end)
}

#[cfg(test)]
mod tests;
