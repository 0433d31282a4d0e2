//! What becomes of documents on their way into tokens, in numbers: nothing here holds text.

use std::collections::BTreeMap;

use crate::LeftOut;

/// What a user should know of how documents became tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Conversations that are left out, by reason.
    pub left_out: BTreeMap<LeftOut, u64>,
    /// Documents that spell a control token of the base and are read as its letters.
    pub spelled_control: u64,
    /// Documents without turns that spell control tokens of other bases, which are letters to this one.
    pub other_control: u64,
    /// Conversations of which earlier thoughts are not learned, because the chat template writes the last only.
    pub without_thoughts: u64,
}

impl Notes {
    /// Conversations that are left out.
    pub fn refused(&self) -> u64 {
        self.left_out.values().sum()
    }

    /// Documents that spell control tokens, of this base or of others, and are read as letters.
    pub fn as_letters(&self) -> u64 {
        self.spelled_control.saturating_add(self.other_control)
    }

    /// A sentence for each thing that there is to say.
    pub fn lines(&self) -> Vec<String> {
        let count = |count: u64, noun: &str, one: &str, more: &str| match count {
            1 => format!("1 {noun} {one}"),
            _ => format!("{count} {noun}s {more}"),
        };
        let mut lines: Vec<String> = self
            .left_out
            .iter()
            .map(|(why, left_out)| {
                count(*left_out, "conversation", "is", "are") + &format!(" left out that {why}")
            })
            .collect();
        if self.spelled_control > 0 {
            lines.push(
                count(self.spelled_control, "document", "spells", "spell")
                    + " control tokens of the base, such as a chat template writes; they are read as letters \
                       (--control-tokens reads those in text without turns as tokens)",
            );
        }
        if self.other_control > 0 {
            lines.push(
                count(self.other_control, "document", "spells", "spell")
                    + " control tokens that other bases have and this one has not; they are read as letters \
                       (rows of `messages` are written as this base knows them)",
            );
        }
        if self.without_thoughts > 0 {
            lines.push(
                count(self.without_thoughts, "conversation", "is", "are")
                    + " learned without the thoughts of earlier turns, which the base's chat template leaves out",
            );
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_note_is_a_line_with_its_count() {
        let left_out = BTreeMap::from([(LeftOut::Calls, 1), (LeftOut::Refused, 2)]);
        let notes = Notes { left_out, spelled_control: 1, other_control: 4, without_thoughts: 3 };
        let lines = notes.lines();
        assert_eq!(lines[0], "2 conversations are left out that the base's chat template refuses");
        assert_eq!(
            lines[1],
            "1 conversation is left out that the base's chat template writes without their tool calls"
        );
        assert!(lines[2].starts_with("1 document spells control tokens"), "{}", lines[2]);
        assert!(
            lines[3].starts_with("4 documents spell control tokens that other bases have"),
            "{}",
            lines[3]
        );
        assert!(lines[4].starts_with("3 conversations are learned without"), "{}", lines[4]);
        assert_eq!((lines.len(), notes.refused(), notes.as_letters()), (5, 3, 5));
        assert!(Notes::default().lines().is_empty());
    }
}
