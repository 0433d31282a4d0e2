//! One JSON object, as one document.

use serde_json::Value;

use crate::{Document, Message, Role, SkipReason};

/// The document in `{"messages"}`, `{"conversations"}`, `{"prompt", "completion"}`, `{"instruction", "input",
/// "output"}` or `{"text"}`, looked for in this order.
///
/// An instruction is a conversation of two turns, its input below it. Fails with why there is none.
pub(super) fn document(value: &Value) -> Result<Document, SkipReason> {
    let field = |name: &str| value.get(name);
    if let Some(turns) = field("messages") {
        conversation(turns, "role", "content")
    } else if let Some(turns) = field("conversations") {
        conversation(turns, "from", "value")
    } else if let (Some(prompt), Some(completion)) = (field("prompt"), field("completion")) {
        let (prompt, completion) = (string(prompt)?, string(completion)?);
        refuse_blank(&completion, SkipReason::NothingToLearn)?;
        Ok(Document::Completion { prompt, completion })
    } else if let (Some(instruction), Some(output)) = (field("instruction"), field("output")) {
        let mut content = string(instruction)?;
        let input = field("input").filter(|input| !input.is_null()).map_or(Ok(String::new()), string)?;
        if !input.trim().is_empty() {
            content = content + "\n\n" + &input;
        }
        let user = Message { role: Role::User, content };
        with_roles(vec![user, Message { role: Role::Assistant, content: string(output)? }])
    } else {
        let text = string(field("text").ok_or(SkipReason::NoText)?)?;
        refuse_blank(&text, SkipReason::Empty)?;
        Ok(Document::Plain(text))
    }
}

fn conversation(turns: &Value, role: &str, content: &str) -> Result<Document, SkipReason> {
    let turns = turns.as_array().ok_or(SkipReason::NoText)?;
    let message = |turn: &Value| {
        let role = turn.get(role).and_then(Value::as_str).ok_or(SkipReason::NoText)?;
        let role = known(role).ok_or(SkipReason::UnknownRole)?;
        Ok(Message { role, content: content_of(turn.get(content).ok_or(SkipReason::NoText)?)? })
    };
    with_roles(turns.iter().map(message).collect::<Result<_, _>>()?)
}

fn with_roles(messages: Vec<Message>) -> Result<Document, SkipReason> {
    let learned = |message: &Message| message.role == Role::Assistant && !message.content.trim().is_empty();
    if messages.iter().any(learned) {
        Ok(Document::Conversation(messages))
    } else {
        Err(SkipReason::NothingToLearn)
    }
}

/// The role behind the words that the formats use for it.
fn known(word: &str) -> Option<Role> {
    match word {
        "system" | "developer" => Some(Role::System),
        "user" | "human" => Some(Role::User),
        "assistant" | "gpt" | "model" => Some(Role::Assistant),
        _ => None,
    }
}

/// A string, or a list of parts of which each is text.
fn content_of(value: &Value) -> Result<String, SkipReason> {
    let Some(parts) = value.as_array() else { return string(value) };
    let text = |part: &Value| {
        let is_text = part.get("type").and_then(Value::as_str) == Some("text");
        let text = part.get("text").filter(|_| is_text);
        text.and_then(Value::as_str).map(str::to_owned).ok_or(SkipReason::NotAllText)
    };
    parts.iter().map(text).collect()
}

fn string(value: &Value) -> Result<String, SkipReason> {
    value.as_str().map(str::to_owned).ok_or(SkipReason::NotAllText)
}

fn refuse_blank(text: &str, reason: SkipReason) -> Result<(), SkipReason> {
    if text.trim().is_empty() { Err(reason) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Document, SkipReason> {
        document(&serde_json::from_str(json).unwrap())
    }

    /// Roles by their first letters, and contents.
    fn turns(json: &str) -> Vec<(char, String)> {
        let Document::Conversation(messages) = parse(json).unwrap() else {
            panic!("no conversation: {json}")
        };
        let letter = |role: Role| role.name().chars().next().unwrap();
        messages.into_iter().map(|message| (letter(message.role), message.content)).collect()
    }

    #[test]
    fn each_format_becomes_its_document() {
        assert_eq!(parse(r#"{"text": "a b", "id": 3}"#), Ok(Document::Plain("a b".to_owned())));
        let pair = Document::Completion { prompt: "a ".to_owned(), completion: "b".to_owned() };
        assert_eq!(parse(r#"{"prompt": "a ", "completion": "b"}"#), Ok(pair));
        let chat = r#"{"text": "never", "messages": [{"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]},
            {"role": "assistant", "content": "a"}]}"#;
        let expected = [('s', "s"), ('u', "uv"), ('a', "a")].map(|(role, text)| (role, text.to_owned()));
        assert_eq!(turns(chat), expected);
        let shared = r#"{"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}"#;
        assert_eq!(turns(shared), [('u', "u".to_owned()), ('a', "a".to_owned())]);
    }

    #[test]
    fn an_instruction_has_its_input_below_it_where_there_is_one() {
        let with = |input: &str| turns(&format!(r#"{{"instruction": "do", {input} "output": "done"}}"#));
        for none in ["", r#""input": "","#, r#""input": " ","#, r#""input": null,"#] {
            assert_eq!(with(none), [('u', "do".to_owned()), ('a', "done".to_owned())]);
        }
        assert_eq!(with(r#""input": "it","#)[0].1, "do\n\nit");
    }

    #[test]
    fn what_is_no_document_says_why() {
        for (json, reason) in [
            ("3", SkipReason::NoText),
            ("{}", SkipReason::NoText),
            (r#"{"text": 3}"#, SkipReason::NotAllText),
            (r#"{"text": " \n"}"#, SkipReason::Empty),
            (r#"{"prompt": "a"}"#, SkipReason::NoText),
            (r#"{"prompt": "a", "completion": " "}"#, SkipReason::NothingToLearn),
            (r#"{"messages": "a"}"#, SkipReason::NoText),
            (r#"{"messages": []}"#, SkipReason::NothingToLearn),
            (r#"{"messages": [{"content": "a"}]}"#, SkipReason::NoText),
            (r#"{"messages": [{"role": "user", "content": "a"}]}"#, SkipReason::NothingToLearn),
            (r#"{"messages": [{"role": "assistant", "content": null}]}"#, SkipReason::NotAllText),
            (r#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#, SkipReason::NotAllText),
            (r#"{"conversations": [{"from": "tool", "value": "a"}]}"#, SkipReason::UnknownRole),
            (r#"{"instruction": "a", "output": ""}"#, SkipReason::NothingToLearn),
        ] {
            assert_eq!(parse(json), Err(reason), "{json}");
        }
    }
}
