//! What looks like a secret: private keys, access tokens, passwords behind their names, and numbers of cards, bank
//! accounts and social security.
//!
//! A line is looked at once, by the shapes that the issuers document, with a check digit where a number has one. That
//! finds what was pasted somewhere and forgotten. It is no promise: a password in a sentence, a number without check
//! digits or a token of an unknown shape stays.

mod ascii;
mod assigned;
mod numbers;
mod tokens;

/// What a line looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretKind {
    /// A private key in PEM, whole, or one of age.
    PrivateKey,
    /// A key or token of a cloud, a forge, a package registry, a payment or a model provider; a JSON web token.
    AccessToken,
    /// A password, secret or token behind its name, or in an address.
    Password,
    /// The number of a payment card.
    PaymentCard,
    /// An international bank account number.
    BankAccount,
    /// A social security number of the United States.
    SocialSecurity,
}

impl std::fmt::Display for SecretKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PrivateKey => "a private key",
            Self::AccessToken => "an access token",
            Self::Password => "a password",
            Self::PaymentCard => "a payment card",
            Self::BankAccount => "a bank account",
            Self::SocialSecurity => "a social security number",
        })
    }
}

/// What happens to lines that look like secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretLines {
    /// They are left out and counted; of a document with roles, the whole.
    #[default]
    LeaveOut,
    /// They are trained on.
    Keep,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Clean,
    /// It looks like one.
    Secret(SecretKind),
    /// It belongs to the private key that began above.
    Same,
}

/// Looks at one line after the other, because a private key has many.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    in_key: bool,
}

impl Scanner {
    pub(super) fn look(&mut self, line: &str) -> Verdict {
        if self.in_key && belongs_to_key(line) {
            self.in_key = !line.contains("-----END");
            return Verdict::Same;
        }
        self.in_key = false;
        if let Some(at) = line.find("-----BEGIN ")
            && line[at..].contains("PRIVATE KEY")
        {
            self.in_key = !line.contains("-----END");
            return Verdict::Secret(SecretKind::PrivateKey);
        }
        in_line(&ascii::ascii(line)).map_or(Verdict::Clean, Verdict::Secret)
    }
}

/// What the first secret in a text looks like.
pub(super) fn find(text: &str) -> Option<SecretKind> {
    let mut scanner = Scanner::default();
    text.lines().find_map(|line| match scanner.look(line) {
        Verdict::Secret(kind) => Some(kind),
        Verdict::Clean | Verdict::Same => None,
    })
}

/// Whether a line below `-----BEGIN … PRIVATE KEY-----` is of the key: its end, a header, base64, or blank. So a line
/// that only speaks of such a key does not take the rest of the text with it.
fn belongs_to_key(line: &str) -> bool {
    let line = line.replace("\\n", " ");
    let bare = line.trim_matches(|c: char| c.is_whitespace() || "\"'>#*\\,;+".contains(c));
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    bare.is_empty()
        || bare.starts_with("-----END")
        || bare.chars().all(base64)
        || ["Proc-Type:", "DEK-Info:", "Version:", "Comment:"].iter().any(|header| bare.starts_with(header))
}

fn in_line(line: &str) -> Option<SecretKind> {
    let bytes = line.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if is_word(byte) {
            let len = bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
            let starts = (at..at + len).filter(|start| {
                // Names are put before numbers and tokens with a hyphen or an underscore between.
                *start == at
                    || (bytes[*start].is_ascii_alphanumeric() && !bytes[*start - 1].is_ascii_alphanumeric())
            });
            for start in starts {
                let found = tokens::at(line, start, at + len - start).or_else(|| numbers::at(line, start));
                if found.is_some() {
                    return found;
                }
            }
            at += len;
        } else {
            if (byte == b':' || byte == b'=') && assigned::at(line, at) {
                return Some(SecretKind::Password);
            }
            at += 1;
        }
    }
    None
}

/// What the words are made of in which tokens and numbers are looked for.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests;
