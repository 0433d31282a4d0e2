//! JSON as programs in Python write it: with NaN and infinities, halves of an emoji, and numbers beyond every float.
//!
//! Python's `json` and pandas write what the standard does not know, and read it back; one such word would cost its
//! whole line, or its whole file. Here the words are read as `null`, and half a surrogate pair as U+FFFD. Everything
//! else is as strict as serde's.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{BufRead, Read};

use serde::de::DeserializeOwned;

/// So much is looked at to tell what comes next; a surrogate pair has 12 bytes.
const AHEAD: usize = 16;

/// A number that is written with more digits is given on as it is.
const LONGEST_NUMBER: usize = 4096;

/// One value. Fails, as strict JSON does, for what is no JSON even in Python or not of this type.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes)
        .or_else(|strict| serde_json::from_reader(Loose::new(bytes, &Cell::new(0))).map_err(|_| strict))
}

/// A reader of such JSON, as a reader of what the standard knows.
#[derive(Debug)]
pub struct Loose<'a, R> {
    reader: R,
    ahead: VecDeque<u8>,
    ended: bool,
    ready: VecDeque<u8>,
    in_string: bool,
    /// Bytes that this line has become longer by, so that a column can be told.
    longer: &'a Cell<usize>,
}

impl<'a, R: BufRead> Loose<'a, R> {
    /// `longer` tells, as reading goes on, how many bytes the line has more here than in the file.
    pub fn new(reader: R, longer: &'a Cell<usize>) -> Self {
        let (ahead, ready) = (VecDeque::new(), VecDeque::new());
        Self { reader, ahead, ended: false, ready, in_string: false, longer }
    }

    fn look(&mut self) -> std::io::Result<()> {
        while self.ahead.len() < AHEAD && !self.ended {
            let bytes = match self.reader.fill_buf() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let count = bytes.len();
            self.ended = count == 0;
            self.ahead.extend(bytes);
            self.reader.consume(count);
        }
        Ok(())
    }

    fn starts_with(&self, word: &[u8]) -> bool {
        self.ahead.len() >= word.len() && self.ahead.iter().zip(word).all(|(found, wanted)| found == wanted)
    }

    /// Gives on the next `count` bytes.
    fn pass(&mut self, count: usize) {
        let count = count.min(self.ahead.len());
        self.ready.extend(self.ahead.drain(..count));
    }

    /// Gives on `bytes` in place of the next `count`, and as many spaces as keep the columns.
    fn replace(&mut self, count: usize, bytes: &[u8]) {
        self.ahead.drain(..count.min(self.ahead.len()));
        self.ready.extend(bytes);
        self.ready.extend(std::iter::repeat_n(b' ', count.saturating_sub(bytes.len())));
        self.longer.set(self.longer.get() + bytes.len().saturating_sub(count));
    }

    /// Makes at least one more byte ready, unless the text ends here.
    fn step(&mut self) -> std::io::Result<()> {
        self.look()?;
        let Some(&first) = self.ahead.front() else { return Ok(()) };
        match first {
            b'"' => {
                self.in_string = !self.in_string;
                self.pass(1);
            }
            b'\\' if self.in_string => self.escape(),
            _ if self.in_string => self.pass(1),
            b'\n' => {
                self.longer.set(0);
                self.pass(1);
            }
            // Files that were joined have a mark where each began.
            0xef if self.starts_with(b"\xef\xbb\xbf") => self.replace(3, b"   "),
            b'N' if self.starts_with(b"NaN") => self.replace(3, b"null"),
            b'I' if self.starts_with(b"Infinity") => self.replace(8, b"null"),
            b'-' if self.starts_with(b"-Infinity") => self.replace(9, b"null"),
            b'-' | b'0'..=b'9' => self.number()?,
            _ => self.pass(1),
        }
        Ok(())
    }

    fn escape(&mut self) {
        let half = |at: usize| {
            let digits: Option<String> =
                (at + 2..at + 6).map(|i| Some(char::from(*self.ahead.get(i)?))).collect();
            let is_escape = self.ahead.get(at) == Some(&b'\\') && self.ahead.get(at + 1) == Some(&b'u');
            digits.filter(|_| is_escape).and_then(|digits| u16::from_str_radix(&digits, 16).ok())
        };
        match (half(0), half(6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => self.pass(12),
            (Some(0xd800..=0xdfff), _) => self.replace(6, br"\ufffd"),
            _ => self.pass(2),
        }
    }

    fn number(&mut self) -> std::io::Result<()> {
        let mut digits = Vec::new();
        while let Some(&byte) = self.ahead.front() {
            if !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
                || digits.len() == LONGEST_NUMBER
            {
                break;
            }
            digits.push(byte);
            self.ahead.pop_front();
            self.look()?;
        }
        let number = str::from_utf8(&digits).ok().and_then(|text| text.parse::<f64>().ok());
        if number.is_some_and(f64::is_infinite) && digits.len() < LONGEST_NUMBER {
            self.ready.extend(b"null");
            self.ready.extend(std::iter::repeat_n(b' ', digits.len().saturating_sub(4)));
        } else {
            self.ready.extend(digits);
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Loose<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.ready.is_empty() {
            self.step()?;
        }
        let count = into.len().min(self.ready.len());
        for (place, byte) in into.iter_mut().zip(self.ready.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn value(text: &str) -> serde_json::Result<Value> {
        from_slice(text.as_bytes())
    }

    #[test]
    fn what_python_writes_is_read() {
        for (text, expected) in [
            (
                r#"{"a": NaN, "b": [Infinity, -Infinity,NaN], "c": -1.5}"#,
                json!({"a": null, "b": [null, null, null], "c": -1.5}),
            ),
            (r#"{"a": "NaN Infinity 1e400"}"#, json!({"a": "NaN Infinity 1e400"})),
            (
                r#"["x \ud83d", "\ud83d\ude00", "\ude00\ud83d", "\ud83dA\u0041"]"#,
                json!(["x \u{fffd}", "😀", "\u{fffd}\u{fffd}", "\u{fffd}AA"]),
            ),
            (r#"["\\ud83d", "\"NaN", "\\"]"#, json!(["\\ud83d", "\"NaN", "\\"])),
            ("[1e400, -1E999, 1e-400, 12]", json!([null, null, 0.0, 12])),
            (
                r#"{"id": 123456789012345678901234567890, "x": 1e400}"#,
                json!({"id": 1.234_567_890_123_456_8e29, "x": null}),
            ),
            ("\u{feff}{\"a\": NaN}", json!({"a": null})),
        ] {
            assert_eq!(value(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_in_python_either_is_refused() {
        for text in [
            "",
            "{",
            "NaNs",
            "nan",
            "[Inf]",
            "{'a': 1}",
            "[1,]",
            "[NaN NaN]",
            r#"["\ud8"]"#,
            "[--1]",
            "[1e400e]",
        ] {
            assert!(value(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn json_of_the_standard_comes_through_as_it_is(
            text in prop_oneof![
                "[ -~ä]{0,20}".prop_map(|text| json!({ text.clone(): [text, 1.5, null] }).to_string()),
                "[\\[\\]{}:,\"\\\\ud83 NaI0-9e.-]{0,24}",
            ],
        ) {
            let longer = Cell::new(0);
            let mut through = String::new();
            Loose::new(text.as_bytes(), &longer).read_to_string(&mut through).unwrap();
            if let Ok(expected) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&through).unwrap(), expected);
            }
            drop(value(&text));
        }
    }
}
