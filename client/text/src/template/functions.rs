//! All that a template may call, by name, each with what it may make.

use std::fmt;

use minijinja::filters;
use minijinja::tests;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, functions};

use super::{Raised, day, json};
use crate::template::budget::{charge, charge_all, charge_kept, charge_surface, settled, surface};

/// Before a sum.
pub(super) const BEFORE_SUM: &str = "before+";
/// Before a text is put together of two values.
pub(super) const BEFORE_TEXT: &str = "before~";
/// Before a product.
pub(super) const BEFORE_PRODUCT: &str = "before*";
/// Before a part of a text or of a list is taken.
pub(super) const BEFORE_SLICE: &str = "before[:]";
/// After what makes a value of others.
pub(super) const MADE: &str = "made=";
/// Before a value goes into another.
pub(super) const KEPT: &str = "kept=";
/// Before all of a value is read.
pub(super) const READ: &str = "read=";
/// Before a text is counted through.
pub(super) const INDEXED: &str = "indexed=";
/// Before a loop over what is not a list: a text's letters and a dictionary's keys are put into one.
pub(super) const LOOPED: &str = "looped=";

/// A second argument that is so small costs nothing to compare with.
const SMALL_BYTES: u64 = 1 << 12;

/// The largest number in a format, and of spaces before a line.
const MOST_WIDTH: u64 = 256;

/// The largest number of batches or slices.
const MOST_PARTS: u64 = 10_000;

/// The largest number that a range may have.
const MOST_RANGE: i64 = 1 << 40;

/// How a filter reads its first argument.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// A text whole, of a list its places.
    Surface,
    /// All that is in it.
    All,
}

/// Adds them all, and nothing else.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    add_ours(environment);
    add_filters(environment);
    add_tests(environment);
    add_functions(environment);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| {
        // Once for what is made, once for what is written.
        charge_all(state, value)?;
        charge_all(state, value)?;
        minijinja::escape_formatter(out, state, value)
    });
}

fn wrong(reason: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.to_string())
}

fn add_ours(environment: &mut Environment<'static>) {
    environment.add_filter(BEFORE_SUM, |state: &State, left: Value, right: Value| {
        for value in [&left, &right] {
            charge_surface(state, value)?;
        }
        Ok::<_, Error>(Value::from(vec![right, left]))
    });
    environment.add_filter(BEFORE_TEXT, |state: &State, left: Value, right: Value| {
        charge_all(state, &left)?;
        charge_all(state, &right)?;
        Ok::<_, Error>(Value::from(vec![right, left]))
    });
    environment.add_filter(BEFORE_PRODUCT, |state: &State, left: Value, right: Value| {
        for (value, times) in [(&left, &right), (&right, &left)] {
            if value.kind() != ValueKind::Number
                && let Some(times) = times.as_i64()
            {
                charge(state, surface(value).saturating_mul(times.unsigned_abs()))?;
            }
        }
        Ok::<_, Error>(Value::from(vec![right, left]))
    });
    environment.add_filter(
        BEFORE_SLICE,
        |state: &State, value: Value, start: Value, stop: Value, step: Value| {
            charge_surface(state, &value)?;
            let [start, stop, step] = slice(&value, start, stop, step)?;
            Ok::<_, Error>(Value::from(vec![step, stop, start, value]))
        },
    );
    environment.add_filter(MADE, |state: &State, value: Value| settled(state, value));
    environment.add_filter(KEPT, |state: &State, value: Value| {
        charge_kept(state, &value)?;
        settled_if_lazy(state, value)
    });
    environment.add_filter(READ, |state: &State, value: Value| {
        charge_all(state, &value)?;
        Ok::<_, Error>(value)
    });
    environment.add_filter(LOOPED, looped);
    environment.add_filter(INDEXED, |state: &State, value: Value| {
        if let Some(text) = value.as_str() {
            charge(state, text.len() as u64)?;
        }
        Ok::<_, Error>(value)
    });
}

fn looped(state: &State, value: Value) -> Result<Value, Error> {
    if matches!(value.kind(), ValueKind::String | ValueKind::Map | ValueKind::Plain) {
        charge_surface(state, &value)?;
    }
    Ok(value)
}

fn settled_if_lazy(state: &State, value: Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::Iterable { settled(state, value) } else { Ok(value) }
}

/// The ends and the step of a part; those of nothing where the step goes away from the end, which the engine does not
/// check.
fn slice(value: &Value, start: Value, stop: Value, step: Value) -> Result<[Value; 3], Error> {
    let number =
        |value: &Value| if value.is_none() { Ok(None) } else { i64::try_from(value.clone()).map(Some) };
    let (first, last, by) = (number(&start)?, number(&stop)?, number(&step)?.unwrap_or(1));
    if [first.unwrap_or(0), last.unwrap_or(0), by]
        .into_iter()
        .any(|number| number.abs_diff(0) > u64::from(u32::MAX))
    {
        return Err(wrong("a part of a text or of a list is taken by numbers that are too large"));
    }
    if by < 0 {
        let chars = |text: &str| text.chars().count();
        let count = value.as_str().map_or_else(|| value.len().unwrap_or(0), chars);
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let place = |at: i64| if at < 0 { (count + at).max(0) } else { at };
        let from = first.map_or(count - 1, |at| place(at).min(count - 1));
        if last.is_some_and(|last| place(last) > from.max(0)) || count == 0 {
            return Ok([Value::from(0), Value::from(0), Value::from(1)]);
        }
    }
    Ok([start, stop, step])
}

/// Adds a filter under a name, with the surface or all of its arguments charged before, and what it makes after.
fn add_filter(environment: &mut Environment<'static>, name: &'static str, reads: Reads, filter: Value) {
    let run = move |state: &mut State, arguments: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let arguments = arguments.into_values();
        before(state, name, reads, &arguments)?;
        let made = filter.call(state, &arguments)?;
        settled(state, made)
    };
    environment.add_filter(name, run);
}

fn before(state: &State, name: &str, reads: Reads, arguments: &[Value]) -> Result<(), Error> {
    let Some((first, rest)) = arguments.split_first() else { return Ok(()) };
    let mut others = 0;
    for argument in rest {
        others += charge_all(state, argument)?;
    }
    if reads == Reads::All || others > SMALL_BYTES {
        charge_all(state, first)?;
    } else if !matches!(name, "length" | "count") || first.kind() != ValueKind::Seq {
        charge_surface(state, first)?;
    }
    let number = |place: usize| rest.get(place).and_then(Value::as_i64).map_or(0, i64::unsigned_abs);
    // What is given by name is the last argument.
    let named = |key: &str| {
        let given = rest.last().filter(|last| last.is_kwargs())?.get_attr(key).ok()?;
        given.as_i64().map(i64::unsigned_abs)
    };
    match name {
        "replace" => charge_replaced(state, first, rest),
        "join" => {
            let joiner = rest.first().map_or(0, surface);
            charge(state, joiner.saturating_mul(first.len().unwrap_or(0) as u64))
        }
        "indent" | "tojson" => {
            let width = named(if name == "indent" { "width" } else { "indent" }).unwrap_or(number(0));
            if width > MOST_WIDTH {
                return Err(wrong(format!("{name} by {width} spaces, at most {MOST_WIDTH} are made")));
            }
            // Each value of JSON may be on a line of its own, 64 levels deep at most and 16 spaces each.
            let lines = first.as_str().map_or(0, |text| text.matches('\n').count() as u64 + 1);
            charge(state, width.saturating_mul(lines))
        }
        "batch" | "slice" => {
            let count = named("count").unwrap_or(number(0));
            if count > MOST_PARTS {
                return Err(wrong(format!("{name} by {count}, at most {MOST_PARTS} are made")));
            }
            charge(state, count.saturating_mul(64))
        }
        "format" => charge_format(state, first, rest),
        "trim" => charge_stripped(state, first, rest),
        // What is added to a list is copied with all that was added before.
        "sum" => match rest.iter().find(|start| !start.is_number() && !start.is_kwargs()) {
            Some(_) => Err(wrong("sum of what are no numbers")),
            None if named_value(rest, "start").is_some_and(|start| !start.is_number()) => {
                Err(wrong("sum of what are no numbers"))
            }
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// An argument that is given by name.
fn named_value(arguments: &[Value], key: &str) -> Option<Value> {
    let given = arguments.last().filter(|last| last.is_kwargs())?.get_attr(key).ok()?;
    (!given.is_undefined()).then_some(given)
}

/// Charges that each letter of a text may be compared with each of those that are taken off its ends.
fn charge_stripped(state: &State, text: &Value, arguments: &[Value]) -> Result<(), Error> {
    let letters = arguments.first().map_or(1, |letters| surface(letters).max(1));
    charge(state, surface(text).saturating_mul(letters))
}

fn charge_replaced(state: &State, text: &Value, arguments: &[Value]) -> Result<(), Error> {
    let [from, to, ..] = arguments else { return Ok(()) };
    // The engine takes a number for its digits, and replaces those.
    let (Some(from), Some(to)) = (from.as_str(), to.as_str()) else {
        return Err(wrong("replace by, or of, what is no text"));
    };
    let count = match text.as_str() {
        Some(text) => text.matches(from).count() as u64,
        None if matches!(text.kind(), ValueKind::Number | ValueKind::Bool | ValueKind::None) => 64,
        None => return Err(wrong("replace in what is no text")),
    };
    charge(state, count.saturating_mul(to.len() as u64))
}

/// Charges each place of a format with all that may be put there.
fn charge_format(state: &State, format: &Value, arguments: &[Value]) -> Result<(), Error> {
    let text = format.as_str().unwrap_or_default();
    let mut digits = 0;
    for c in text.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        // A width that is an argument is marked by a star, or by braces within braces.
        if digits > 3 || c == '*' {
            return Err(wrong("a format with a width of more than three digits, or one that is an argument"));
        }
    }
    let mut depth = 0;
    for c in text.replace("{{", "").replace("}}", "").chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth > 1 {
            return Err(wrong("a format with braces within braces"));
        }
    }
    let places = text.matches(['{', '%']).count() as u64;
    let mut each = 1000;
    for argument in arguments {
        each += charge_all(state, argument)?;
    }
    charge(state, places.saturating_mul(each))
}

fn add_filters(environment: &mut Environment<'static>) {
    let surface: [(&'static str, Value); 26] = [
        ("safe", Value::from_function(filters::safe)),
        ("lower", Value::from_function(filters::lower)),
        ("upper", Value::from_function(filters::upper)),
        ("title", Value::from_function(filters::title)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("replace", Value::from_function(filters::replace)),
        ("length", Value::from_function(filters::length)),
        ("count", Value::from_function(filters::length)),
        ("items", Value::from_function(filters::items)),
        ("reverse", Value::from_function(filters::reverse)),
        ("trim", Value::from_function(filters::trim)),
        ("split", Value::from_function(filters::split)),
        ("lines", Value::from_function(filters::lines)),
        ("first", Value::from_function(filters::first)),
        ("last", Value::from_function(filters::last)),
        ("list", Value::from_function(filters::list)),
        ("bool", Value::from_function(filters::bool)),
        ("batch", Value::from_function(filters::batch)),
        ("slice", Value::from_function(filters::slice)),
        ("indent", Value::from_function(filters::indent)),
        ("select", Value::from_function(filters::select)),
        ("reject", Value::from_function(filters::reject)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("map", Value::from_function(filters::map)),
        ("zip", Value::from_function(filters::zip)),
    ];
    let all: [(&'static str, Value); 18] = [
        ("escape", Value::from_function(filters::escape)),
        ("e", Value::from_function(filters::escape)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("join", Value::from_function(filters::join)),
        ("round", Value::from_function(filters::round)),
        ("abs", Value::from_function(filters::abs)),
        ("int", Value::from_function(filters::int)),
        ("float", Value::from_function(filters::float)),
        ("attr", Value::from_function(filters::attr)),
        ("min", Value::from_function(filters::min)),
        ("max", Value::from_function(filters::max)),
        ("sort", Value::from_function(filters::sort)),
        ("string", Value::from_function(filters::string)),
        ("sum", Value::from_function(filters::sum)),
        ("groupby", Value::from_function(filters::groupby)),
        ("unique", Value::from_function(filters::unique)),
        ("chain", Value::from_function(filters::chain)),
        ("format", Value::from_function(filters::format)),
    ];
    for (name, filter) in surface {
        add_filter(environment, name, Reads::Surface, filter);
    }
    for (name, filter) in all {
        add_filter(environment, name, Reads::All, filter);
    }
    add_filter(environment, "tojson", Reads::All, Value::from_function(to_json));
    // These hand on what is there.
    for name in ["default", "d"] {
        environment.add_filter(name, filters::default);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the engine hands options over so")]
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    for option in ["ensure_ascii", "sort_keys"] {
        if options.get::<Option<bool>>(option)? == Some(true) {
            let reason = format!("tojson does not know {option}=true");
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
    }
    options.assert_all_used()?;
    let json = json::dumps(value, indent).map_err(|error| {
        Error::new(ErrorKind::BadSerialization, "a value that is no JSON").with_source(error)
    })?;
    Ok(Value::from_safe_string(json))
}

fn add_tests(environment: &mut Environment<'static>) {
    // These look at what kind of value it is.
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("none", tests::is_none);
    environment.add_test("safe", tests::is_safe);
    environment.add_test("escaped", tests::is_safe);
    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("number", tests::is_number);
    environment.add_test("integer", tests::is_integer);
    environment.add_test("int", tests::is_integer);
    environment.add_test("float", tests::is_float);
    environment.add_test("string", tests::is_string);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("iterable", tests::is_iterable);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("true", tests::is_true);
    environment.add_test("false", tests::is_false);
    environment.add_test("sameas", tests::is_sameas);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("even", tests::is_even);
    environment.add_test("divisibleby", tests::is_divisibleby);
    environment.add_test("filter", tests::is_filter);
    environment.add_test("test", tests::is_test);
    // These read it.
    let reading: [(&[&'static str], Value); 11] = [
        (&["startingwith"], Value::from_function(tests::is_startingwith)),
        (&["endingwith"], Value::from_function(tests::is_endingwith)),
        (&["lower"], Value::from_function(tests::is_lower)),
        (&["upper"], Value::from_function(tests::is_upper)),
        (&["eq", "equalto", "=="], Value::from_function(tests::is_eq)),
        (&["ne", "!="], Value::from_function(tests::is_ne)),
        (&["lt", "lessthan", "<"], Value::from_function(tests::is_lt)),
        (&["le", "<="], Value::from_function(tests::is_le)),
        (&["gt", "greaterthan", ">"], Value::from_function(tests::is_gt)),
        (&["ge", ">="], Value::from_function(tests::is_ge)),
        (&["in"], Value::from_function(tests::is_in)),
    ];
    for (names, test) in reading {
        for name in names {
            let test = test.clone();
            let read = move |state: &mut State, arguments: Rest<ValueOrKwargs>| -> Result<bool, Error> {
                let arguments = arguments.into_values();
                match arguments.as_slice() {
                    [_, other, ..] => charge_all(state, other).map(drop)?,
                    [value] => charge_surface(state, value)?,
                    [] => {}
                }
                Ok(test.call(state, &arguments)?.is_true())
            };
            environment.add_test(*name, read);
        }
    }
}

fn add_functions(environment: &mut Environment<'static>) {
    let kept: [(&'static str, Value); 2] = [
        ("dict", Value::from_function(functions::dict)),
        ("namespace", Value::from_function(functions::namespace)),
    ];
    for (name, function) in kept {
        environment.add_function(name, move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            for argument in &arguments {
                charge_kept(state, argument)?;
            }
            function.call(state, &arguments)
        });
    }
    environment.add_function("range", |lower: i64, upper: Option<i64>, step: Option<i64>| {
        let numbers = [Some(lower), upper, step];
        if let Some(number) =
            numbers.into_iter().flatten().find(|number| number.abs_diff(0) > MOST_RANGE.unsigned_abs())
        {
            return Err(wrong(format!("a range with the number {number}")));
        }
        let size = |number: i64| isize::try_from(number).map_err(wrong);
        functions::range(size(lower)?, upper.map(size).transpose()?, step.map(size).transpose()?)
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
    });
    environment.add_function("strftime_now", |format: &str| {
        day::format(format).map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
    });
}

/// Python's methods of texts, lists and dictionaries.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if name != "get" && name != "keys" && name != "values" && name != "items" {
        charge_surface(state, value)?;
        let mut others = 0;
        for argument in arguments {
            others += charge_all(state, argument)?;
        }
        if others > SMALL_BYTES {
            charge_all(state, value)?;
        }
        match name {
            "replace" => charge_replaced(state, value, arguments)?,
            "join" => {
                let parts = arguments.first().and_then(Value::len).unwrap_or(0) as u64;
                charge(state, surface(value).saturating_mul(parts))?;
            }
            "format" => charge_format(state, value, arguments)?,
            "strip" | "lstrip" | "rstrip" => charge_stripped(state, value, arguments)?,
            _ => {}
        }
    } else if name == "get" {
        for argument in arguments {
            charge_all(state, argument)?;
        }
    }
    let made = minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)?;
    match name {
        // What is there is handed on.
        "get" => Ok(made),
        _ => settled(state, made),
    }
}
