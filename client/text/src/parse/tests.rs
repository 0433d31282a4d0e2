use super::*;

fn parse(json: &str) -> Result<Document, SkipReason> {
    document(&serde_json::from_str(json).unwrap()).map(|(_, document)| document)
}

fn messages(json: &str) -> Vec<Message> {
    match parse(json) {
        Ok(Document::Conversation(conversation)) => conversation.messages,
        other => panic!("{other:?}: {json}"),
    }
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

/// Each turn as the first letter of its role, in capitals where it is learned, and its content.
fn turns_of(json: &str) -> Vec<String> {
    let letter = |message: &Message| {
        let letter = &message.role.name()[..1];
        if message.learned { letter.to_uppercase() } else { letter.to_owned() }
    };
    messages(json).iter().map(|message| format!("{} {}", letter(message), message.content)).collect()
}

#[test]
fn each_form_becomes_its_document() {
    assert_eq!(parse(r#"{"text": "a b", "id": 3}"#), Ok(Document::Plain("a b".to_owned())));
    let pair = Document::Completion { prompt: "a ".to_owned(), completion: "b".to_owned() };
    assert_eq!(parse(r#"{"prompt": "a ", "completion": "b"}"#), Ok(pair));
    for (json, expected) in [
        // Turns under their names, with the names of either format inside, and in no object at all.
        (
            r#"{"text": "never", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#,
            &["s s", "u u", "A a"][..],
        ),
        (
            r#"{"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}"#,
            &["u u", "A a"],
        ),
        (
            r#"{"conversations": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#,
            &["u u", "A a"],
        ),
        (
            r#"{"messages": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}"#,
            &["u u", "A a"],
        ),
        (
            r#"{"messages": "[{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\"}]"}"#,
            &["u u", "A a"],
        ),
        (
            r#"{"conversation": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#,
            &["u u", "A a"],
        ),
        (r#"[{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]"#, &["u u", "A a"]),
        (
            r#"{"contents": [{"role": "user", "parts": [{"text": "u"}]}, {"role": "model", "parts": [{"text": "a"}]}], "systemInstruction": {"parts": [{"text": "s"}]}}"#,
            &["s s", "u u", "A a"],
        ),
        // Roles in other words.
        (
            r#"{"messages": [{"role": "Developer", "content": "s"}, {"role": "User", "content": "u"}, {"role": "Assistant", "content": "a"}]}"#,
            &["s s", "u u", "A a"],
        ),
        (
            r#"{"conversations": [{"from": "Human", "value": "u"}, {"from": "chatgpt", "value": "a"}, {"from": "user", "value": "v"}, {"from": "AI", "value": "b"}, {"from": "bot", "value": "c"}, {"from": " model ", "value": "d"}]}"#,
            &["u u", "A a", "u v", "A b", "A c", "A d"],
        ),
        // Parts.
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "input_text", "text": "u"}, {"type": "text", "text": "v"}]}, {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]}"#,
            &["u uv", "A a"],
        ),
        // Pairs: of TRL, of Alpaca, of Dolly, of OpenOrca and others.
        (
            r#"{"prompt": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "v"}], "completion": [{"role": "assistant", "content": "a"}]}"#,
            &["u u", "a x", "u v", "A a"],
        ),
        (r#"{"prompt": [{"role": "user", "content": "u"}], "completion": "a"}"#, &["u u", "A a"]),
        (r#"{"prompt": "u", "completion": {"role": "assistant", "content": "a"}}"#, &["u u", "A a"]),
        (r#"{"prompt": "u", "response": "a"}"#, &["u u", "A a"]),
        (r#"{"question": "u", "answer": "a"}"#, &["u u", "A a"]),
        (r#"{"instruction": "u", "context": "", "response": "a", "category": "qa"}"#, &["u u", "A a"]),
        (r#"{"instruction": "u", "context": "c", "response": "a"}"#, &["u u\n\nc", "A a"]),
        (r#"{"system_prompt": "s", "question": "u", "response": "a"}"#, &["s s", "u u", "A a"]),
        (r#"{"query": "u", "response": "a"}"#, &["u u", "A a"]),
        (r#"{"input": "u", "output": "a"}"#, &["u u", "A a"]),
        (r#"{"instruction": "", "input": "u", "output": "a"}"#, &["u u", "A a"]),
        (r#"{"inputs": "u", "targets": "a"}"#, &["u u", "A a"]),
        // What stands beside.
        (
            r#"{"system": "s", "conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}"#,
            &["s s", "u u", "A a"],
        ),
        (
            r#"{"system": "s", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#,
            &["s s", "u u", "A a"],
        ),
        (
            r#"{"instruction": "u", "input": "", "output": "a", "system": "s", "history": [["x", "y"]]}"#,
            &["s s", "u x", "A y", "u u", "A a"],
        ),
        (r#"{"prompt": "u", "completion": "a", "system": "s"}"#, &["s s", "u u", "A a"]),
        // Columns that this row does not have.
        (
            r#"{"text": null, "messages": [{"role": "user", "content": "u", "value": null, "tool_calls": null, "weight": null}, {"role": "assistant", "content": "a", "reasoning_content": null, "tool_calls": [], "function_call": null}], "conversations": null, "tools": [], "system": "", "history": [], "images": []}"#,
            &["u u", "A a"],
        ),
        (r#"{"messages": [], "prompt": null, "instruction": "u", "output": "a"}"#, &["u u", "A a"]),
    ] {
        assert_eq!(turns_of(json), expected, "{json}");
    }
    for blank in ["null", "[]", "\"\"", "{}"] {
        let json =
            format!(r#"{{"text": "t", "messages": {blank}, "conversations": {blank}, "prompt": null}}"#);
        assert_eq!(parse(&json), Ok(Document::Plain("t".to_owned())), "{json}");
    }
}

#[test]
fn a_turn_says_itself_whether_it_is_learned() {
    let row = |flags: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "u"}}, {{"role": "assistant", "content": "x", {flags}}}, {{"role": "user", "content": "v"}}, {{"role": "assistant", "content": "a", "weight": 1, "train": true}}]}}"#
        )
    };
    for no in [
        r#""weight": 0"#,
        r#""weight": 0.0"#,
        r#""train": false"#,
        r#""loss": false"#,
        r#""train": false, "loss": false"#,
        r#""training": "false""#,
        r#""trainable": 0"#,
        r#""train_on_turn": false"#,
        r#""loss_mask": 0"#,
    ] {
        assert_eq!(turns_of(&row(no)), ["u u", "a x", "u v", "A a"], "{no}");
    }
    for yes in [r#""weight": 1"#, r#""train": true"#, r#""loss": null"#, r#""id": 0"#] {
        assert_eq!(turns_of(&row(yes)), ["u u", "A x", "u v", "A a"], "{yes}");
    }
    for unclear in [
        r#""weight": 0.5"#,
        r#""train": true, "weight": 0"#,
        r#""train_detail": [{"begin_offset": 0}]"#,
        r#""loss_scale": 2"#,
        r#""mask": true"#,
        r#""assistant_mask": [0, 1]"#,
        r#""trained_on": "none""#,
    ] {
        assert_eq!(parse(&row(unclear)), Err(SkipReason::UnknownWeight), "{unclear}");
    }
    let all = r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "x", "weight": 0}]}"#;
    assert_eq!(parse(all), Err(SkipReason::NothingToLearn));
    let others = r#"{"messages": [{"role": "user", "content": "u", "train": true}, {"role": "assistant", "content": "x"}]}"#;
    assert_eq!(parse(others), Err(SkipReason::TeachesOthers));
    // An answer of no words is none.
    let empty = r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "a"}]}"#;
    assert_eq!(turns_of(empty), ["u u", "a ", "u v", "A a"]);
}

#[test]
fn calls_tools_and_thoughts_are_kept() {
    let row = r#"{"tools": [{"name": "lamp"}], "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "reasoning_content": "r", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "lamp", "arguments": "{\"box\": 3}"}}]}, {"role": "tool", "tool_call_id": "c1", "name": "lamp", "content": "on"}, {"role": "assistant", "content": "a"}]}"#;
    let Ok(Document::Conversation(Conversation { messages, tools })) = parse(row) else {
        panic!("no conversation")
    };
    assert_eq!(tools.0, [json(r#"{"type": "function", "function": {"name": "lamp"}}"#)]);
    assert_eq!(
        (messages[1].reasoning.as_str(), messages[1].calls.len(), messages[1].learned),
        ("r", 1, true)
    );
    assert_eq!(messages[1].calls[0].get("function").unwrap().get("arguments"), Some(&json(r#"{"box": 3}"#)));
    assert_eq!(
        (messages[2].role, messages[2].name.as_deref(), messages[2].call_id.as_deref()),
        (Role::Tool, Some("lamp"), Some("c1"))
    );
    let shared = r#"{"conversations": [{"from": "human", "value": "u"}, {"from": "function_call", "value": "{\"name\": \"lamp\"}"}, {"from": "observation", "value": "on"}, {"from": "gpt", "value": "a"}]}"#;
    let turns = self::messages(shared);
    assert_eq!((turns[1].calls.len(), turns[1].learned, turns[2].role), (1, true, Role::Tool));
    let parts = r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "a"}]}]}"#;
    assert_eq!(
        (self::messages(parts)[1].reasoning.as_str(), self::messages(parts)[1].content.as_str()),
        ("r", "a")
    );
}

#[test]
fn an_instruction_has_its_input_below_it_where_there_is_one() {
    let with = |input: &str| turns_of(&format!(r#"{{"instruction": "do", {input} "output": "done"}}"#));
    for none in ["", r#""input": "","#, r#""input": " ","#, r#""input": null,"#, r#""input": "<noinput>","#] {
        assert_eq!(with(none), ["u do", "A done"]);
    }
    assert_eq!(with(r#""input": "it","#)[0], "u do\n\nit");
}

#[test]
fn what_is_no_document_says_why() {
    for (json, reason) in [
        ("3", SkipReason::NoObject),
        ("[3]", SkipReason::NoObject),
        ("{}", SkipReason::NoText),
        (r#"{"text": 3}"#, SkipReason::NotAllText),
        (r#"{"text": " \n"}"#, SkipReason::Empty),
        (r#"{"prompt": "a"}"#, SkipReason::Without { key: "prompt", missing: "completion" }),
        (
            r#"{"question": "a", "answers": {"text": ["b"]}}"#,
            SkipReason::Without { key: "question", missing: "answer" },
        ),
        (r#"{"prompt": "a", "completion": " "}"#, SkipReason::NothingToLearn),
        (r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#, SkipReason::Preference),
        (r#"{"prompt": "a", "completion": "b", "label": false}"#, SkipReason::NotToBeLearned),
        (r#"{"messages": "a"}"#, SkipReason::NotTurns { key: "messages" }),
        (r#"{"conversations": {"a": 1}}"#, SkipReason::NotTurns { key: "conversations" }),
        (r#"{"messages": ["a"]}"#, SkipReason::NotTurns { key: "messages" }),
        (r#"{"messages": []}"#, SkipReason::NothingToLearn),
        (r#"{"messages": [{"content": "a"}]}"#, SkipReason::NoRole),
        (r#"{"conversations": [{"from": "human"}]}"#, SkipReason::NoContent),
        (r#"{"messages": [{"role": "user", "content": "a"}]}"#, SkipReason::NothingToLearn),
        (r#"{"messages": [{"role": "assistant", "content": null}]}"#, SkipReason::NoContent),
        (r#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#, SkipReason::NotAllText),
        (
            r#"{"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "a"}], "images": ["a.png"]}"#,
            SkipReason::NotAllText,
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "a"}]}]}"#,
            SkipReason::UnknownCall,
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "a", "tool_calls": 3}]}"#,
            SkipReason::UnknownCall,
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "a"}], "tools": "lamp"}"#,
            SkipReason::UnknownTools,
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "a"}], "history": "b"}"#,
            SkipReason::NotTurns { key: "history" },
        ),
        (
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}], "system": "t"}"#,
            SkipReason::TwoSystems,
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "a"}], "chat_template_kwargs": {"enable_thinking": false}}"#,
            SkipReason::TemplateKeys,
        ),
        (r#"{"messages": [{"role": "assistant", "content": "a"}], "weight": 0}"#, SkipReason::NotToBeLearned),
        (r#"{"conversations": [{"from": "narrator", "value": "a"}]}"#, SkipReason::UnknownRole),
        (r#"{"instruction": "a", "output": ""}"#, SkipReason::NothingToLearn),
    ] {
        assert_eq!(parse(json), Err(reason), "{json}");
    }
}

#[test]
fn a_row_that_says_how_much_of_it_is_learned_is_learned_or_left_out() {
    let forms = [
        r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]"#,
        r#"{"prompt": "u", "completion": "a""#,
        r#"{"instruction": "u", "output": "a""#,
    ];
    for (mark, expected) in [
        (r#""weight": 1"#, Ok(())),
        (r#""weight": null"#, Ok(())),
        (r#""train": "train""#, Ok(())),
        (r#""label": "good""#, Ok(())),
        (r#""label": true"#, Ok(())),
        (r#""loss": 1.7"#, Ok(())),
        (r#""sample_weight": 0"#, Err(SkipReason::NotToBeLearned)),
        (r#""loss_weight": "0.0""#, Err(SkipReason::NotToBeLearned)),
        (r#""train": false"#, Err(SkipReason::NotToBeLearned)),
        (r#""kto_tag": false"#, Err(SkipReason::NotToBeLearned)),
        (r#""is_correct": false"#, Err(SkipReason::NotToBeLearned)),
        (r#""correct": "B""#, Ok(())),
        (r#""label": "False""#, Err(SkipReason::NotToBeLearned)),
        (r#""label": 0"#, Err(SkipReason::NotToBeLearned)),
        (r#""weight": 0.5"#, Err(SkipReason::RowWeight)),
        (r#""weight": "2""#, Err(SkipReason::RowWeight)),
        (r#""completion_mask": [0, 1]"#, Err(SkipReason::RowWeight)),
        (r#""rejected_response": "b""#, Err(SkipReason::Preference)),
        (r#""images": ["a.png"]"#, Err(SkipReason::NotAllText)),
    ] {
        for form in forms {
            let row = format!("{form}, {mark}}}");
            assert_eq!(parse(&row).map(drop), expected, "{row}");
        }
    }
    // What a text is called is no verdict on it.
    let text = |mark: &str| parse(&format!(r#"{{"text": "t", {mark}}}"#)).map(drop);
    for fine in [r#""label": 0"#, r#""label": "ham""#, r#""image": "a.png""#, r#""weight": 1"#] {
        assert_eq!(text(fine), Ok(()), "{fine}");
    }
    assert_eq!(text(r#""weight": 0"#), Err(SkipReason::NotToBeLearned));
}

#[test]
fn what_was_thought_before_an_answer_is_its_thought() {
    for (row, expected) in [
        (r#"{"question": "u", "reasoning": "r", "answer": "a"}"#, "r"),
        (r#"{"prompt": "u", "completion": "a", "reasoning_content": "r"}"#, "r"),
        (r#"{"instruction": "u", "cot": "r", "output": "a"}"#, "r"),
        (r#"{"problem": "u", "solution": "<think>r</think>a", "thinking": "q"}"#, ""),
        (r#"{"question": "u", "reasoning": true, "answer": "a"}"#, ""),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "thinking": "r"}"#,
            "r",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "r"}]}]}"#,
            "r",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "reasoning": [{"type": "thinking", "thinking": "r"}]}]}"#,
            "r",
        ),
    ] {
        let last = messages(row).pop().unwrap();
        assert_eq!((last.reasoning.as_str(), last.learned), (expected, true), "{row}");
    }
}

#[test]
fn further_names_are_known() {
    for (json, expected) in [
        (
            r#"{"chat_messages": [{"sender": "human", "text": "u", "content": [{"type": "text", "text": "u"}], "attachments": [], "files": []}, {"sender": "assistant", "text": "a"}]}"#,
            &["u u", "A a"][..],
        ),
        (r#"{"Instruction": "u", "Output": "a"}"#, &["u u", "A a"]),
        (r#"{"problem": "u", "solution": "a", "answer": "3"}"#, &["u u", "A a"]),
        (r#"{"input_text": "u", "target_text": "a"}"#, &["u u", "A a"]),
        (r#"{"question": "u", "passage": "p", "answer": "a"}"#, &["u u\n\np", "A a"]),
        (r#"{"question": "u", "answer": ["a"]}"#, &["u u", "A a"]),
        (
            r#"{"row_idx": 3, "row": {"question": "u", "answer": "a"}, "truncated_cells": []}"#,
            &["u u", "A a"],
        ),
    ] {
        assert_eq!(turns_of(json), expected, "{json}");
    }
    let named = r#"{"messages": [{"role": "user", "content": "u", "name": "n"}, {"role": "assistant", "content": "a"}]}"#;
    assert_eq!(messages(named)[0].name.as_deref(), Some("n"));
}

#[test]
fn what_would_be_learned_wrongly_is_left_out_by_a_name_of_its_own() {
    for (json, reason) in [
        (
            r#"{"input": {"messages": []}, "preferred_output": ["a"], "non_preferred_output": ["b"]}"#,
            SkipReason::Preference,
        ),
        (r#"{"instruction": "u", "output": ["a", "b"]}"#, SkipReason::Several),
        (r#"{"question": ["u", "v"], "answer": ["a", "b"]}"#, SkipReason::Several),
        (r#"{"question": "u", "choices": ["a", "b"], "answer": "B"}"#, SkipReason::Choices),
        (r#"{"question": "u", "options": {"A": "a"}, "answer": "A"}"#, SkipReason::Choices),
        (r#"{"role": "prompter", "text": "u", "parent_id": null}"#, SkipReason::SingleTurn),
        (r#"{"role": "user", "content": "u"}"#, SkipReason::SingleTurn),
        (r#"{"text": {"0": "a", "1": "b"}}"#, SkipReason::Columns),
        (r#"{"text": ["a", "b"]}"#, SkipReason::Columns),
        (r#"{"prompt": {"0": "a"}, "completion": {"0": "b"}}"#, SkipReason::Columns),
        (r#"{"row_idx": 0, "row": {"text": "a"}, "truncated_cells": ["text"]}"#, SkipReason::CutOff),
        (r#"{"text": "a", "text": "b"}"#, SkipReason::Twice),
        (
            r#"{"messages": [{"role": "user", "content": "u", "content": "v"}, {"role": "assistant", "content": "a"}]}"#,
            SkipReason::Twice,
        ),
        (
            r#"{"messages": "[{'role': 'user', 'content': 'u'}]"}"#,
            SkipReason::TextOfTurns { key: "messages" },
        ),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "refusal": "no"}]}"#,
            SkipReason::Refusal,
        ),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "r", "channel": "analysis"}, {"role": "assistant", "content": "a", "channel": "final"}]}"#,
            SkipReason::Channel,
        ),
        (
            r#"{"chat_messages": [{"sender": "human", "text": "u", "attachments": [{"file_name": "f"}]}, {"sender": "assistant", "text": "a"}]}"#,
            SkipReason::NotAllText,
        ),
    ] {
        assert_eq!(parse(json), Err(reason), "{json}");
    }
    // Whoever is not known says a text, as a message of a group does.
    assert_eq!(parse(r#"{"from": "Box", "text": "t"}"#), Ok(Document::Plain("t".to_owned())));
}

#[test]
fn an_exported_conversation_is_the_branch_that_was_gone_on_with() {
    let node = |id: &str, parent: &str, message: &str| {
        format!(r#""{id}": {{"id": "{id}", "parent": {parent}, "children": [], "message": {message}}}"#)
    };
    let says = |role: &str, content: &str, more: &str| {
        format!(r#"{{"author": {{"role": "{role}"}}, "content": {content}{more}}}"#)
    };
    let text = |words: &str| format!(r#"{{"content_type": "text", "parts": ["{words}"]}}"#);
    let export = |last: &str| {
        let nodes = [
            node("root", "null", "null"),
            node("s", r#""root""#, &says("system", &text(""), r#", "weight": 0.0"#)),
            node("u", r#""s""#, &says("user", &text("u"), r#", "weight": 1.0"#)),
            node("x", r#""u""#, &says("assistant", &text("x"), "")),
            node("a", r#""u""#, &says("assistant", &text("a"), r#", "weight": 1.0, "recipient": "all""#)),
            node("v", r#""a""#, &says("user", &text("v"), "")),
            last.to_owned(),
        ];
        format!(r#"{{"title": "t", "current_node": "b", "mapping": {{{}}}}}"#, nodes.join(", "))
    };
    let last = |content: &str, more: &str| export(&node("b", r#""v""#, &says("assistant", content, more)));
    assert_eq!(turns_of(&last(&text("b"), "")), ["u u", "A a", "u v", "A b"]);
    assert_eq!(turns_of(&last(&text("b"), r#", "weight": 0.0"#)), ["u u", "A a", "u v", "a b"]);
    let picture = r#"{"content_type": "multimodal_text", "parts": [{"asset_pointer": "p"}]}"#;
    assert_eq!(parse(&last(picture, "")), Err(SkipReason::NotAllText));
    assert_eq!(parse(&last(&text("b"), r#", "recipient": "python""#)), Err(SkipReason::UnknownCall));
    // A tree that leads back to itself, and one that leads nowhere.
    let circle = export(&node("b", r#""b""#, &says("assistant", &text("b"), "")));
    assert_eq!(turns_of(&circle), ["A b"]);
    assert_eq!(parse(r#"{"mapping": {}, "current_node": "b"}"#), Err(SkipReason::NoText));
}
