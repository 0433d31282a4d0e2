//! Documents as tokens, and which of them are learned.

use std::cell::OnceCell;
use std::ops::Range;

use tokenizers::Tokenizer;

use crate::Document;
use crate::control::Control;
use crate::render::{Rendered, render};
use crate::template::ChatTemplate;
use engine::Encoded;
use engine::base::Base;
use engine::base::tokenizer::EncodeError;
use engine::base::tokenizer::encode;
use engine::base::tokenizer::encode_fast;

/// Splits documents into tokens of one base.
///
/// What a user wrote never becomes a control token (an added token that the tokenizer calls special), even if it
/// spells one: it is split into the tokens of its letters. Only where a chat template takes contents apart, so that it
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
}

impl<'a> Encoder<'a> {
    /// For documents among which there are conversations only if there is a template.
    pub(super) fn new(base: &'a Base, template: Option<ChatTemplate>) -> Self {
        Self::with(base.tokenizer(), template, base.eos())
    }

    /// The same for a tokenizer and the tokens that end a text.
    fn with(tokenizer: &'a Tokenizer, template: Option<ChatTemplate>, eos: &[u32]) -> Self {
        let control = Control::new(tokenizer, eos);
        Self { tokenizer, blind: OnceCell::new(), control, template, eos: eos.first().copied() }
    }

    /// The tokens of a document, or `None` for a conversation that cannot be rendered.
    pub(super) fn encode(&self, document: &Document) -> Result<Option<Encoded>, EncodeError> {
        match document {
            Document::Plain(text) => {
                let tokenizer = if self.control.is_in(text) { self.blind() } else { self.tokenizer };
                let tokens = encode_fast(tokenizer, text)?;
                Ok(Some(Encoded::plain(tokens)))
            }
            Document::Completion { prompt, completion } => {
                let text = format!("{prompt}{completion}");
                let (all, learned) = (0..text.len(), prompt.len()..text.len());
                let rendered = Rendered { text, contents: vec![all], learned: vec![learned] };
                let mut encoded = self.rendered(&rendered)?;
                self.eos.into_iter().for_each(|eos| encoded.push(eos, true));
                Ok(Some(encoded))
            }
            Document::Conversation(messages) => {
                let template = self.template.as_ref();
                let rendered = template.and_then(|template| render(template, messages, &self.control));
                rendered.map(|rendered| self.rendered(&rendered)).transpose()
            }
        }
    }

    fn rendered(&self, rendered: &Rendered) -> Result<Encoded, EncodeError> {
        let Rendered { text, contents, learned } = rendered;
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
