//! What stands beside the turns or the pair of a row, and changes what is learned of it.

use crate::json::{Fields, Json};

use super::field::{filled, is_blank, there};
use super::turns::{THOUGHT, yes_or_no};
use crate::{Message, Role, SkipReason};

/// Where a row has the worse of two answers.
const WORSE: [&str; 6] = [
    "rejected",
    "rejected_response",
    "rejected_messages",
    "rejected_output",
    "non_preferred_output",
    "non_preferred_completion",
];

/// Where a row has the better of two answers, under a name that nothing else has.
const BETTER: [&str; 3] = ["chosen", "preferred_output", "preferred_completion"];

/// By what a row says whether it is learned.
const WEIGHTS: [&str; 9] = [
    "weight",
    "sample_weight",
    "example_weight",
    "loss_weight",
    "loss_scale",
    "loss_mask",
    "train",
    "train_on_turn",
    "trainable",
];

/// By what a row says token by token what of it is learned.
const MASKS: [&str; 4] = ["completion_mask", "assistant_masks", "assistant_tokens_mask", "assistant_mask"];

/// By what a row of an answer says whether it is a good one.
const VERDICTS: [&str; 4] = ["label", "kto_tag", "is_correct", "correct"];

/// What a question chooses from.
const CHOICES: [&str; 4] = ["choices", "options", "endings", "candidates"];

/// Fails for a row of two answers of which one is better.
pub(super) fn refuse_preference(row: &Fields) -> Result<(), SkipReason> {
    let is_worse = there(row, &WORSE).is_some();
    let is_pair = filled(row, &BETTER).is_some() && is_worse;
    if is_pair || filled(row, &WORSE[1..]).is_some() { Err(SkipReason::Preference) } else { Ok(()) }
}

/// Whether a row is a plain text, or has an answer to what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    Texts,
    Answers,
}

/// Fails for a row that says of itself that it is not to be learned, or not in full.
pub(super) fn refuse_marked(row: &Fields, rows: Rows) -> Result<(), SkipReason> {
    for key in WEIGHTS {
        let Some(value) = row.get(key).filter(|value| !is_blank(value)) else { continue };
        match yes_or_no(value) {
            Some(false) => return Err(SkipReason::NotToBeLearned),
            None if is_number(value) || value.is_array() => return Err(SkipReason::RowWeight),
            Some(true) | None => {}
        }
    }
    if filled(row, &MASKS).is_some() {
        return Err(SkipReason::RowWeight);
    }
    let is_false = |key: &str| row.get(key) == Some(&Json::Bool(false));
    // A plain text's label is what it is called, an answer's is whether it is good.
    let is_bad = |key: &str| match rows {
        Rows::Texts => is_false(key),
        Rows::Answers => row.get(key).is_some_and(|value| yes_or_no(value) == Some(false)),
    };
    if is_false("loss") || VERDICTS.into_iter().any(is_bad) {
        Err(SkipReason::NotToBeLearned)
    } else {
        Ok(())
    }
}

fn is_number(value: &Json) -> bool {
    match value {
        Json::Number(_) => true,
        Json::String(text) => text.trim().parse::<f64>().is_ok(),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => false,
    }
}

/// Fails for a question whose choices stand beside it.
pub(super) fn refuse_choices(row: &Fields) -> Result<(), SkipReason> {
    let has = |key: &str| {
        row.get(key).is_some_and(|value| !is_blank(value) && (value.is_array() || value.is_object()))
    };
    if CHOICES.into_iter().any(has) { Err(SkipReason::Choices) } else { Ok(()) }
}

/// Fails for a row whose values under these keys are those of many rows.
pub(super) fn refuse_columns<'a>(
    row: &Fields,
    keys: impl Iterator<Item = &'a str>,
) -> Result<(), SkipReason> {
    let is_place = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
    let is_column = |value: &Json| {
        value
            .as_object()
            .is_some_and(|fields| !fields.is_empty() && fields.iter().all(|(key, _)| is_place(key)))
    };
    let mut values = keys.filter_map(|key| row.get(key));
    if values.any(is_column) { Err(SkipReason::Columns) } else { Ok(()) }
}

/// Where a row has what was thought before its answer.
const THOUGHTS: [&str; 2] = ["cot", "chain_of_thought"];

/// What was thought before a row's answer, where that is beside it.
pub(super) fn thought(row: &Fields) -> Option<&str> {
    let beside = filled(row, &THOUGHT).or_else(|| filled(row, &THOUGHTS));
    beside.and_then(|(_, value)| value.as_str())
}

/// Puts what was thought before the last answer where it belongs, unless that has thoughts of its own.
pub(super) fn put_thought(row: &Fields, messages: &mut [Message]) {
    let Some(thought) = thought(row) else { return };
    if let Some(last) = messages.last_mut()
        && last.role == Role::Assistant
        && last.reasoning.is_empty()
        && !last.content.contains("</think>")
    {
        thought.clone_into(&mut last.reasoning);
    }
}
