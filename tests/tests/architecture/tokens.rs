//! Rust's tokens, as far as the rules need them: comments are gone, and no string or character is taken for code.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword; a raw name without its `r#`.
    Word,
    /// What stands between the quotes of a string of any kind, escapes as they are written.
    Text,
    /// A character or a byte, a number, or a lifetime.
    Other,
    /// Punctuation: one character, or one of `::`, `->`, `=>`.
    Mark,
}

/// A token and the lines it stands on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) last_line: usize,
}

impl Token {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    pub(crate) fn is_mark(&self, mark: &str) -> bool {
        self.kind == Kind::Mark && self.text == mark
    }
}

/// The tokens of a source file that compiles.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut tokens = Vec::new();
    loop {
        reader.skip_blanks_and_comments();
        if reader.rest.is_empty() {
            return tokens;
        }
        let line = reader.line;
        let (kind, text) = reader.token();
        tokens.push(Token { kind, text, line, last_line: reader.line });
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    /// Goes on by `bytes`.
    fn take(&mut self, bytes: usize) -> String {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken.to_owned()
    }

    fn take_while(&mut self, more: impl Fn(char) -> bool) -> String {
        self.take(self.rest.find(|c| !more(c)).unwrap_or(self.rest.len()))
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                self.skip_block_comment();
            } else {
                return;
            }
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while !self.rest.is_empty() {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
            } else {
                self.take(self.rest.chars().next().map_or(0, char::len_utf8));
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn token(&mut self) -> (Kind, String) {
        if let Some((prefix, hashes)) = raw_string(self.rest) {
            self.take(prefix);
            let end = format!("\"{}", "#".repeat(hashes));
            let text = self.take(self.rest.find(&end).unwrap_or(self.rest.len()));
            self.take(end.len().min(self.rest.len()));
            return (Kind::Text, text);
        }
        for quote in ["\"", "b\"", "c\""] {
            if self.rest.starts_with(quote) {
                self.take(quote.len());
                return (Kind::Text, self.quoted('"'));
            }
        }
        if self.rest.starts_with("b'") {
            self.take(2);
            return (Kind::Other, self.quoted('\''));
        }
        if self.rest.starts_with('\'') {
            return (Kind::Other, self.character_or_lifetime());
        }
        let raw_name = self.rest.strip_prefix("r#").is_some_and(|rest| rest.starts_with(starts_name));
        if raw_name {
            self.take(2);
        }
        if self.rest.starts_with(starts_name) {
            return (Kind::Word, self.take_while(in_name));
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return (Kind::Other, self.number());
        }
        for mark in ["::", "->", "=>"] {
            if self.rest.starts_with(mark) {
                return (Kind::Mark, self.take(2));
            }
        }
        (Kind::Mark, self.take(self.rest.chars().next().map_or(0, char::len_utf8)))
    }

    /// What is left of a string or a character whose opening quote is taken.
    fn quoted(&mut self, quote: char) -> String {
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let text = self.take(end.unwrap_or(self.rest.len()));
        self.take(usize::from(end.is_some()));
        text
    }

    fn character_or_lifetime(&mut self) -> String {
        self.take(1);
        let mut following = self.rest.chars();
        let (first, second) = (following.next(), following.next());
        if first == Some('\\') || second == Some('\'') { self.quoted('\'') } else { self.take_while(in_name) }
    }

    fn number(&mut self) -> String {
        let mut number = self.take_while(in_name);
        if self.rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            number += &self.take(1);
            number += &self.take_while(in_name);
        }
        number
    }
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The bytes up to the first character of the raw string that `text` begins with, and how many `#` close it.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let hashes = text[prefix.len()..].find('"')?;
    Some((prefix.len() + hashes + 1, hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().filter(|token| token.kind == Kind::Word).map(|token| token.text).collect()
    }

    #[test]
    fn comments_are_no_tokens() {
        let text = "one // two\n/* three /* four */ five */ six /// seven\n//! eight\nnine";
        assert_eq!(words(text), ["one", "six", "nine"]);
    }

    #[test]
    fn what_is_quoted_is_no_code() {
        assert_eq!(words(r#"a "b \" c" d b"e" c"f" g"#), ["a", "d", "g"]);
        assert_eq!(words("a r\"b\\\" c r#\"d \"e\" f\"# g br##\"h \"# i\"## j"), ["a", "c", "g", "j"]);
        assert_eq!(words(r#"a 'b' '{' '\'' '\\' '\u{7b}' b'c' b'\'' '"' d"#), ["a", "d"]);
    }

    #[test]
    fn a_lifetime_is_no_open_quote() {
        assert_eq!(words("fn f<'a>(x: &'a str) -> &'static str { 'out: loop {} }").len(), 6);
        assert_eq!(words("x: &'_ T, 'a'"), ["x", "T"]);
    }

    #[test]
    fn a_raw_name_is_a_name_and_a_name_of_a_prefix_s_letter_too() {
        assert_eq!(words("r#type r b br crate"), ["type", "r", "b", "br", "crate"]);
    }

    #[test]
    fn a_range_of_numbers_is_two_numbers() {
        let texts: Vec<String> =
            tokens("0..10 1.5e3 0xff_u8 t.0").into_iter().map(|token| token.text).collect();
        assert_eq!(texts, ["0", ".", ".", "10", "1.5e3", "0xff_u8", "t", ".", "0"]);
    }

    #[test]
    fn a_token_knows_its_lines() {
        let found = tokens("a\n\"b\nc\" /*\n*/ d");
        let lines: Vec<_> = found.iter().map(|token| (token.line, token.last_line)).collect();
        assert_eq!(lines, [(1, 1), (2, 3), (4, 4)]);
    }
}
