//! Bootstrap tokens, one a line.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use proto::counted::counted;
use proto::files::read_regular;
use proto::token::{BootstrapToken, TokenError};
use zeroize::Zeroizing;

/// The longest file of tokens.
const MOST_BYTES: u64 = 32 << 20;

/// The tokens of a load: that of a device of which number is on which line.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    tokens: Vec<Line>,
    from: String,
}

#[derive(Debug)]
struct Line {
    number: usize,
    text: Secret,
}

struct Secret(Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// Tokens that cannot be read. It never repeats one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    /// The file cannot be read.
    #[error("cannot read the file of tokens {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not text.
    #[error("the file of tokens {} is not text", .0.display())]
    NotText(PathBuf),
    /// A line holds none.
    #[error("{from}, line {line}: {why}")]
    Line {
        /// Where.
        from: String,
        /// Which line, from 1.
        line: usize,
        /// Why.
        why: TokenError,
    },
}

impl Tokens {
    /// Those of a file: `nightshift device token --count` writes such. Lines with nothing in them, and lines that begin with #,
    /// are passed by.
    pub(crate) fn of_file(path: &Path) -> Result<Self, TokensError> {
        let failed = |source| TokensError::File { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(failed(std::io::Error::other("it is no regular file; use --token - for a pipe")));
        }
        let bytes = Zeroizing::new(read_regular(path, MOST_BYTES).map_err(failed)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| TokensError::NotText(path.to_owned()))?;
        Self::of_text(text, &path.display().to_string())
    }

    /// Those of something that is read to its end.
    pub(crate) fn of_reader(input: impl Read) -> Result<Self, TokensError> {
        let path = PathBuf::from("standard input");
        let mut bytes = Zeroizing::new(Vec::new());
        let failed = |source| TokensError::File { path: path.clone(), source };
        let read = input.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if read as u64 > MOST_BYTES {
            return Err(failed(std::io::Error::other(format!("it has more than {MOST_BYTES} bytes"))));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| TokensError::NotText(path))?;
        Self::of_text(text, "standard input")
    }

    /// Those of a text.
    pub(crate) fn of_text(text: &str, from: &str) -> Result<Self, TokensError> {
        let mut tokens = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // What is no token is said before anything is done.
            drop(parse(line, from, number)?);
            tokens.push(Line { number, text: Secret(Zeroizing::new(line.to_owned())) });
        }
        Ok(Self { tokens, from: from.to_owned() })
    }

    /// How many there are, and where they are from.
    pub(crate) fn said(&self) -> String {
        let Self { tokens, from } = self;
        if from.is_empty() {
            return "none was given".to_owned();
        }
        format!("{from} holds {}", counted(tokens.len() as u64, "token", "tokens"))
    }

    /// The token of the device of this number, and where it stands.
    pub(crate) fn of(&self, device: u32) -> Option<Result<(BootstrapToken, String), TokensError>> {
        let line = self.tokens.get(usize::try_from(device).ok()?)?;
        let token = parse(&line.text.0, &self.from, line.number);
        Some(token.map(|token| (token, format!("{}, line {}", self.from, line.number))))
    }
}

fn parse(text: &str, from: &str, line: usize) -> Result<BootstrapToken, TokensError> {
    text.parse().map_err(|why| TokensError::Line { from: from.to_owned(), line, why })
}

#[cfg(test)]
mod tests {
    use aggregation::IdentityPublic;

    use super::*;

    fn token(secret: u8) -> String {
        let secret = Zeroizing::new([secret; 32]);
        let token = BootstrapToken::new("localhost:7443", [1; 32], IdentityPublic([3; 32]), secret);
        token.to_text().reveal().to_owned()
    }

    #[test]
    fn a_line_is_a_token_and_a_device_has_the_one_of_its_number() {
        let text = format!("# ten devices\n{}\n\n  {}\n", token(1), token(2));
        let tokens = Tokens::of_text(&text, "here").unwrap();
        assert_eq!(tokens.said(), "here holds 2 tokens");
        assert_eq!(Tokens::of_text(&token(1), "--token").unwrap().said(), "--token holds 1 token");
        assert_eq!(Tokens::default().said(), "none was given");
        let (second, place) = tokens.of(1).unwrap().unwrap();
        assert_eq!(second.to_text().reveal(), token(2));
        assert_eq!(place, "here, line 4");
        assert!(tokens.of(2).is_none());
        assert!(!format!("{tokens:?}").contains("nst2"), "{tokens:?}");
    }

    #[test]
    fn what_is_no_token_is_named_by_its_line_and_not_repeated() {
        let cut = token(1).split_at(40).0.to_owned();
        let said = Tokens::of_text(&format!("{}\n{cut}\n", token(2)), "here").unwrap_err().to_string();
        assert_eq!(said, "here, line 2: the bootstrap token is cut or mistyped; copy it again");
        let folder = tempfile::tempdir().unwrap();
        let said = Tokens::of_file(folder.path()).unwrap_err().to_string();
        assert!(said.contains("no regular file"), "{said}");
    }
}
