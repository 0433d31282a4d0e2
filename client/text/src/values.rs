//! A file of JSON values: objects one after the other, or a list of them, which may be within an object, one value in
//! memory at a time.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use proto::loose::Loose;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::json::{Fields, Json};
use crate::opened::{Opened, Unusable, open};
use crate::parse::{document, is_turn};
use crate::{SkipReason, UnreadReason};

/// What is at the top of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Top {
    /// Values one after the other.
    Values,
    /// One list of rows.
    Rows,
    /// One list of turns: a single conversation.
    Turns,
    /// One object with a list of rows.
    Within {
        /// The key of the list.
        key: String,
        /// Rows in lists that are named as parts which are not for training.
        others: u64,
    },
}

/// Where a file has its rows, the first that is there.
const CONTAINERS: [&str; 14] = [
    "train",
    "rows",
    "data",
    "examples",
    "samples",
    "items",
    "instances",
    "records",
    "entries",
    "dataset",
    "conversations",
    "messages",
    "chats",
    "results",
];

/// Parts of a data set that are not for training.
const OTHER_PARTS: [&str; 7] = ["test", "validation", "valid", "val", "dev", "eval", "evaluation"];

/// What is at the top of a file of values; fails where it is not whole, so that nothing of such a file is used.
pub(super) fn top(path: &Path) -> Result<Top, Unusable> {
    let mut count = 0_u64;
    each::<IgnoredAny>(path, &Top::Values, &mut |number, _| count = number)?;
    if count != 1 {
        return Ok(Top::Values);
    }
    match open(path)?.first {
        Some(b'[') => {}
        Some(b'{') => return within(path),
        Some(_) | None => return Ok(Top::Values),
    }
    let (mut are_turns, mut count) = (true, 0);
    each::<Json>(path, &Top::Rows, &mut |number, value| {
        (are_turns, count) = (are_turns && is_turn(&value), number);
    })?;
    Ok(if are_turns && count > 0 { Top::Turns } else { Top::Rows })
}

/// Where the rows of the only object in a file are: it itself, or a list in it where it is no row.
fn within(path: &Path) -> Result<Top, Unusable> {
    let mut outline = Outline::default();
    each::<Outline>(path, &Top::Values, &mut |_, found| outline = found)?;
    let Outline { fields, lists } = outline;
    match document(&Json::Object(fields)) {
        Err(SkipReason::NoText | SkipReason::NoRole | SkipReason::NotTurns { .. }) => {}
        Ok(_) | Err(_) => return Ok(Top::Values),
    }
    let is = |list: &&(String, u64), name: &str| list.0.eq_ignore_ascii_case(name);
    let known = CONTAINERS.iter().find_map(|name| lists.iter().find(|list| is(list, name)));
    let only = lists.first().filter(|_| lists.len() == 1);
    let Some((key, _)) = known.or(only) else { return Ok(Top::Values) };
    let is_other = |list: &&(String, u64)| list.0 != *key && OTHER_PARTS.iter().any(|name| is(list, name));
    let others = lists.iter().filter(is_other).map(|(_, rows)| rows).sum();
    Ok(Top::Within { key: key.clone(), others })
}

/// Calls `take` with each value and its number, from 1: each at the top, or each in the list that is there. Fails at
/// the first that is no JSON.
pub(super) fn each<T: DeserializeOwned>(
    path: &Path,
    top: &Top,
    take: &mut dyn FnMut(u64, T),
) -> Result<(), Unusable> {
    let Opened { reader, .. } = open(path)?;
    let longer = Cell::new(0);
    let mut json = serde_json::Deserializer::from_reader(Loose::new(reader, &longer));
    let taken = match top {
        Top::Rows | Top::Turns => json.deserialize_seq(Each(take, PhantomData)).and_then(|()| json.end()),
        Top::Within { key, others: _ } => {
            json.deserialize_map(Inside { key, each: Each(take, PhantomData) }).and_then(|()| json.end())
        }
        Top::Values => (1..).zip(json.into_iter()).try_for_each(|(number, value)| {
            take(number, value?);
            Ok(())
        }),
    };
    taken.map_err(|error| unusable(&error, longer.get()))
}

fn unusable(error: &serde_json::Error, longer: usize) -> Unusable {
    if let Some(kind) = error.io_error_kind() {
        return Unusable::Read(kind.into());
    }
    let (line, column) = (error.line(), error.column().saturating_sub(longer));
    Unusable::Content(match error.to_string() {
        reason if reason.starts_with("invalid unicode code point") => UnreadReason::NotUtf8 { line, column },
        reason if reason.starts_with("recursion limit") => UnreadReason::Deep { line, column },
        _ => UnreadReason::NotJson { line, column },
    })
}

/// Gives the values of a list away one by one.
struct Each<'a, T>(&'a mut dyn FnMut(u64, T), PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(value) = list.next_element()? {
            number += 1;
            (self.0)(number, value);
        }
        Ok(())
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Each<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

/// Gives the values of one list in an object away.
struct Inside<'a, T> {
    key: &'a str,
    each: Each<'a, T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Inside<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut each = Some(self.each);
        while let Some(key) = map.next_key::<String>()? {
            match each.take_if(|_| key == self.key) {
                Some(each) => map.next_value_seed(each)?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// An object of which no more than the first value of each list is in memory.
#[derive(Default)]
struct Outline {
    fields: Fields,
    /// The lists of rows in it, with how many.
    lists: Vec<(String, u64)>,
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Outlined)
    }
}

struct Outlined;

impl<'de> Visitor<'de> for Outlined {
    type Value = Outline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut outline = Outline::default();
        while let Some(key) = map.next_key::<String>()? {
            let Sketch { value, rows } = map.next_value()?;
            if let Some(rows) = rows {
                outline.lists.push((key.clone(), rows));
            }
            outline.fields.read(key, value);
        }
        Ok(outline)
    }
}

/// A value, of a list the first one, and how many rows it has where it is a list of these.
struct Sketch {
    value: Json,
    rows: Option<u64>,
}

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Sketched)
    }
}

struct Sketched;

impl Sketched {
    fn whole(value: Json) -> Sketch {
        Sketch { value, rows: None }
    }
}

/// Whether it may be a row in a list: an object that is no turn, or a list of turns.
fn is_row(value: &Json) -> bool {
    match value {
        Json::Object(_) => !is_turn(value),
        Json::Array(list) => !list.is_empty() && list.iter().all(is_turn),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

impl<'de> Visitor<'de> for Sketched {
    type Value = Sketch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Sketch, E> {
        Ok(Self::whole(Json::Null))
    }

    fn visit_bool<E>(self, is: bool) -> Result<Sketch, E> {
        Ok(Self::whole(Json::Bool(is)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Sketch, E> {
        Ok(Self::whole(Json::Number(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Sketch, E> {
        Ok(Self::whole(Json::Number(number.into())))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sketch, E> {
        Ok(Self::whole(Json::Null))
    }

    fn visit_str<E>(self, text: &str) -> Result<Sketch, E> {
        Ok(Self::whole(Json::text(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sketch, A::Error> {
        let mut fields = Fields::default();
        while let Some((key, value)) = map.next_entry()? {
            fields.read(key, value);
        }
        Ok(Self::whole(Json::Object(fields)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sketch, A::Error> {
        let (mut first, mut count, mut are_rows) = (None, 0, true);
        while let Some(value) = list.next_element::<Json>()? {
            count += 1;
            are_rows = are_rows && is_row(&value);
            first = first.or(Some(value));
        }
        let rows = (are_rows && count > 0).then_some(count);
        Ok(Sketch { value: Json::Array(first.into_iter().collect()), rows })
    }
}
