//! Text of others on a terminal or in a log: the only place that decides what of it is printed as it is.
//!
//! Names and reasons come from a base, a file, a coordinator, a device. A terminal takes some of their characters for
//! orders: to clear the screen, to go back and write over a line, to show what follows from right to left. Those are
//! written out instead, as Rust writes them.

use std::fmt::{self, Write};

/// The most characters of a text of another's that are shown.
pub const MOST_SHOWN: usize = 500;

/// The most characters of a message that is put together of several.
pub const MOST_MESSAGE: usize = 4000;

/// One line of a text of another's: what orders a terminal, line breaks too, is written out, and what is longer than
/// [`MOST_SHOWN`] characters is cut and ends in `…`.
pub fn shown(text: &str) -> Shown<'_> {
    Shown { text, most: MOST_SHOWN, breaks: Breaks::WrittenOut }
}

/// A message that may quote others, such as an error: as [`shown`], but longer.
pub fn message(text: &str) -> Shown<'_> {
    Shown { text, most: MOST_MESSAGE, breaks: Breaks::WrittenOut }
}

/// What a command prints as a whole: its line breaks and tabs are its own, all else is as in [`shown`], and nothing is
/// cut.
pub fn page(text: &str) -> Shown<'_> {
    Shown { text, most: usize::MAX, breaks: Breaks::Kept }
}

/// A text that can be printed; see [`shown`].
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    text: &'a str,
    most: usize,
    breaks: Breaks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaks {
    Kept,
    WrittenOut,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, c) in self.text.chars().enumerate() {
            if place == self.most {
                return f.write_char('…');
            }
            if matches!(c, '\n' | '\t') && self.breaks == Breaks::Kept {
                f.write_char(c)?;
            } else if is_order(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Whether a terminal may do something else with a character than show it.
fn is_order(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // What changes the direction, and marks of it.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph ends.
            | '\u{2028}' | '\u{2029}'
            // What has no width: two names that look alike are not.
            | '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_orders_a_terminal_is_written_out() {
        let text = "a\x1b[2Jb\rc\u{202e}d\ne\u{9b}2Jf\u{7}g\u{200b}h\u{2028}i\u{0}";
        let expected = r"a\u{1b}[2Jb\rc\u{202e}d\ne\u{9b}2Jf\u{7}g\u{200b}h\u{2028}i\u{0}";
        assert_eq!(shown(text).to_string(), expected);
        assert_eq!(message(text).to_string(), expected);
        assert_eq!(page("a\tb\n\x1b[2Jc\r\n").to_string(), "a\tb\n\\u{1b}[2Jc\\r\n");
    }

    #[test]
    fn other_text_is_as_it_is_and_what_is_long_is_cut() {
        let text = "für Zoë: 日本語 … “q” 🦉 C:\\x";
        assert_eq!(shown(text).to_string(), text);
        assert_eq!(shown(&"ä".repeat(500)).to_string(), "ä".repeat(500));
        assert_eq!(shown(&"ä".repeat(501)).to_string(), format!("{}…", "ä".repeat(500)));
        assert_eq!(page(&"ä".repeat(9000)).to_string().chars().count(), 9000);
    }
}
