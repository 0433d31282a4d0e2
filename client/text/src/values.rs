//! A file of JSON values: objects one after the other, or a list of them, one value in memory at a time.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use proto::loose::Loose;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::UnreadReason;
use crate::json::Json;
use crate::opened::{Opened, Unusable, open};
use crate::parse::is_turn;

/// What is at the top of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Top {
    /// Values one after the other.
    Values,
    /// One list of rows.
    Rows,
    /// One list of turns: a single conversation.
    Turns,
}

/// What is at the top of a file of values; fails where it is not whole, so that nothing of such a file is used.
pub(super) fn top(path: &Path) -> Result<Top, Unusable> {
    let mut count = 0_u64;
    each::<IgnoredAny>(path, Top::Values, &mut |number, _| count = number)?;
    if count != 1 || open(path)?.first != Some(b'[') {
        return Ok(Top::Values);
    }
    let (mut are_turns, mut count) = (true, 0);
    each::<Json>(path, Top::Rows, &mut |number, value| {
        (are_turns, count) = (are_turns && is_turn(&value), number);
    })?;
    Ok(if are_turns && count > 0 { Top::Turns } else { Top::Rows })
}

/// Calls `take` with each value and its number, from 1: each at the top, or each in the list that is there. Fails at
/// the first that is no JSON.
pub(super) fn each<T: DeserializeOwned>(
    path: &Path,
    top: Top,
    take: &mut dyn FnMut(u64, T),
) -> Result<(), Unusable> {
    let Opened { reader, .. } = open(path)?;
    let longer = Cell::new(0);
    let mut json = serde_json::Deserializer::from_reader(Loose::new(reader, &longer));
    let taken = match top {
        Top::Rows | Top::Turns => json.deserialize_seq(Each(take, PhantomData)).and_then(|()| json.end()),
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
    Unusable::Content(UnreadReason::NotJson { line, column })
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
