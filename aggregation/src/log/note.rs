//! Texts with signatures below them ([signed-note]), and those of witnesses.
//!
//! [signed-note]: https://c2sp.org/signed-note

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use thiserror::Error;

use crate::{
    hash::sha256,
    identity::{IdentityKey, IdentityPublic, Signature},
};

/// A signature by the key itself over the text.
pub(super) const PLAIN: u8 = 0x01;

/// A witness's signature, over the text and when it was seen.
const COSIGNATURE: u8 = 0x04;

/// What begins a line with a signature.
const LINE: &str = "\u{2014} ";

/// The longest text that is read.
const MOST_BYTES: usize = 16 << 10;

/// A text, with the lines below it that may be signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// With the newline at its end.
    pub(super) text: String,
    pub(super) lines: Vec<Line>,
}

/// One signature, by whom it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    /// The key's hash, then what its kind has.
    pub(super) bytes: Vec<u8>,
}

impl Note {
    /// The note that a text is, if it is one.
    pub(super) fn parse(note: &str) -> Option<Self> {
        if note.len() > MOST_BYTES {
            return None;
        }
        let (text, lines) = note.rsplit_once("\n\n")?;
        let lines = lines.strip_suffix('\n')?;
        let lines: Option<Vec<Line>> = lines.split('\n').map(Line::parse).collect();
        let text = format!("{text}\n");
        // A note's text has no other control characters.
        let plain = text.chars().all(|character| character == '\n' || !character.is_control());
        lines.filter(|_| plain).map(|lines| Self { text, lines })
    }

    /// The plain signature of a key over the text, if it is there.
    pub(super) fn is_signed_by(&self, name: &str, key: &IdentityPublic) -> bool {
        let own = key_hash(name, PLAIN, key);
        self.lines.iter().filter(|line| line.name == name).any(|line| {
            let Some((hash, signature)) = line.bytes.split_first_chunk() else { return false };
            let signature = signature.try_into().map(Signature);
            *hash == own && signature.is_ok_and(|signature| key.verify_text(self.text.as_bytes(), &signature))
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LINE}{} {}", self.name, BASE64_STANDARD.encode(&self.bytes))
    }
}

impl Line {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (name, bytes) = line.strip_prefix(LINE)?.split_once(' ')?;
        let bytes = BASE64_STANDARD.decode(bytes).ok()?;
        is_name(name).then(|| Self { name: name.to_owned(), bytes })
    }

    /// The plain signature of `key`, which is called `name`, over a text.
    pub(super) fn sign(name: &str, key: &IdentityKey, text: &str) -> Self {
        let hash = key_hash(name, PLAIN, &key.public());
        let signature = key.sign_text(text.as_bytes());
        Self { name: name.to_owned(), bytes: [hash.as_slice(), &signature.0].concat() }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|character: char| character == '+' || character.is_whitespace())
}

/// The first four bytes of the hash of a key and of what it is called.
fn key_hash(name: &str, kind: u8, key: &IdentityPublic) -> [u8; 4] {
    let [one, two, three, four, ..] = sha256(&[name.as_bytes(), b"\n", &[kind], &key.0]);
    [one, two, three, four]
}

/// The text of a key by which others verify: `NAME+HASH+KEY` ([signed-note](https://c2sp.org/signed-note)).
fn write_verifier(f: &mut fmt::Formatter<'_>, kind: u8, (name, key): (&str, &IdentityPublic)) -> fmt::Result {
    let hash = u32::from_be_bytes(key_hash(name, kind, key));
    let key = BASE64_STANDARD.encode([[kind].as_slice(), &key.0].concat());
    write!(f, "{name}+{hash:08x}+{key}")
}

/// The name and the key that such a text is of, if it is one of this kind.
fn read_verifier(text: &str, kind: u8) -> Option<(String, IdentityPublic)> {
    let mut parts = text.trim().splitn(3, '+');
    let (name, hash, key) = (parts.next()?, parts.next()?, parts.next()?);
    let key = BASE64_STANDARD.decode(key).ok()?;
    let (found, key) = key.split_first()?;
    let key = IdentityPublic(key.try_into().ok()?);
    let own = u32::from_be_bytes(key_hash(name, kind, &key));
    let fits = *found == kind && format!("{own:08x}") == hash && is_name(name) && key.check().is_ok();
    fits.then(|| (name.to_owned(), key))
}

/// What signs a log, as its witnesses know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    name: String,
    key: IdentityPublic,
}

/// Why a text is not the key of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not the key of a log: expected NAME+HASH+KEY, of the kind that signs by Ed25519 (https://c2sp.org/signed-note)"
)]
pub struct LogKeyError;

impl LogKey {
    /// The key of a log that is called `name`, which has no space and no plus.
    pub(super) fn new(name: String, key: IdentityPublic) -> Self {
        Self { name, key }
    }

    /// What the log is called: the first line of its heads.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it signed a note.
    pub(super) fn signed(&self, note: &Note) -> bool {
        note.is_signed_by(&self.name, &self.key)
    }
}

impl FromStr for LogKey {
    type Err = LogKeyError;

    fn from_str(text: &str) -> Result<Self, LogKeyError> {
        read_verifier(text, PLAIN).map(|(name, key)| Self { name, key }).ok_or(LogKeyError)
    }
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_verifier(f, PLAIN, (&self.name, &self.key))
    }
}

/// Somebody who signs heads of logs of others: that this is the log, as far as
/// they have ever seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    name: String,
    key: IdentityPublic,
}

/// Why a text is not the key of a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not the key of a witness: expected NAME+HASH+KEY, of the kind that signs with a time (https://c2sp.org/tlog-cosignature)"
)]
pub struct WitnessError;

impl Witness {
    /// The witness with this name and key. Fails where the name has a space or a plus.
    pub fn new(name: &str, key: IdentityPublic) -> Result<Self, WitnessError> {
        if is_name(name) { Ok(Self { name: name.to_owned(), key }) } else { Err(WitnessError) }
    }

    /// Whether a line is in the witness's name.
    pub(super) fn has(&self, line: &Line) -> bool {
        let own = key_hash(&self.name, COSIGNATURE, &self.key);
        line.name == self.name && line.bytes.starts_with(&own)
    }

    /// When the witness says that it saw the text, if it says so.
    pub(super) fn saw(&self, note: &Note) -> Option<u64> {
        note.lines.iter().find_map(|line| self.says(line, &note.text))
    }

    /// When the witness says by a line that it saw a text, if it does.
    pub(super) fn says(&self, line: &Line, text: &str) -> Option<u64> {
        let rest = Some(line).filter(|line| self.has(line))?.bytes.get(4..)?;
        let (secs, signature) = rest.split_first_chunk()?;
        let secs = u64::from_be_bytes(*secs);
        let signature = Signature(signature.try_into().ok()?);
        self.key.verify_text(&cosigned(secs, text), &signature).then_some(secs)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its key.
    pub const fn key(&self) -> &IdentityPublic {
        &self.key
    }

    /// The line by which the holder of a witness's key says that it saw a text.
    pub(super) fn line(name: &str, key: &IdentityKey, text: &str, unix_secs: u64) -> Line {
        let hash = key_hash(name, COSIGNATURE, &key.public());
        let signature = key.sign_text(&cosigned(unix_secs, text));
        let bytes = [hash.as_slice(), &unix_secs.to_be_bytes(), &signature.0].concat();
        Line { name: name.to_owned(), bytes }
    }
}

fn cosigned(unix_secs: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {unix_secs}\n{text}").into_bytes()
}

impl FromStr for Witness {
    type Err = WitnessError;

    fn from_str(text: &str) -> Result<Self, WitnessError> {
        read_verifier(text, COSIGNATURE).map(|(name, key)| Self { name, key }).ok_or(WitnessError)
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_verifier(f, COSIGNATURE, (&self.name, &self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The note and the key of the documentation of Go's `golang.org/x/mod/sumdb/note`.
    #[test]
    fn a_note_that_another_program_signed_is_signed_by_its_key() {
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let key = BASE64_STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let key = IdentityPublic(key[1..].try_into().unwrap());
        let mut read = Note::parse(note).unwrap();
        assert!(read.is_signed_by("PeterNeumann", &key));
        assert!(!read.is_signed_by("Peter", &key));
        assert_eq!(read.to_string(), note);
        read.text.push('\n');
        assert!(!read.is_signed_by("PeterNeumann", &key));
    }

    #[test]
    fn a_witness_is_read_as_it_is_written() {
        let key = IdentityKey::from_seed(&[3; 32]);
        let witness = Witness::new("witness.example/one", key.public()).unwrap();
        assert_eq!(witness.to_string().parse(), Ok(witness.clone()));
        let text = witness.to_string();
        let others =
            [text.replace('+', ""), text.replacen("one", "two", 1), String::new(), format!("{text}A")];
        for other in others {
            assert_eq!(other.parse::<Witness>(), Err(WitnessError), "{other}");
        }
        assert!(Witness::new("with space", key.public()).is_err());
    }

    /// A head of a staging log of Certificate Transparency, which transparency.dev's and others' witnesses signed in public, and
    /// the key that one of them publishes.
    #[test]
    fn a_head_that_another_program_cosigned_is_seen_by_its_witness() {
        let note = "arche2025h1.staging.ct.transparency.dev\n1432088532\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\n\
            \u{2014} witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==\n\
            \u{2014} remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==\n";
        let witness = |key: &str| key.parse::<Witness>().unwrap();
        let remora = witness("remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2");
        let smartit =
            witness("witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO");
        let other = witness("rgdd.se/poc-witness+db03732e+BCjJKlo6BU0xfIb8LutqerIFTWIXEA0L5n3tW3QyPFgG");
        let mut read = Note::parse(note).unwrap();
        assert_eq!(remora.saw(&read), Some(1_779_573_024));
        assert_eq!(smartit.saw(&read), Some(1_779_573_024));
        assert_eq!(other.saw(&read), None);
        read.text = read.text.replace("1432088532", "1432088533");
        assert_eq!((remora.saw(&read), smartit.saw(&read)), (None, None));
        // The key of the log itself, which signs in the same form.
        let key =
            "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f";
        assert_eq!(key.parse::<LogKey>().unwrap().to_string(), key);
        assert_eq!(key.parse::<Witness>(), Err(WitnessError));
        assert_eq!(remora.to_string().parse::<LogKey>(), Err(LogKeyError));
    }

    #[test]
    fn a_cosignature_is_over_the_text_and_the_time() {
        let key = IdentityKey::from_seed(&[3; 32]);
        let witness = Witness::new("one", key.public()).unwrap();
        let text = "log\n1\nroot\n".to_owned();
        let mut note = Note { lines: vec![Witness::line("one", &key, &text, 77)], text };
        assert_eq!(witness.saw(&note), Some(77));
        let other = Witness::new("one", IdentityKey::from_seed(&[4; 32]).public()).unwrap();
        assert_eq!(other.saw(&note), None);
        note.text.push('x');
        assert_eq!(witness.saw(&note), None);
    }

    #[test]
    fn what_is_no_note_is_none() {
        for text in
            ["", "a", "a\n", "a\n\nb\n", "a\n\n\u{2014} b\n", "a\n\n\u{2014} b c!\n", "a\n\n\u{2014} b AA=="]
        {
            assert_eq!(Note::parse(text), None, "{text:?}");
        }
        assert_eq!(Note::parse("a\u{7}\n\n\u{2014} b AA==\n"), None);
        let long = format!("{}\n\n\u{2014} b AA==\n", "a".repeat(MOST_BYTES));
        assert_eq!(Note::parse(&long), None);
    }
}
