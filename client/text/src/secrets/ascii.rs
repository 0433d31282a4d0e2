//! A line with the digits, spaces and hyphens of every script as ASCII has them, for numbers to be found in it.

use std::borrow::Cow;

/// The zeros of Unicode's decimal digits (category Nd of Unicode 16), each followed by its nine others.
const ZEROS: [u32; 75] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0de6,
    0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0,
    0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30,
    0x10d40, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x116d0,
    0x116da, 0x11730, 0x118e0, 0x11950, 0x11bf0, 0x11c50, 0x11d50, 0x11da0, 0x11f50, 0x16130, 0x16a60,
    0x16ac0, 0x16b50, 0x16d70, 0x1ccf0, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0,
    0x1e4f0, 0x1e5f1, 0x1e950, 0x1fbf0,
];

/// The line with other digits, spaces and hyphens replaced, and without what has no width.
pub(super) fn ascii(line: &str) -> Cow<'_, str> {
    if line.is_ascii() && !line.contains('\t') {
        return Cow::Borrowed(line);
    }
    Cow::Owned(line.chars().filter_map(letter).collect())
}

fn letter(c: char) -> Option<char> {
    if c.is_ascii() {
        return Some(if c == '\t' { ' ' } else { c });
    }
    match c {
        // Soft hyphen, zero width space and joiners, marks of direction, word joiner, mark of byte order.
        '\u{ad}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}' => None,
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}' => Some('-'),
        _ if c.is_whitespace() => Some(' '),
        _ if c.is_numeric() => Some(digit(c).unwrap_or(c)),
        _ => Some(c),
    }
}

fn digit(c: char) -> Option<char> {
    let zero = ZEROS.into_iter().find(|zero| (*zero..*zero + 10).contains(&u32::from(c)))?;
    char::from_digit(u32::from(c) - zero, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_spaces_and_hyphens_of_every_script_are_those_of_ascii() {
        for (line, expected) in [
            ("plain 1-2", "plain 1-2"),
            ("\u{ff14}\u{ff11}\u{3000}\u{664}\u{6f1}", "41 41"),
            ("1\u{a0}2\u{202f}3\u{2009}4\t5", "1 2 3 4 5"),
            ("1\u{2011}2\u{2013}3\u{2212}4", "1-2-3-4"),
            ("1\u{200b}2\u{ad}3\u{feff}4\u{2060}5", "12345"),
            ("\u{1d7d9}\u{966}", "10"),
            // Neither fractions nor exponents are digits of a number.
            ("x\u{b2} \u{bd} \u{e9}", "x\u{b2} \u{bd} \u{e9}"),
        ] {
            assert_eq!(ascii(line), expected);
        }
    }

    #[test]
    fn zeros_are_numeric_and_what_is_before_them_is_none_of_theirs() {
        for zero in ZEROS {
            let all = (zero..zero + 10).filter_map(char::from_u32);
            assert!(all.clone().count() == 10 && all.clone().all(char::is_numeric), "{zero:x}");
        }
    }
}
