//! Tools in a row: which there are, and which are called.

use crate::json::{Fields, Json};

use super::field::{is_blank, unpacked};
use crate::SkipReason;
use crate::document::Tools;

/// The calls of a turn: `tool_calls`, or the `function_call` of before; none where there are none.
pub(super) fn of_turn(turn: &Fields) -> Result<Vec<Json>, SkipReason> {
    let list = match (turn.get("tool_calls"), turn.get("function_call")) {
        (Some(list), _) if !is_blank(list) => list,
        (_, Some(one)) if !is_blank(one) => return Ok(vec![call(one)?]),
        _ => return Ok(Vec::new()),
    };
    let list = unpacked(list).ok_or(SkipReason::UnknownCall)?;
    list.as_array().ok_or(SkipReason::UnknownCall)?.iter().map(call).collect()
}

/// The calls that a turn of the role `function_call` is: one, or a list of them, as JSON.
pub(super) fn of_content(content: &str) -> Result<Vec<Json>, SkipReason> {
    let value = proto::loose::from_slice::<Json>(content.as_bytes()).map_err(|_| SkipReason::UnknownCall)?;
    match value.as_array().filter(|calls| !calls.is_empty()) {
        Some(calls) => calls.iter().map(call).collect(),
        None => Ok(vec![call(&value)?]),
    }
}

/// The tools that a row tells the model of: `tools`, or the `functions` of before.
pub(super) fn tools(row: &Fields) -> Result<Tools, SkipReason> {
    let Some(list) =
        ["tools", "functions"].iter().find_map(|key| row.get(key).filter(|list| !is_blank(list)))
    else {
        return Ok(Tools::default());
    };
    let list = unpacked(list).ok_or(SkipReason::UnknownTools)?;
    let tools = list.as_array().ok_or(SkipReason::UnknownTools)?.iter().map(|tool| {
        let tool = unpacked(tool).ok_or(SkipReason::UnknownTools)?.into_owned();
        let has = |key: &str| tool.get(key).is_some();
        match (has("function"), has("name")) {
            (true, _) => Ok(tool),
            (false, true) => Ok(Json::object([("type", Json::text("function")), ("function", tool)])),
            (false, false) => Err(SkipReason::UnknownTools),
        }
    });
    let tools: Vec<Json> = tools.collect::<Result<_, _>>()?;
    Ok(Tools(tools))
}

/// A call as chat templates take it: its arguments are an object, and not the JSON of one.
fn call(value: &Json) -> Result<Json, SkipReason> {
    let fields = value.as_object().ok_or(SkipReason::UnknownCall)?;
    let (mut call, mut function) = match fields.get("function") {
        Some(function) => (fields.clone(), function.as_object().ok_or(SkipReason::UnknownCall)?.clone()),
        None => (Fields::default(), fields.clone()),
    };
    if !function.get("name").is_some_and(Json::is_string) {
        return Err(SkipReason::UnknownCall);
    }
    let arguments = match function.get("arguments").cloned().or_else(|| function.remove("parameters")) {
        Some(Json::String(text)) if text.trim().is_empty() => Json::Object(Fields::default()),
        Some(Json::String(text)) => proto::loose::from_slice(text.as_bytes())
            .ok()
            .filter(Json::is_object)
            .unwrap_or(Json::String(text)),
        Some(Json::Null) | None => Json::Object(Fields::default()),
        Some(other) => other,
    };
    function.insert("arguments".to_owned(), arguments);
    if !call.contains_key("type") {
        call.insert("type".to_owned(), Json::text("function"));
    }
    call.insert("function".to_owned(), Json::Object(function));
    Ok(Json::Object(call))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    /// Without the order of keys, which is what each row has.
    fn sorted_one(value: &Json) -> serde_json::Value {
        serde_json::to_value(value).unwrap()
    }

    fn sorted(values: &[Json]) -> Vec<serde_json::Value> {
        values.iter().map(sorted_one).collect()
    }

    #[test]
    fn calls_of_each_kind_are_one_kind() {
        let expected = json(r#"{"type": "function", "function": {"name": "lamp", "arguments": {"box": 3}}}"#);
        for turn in [
            json(r#"{"tool_calls": [{"function": {"name": "lamp", "arguments": "{\"box\": 3}"}}]}"#),
            json(
                r#"{"tool_calls": [{"type": "function", "function": {"name": "lamp", "arguments": {"box": 3}}}]}"#,
            ),
            json(r#"{"tool_calls": [{"name": "lamp", "arguments": {"box": 3}}]}"#),
            json(r#"{"tool_calls": "[{\"name\": \"lamp\", \"arguments\": {\"box\": 3}}]"}"#),
            json(r#"{"tool_calls": null, "function_call": {"name": "lamp", "arguments": "{\"box\": 3}"}}"#),
        ] {
            assert_eq!(
                sorted(&of_turn(turn.as_object().unwrap()).unwrap()),
                [sorted_one(&expected)],
                "{turn}"
            );
        }
        assert_eq!(
            sorted(&of_content(r#"{"name": "lamp", "arguments": {"box": 3}}"#).unwrap()),
            [sorted_one(&expected)]
        );
        assert!(
            of_turn(json(r#"{"tool_calls": [], "function_call": null}"#).as_object().unwrap())
                .unwrap()
                .is_empty()
        );
        for bad in [
            json(r#"{"tool_calls": 3}"#),
            json(r#"{"tool_calls": [3]}"#),
            json(r#"{"function_call": {"arguments": "{}"}}"#),
        ] {
            assert_eq!(of_turn(bad.as_object().unwrap()), Err(SkipReason::UnknownCall), "{bad}");
        }
        assert_eq!(of_content("lamp(3)"), Err(SkipReason::UnknownCall));
    }

    #[test]
    fn tools_of_each_kind_are_one_kind() {
        let expected = Tools(vec![json(r#"{"type": "function", "function": {"name": "lamp"}}"#)]);
        for row in [
            json(r#"{"tools": [{"type": "function", "function": {"name": "lamp"}}]}"#),
            json(r#"{"tools": [{"name": "lamp"}]}"#),
            json(r#"{"tools": "[{\"name\": \"lamp\"}]"}"#),
            json(r#"{"tools": [], "functions": [{"name": "lamp"}]}"#),
        ] {
            assert_eq!(tools(row.as_object().unwrap()).unwrap(), expected, "{row}");
        }
        assert_eq!(tools(json(r#"{"tools": "lamp"}"#).as_object().unwrap()), Err(SkipReason::UnknownTools));
    }
}
