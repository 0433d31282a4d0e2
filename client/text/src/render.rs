//! A conversation as one text, and which parts of it are whose.

use std::ops::Range;

use crate::control::Control;
use crate::template::{ChatTemplate, GenerationPrompt, Refusal};
use crate::{Message, Role};

/// A text with the places of what was written into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// What somebody wrote, as against what the template adds; in order.
    pub(super) contents: Vec<Range<usize>>,
    /// What is learned; in order.
    pub(super) learned: Vec<Range<usize>>,
}

/// What surrounds a content, so that it is found again: code points that Unicode reserves for a program's own use
/// and that no text holds. The first pair is for the assistant's.
const MARKS: [(char, char); 2] = [('\u{fdd0}', '\u{fdd1}'), ('\u{fdd2}', '\u{fdd3}')];

/// A content's place, and whether it is the assistant's or somebody else's.
type Span = (Range<usize>, Role);

/// Renders a conversation and finds what the assistant says in it, with the control token that ends each turn.
///
/// The conversation is rendered with marks around its contents; that counts if, without them, it is what the template
/// makes of the conversation as it is. Some templates take contents apart: then an assistant's turn is what it adds to
/// the conversation before it and its opening. `None` where the template refuses, or neither way is certain.
pub(super) fn render(template: &ChatTemplate, messages: &[Message], control: &Control) -> Option<Rendered> {
    let text = template.render(messages, GenerationPrompt::LeftOut).ok()?;
    let rendered = match marked(template, messages, &text, control) {
        Some(rendered) => rendered,
        None => by_turns(template, messages, text, control).ok()??,
    };
    (!rendered.learned.is_empty()).then_some(rendered)
}

fn marked(template: &ChatTemplate, messages: &[Message], text: &str, control: &Control) -> Option<Rendered> {
    let is_mark = |c: char| MARKS.iter().any(|(open, close)| c == *open || c == *close);
    if messages.iter().any(|message| message.content.contains(is_mark)) {
        return None;
    }
    // Many templates strip the space around a content, and with it what is inside of the marks.
    let spans =
        spans(template, messages, text, mark).or_else(|| spans(template, messages, text, mark_stripped))?;
    let (mut contents, mut learned) = (Vec::new(), Vec::new());
    for (place, (span, role)) in spans.iter().enumerate() {
        if *role == Role::Assistant {
            let limit = spans.get(place + 1).map_or(text.len(), |(next, _)| next.start);
            learned.push(span.start..end_of_turn(&text[..limit], span.end, control));
        }
        contents.push(span.clone());
    }
    Some(Rendered { text: text.to_owned(), contents, learned })
}

/// Where contents are in `text`, if that is what comes out when each is marked so.
fn spans(
    template: &ChatTemplate,
    messages: &[Message],
    text: &str,
    mark: fn(&str, (char, char)) -> String,
) -> Option<Vec<Span>> {
    let marked = |message: &Message| {
        let marks = MARKS[usize::from(message.role != Role::Assistant)];
        Message { role: message.role, content: mark(&message.content, marks) }
    };
    let messages: Vec<Message> = messages.iter().map(marked).collect();
    let (without, spans) = unmark(&template.render(&messages, GenerationPrompt::LeftOut).ok()?)?;
    (without == text).then_some(spans)
}

fn mark(content: &str, (open, close): (char, char)) -> String {
    format!("{open}{content}{close}")
}

fn mark_stripped(content: &str, (open, close): (char, char)) -> String {
    let core = content.trim();
    if core.is_empty() {
        return content.to_owned();
    }
    let start = content.len() - content.trim_start().len();
    let (before, after) = (&content[..start], &content[start + core.len()..]);
    format!("{before}{open}{core}{close}{after}")
}

/// The text without marks and what was between them; `None` where they are not in pairs.
fn unmark(text: &str) -> Option<(String, Vec<Span>)> {
    let mut without = String::with_capacity(text.len());
    let mut spans = Vec::new();
    let mut open: Option<(char, usize, Role)> = None;
    for c in text.chars() {
        if let Some((_, close)) = MARKS.iter().find(|(mark, _)| *mark == c) {
            let role = if c == MARKS[0].0 { Role::Assistant } else { Role::User };
            if open.replace((*close, without.len(), role)).is_some() {
                return None;
            }
        } else if MARKS.iter().any(|(_, mark)| *mark == c) {
            let (close, start, role) = open.take()?;
            if c != close {
                return None;
            }
            spans.push((start..without.len(), role));
        } else {
            without.push(c);
        }
    }
    open.is_none().then_some((without, spans))
}

/// Where the turn ends whose content ends at `end`: after a control token with nothing but space before it, else
/// after the first line end, if there is only space before that.
fn end_of_turn(text: &str, end: usize, control: &Control) -> usize {
    let rest = &text[end..];
    let space = rest.len() - rest.trim_start().len();
    if let Some((len, _)) = control.at(text, end + space) {
        return end + space + len;
    }
    rest[..space].find('\n').map_or(end, |at| end + at + 1)
}

/// Each assistant's turn as what it adds to the conversation before it.
fn by_turns(
    template: &ChatTemplate,
    messages: &[Message],
    text: String,
    control: &Control,
) -> Result<Option<Rendered>, Refusal> {
    // Which of the text are contents is not known here, so none may look like a control token.
    if messages.iter().any(|message| control.is_in(&message.content)) {
        return Ok(None);
    }
    let mut learned = Vec::new();
    for (place, message) in messages.iter().enumerate() {
        if message.role != Role::Assistant {
            continue;
        }
        let before = template.render(&messages[..place], GenerationPrompt::Added)?;
        let after = template.render(&messages[..=place], GenerationPrompt::LeftOut)?;
        if !(text.starts_with(&before) && text.starts_with(&after) && before.len() <= after.len()) {
            return Ok(None);
        }
        let end = (before.len()..after.len())
            .filter(|at| text.is_char_boundary(*at))
            .find_map(|at| control.at(&text, at).map(|(len, _)| at + len))
            .unwrap_or(after.len());
        if before.len() < end {
            learned.push(before.len()..end);
        }
    }
    Ok(Some(Rendered { text, contents: Vec::new(), learned }))
}
