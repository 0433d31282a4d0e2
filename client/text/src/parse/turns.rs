//! A list of turns, in the ways in which programs write who says what.

use crate::json::{Fields, Json};

use super::calls;
use super::field::{filled, has_media, is_blank, there, unpacked};
use crate::{Message, Role, SkipReason};

/// Where a turn says who speaks.
const SPEAKER: [&str; 5] = ["role", "from", "speaker", "author", "sender"];

/// Where a turn says what is said.
const SAID: [&str; 4] = ["content", "value", "text", "parts"];

/// Where a turn says what was thought.
pub(super) const THOUGHT: [&str; 6] =
    ["reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoning_details"];

/// By what a turn says whether it is learned.
const LEARNED: [&str; 9] = [
    "weight",
    "train",
    "train_on_turn",
    "training",
    "trainable",
    "loss",
    "loss_mask",
    "loss_weight",
    "loss_scale",
];

/// Words in the name of a key by which a turn says in other ways which part of it is learned; these are not understood.
const OTHERWISE_LEARNED: [&str; 9] =
    ["train", "training", "trainable", "trained", "loss", "weight", "weights", "mask", "masked"];

/// Whether what the assistant says is learned, where its turn does not say so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// It is.
    Learned,
    /// It is given, whatever the turn says.
    Given,
}

/// Whether a list is one of turns: each an object that says who speaks and what is said.
pub(super) fn are_turns(list: &[Json]) -> bool {
    !list.is_empty() && list.iter().all(is_turn)
}

/// Whether it is an object that says who speaks, and what is said or called.
pub(crate) fn is_turn(value: &Json) -> bool {
    let Json::Object(turn) = value else { return false };
    let speaks = there(turn, &SPEAKER).is_some_and(|(_, who)| who.is_string());
    speaks
        && (there(turn, &SAID).is_some()
            || turn.contains_key("tool_calls")
            || turn.contains_key("function_call"))
}

/// Whether a row is a turn itself, of somebody who is known.
pub(super) fn is_known_turn(row: &Fields) -> bool {
    let speaker = there(row, &["role", "from", "sender"]).and_then(|(_, who)| who.as_str()).and_then(known);
    speaker.is_some() && filled(row, &SAID).is_some()
}

/// The turns of a list, which may be the text of its JSON; `key` is where it was found.
pub(super) fn turns(list: &Json, key: &'static str, answers: Answers) -> Result<Vec<Message>, SkipReason> {
    let is_list_in_text = list.as_str().is_some_and(|text| text.trim_start().starts_with(['[', '{']));
    let otherwise =
        if is_list_in_text { SkipReason::TextOfTurns { key } } else { SkipReason::NotTurns { key } };
    let list = unpacked(list).ok_or(otherwise)?;
    let list = list.as_array().ok_or(SkipReason::NotTurns { key })?;
    list.iter().map(|turn| message(turn.as_object().ok_or(SkipReason::NotTurns { key })?, answers)).collect()
}

/// A content: text, or parts of text; `None` for what is neither.
pub(super) fn content(value: &Json) -> Result<String, SkipReason> {
    Ok(Said::of(value)?.words)
}

/// Who speaks, or what a turn is instead of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Role(Role),
    /// The assistant, whose words are the JSON of a call.
    Call,
}

/// The speaker behind the words that the formats use for it.
fn known(word: &str) -> Option<Speaker> {
    Some(match word.trim().to_lowercase().as_str() {
        "system" | "developer" => Speaker::Role(Role::System),
        "user" | "human" | "person" | "prompter" | "customer" => Speaker::Role(Role::User),
        "assistant" | "gpt" | "model" | "bot" | "ai" | "chatgpt" | "gpt4" | "gpt-4" | "chatbot" | "agent"
        | "claude" | "bard" | "bing" | "llm" => Speaker::Role(Role::Assistant),
        "tool" | "function" | "observation" | "tool_response" | "function_response" | "ipython" => {
            Speaker::Role(Role::Tool)
        }
        "function_call" | "tool_call" => Speaker::Call,
        _ => return None,
    })
}

fn message(turn: &Fields, answers: Answers) -> Result<Message, SkipReason> {
    if turn.is_twice() {
        return Err(SkipReason::Twice);
    }
    let (_, word) = filled(turn, &SPEAKER).ok_or(SkipReason::NoRole)?;
    let speaker = known(word.as_str().ok_or(SkipReason::NoRole)?).ok_or(SkipReason::UnknownRole)?;
    if has_media(turn) || filled(turn, &["attachments", "files"]).is_some() {
        return Err(SkipReason::NotAllText);
    }
    if filled(turn, &["refusal"]).is_some() {
        return Err(SkipReason::Refusal);
    }
    if filled(turn, &["channel"]).is_some_and(|(_, channel)| channel.as_str() != Some("final")) {
        return Err(SkipReason::Channel);
    }
    let mut calls = calls::of_turn(turn)?;
    let said = match filled(turn, &SAID).or_else(|| there(turn, &SAID)) {
        Some((_, value)) if !value.is_null() => Said::of(value)?,
        Some(_) | None if calls.is_empty() => return Err(SkipReason::NoContent),
        Some(_) | None => Said::default(),
    };
    let (role, mut content) = match speaker {
        Speaker::Role(role) => (role, said.words),
        Speaker::Call => {
            calls.extend(calls::of_content(&said.words)?);
            (Role::Assistant, String::new())
        }
    };
    if role != Role::Assistant && !calls.is_empty() {
        return Err(SkipReason::UnknownCall);
    }
    let mut reasoning = match filled(turn, &THOUGHT) {
        Some((_, thought)) => {
            let Said { words, thoughts } = Said::of(thought)?;
            words + &thoughts
        }
        None => String::new(),
    };
    if reasoning.trim().is_empty() {
        reasoning = said.thoughts;
    }
    if role != Role::Assistant {
        reasoning = String::new();
    }
    let is_empty = content.trim().is_empty() && calls.is_empty() && reasoning.trim().is_empty();
    if is_empty && role == Role::Assistant {
        content = String::new();
    }
    let marked = learned(turn)?;
    if role != Role::Assistant && marked == Some(true) {
        return Err(SkipReason::TeachesOthers);
    }
    // An answer of no words would teach to say nothing.
    let learned =
        role == Role::Assistant && answers == Answers::Learned && !is_empty && marked.unwrap_or(true);
    let told = |key| filled(turn, &[key]).and_then(|(_, value)| value.as_str()).map(str::to_owned);
    let (name, call_id) = (told("name"), told("tool_call_id").filter(|_| role == Role::Tool));
    Ok(Message { role, content, reasoning, calls, name, call_id, learned })
}

/// What a turn says of itself: whether it is learned, or nothing. Fails where it is neither yes nor no.
fn learned(turn: &Fields) -> Result<Option<bool>, SkipReason> {
    let is_unknown = |(key, value): (&str, &Json)| {
        let mut words = key.split(|c: char| !c.is_alphanumeric());
        let is_one = words.any(|word| OTHERWISE_LEARNED.contains(&word.to_lowercase().as_str()));
        is_one && !LEARNED.contains(&key) && !is_blank(value)
    };
    if turn.iter().any(is_unknown) {
        return Err(SkipReason::UnknownWeight);
    }
    let mut found = None;
    for key in LEARNED {
        let Some(value) = turn.get(key).filter(|value| !is_blank(value)) else { continue };
        let is_learned = yes_or_no(value).ok_or(SkipReason::UnknownWeight)?;
        if found.replace(is_learned).is_some_and(|before| before != is_learned) {
            return Err(SkipReason::UnknownWeight);
        }
    }
    Ok(found)
}

/// A yes or a no, however it is written.
pub(super) fn yes_or_no(value: &Json) -> Option<bool> {
    let word = match value {
        Json::Bool(is) => return Some(*is),
        Json::Number(number) => number.as_f64()?.to_string(),
        Json::String(text) => text.trim().to_lowercase(),
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    };
    match word.as_str() {
        "1" | "1.0" | "true" | "yes" => Some(true),
        "0" | "0.0" | "-0" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// What is in a content.
#[derive(Default)]
struct Said {
    words: String,
    thoughts: String,
}

impl Said {
    /// A text, or a list of parts of which each is text or a thought.
    fn of(value: &Json) -> Result<Self, SkipReason> {
        let mut said = Self::default();
        match value {
            Json::String(text) => said.words.push_str(text),
            Json::Array(parts) => parts.iter().try_for_each(|part| said.take(part))?,
            Json::Object(_) => said.take(value)?,
            Json::Null | Json::Bool(_) | Json::Number(_) => return Err(SkipReason::NotAllText),
        }
        Ok(said)
    }

    fn take(&mut self, part: &Json) -> Result<(), SkipReason> {
        if let Json::String(text) = part {
            self.words.push_str(text);
            return Ok(());
        }
        let kind = part.get("type").map(|kind| kind.as_str().unwrap_or_default());
        let text = |key: &str| part.get(key).and_then(Json::as_str).ok_or(SkipReason::NotAllText);
        match kind {
            Some("text" | "input_text" | "output_text") | None => self.words.push_str(text("text")?),
            Some("reasoning.text") => self.thoughts.push_str(text("text")?),
            Some("reasoning.summary") => self.thoughts.push_str(text("summary")?),
            Some("thinking") => self.thoughts.push_str(text("thinking").or_else(|_| text("text"))?),
            Some("reasoning") => self.thoughts.push_str(text("reasoning").or_else(|_| text("text"))?),
            Some("tool_use" | "tool_result" | "tool_call" | "function_call") => {
                return Err(SkipReason::UnknownCall);
            }
            Some(_) => return Err(SkipReason::NotAllText),
        }
        Ok(())
    }
}
