//! Lines of a file, each of a bounded length.

use std::io::{BufRead, Read};

use crate::SkipReason;

/// A line, or an object of a list, beyond this is left out: its tokens would not be trained on in one piece.
pub(super) const LONGEST: u64 = 4 << 20;

/// Reads lines of a reader, their ends and a byte-order mark left out.
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
        let mut line = self.bytes.as_slice();
        if self.number == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some((self.number, str::from_utf8(line).map_err(|_| SkipReason::NotUtf8))))
    }
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
    }
}
