//! JSON as Python's `json.dumps` writes it: a space after each comma and colon, other scripts as they are.

use std::io::{Result, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// `value` in one line, or with so many spaces a level.
pub(super) fn dumps(value: &impl Serialize, indent: Option<usize>) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced))?,
        Some(indent) => {
            let indent = " ".repeat(indent.min(16));
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_python_writes() {
        let value = serde_json::json!({"a": [1, 2.5, "<ü'\">"], "b": {}, "c": null});
        assert_eq!(dumps(&value, None).unwrap(), r#"{"a": [1, 2.5, "<ü'\">"], "b": {}, "c": null}"#);
        let indented =
            "{\n  \"a\": [\n    1,\n    2.5,\n    \"<ü'\\\">\"\n  ],\n  \"b\": {},\n  \"c\": null\n}";
        assert_eq!(dumps(&value, Some(2)).unwrap(), indented);
    }
}
