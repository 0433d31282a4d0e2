//! Looking things up in a row, in which programs write down columns that this row does not have.

use std::borrow::Cow;

use crate::json::{Fields, Json};

use crate::SkipReason;

/// Whether nothing is in it: null, as a table's empty cell is written, space alone, an empty list or object.
pub(super) fn is_blank(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::String(text) => text.trim().is_empty(),
        Json::Array(list) => list.is_empty(),
        Json::Object(fields) => fields.is_empty(),
        Json::Bool(_) | Json::Number(_) => false,
    }
}

/// The first of the keys under which there is something.
pub(super) fn filled<'a>(row: &'a Fields, keys: &[&'static str]) -> Option<(&'static str, &'a Json)> {
    keys.iter().find_map(|key| Some((*key, row.get(key).filter(|value| !is_blank(value))?)))
}

/// The first of the keys that is there at all, though it may be blank or null.
pub(super) fn there<'a>(row: &'a Fields, keys: &[&'static str]) -> Option<(&'static str, &'a Json)> {
    keys.iter().find_map(|key| Some((*key, row.get(key)?)))
}

/// A list or an object, also where it is written as the text of its JSON, as tables hold it; `None` for anything else.
pub(super) fn unpacked(value: &Json) -> Option<Cow<'_, Json>> {
    match value {
        Json::Array(_) | Json::Object(_) => Some(Cow::Borrowed(value)),
        Json::String(text) => {
            let value: Json = proto::loose::from_slice(text.as_bytes()).ok()?;
            (value.is_array() || value.is_object()).then_some(Cow::Owned(value))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => None,
    }
}

/// A text.
pub(super) fn text(value: &Json) -> Result<String, SkipReason> {
    value.as_str().map(str::to_owned).ok_or(SkipReason::NotAllText)
}

/// A text, or nothing where there is null.
pub(super) fn text_or_null(value: Option<&Json>) -> Result<String, SkipReason> {
    value.filter(|value| !value.is_null()).map_or(Ok(String::new()), text)
}

/// Whether there are pictures, sounds or films beside the words.
pub(super) fn has_media(row: &Fields) -> bool {
    filled(row, &["images", "image", "audios", "audio", "videos", "video"]).is_some()
}
