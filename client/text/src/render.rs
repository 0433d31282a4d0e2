//! A conversation as one text, and which parts of it are whose.

use std::ops::Range;

use crate::control::Control;
use crate::template::{ChatTemplate, GenerationPrompt};
use crate::{Conversation, Message, Role, Tools};

/// A text with the places of what was written into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// What somebody wrote, as against what the template adds; in order.
    pub(super) contents: Vec<Range<usize>>,
    /// What is learned; in order.
    pub(super) learned: Vec<Range<usize>>,
    /// Turns before the last whose thoughts the template leaves out.
    pub(super) thoughts_left_out: u64,
}

/// Why a conversation is not trained on with this base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum LeftOut {
    /// The template says so, or fails.
    #[error("the base's chat template refuses")]
    Refused,
    /// The template writes it in a way in which what is learned cannot be told from what is given.
    #[error("the base's chat template takes apart so that what is learned cannot be told from what is given")]
    Unclear,
    /// The template does not write a turn.
    #[error("the base's chat template does not write in full: a turn is missing")]
    Turn,
    /// The template does not write the calls of tools.
    #[error("the base's chat template writes without their tool calls")]
    Calls,
    /// The template does not write which tools there are.
    #[error("the base's chat template writes without the `tools` for tool calls")]
    Tools,
    /// The template does not write what was thought before what is learned.
    #[error("the base's chat template writes without their thoughts (`reasoning_content`, `<think>`)")]
    Thoughts,
}

/// What surrounds a content, so that it is found again: code points that Unicode reserves for a program's own use
/// and that no text holds. The first pair is for what is learned.
const MARKS: [(char, char); 2] = [('\u{fdd0}', '\u{fdd1}'), ('\u{fdd2}', '\u{fdd3}')];

/// By what a setting says whether the model thinks.
const SWITCHES: [&str; 2] = ["/no_think", "/think"];

/// What ends a thought within a content.
const END_OF_THOUGHT: &str = "</think>";

/// A content's place, and whether it is learned.
type Span = (Range<usize>, bool);

/// Renders a conversation and finds what of it is learned: what the assistant says, with the control token that ends each
/// turn.
///
/// The conversation is rendered with marks around its contents; that counts if, without them, it is what the template
/// makes of the conversation as it is. Some templates take contents apart, and calls are no contents: then an
/// assistant's turn is what follows the conversation before it and its opening. Fails where the template refuses, leaves
/// out what belongs to what is learned, or neither way is certain.
pub(super) fn render(
    template: &ChatTemplate,
    conversation: &Conversation,
    control: &Control,
) -> Result<Rendered, LeftOut> {
    let Conversation { messages, tools } = conversation;
    let render = |messages: &[Message], tools: &Tools, prompt| {
        template.render(messages, tools, prompt).map_err(|_| LeftOut::Refused)
    };
    let text = render(messages, tools, GenerationPrompt::LeftOut)?;
    let is = |other: Result<String, LeftOut>| other.is_ok_and(|other| other == text);
    let changed = |place: usize, change: fn(&mut Message)| {
        let mut messages = messages.clone();
        change(&mut messages[place]);
        messages
    };
    let mut thoughts_left_out = 0;
    for (place, message) in messages.iter().enumerate() {
        let without_calls = || changed(place, |message| message.calls.clear());
        if !message.calls.is_empty() && is(render(&without_calls(), tools, GenerationPrompt::LeftOut)) {
            return Err(LeftOut::Calls);
        }
        if !has_thought(message) {
            continue;
        }
        // Some take the line ends behind a thought with it, and some leave them.
        let without = [forget_thought_alone, forget_thought].map(|forget| changed(place, forget));
        let same = |without: &Vec<Message>| is(render(without, tools, GenerationPrompt::LeftOut));
        if let Some(without) = without.into_iter().find(same) {
            // Many write the thoughts of the last turn only. One that does not even write that does not know them.
            let last = |messages: &[Message]| render(&messages[..=place], tools, GenerationPrompt::LeftOut);
            if last(messages)? == last(&without)? {
                return Err(LeftOut::Thoughts);
            }
            thoughts_left_out += 1;
        }
    }
    if !tools.0.is_empty() && is(render(messages, &Tools::default(), GenerationPrompt::LeftOut)) {
        return Err(LeftOut::Tools);
    }
    let is_plain = |message: &Message| message.calls.is_empty() && message.reasoning.is_empty();
    let is_marked =
        messages.iter().all(is_plain) && !beside_contents(conversation).any(|part| control.is_in(&part));
    let by_marks = if is_marked { marked(template, conversation, &text, control)? } else { None };
    let rendered = match by_marks {
        Some(rendered) => rendered,
        None => by_turns(template, conversation, text, control)?,
    };
    if rendered.learned.is_empty() {
        return Err(LeftOut::Unclear);
    }
    Ok(Rendered { thoughts_left_out, ..rendered })
}

/// What somebody wrote and is no content: it is not marked, and so not told from what the template writes.
fn beside_contents(conversation: &Conversation) -> impl Iterator<Item = String> {
    let names =
        conversation.messages.iter().flat_map(|message| [message.name.clone(), message.call_id.clone()]);
    conversation.tools.0.iter().map(ToString::to_string).chain(names.flatten())
}

fn has_thought(message: &Message) -> bool {
    message.role == Role::Assistant
        && (!message.reasoning.is_empty() || !thought_in(&message.content).trim().is_empty())
}

/// What is thought within a content; empty where nothing is.
fn thought_in(content: &str) -> &str {
    let thought = content.split_once(END_OF_THOUGHT).map_or("", |(thought, _)| thought).trim_start();
    thought.strip_prefix("<think>").unwrap_or(thought)
}

/// Takes what is thought out of a turn, with the line ends behind it.
fn forget_thought(message: &mut Message) {
    forget_thought_alone(message);
    message.content = message.content.trim_start_matches('\n').to_owned();
}

/// Takes what is thought out of a turn, and leaves the line ends behind it.
fn forget_thought_alone(message: &mut Message) {
    message.reasoning.clear();
    if let Some((_, said)) = message.content.split_once(END_OF_THOUGHT) {
        message.content = said.to_owned();
    }
}

fn marked(
    template: &ChatTemplate,
    conversation: &Conversation,
    text: &str,
    control: &Control,
) -> Result<Option<Rendered>, LeftOut> {
    let is_mark = |c: char| MARKS.iter().any(|(open, close)| c == *open || c == *close);
    let messages = &conversation.messages;
    if messages.iter().any(|message| message.content.contains(is_mark)) {
        return Ok(None);
    }
    // Many templates strip the space around a content, and with it what is inside of the marks.
    let spans = spans(template, conversation, text, mark)
        .or_else(|| spans(template, conversation, text, mark_stripped));
    let Some(spans) = spans else { return Ok(None) };
    let (mut contents, mut learned) = (Vec::new(), Vec::new());
    for (place, (span, is_learned)) in spans.iter().enumerate() {
        if *is_learned {
            let limit = spans.get(place + 1).map_or(text.len(), |(next, _)| next.start);
            learned.push(span.start..end_of_turn(&text[..limit], span.end, control));
        }
        contents.push(span.clone());
    }
    let said = messages.iter().filter(|message| !message.content.trim().is_empty()).count();
    if contents.iter().filter(|content| !text[(*content).clone()].trim().is_empty()).count() < said {
        return Err(LeftOut::Turn);
    }
    Ok(Some(Rendered { text: text.to_owned(), contents, learned, thoughts_left_out: 0 }))
}

/// Where contents are in `text`, if that is what comes out when each is marked so.
fn spans(
    template: &ChatTemplate,
    conversation: &Conversation,
    text: &str,
    mark: fn(&str, (char, char)) -> String,
) -> Option<Vec<Span>> {
    let marked = |message: &Message| {
        let marks = MARKS[usize::from(!message.learned)];
        Message { content: mark(&message.content, marks), ..message.clone() }
    };
    let messages: Vec<Message> = conversation.messages.iter().map(marked).collect();
    let with_marks = template.render(&messages, &conversation.tools, GenerationPrompt::LeftOut).ok()?;
    let (without, spans) = unmark(&with_marks)?;
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
    let mut open: Option<(char, usize, bool)> = None;
    for c in text.chars() {
        if let Some((_, close)) = MARKS.iter().find(|(mark, _)| *mark == c) {
            if open.replace((*close, without.len(), c == MARKS[0].0)).is_some() {
                return None;
            }
        } else if MARKS.iter().any(|(_, mark)| *mark == c) {
            let (close, start, is_learned) = open.take()?;
            if c != close {
                return None;
            }
            spans.push((start..without.len(), is_learned));
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

/// Each assistant's turn as what follows the conversation before it and its opening.
fn by_turns(
    template: &ChatTemplate,
    conversation: &Conversation,
    text: String,
    control: &Control,
) -> Result<Rendered, LeftOut> {
    // Which of the text are contents is not known here, so none may look like a control token.
    if conversation.parts().iter().any(|(_, part)| control.is_in(part)) {
        return Err(LeftOut::Unclear);
    }
    let Conversation { messages, tools } = conversation;
    let render =
        |messages: &[Message], prompt| template.render(messages, tools, prompt).map_err(|_| LeftOut::Refused);
    // A switch in the setting is for the template, and is not written.
    let is_there = |message: &Message| match message.role {
        Role::System => without_switches(&message.content).all(|part| is_written(part.trim(), &text)),
        Role::User | Role::Assistant | Role::Tool => is_written(said_in(message), &text),
    };
    if !messages.iter().all(is_there) {
        return Err(LeftOut::Turn);
    }
    let mut learned: Vec<Range<usize>> = Vec::new();
    for (place, message) in messages.iter().enumerate() {
        if !message.learned {
            continue;
        }
        let before = render(&messages[..place], GenerationPrompt::Added)?;
        let after = render(&messages[..=place], GenerationPrompt::LeftOut)?;
        if !text.starts_with(&before) {
            return Err(LeftOut::Unclear);
        }
        let start = before.len() + empty_thought(message, &text[before.len()..]);
        let is_whole = text.starts_with(&after) && start <= after.len();
        let turn = if is_whole { &text[..after.len()] } else { text.as_str() };
        let mut ends = (start..turn.len())
            .filter(|at| turn.is_char_boundary(*at))
            .filter_map(|at| control.at(turn, at).map(|(len, _)| at + len));
        let end = match (is_whole, message.calls.is_empty()) {
            (true, true) => ends.next().unwrap_or(after.len()),
            // Some write a control token before each call as well.
            (true, false) => ends.next_back().unwrap_or(after.len()),
            // What is written of the turn here is not what is written where it is the last: its thoughts are left out.
            (false, true) => ends.next().ok_or(LeftOut::Unclear)?,
            (false, false) => return Err(LeftOut::Unclear),
        };
        if !is_written(said_in(message), &text[start..end]) {
            return Err(LeftOut::Unclear);
        }
        if learned.last().is_some_and(|before| before.end > start) {
            return Err(LeftOut::Unclear);
        }
        if start < end {
            learned.push(start..end);
        }
    }
    Ok(Rendered { text, contents: Vec::new(), learned, thoughts_left_out: 0 })
}

/// How long an empty thought is that the template writes where there is none: it is given, as it is where contents are
/// marked.
fn empty_thought(message: &Message, turn: &str) -> usize {
    let rest = turn
        .trim_start()
        .strip_prefix("<think>")
        .and_then(|rest| rest.trim_start().strip_prefix(END_OF_THOUGHT));
    match rest {
        Some(rest) if !has_thought(message) => turn.len() - rest.trim_start_matches('\n').len(),
        Some(_) | None => 0,
    }
}

/// What is said after what is thought.
fn said_in(message: &Message) -> &str {
    message.content.rsplit(END_OF_THOUGHT).next().unwrap_or_default().trim()
}

/// The parts of a setting between its switches.
fn without_switches(setting: &str) -> impl Iterator<Item = &str> {
    let [no, yes] = SWITCHES;
    setting.split(no).flat_map(move |part| part.split(yes))
}

/// Whether it is in the text as it is, or as JSON, as some templates write what tools give back.
fn is_written(said: &str, text: &str) -> bool {
    let json = || serde_json::Value::from(said).to_string();
    text.contains(said) || text.contains(json().trim_matches('"'))
}
