//! Conversations as `ChatGPT` exports them: a tree of messages, of which one branch was gone on with.

use std::collections::BTreeSet;

use crate::json::{Fields, Json};

use super::field::is_blank;

/// The turns from the root to `current_node`, as a list in the form that others have; `None` for what is no such export.
///
/// A setting without words is left out: each conversation begins with one. What is no text, and what was said to a tool,
/// stays what it is, so that reading it says so.
pub(super) fn turns(row: &Fields) -> Option<Json> {
    let nodes = row.get("mapping")?.as_object()?;
    let mut next = row.get("current_node").and_then(Json::as_str);
    let (mut turns, mut seen) = (Vec::new(), BTreeSet::new());
    // No node is its own forebear, whatever a file says.
    while let Some(id) = next.filter(|id| seen.insert(*id)) {
        let Some(node) = nodes.get(id) else { break };
        turns.extend(node.get("message").and_then(turn));
        next = node.get("parent").and_then(Json::as_str);
    }
    turns.reverse();
    (!turns.is_empty()).then_some(Json::Array(turns))
}

fn turn(message: &Json) -> Option<Json> {
    let role = message.get("author")?.get("role")?.as_str()?;
    let content = message.get("content")?;
    let is_text = content.get("content_type").and_then(Json::as_str) == Some("text");
    let words = content.get("parts").filter(|_| is_text).unwrap_or(content);
    let is_empty = words.as_array().is_some_and(|parts| parts.iter().all(is_blank));
    if role == "system" && is_empty {
        return None;
    }
    let mut turn: Fields =
        [("role".to_owned(), Json::text(role)), ("content".to_owned(), words.clone())].into_iter().collect();
    if let Some(weight) = message.get("weight").filter(|_| role == "assistant") {
        turn.insert("weight".to_owned(), weight.clone());
    }
    if let Some(tool) = message.get("recipient").and_then(Json::as_str).filter(|to| *to != "all") {
        turn.insert("function_call".to_owned(), Json::text(tool));
    }
    Some(Json::Object(turn))
}
