//! One row, as one document.

mod calls;
mod field;
mod turns;

use crate::json::{Fields, Json};

use crate::document::Tools;
use crate::reading::Form;
use crate::{Conversation, Document, Message, Role, SkipReason};
use field::{filled, has_media, is_blank, text, text_or_null, there, unpacked};
use turns::{Answers, are_turns, content, turns, yes_or_no};

pub(crate) use turns::is_turn;

/// Where a row holds its turns.
const TURNS: [&str; 3] = ["messages", "conversations", "contents"];

/// The same, if what is there is a list: these words are used for other things too.
const MAYBE_TURNS: [&str; 5] = ["conversation", "dialogue", "dialog", "turns", "chat"];

/// What is asked, and what may answer it, in this order.
const PAIRS: [(&str, &[&str]); 7] = [
    ("instruction", &["output", "response", "answer", "completion"]),
    ("prompt", &["completion", "response", "answer", "output"]),
    ("question", &["answer", "response", "output"]),
    ("query", &["response", "answer", "output"]),
    ("inputs", &["targets"]),
    ("input", &["output", "response", "answer", "target"]),
    ("user", &["assistant"]),
];

/// The document in a row, and in which form it is there.
///
/// A row is a list of turns, or an object with one under `messages` or another of their names, or with a question and
/// its answer under one of the pairs of names that data sets have, or with a `text`; looked for in this order, and what
/// is null or empty is not there. What stands beside them and changes what is learned is used: `system`, `history`,
/// `tools`, `input` and `context`. Fails with why there is no document; so it does for keys that would change what is
/// learned and cannot be used.
pub(super) fn document(value: &Json) -> Result<(Form, Document), SkipReason> {
    match value {
        Json::Array(list) if are_turns(list) => {
            let messages = turns(value, "a list", Answers::Learned)?;
            Ok((Form::Turns, conversation(messages, Tools::default())?))
        }
        Json::Object(row) => in_row(row),
        Json::Array(_) | Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            Err(SkipReason::NoObject)
        }
    }
}

/// Whether a table's column of this name is one that [`document`] looks for.
pub(crate) fn is_column(name: &str) -> bool {
    let in_pairs = PAIRS.iter().any(|(asked, _)| *asked == name);
    name == "text" || in_pairs || TURNS.contains(&name) || MAYBE_TURNS.contains(&name)
}

fn in_row(row: &Fields) -> Result<(Form, Document), SkipReason> {
    if filled(row, &["chosen"]).is_some() && there(row, &["rejected"]).is_some() {
        return Err(SkipReason::Preference);
    }
    if let Some((key, list)) = turns_in(row) {
        let messages = turns(list, key, Answers::Learned)?;
        return with_what_is_beside(row, messages).map(|document| (Form::Turns, document));
    }
    // Why a pair that is there is none, if there is no other.
    let mut missing = None;
    for (asked, answers) in PAIRS {
        let Some(question) = row.get(asked).filter(|question| !question.is_null()) else { continue };
        let Some((answered, answer)) = filled(row, answers).or_else(|| there(row, answers)) else {
            missing = missing.or(Some(SkipReason::Without { key: asked, missing: answers[0] }));
            continue;
        };
        if is_blank(answer) {
            missing = missing.or(Some(SkipReason::NothingToLearn));
            continue;
        }
        return pair(row, (asked, question), (answered, answer));
    }
    if let Some((_, words)) = filled(row, &["text"]) {
        refuse_marked(row)?;
        return Ok((Form::Text, Document::Plain(text(words)?)));
    }
    let is_empty = TURNS.iter().any(|key| row.get(key).is_some_and(Json::is_array));
    Err(match (row.get("text"), missing) {
        (_, Some(reason)) => reason,
        (Some(Json::String(_)), None) => SkipReason::Empty,
        (Some(_), None) if !is_empty => SkipReason::NotAllText,
        _ if is_empty => SkipReason::NothingToLearn,
        _ => SkipReason::NoText,
    })
}

fn turns_in(row: &Fields) -> Option<(&'static str, &Json)> {
    filled(row, &TURNS).or_else(|| {
        let is_list = |value: &Json| {
            unpacked(value).is_some_and(|value| value.as_array().is_some_and(|list| are_turns(list)))
        };
        filled(row, &MAYBE_TURNS).filter(|(_, value)| is_list(value))
    })
}

/// A question and its answer: a text and how it goes on where they are called so, else turns.
fn pair(
    row: &Fields,
    (asked, question): (&'static str, &Json),
    (answered, answer): (&'static str, &Json),
) -> Result<(Form, Document), SkipReason> {
    let is_completion = (asked, answered) == ("prompt", "completion");
    let is_text = question.is_string() && answer.is_string();
    if is_completion && is_text && !has_roles_beside(row) {
        refuse_marked(row)?;
        let document = Document::Completion { prompt: text(question)?, completion: text(answer)? };
        return Ok((Form::Completion, document));
    }
    let are_turns = |value: &Json| value.as_array().is_some_and(|list| are_turns(list));
    let mut messages = if is_completion && are_turns(question) {
        turns(question, asked, Answers::Given)?
    } else {
        let mut words = vec![content(question)?];
        for key in ["input", "context"].into_iter().filter(|key| *key != asked) {
            words.push(text_or_null(row.get(key))?);
        }
        words.retain(|words| !words.trim().is_empty());
        vec![Message::new(Role::User, words.join("\n\n"))]
    };
    messages.extend(if are_turns(answer) {
        turns(answer, answered, Answers::Learned)?
    } else if is_turn(answer) {
        turns(&Json::Array(vec![answer.clone()]), answered, Answers::Learned)?
    } else {
        vec![Message::new(Role::Assistant, content(answer)?)]
    });
    let form = match asked {
        "instruction" => Form::Instruction,
        "prompt" if is_completion => Form::Completion,
        _ => Form::Question,
    };
    with_what_is_beside(row, messages).map(|document| (form, document))
}

fn has_roles_beside(row: &Fields) -> bool {
    filled(row, &SYSTEM).is_some() || filled(row, &["history", "tools", "functions"]).is_some()
}

/// Where a row says how the conversation is set up.
const SYSTEM: [&str; 4] = ["system", "system_prompt", "systemInstruction", "system_instruction"];

/// The turns, with the row's `system` and `history` before them and its tools.
fn with_what_is_beside(row: &Fields, messages: Vec<Message>) -> Result<Document, SkipReason> {
    refuse_marked(row)?;
    if has_media(row) {
        return Err(SkipReason::NotAllText);
    }
    if filled(row, &["chat_template_kwargs", "documents"]).is_some() {
        return Err(SkipReason::TemplateKeys);
    }
    let mut all = Vec::new();
    if let Some((_, words)) = filled(row, &SYSTEM) {
        let words = match words.get("parts") {
            Some(parts) => content(parts)?,
            None => content(words)?,
        };
        match messages.first().filter(|first| first.role == Role::System) {
            Some(first) if first.content.trim() == words.trim() => {}
            Some(_) => return Err(SkipReason::TwoSystems),
            None => all.push(Message::new(Role::System, words)),
        }
    }
    let mut messages = messages.into_iter().peekable();
    all.extend(messages.next_if(|first| first.role == Role::System));
    if let Some((_, before)) = filled(row, &["history"]) {
        all.extend(history(before)?);
    }
    all.extend(messages);
    conversation(all, calls::tools(row)?)
}

/// The turns before: pairs of what was asked and answered, or turns.
fn history(value: &Json) -> Result<Vec<Message>, SkipReason> {
    let key = "history";
    let list = unpacked(value).ok_or(SkipReason::NotTurns { key })?;
    let list = list.as_array().ok_or(SkipReason::NotTurns { key })?;
    if are_turns(list) {
        return turns(&Json::Array(list.clone()), key, Answers::Learned);
    }
    let mut messages = Vec::new();
    for pair in list {
        let Some([asked, answered]) = pair.as_array().map(Vec::as_slice) else {
            return Err(SkipReason::NotTurns { key });
        };
        messages.push(Message::new(Role::User, text(asked)?));
        messages.push(Message::new(Role::Assistant, text(answered)?));
    }
    Ok(messages)
}

/// Fails for a row that says of itself that it is not to be learned.
fn refuse_marked(row: &Fields) -> Result<(), SkipReason> {
    let is_no = |key: &str| row.get(key).is_some_and(|value| yes_or_no(value) == Some(false));
    let is_false = |key: &str| row.get(key) == Some(&Json::Bool(false));
    let is_marked = is_no("weight") || is_no("train") || is_false("loss") || is_false("label");
    if is_marked { Err(SkipReason::NotToBeLearned) } else { Ok(()) }
}

fn conversation(messages: Vec<Message>, tools: Tools) -> Result<Document, SkipReason> {
    if messages.iter().any(|message| message.learned) {
        Ok(Document::Conversation(Conversation { messages, tools }))
    } else {
        Err(SkipReason::NothingToLearn)
    }
}

#[cfg(test)]
mod tests;
