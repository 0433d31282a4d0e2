//! What one rendering may make: a template is a base's, and a few operators double a text until no memory is left.

use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::{Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// The budget's name among the variables; no template can spell it.
pub(super) const NAME: &str = "bytes left";

/// Bytes that a rendering may make, whatever it renders.
const LEAST_BYTES: u64 = 16 << 20;

/// Bytes that a rendering may make for each byte of the conversation: templates build lists and texts again at each
/// message.
const BYTES_FOR_EACH: u64 = 256;

/// What a message is beside its content.
pub(super) const MESSAGE_BYTES: usize = 256;

/// Lists in lists in lists: deeper ones overflow the stack where they are printed, compared or dropped.
const MOST_DEPTH: usize = 64;

/// What a value counts beside its text.
const VALUE_BYTES: u64 = 32;

/// Bytes that a rendering may still make or read through.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

impl Object for Budget {
    fn repr(self: &std::sync::Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

impl Budget {
    /// For a conversation of so many bytes.
    pub(super) fn new(conversation_bytes: usize) -> Self {
        let more = BYTES_FOR_EACH.saturating_mul(conversation_bytes as u64);
        Self(AtomicU64::new(LEAST_BYTES.saturating_add(more)))
    }

    fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Takes bytes from the budget of a rendering; fails where they are not left.
pub(super) fn charge(state: &State, bytes: u64) -> Result<(), Error> {
    with(state, |budget| {
        let left = budget.left().checked_sub(bytes).ok_or_else(spent)?;
        budget.0.store(left, Ordering::Relaxed);
        Ok(())
    })
}

/// Charges what a value is at its surface: a text's bytes, a list's places.
pub(super) fn charge_surface(state: &State, value: &Value) -> Result<(), Error> {
    charge(state, surface(value))
}

/// Charges all that is in a value, and tells it; fails where it is nested too deep.
pub(super) fn charge_all(state: &State, value: &Value) -> Result<u64, Error> {
    let weight = with(state, |budget| weight(value, budget.left(), Counted::Texts))?;
    charge(state, weight)?;
    Ok(weight)
}

/// Charges the values that are in a value, but not their texts, which it shares; fails where it is nested too deep, and
/// where it holds what could hold it in turn.
pub(super) fn charge_kept(state: &State, value: &Value) -> Result<(), Error> {
    let weight = with(state, |budget| weight(value, budget.left(), Counted::Places))?;
    charge(state, weight)
}

/// A value whose items are there: others are made again at each reading, one layer of them for each operator.
pub(super) fn settled(state: &State, value: Value) -> Result<Value, Error> {
    // Dictionaries or lists one after the other, each of which may be such in turn.
    let merged = value.as_object().filter(|object| object.type_name().contains("::Merge"));
    if let (Some(object), ValueKind::Map) = (merged, value.kind()) {
        let mut pairs = Vec::new();
        for pair in object.try_iter_pairs().into_iter().flatten() {
            charge(state, 2 * VALUE_BYTES)?;
            pairs.push(pair);
        }
        return Ok(pairs.into_iter().collect());
    }
    if value.kind() != ValueKind::Iterable && merged.is_none() {
        charge_surface(state, &value)?;
        return Ok(value);
    }
    let mut items = Vec::new();
    for item in value.try_iter()? {
        charge(state, VALUE_BYTES)?;
        items.push(item);
    }
    Ok(Value::from(items))
}

/// Bytes of a text, or so many for each place of a list.
pub(super) fn surface(value: &Value) -> u64 {
    let places = || VALUE_BYTES.saturating_mul(value.len().unwrap_or(0) as u64 + 1);
    value.as_str().map_or_else(places, |text| text.len() as u64)
}

fn with<T>(state: &State, run: impl FnOnce(&Budget) -> Result<T, Error>) -> Result<T, Error> {
    let value = state.lookup(NAME);
    match value.as_ref().and_then(|value| value.downcast_object_ref::<Budget>()) {
        Some(budget) => run(budget),
        None => Err(Error::new(ErrorKind::InvalidOperation, "the rendering has no budget")),
    }
}

fn spent() -> Error {
    let reason = "it makes more text and values than a template may; make it shorter";
    Error::new(ErrorKind::InvalidOperation, reason)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Values and the bytes of texts.
    Texts,
    /// Values alone, and only such as hold no variables.
    Places,
}

/// Counts a value until it is heavier than `most`.
fn weight(value: &Value, most: u64, counted: Counted) -> Result<u64, Error> {
    let mut weight = 0;
    weigh(value, 0, &mut weight, most, counted)?;
    Ok(weight)
}

fn weigh(value: &Value, depth: usize, weight: &mut u64, most: u64, counted: Counted) -> Result<(), Error> {
    if depth > MOST_DEPTH {
        let reason = format!("its values are nested deeper than {MOST_DEPTH} levels");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    // Values that are there already take no memory, but to look at them takes time.
    *weight += if counted == Counted::Texts { VALUE_BYTES } else { 1 };
    match value.kind() {
        ValueKind::String | ValueKind::Bytes if counted == Counted::Texts => {
            *weight += value.as_bytes().map_or(0, |bytes| bytes.len() as u64);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                weigh(&item, depth + 1, weight, most, counted)?;
            }
        }
        ValueKind::Map | ValueKind::Plain => {
            let Some(object) = value.as_object() else { return Ok(()) };
            // A variable's store that is within itself is never freed, and printed without an end.
            let name = object.type_name();
            if counted == Counted::Places
                && ["::Namespace", "::Loop"].into_iter().any(|held| name.ends_with(held))
            {
                let reason = "a namespace or a loop cannot be kept in another value";
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
            for (key, value) in object.try_iter_pairs().into_iter().flatten() {
                weigh(&key, depth + 1, weight, most, counted)?;
                weigh(&value, depth + 1, weight, most, counted)?;
            }
        }
        ValueKind::String
        | ValueKind::Bytes
        | ValueKind::Undefined
        | ValueKind::None
        | ValueKind::Bool
        | ValueKind::Number
        | ValueKind::Invalid
        | _ => {}
    }
    if *weight > most { Err(spent()) } else { Ok(()) }
}
