//! Lines of a file, each of a bounded length.

use std::io::{BufRead, Read};

use crate::SkipReason;

/// A line of rows beyond this is left out, so that no file takes all memory.
pub(super) const LONGEST: u64 = 16 << 20;

/// A line of text beyond this is read in pieces.
const LONGEST_PIECE: u64 = 64 << 10;

/// Reads lines of a reader, their ends and a byte-order mark before them left out.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    bytes: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, bytes: Vec::new(), number: 0 }
    }

    /// The next line's number, from 1, and its text or why it has none; `None` at the end.
    pub(super) fn read(&mut self) -> std::io::Result<Option<(u64, Result<&str, SkipReason>)>> {
        self.bytes.clear();
        let most = LONGEST + 1;
        if self.reader.by_ref().take(most).read_until(b'\n', &mut self.bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.bytes.last() != Some(&b'\n') && self.bytes.len() as u64 == most {
            self.reader.skip_until(b'\n')?;
            return Ok(Some((self.number, Err(SkipReason::TooLong))));
        }
        Ok(Some((self.number, text(&self.bytes))))
    }
}

/// A line's bytes as text, without what is not its own. Files that were joined have a mark where each began.
fn text(line: &[u8]) -> Result<&str, SkipReason> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    str::from_utf8(line).map_err(|_| SkipReason::NotUtf8)
}

/// A line of text, or a piece of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// The line's number, from 1.
    pub(super) number: u64,
    /// Its text, or why it has none.
    pub(super) text: Result<&'a str, SkipReason>,
    /// Whether the line goes on in the next piece.
    pub(super) goes_on: bool,
}

/// Reads lines as [`Lines`] does, but also those that end in a carriage return alone, and a long one in pieces, each of
/// which ends at a space if there is one.
#[derive(Debug)]
pub(super) struct Pieces<R> {
    reader: R,
    bytes: Vec<u8>,
    /// How much of `bytes` was given.
    given: usize,
    number: u64,
    goes_on: bool,
}

impl<R: BufRead> Pieces<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, bytes: Vec::new(), given: 0, number: 0, goes_on: false }
    }

    /// The next line or piece; `None` at the end.
    pub(super) fn read(&mut self) -> std::io::Result<Option<Piece<'_>>> {
        self.bytes.drain(..self.given);
        if self.bytes.last() != Some(&b'\n') {
            let most = LONGEST_PIECE.saturating_sub(self.bytes.len() as u64);
            self.reader.by_ref().take(most).read_until(b'\n', &mut self.bytes)?;
        }
        if self.bytes.is_empty() {
            return Ok(None);
        }
        self.number += u64::from(!self.goes_on);
        let is_full = self.bytes.last() != Some(&b'\n') && self.bytes.len() as u64 == LONGEST_PIECE;
        // The last byte of a full piece may be the first of a line end of two.
        let is_half = is_full && self.bytes.last() == Some(&b'\r');
        let most = self.bytes.len() - usize::from(is_half);
        let alone = |at: &usize| self.bytes[*at] == b'\r' && self.bytes.get(at + 1) != Some(&b'\n');
        (self.given, self.goes_on) = match (0..most).find(alone) {
            Some(at) => (at + 1, false),
            None if is_full => (cut(&self.bytes[..most]), true),
            None => (self.bytes.len(), false),
        };
        Ok(Some(Piece { number: self.number, text: text(&self.bytes[..self.given]), goes_on: self.goes_on }))
    }
}

/// Where a piece ends: after its last space, else before the character that it may have only a part of.
fn cut(bytes: &[u8]) -> usize {
    let space = bytes.iter().rposition(u8::is_ascii_whitespace).map(|at| at + 1);
    // Of the last character there may be a part only: no more than its first three bytes.
    let last = bytes.iter().rposition(|byte| !(0x80..0xc0).contains(byte)).filter(|at| bytes[*at] >= 0xc0);
    let whole = last.filter(|at| at + 3 >= bytes.len());
    space.or(whole).filter(|at| *at > 0).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_the_mark_are_left_out_and_bad_lines_are_told_apart() {
        let long = usize::try_from(LONGEST).unwrap();
        let mut bytes = b"\xef\xbb\xbfone\r\n\n\xff\n".to_vec();
        for length in [long, long + 1, 3 * long] {
            bytes.extend(vec![b'x'; length]);
            bytes.push(b'\n');
        }
        bytes.extend(b"last");
        let mut lines = Lines::new(bytes.as_slice());
        let mut found = Vec::new();
        while let Some((number, line)) = lines.read().unwrap() {
            found.push((number, line.map(|line| (line.len(), line.get(..3).unwrap_or_default().to_owned()))));
        }
        let text = |len, start: &str| Ok((len, start.to_owned()));
        let expected = [
            (1, text(3, "one")),
            (2, text(0, "")),
            (3, Err(SkipReason::NotUtf8)),
            (4, text(long, "xxx")),
            (5, Err(SkipReason::TooLong)),
            (6, Err(SkipReason::TooLong)),
            (7, text(4, "las")),
        ];
        assert_eq!(found, expected);
        let joined = b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n";
        let mut lines = Lines::new(joined.as_slice());
        assert_eq!(lines.read().unwrap(), Some((1, Ok("a"))));
        assert_eq!(lines.read().unwrap(), Some((2, Ok("b"))));
    }

    #[test]
    fn a_carriage_return_alone_ends_a_line_of_text() {
        let long = usize::try_from(LONGEST_PIECE).unwrap();
        let text = format!("a\rb\r\nc\r\r{}\r\nd\r", "x".repeat(long - 1));
        let mut pieces = Pieces::new(text.as_bytes());
        let mut lines = vec![String::new()];
        while let Some(piece) = pieces.read().unwrap() {
            lines.last_mut().unwrap().push_str(piece.text.unwrap());
            if !piece.goes_on {
                lines.push(String::new());
            }
        }
        assert_eq!(lines, ["a", "b", "c", "", &"x".repeat(long - 1), "d", ""]);
    }

    #[test]
    fn a_long_line_is_read_in_pieces_at_its_words_or_characters() {
        let long = usize::try_from(LONGEST_PIECE).unwrap();
        for word in ["wörter ", "ö", "x", "x\u{a0}ö"] {
            let line = word.repeat(3 * long / word.len());
            let text = format!("short\n{line}\r\n\nlast");
            let mut pieces = Pieces::new(text.as_bytes());
            let mut lines = vec![String::new()];
            while let Some(piece) = pieces.read().unwrap() {
                assert_eq!(piece.number, lines.len() as u64);
                let text = piece.text.unwrap();
                assert!(text.len() <= long && (word != "wörter " || !piece.goes_on || text.ends_with(' ')));
                lines.last_mut().unwrap().push_str(text);
                if !piece.goes_on {
                    lines.push(String::new());
                }
            }
            assert_eq!(lines, ["short", &line, "", "last", ""]);
        }
    }
}
