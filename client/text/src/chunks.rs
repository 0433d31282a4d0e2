//! Documents of a bounded size out of a text of any length, by its paragraphs.

use proto::ids::Digest;

/// A document ends at the first blank line after so many bytes at which the paragraph before says so.
const LEAST_BYTES: usize = 1 << 10;

/// No document is longer.
pub(super) const MOST_BYTES: usize = 1 << 12;

/// Takes lines and gives documents of up to [`MOST_BYTES`].
///
/// Where a document ends is the text's own doing: at the end of a paragraph whose SHA-256 begins with two zero bits.
/// So a line that is put in at the top of a file changes the documents around it and no others, and what was held
/// out stays so. A paragraph that is too long is cut at its lines, a line that is too long at its words.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    text: String,
    /// Where the last paragraph begins.
    paragraph: usize,
    ready: Vec<String>,
}

impl Chunks {
    /// Takes the next line, without its end.
    pub(super) fn push(&mut self, line: &str) {
        self.push_piece(line, "\n");
    }

    /// Takes a line or a piece of one, with what follows it: a line end, or nothing where the line goes on.
    pub(super) fn push_piece(&mut self, line: &str, end: &str) {
        if line.trim().is_empty() {
            let paragraph = self.text.get(self.paragraph..).unwrap_or_default().trim();
            let ends = !paragraph.is_empty() && Digest::of(paragraph.as_bytes()).0[0] < 64;
            if (ends && self.text.len() >= LEAST_BYTES) || self.text.len() >= MOST_BYTES {
                self.end();
            } else if !self.text.is_empty() {
                self.text.push('\n');
                self.paragraph = self.text.len();
            }
            return;
        }
        let mut rest = line;
        loop {
            if self.text.len() + rest.len() < MOST_BYTES {
                self.text.push_str(rest);
                self.text.push_str(end);
                return;
            }
            self.end();
            if rest.len() < MOST_BYTES {
                continue;
            }
            let (piece, after) = rest.split_at(cut(rest));
            self.ready.push(piece.to_owned());
            rest = after;
        }
    }

    /// The documents that are whole.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.ready)
    }

    /// The documents that are left at the end of the text.
    pub(super) fn finish(mut self) -> Vec<String> {
        self.end();
        self.ready
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.paragraph = 0;
        if !text.trim().is_empty() {
            self.ready.push(text);
        }
    }
}

/// Where a line of [`MOST_BYTES`] or more is cut: after its last space, else after its last character, that fits.
fn cut(line: &str) -> usize {
    let fits = (1..MOST_BYTES).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(line.len());
    line[..fits].char_indices().rfind(|(_, c)| c.is_whitespace()).map_or(fits, |(at, c)| at + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(text: &str) -> Vec<String> {
        let mut chunks = Chunks::default();
        let mut found = Vec::new();
        for line in text.lines() {
            chunks.push(line);
            found.extend(chunks.take());
        }
        found.extend(chunks.finish());
        found
    }

    #[test]
    fn a_line_at_the_top_changes_few_documents() {
        let text: String = (0..400)
            .map(|i| format!("Entry {i}: {}\n\n", "so it goes, ".repeat(i % 17)))
            .collect::<Vec<_>>()
            .concat();
        let before = chunks(&text);
        let after = chunks(&format!("A line that was not there.\n\n{text}"));
        let same = before.iter().filter(|document| after.contains(document)).count();
        assert!(before.len() > 10, "{}", before.len());
        assert!(same + 3 >= before.len(), "{same} of {}", before.len());
    }

    #[test]
    fn a_long_line_is_cut_at_words_and_never_within_a_character() {
        let words = "wörter ".repeat(2_000);
        let found = chunks(&words);
        assert!(found.iter().all(|piece| piece.trim().split(' ').all(|word| word == "wörter")));
        assert!(chunks(&"ö".repeat(5_000)).concat().trim() == "ö".repeat(5_000));
    }

    proptest! {
        #[test]
        fn nothing_but_space_is_lost_and_no_document_is_too_long(lines in prop::collection::vec(
            prop_oneof![Just(String::new()), "[a-zäß ]{0,60}", "[xy ]{4000,9000}"], 0..60,
        )) {
            let text = lines.join("\n");
            let found = chunks(&text);
            prop_assert!(found.iter().all(|document| document.len() <= MOST_BYTES));
            prop_assert!(found.iter().all(|document| !document.trim().is_empty()));
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(squeeze(&found.concat()), squeeze(&text));
        }
    }
}
