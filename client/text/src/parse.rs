//! One row, as one document.

mod beside;
mod calls;
mod exported;
mod field;
mod turns;

use crate::json::{Fields, Json};

use crate::document::Tools;
use crate::reading::Form;
use crate::{Conversation, Document, Message, Role, SkipReason};
use beside::{Rows, put_thought, refuse_choices, refuse_columns, refuse_marked, refuse_preference};
use field::{filled, has_media, is_blank, text, text_or_null, there, unpacked};
use turns::{Answers, are_turns, content, is_known_turn, turns};

pub(crate) use turns::is_turn;

/// Where a row holds its turns.
const TURNS: [&str; 4] = ["messages", "conversations", "contents", "chat_messages"];

/// The same, if what is there is a list: these words are used for other things too.
const MAYBE_TURNS: [&str; 5] = ["conversation", "dialogue", "dialog", "turns", "chat"];

/// What is asked, and what may answer it, in this order.
const PAIRS: [(&str, &[&str]); 9] = [
    ("instruction", &["output", "response", "answer", "completion"]),
    ("prompt", &["completion", "response", "answer", "output"]),
    ("question", &["answer", "response", "output"]),
    ("query", &["response", "answer", "output"]),
    ("problem", &["solution", "answer"]),
    ("inputs", &["targets"]),
    ("input_text", &["target_text", "output_text"]),
    ("input", &["output", "response", "answer", "target"]),
    ("user", &["assistant"]),
];

/// What a question is about, below which it stands.
const ABOUT: [&str; 3] = ["input", "context", "passage"];

/// The document in a row, and in which form it is there.
///
/// A row is a list of turns, or an object with one under `messages` or another of their names, or with the tree of an
/// exported conversation, or with a question and its answer under one of the pairs of names that data sets have, or with a `text`; looked for in this order, and what
/// is null or empty is not there. Where none is found, the names count in small letters. What stands beside them and
/// changes what is learned is used: `system`, `history`, `tools`, `input`, `context` and what was thought. Fails with why
/// there is no document; so it does for keys that would change what is learned and cannot be used.
pub(super) fn document(value: &Json) -> Result<(Form, Document), SkipReason> {
    match value {
        Json::Array(list) if are_turns(list) => {
            let messages = turns(value, "a list", Answers::Learned)?;
            Ok((Form::Turns, conversation(messages, Tools::default())?))
        }
        Json::Object(row) => match row.get("row").filter(|_| row.contains_key("row_idx")) {
            // As the hub's viewer gives rows away.
            Some(Json::Object(_)) if filled(row, &["truncated_cells"]).is_some() => Err(SkipReason::CutOff),
            Some(Json::Object(row)) => in_row(row),
            Some(_) | None => in_row(row),
        },
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
    let found = in_named(row);
    if found != Err(SkipReason::NoText) {
        return found;
    }
    let small: Fields = row.iter().map(|(key, value)| (key.trim().to_lowercase(), value.clone())).collect();
    in_named(&small)
}

fn in_named(row: &Fields) -> Result<(Form, Document), SkipReason> {
    if row.is_twice() {
        return Err(SkipReason::Twice);
    }
    refuse_preference(row)?;
    let columns = PAIRS.iter().map(|(asked, _)| *asked).chain(TURNS).chain(["text"]);
    refuse_columns(row, columns)?;
    if let Some((key, list)) = turns_in(row) {
        let messages = turns(list, key, Answers::Learned)?;
        return with_what_is_beside(row, messages).map(|document| (Form::Turns, document));
    }
    if let Some(list) = exported::turns(row) {
        let messages = turns(&list, "mapping", Answers::Learned)?;
        return Ok((Form::Turns, conversation(messages, Tools::default())?));
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
    if is_known_turn(row) {
        return Err(SkipReason::SingleTurn);
    }
    if let Some((_, words)) = filled(row, &["text"]) {
        refuse_marked(row, Rows::Texts)?;
        if words.as_array().is_some_and(|words| words.len() > 1 && words.iter().all(Json::is_string)) {
            return Err(SkipReason::Columns);
        }
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
    let are_several = |value: &Json| {
        value.as_array().is_some_and(|list| list.len() > 1 && list.iter().all(Json::is_string))
    };
    if are_several(question) || are_several(answer) {
        return Err(SkipReason::Several);
    }
    refuse_choices(row)?;
    let is_completion = (asked, answered) == ("prompt", "completion");
    let is_text = question.is_string() && answer.is_string();
    if is_completion && is_text && !has_roles_beside(row) {
        refuse_marked(row, Rows::Answers)?;
        if has_media(row) {
            return Err(SkipReason::NotAllText);
        }
        let document = Document::Completion { prompt: text(question)?, completion: text(answer)? };
        return Ok((Form::Completion, document));
    }
    let are_turns = |value: &Json| value.as_array().is_some_and(|list| are_turns(list));
    let mut messages = if is_completion && are_turns(question) {
        turns(question, asked, Answers::Given)?
    } else {
        let mut words = vec![content(question)?];
        for key in ABOUT.into_iter().filter(|key| *key != asked) {
            words.push(text_or_null(row.get(key))?);
        }
        // What Alpaca's forerunner writes where there is no input.
        words.retain(|words| !words.trim().is_empty() && !words.trim().eq_ignore_ascii_case("<noinput>"));
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
    filled(row, &SYSTEM).is_some()
        || filled(row, &["history", "tools", "functions"]).is_some()
        || beside::thought(row).is_some()
}

/// Where a row says how the conversation is set up.
const SYSTEM: [&str; 4] = ["system", "system_prompt", "systemInstruction", "system_instruction"];

/// The turns, with the row's `system` and `history` before them, its tools, and what was thought before the last.
fn with_what_is_beside(row: &Fields, mut messages: Vec<Message>) -> Result<Document, SkipReason> {
    refuse_marked(row, Rows::Answers)?;
    if has_media(row) {
        return Err(SkipReason::NotAllText);
    }
    if filled(row, &["chat_template_kwargs", "documents"]).is_some() {
        return Err(SkipReason::TemplateKeys);
    }
    put_thought(row, &mut messages);
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

fn conversation(messages: Vec<Message>, tools: Tools) -> Result<Document, SkipReason> {
    if messages.iter().any(|message| message.learned) {
        Ok(Document::Conversation(Conversation { messages, tools }))
    } else {
        Err(SkipReason::NothingToLearn)
    }
}

#[cfg(test)]
mod tests;
