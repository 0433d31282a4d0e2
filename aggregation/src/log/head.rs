//! What an authority says of its log at a moment.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use thiserror::Error;

use super::note::{Line, LogKey, Note, Witness};
use crate::{
    hash,
    identity::{IdentityKey, IdentityPublic},
    merkle::TreeHash,
};

/// The log up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The leaves that it has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: TreeHash,
    /// The devices that ever enrolled, among the leaves.
    pub devices: u64,
    /// When it was signed, in seconds since 1970.
    pub unix_secs: u64,
    /// The digest of the head before; zeros for the first.
    pub previous: [u8; 32],
}

/// Why a text is not a head of an authority's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// It is no text with signatures, or its text is no head.
    #[error("it is not written as a head of a log")]
    Written,
    /// It is of the log of another authority.
    #[error("it is the head of another log")]
    OtherLog,
    /// The authority did not sign it.
    #[error("it is not signed by the enrollment authority")]
    Signature,
}

impl Head {
    /// What stands for the head wherever it matters.
    pub fn digest(&self) -> [u8; 32] {
        hash::digest(
            "log head",
            &[
                &self.size.to_be_bytes(),
                &self.root,
                &self.devices.to_be_bytes(),
                &self.unix_secs.to_be_bytes(),
                &self.previous,
            ],
        )
    }

    /// Signs it as the head of the log of this authority.
    pub fn sign(self, authority: &IdentityKey) -> SignedHead {
        let origin = origin(&authority.public());
        let text = self.text(&origin);
        let line = Line::sign(&origin, authority, &text);
        SignedHead { head: self, note: Note { text, lines: vec![line] } }
    }

    /// Five lines and where the log is from, first ([tlog-checkpoint](https://c2sp.org/tlog-checkpoint)).
    fn text(&self, origin: &str) -> String {
        let Self { size, root, devices, unix_secs, previous } = self;
        let [root, previous] = [root, previous].map(|hash| BASE64_STANDARD.encode(hash));
        format!("{origin}\n{size}\n{root}\ndevices {devices}\ntime {unix_secs}\nprevious {previous}\n")
    }

    fn parse(text: &str, origin: &str) -> Result<Self, HeadError> {
        let found = text.split('\n').next();
        if found.is_some_and(|found| found.starts_with(ORIGIN) && found != origin) {
            return Err(HeadError::OtherLog);
        }
        let read = || {
            let mut lines = text.strip_suffix('\n')?.split('\n').skip(1);
            let head = Self {
                size: lines.next()?.parse().ok()?,
                root: hash_of(lines.next()?)?,
                devices: lines.next()?.strip_prefix("devices ")?.parse().ok()?,
                unix_secs: lines.next()?.strip_prefix("time ")?.parse().ok()?,
                previous: hash_of(lines.next()?.strip_prefix("previous ")?)?,
            };
            // Written in one way only: what was parsed leads back to the text.
            (lines.next().is_none() && head.text(origin) == text).then_some(head)
        };
        read().ok_or(HeadError::Written)
    }
}

fn hash_of(text: &str) -> Option<TreeHash> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// What the names of all logs begin with.
const ORIGIN: &str = "nightshift-log/";

/// What the log of an authority is called.
fn origin(authority: &IdentityPublic) -> String {
    authority.0.iter().fold(ORIGIN.to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// A head with the signature of the authority, and of witnesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    head: Head,
    note: Note,
}

/// What signs the log of an authority, as its witnesses know it.
pub fn log_key(authority: &IdentityPublic) -> LogKey {
    LogKey::new(origin(authority), *authority)
}

impl SignedHead {
    /// The head that a text is. Fails unless it is of this authority's log, signed by it.
    pub fn parse(text: &str, authority: &IdentityPublic) -> Result<Self, HeadError> {
        let note = Note::parse(text).ok_or(HeadError::Written)?;
        let origin = origin(authority);
        let head = Head::parse(&note.text, &origin)?;
        if note.is_signed_by(&origin, authority) {
            Ok(Self { head, note })
        } else {
            Err(HeadError::Signature)
        }
    }

    /// The authority of whose log a text says that it is a head; whether it is so, [`SignedHead::parse`] says.
    pub fn signer(text: &str) -> Option<IdentityPublic> {
        let hex = text.lines().next()?.strip_prefix(ORIGIN)?;
        let byte = |place: usize| u8::from_str_radix(hex.get(2 * place..2 * place + 2)?, 16).ok();
        let mut key = [0; 32];
        for (place, to) in key.iter_mut().enumerate() {
            *to = byte(place)?;
        }
        Some(IdentityPublic(key))
    }

    /// What it says.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// How many of these witnesses signed it.
    pub fn seen_by(&self, witnesses: &[Witness]) -> usize {
        // A key that is listed twice is one witness, whatever it is called.
        let mut keys: Vec<[u8; 32]> = witnesses
            .iter()
            .filter(|witness| witness.saw(&self.note).is_some())
            .map(|witness| witness.key().0)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    }

    /// What is sent to a witness for its signature: how long the log was when the witness saw it last, what leads from there
    /// to this head, and the head ([tlog-witness](https://c2sp.org/tlog-witness), `add-checkpoint`).
    pub fn submission(&self, seen: u64, path: &[TreeHash]) -> String {
        let path =
            path.iter().fold(String::new(), |lines, hash| lines + &BASE64_STANDARD.encode(hash) + "\n");
        format!("old {seen}\n{path}\n{self}")
    }

    /// The same head with the signature that this witness answered, in the place of an earlier one of it. Fails where there is
    /// none of it in the answer; nothing else of the answer is taken.
    pub fn signed_by(mut self, witness: &Witness, answer: &str) -> Result<Self, HeadError> {
        let lines: Option<Vec<Line>> = answer.lines().map(Line::parse).collect();
        let lines = lines.ok_or(HeadError::Written)?;
        let its = lines.into_iter().find(|line| witness.says(line, &self.note.text).is_some());
        let its = its.ok_or(HeadError::Signature)?;
        self.note.lines.retain(|line| !witness.has(line));
        self.note.lines.push(its);
        Ok(self)
    }

    /// When a witness says that it saw it, if it does.
    pub fn seen_at(&self, witness: &Witness) -> Option<u64> {
        witness.saw(&self.note)
    }

    /// The same head, which the holder of this key, a witness called `name`, saw at this time.
    #[must_use]
    pub fn witnessed(mut self, name: &str, key: &IdentityKey, unix_secs: u64) -> Self {
        self.note.lines.push(Witness::line(name, key, &self.note.text, unix_secs));
        self
    }
}

/// The text, with its signatures.
impl fmt::Display for SignedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head { size: 12, root: [1; 32], devices: 5, unix_secs: 1_700_000_000, previous: [2; 32] }
    }

    #[test]
    fn a_head_is_read_as_it_was_signed() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let signed = head().sign(&key);
        let text = signed.to_string();
        assert!(text.starts_with("nightshift-log/8a88e3dd7409f195"), "{text}");
        let read = SignedHead::parse(&text, &key.public()).unwrap();
        assert_eq!((read.head(), &read), (&head(), &signed));
        assert_eq!(SignedHead::signer(&text), Some(key.public()));
        assert_eq!(SignedHead::signer("nightshift-log/8a88\n"), None);
    }

    #[test]
    fn a_head_of_another_log_or_that_was_changed_is_refused() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let text = head().sign(&key).to_string();
        let other = IdentityKey::from_seed(&[2; 32]).public();
        assert_eq!(SignedHead::parse(&text, &other), Err(HeadError::OtherLog));
        let changed = |from: &str, to: &str| SignedHead::parse(&text.replacen(from, to, 1), &key.public());
        assert_eq!(changed("\n12\n", "\n13\n"), Err(HeadError::Signature));
        assert_eq!(changed("devices 5", "devices 6"), Err(HeadError::Signature));
        assert_eq!(changed("\n12\n", "\n012\n"), Err(HeadError::Written));
        assert_eq!(changed("\n12\n", "\n+12\n"), Err(HeadError::Written));
        assert_eq!(changed("previous", "before"), Err(HeadError::Written));
        assert_eq!(changed("nightshift", "moonshift"), Err(HeadError::Written));
        for cut in 0..text.len() - 1 {
            if let Some(cut) = text.get(..cut) {
                assert!(SignedHead::parse(cut, &key.public()).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn those_who_signed_are_counted_once_each() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let others = [2, 3, 4].map(|seed| IdentityKey::from_seed(&[seed; 32]));
        let witnesses: Vec<Witness> = (0..)
            .zip(&others)
            .map(|(number, key)| Witness::new(&format!("w{number}"), key.public()).unwrap())
            .collect();
        let signed = head().sign(&key).witnessed("w0", &others[0], 9).witnessed("w0", &others[0], 10);
        assert_eq!(signed.seen_by(&witnesses), 1);
        // Under a name that is not the key's.
        let signed = signed.witnessed("w1", &others[2], 9);
        assert_eq!(signed.seen_by(&witnesses), 1);
        let signed = signed.witnessed("w2", &others[2], 9);
        let read = SignedHead::parse(&signed.to_string(), &key.public()).unwrap();
        assert_eq!(read.seen_by(&witnesses), 2);
    }

    #[test]
    fn a_witness_is_asked_and_its_answer_becomes_part_of_the_head() {
        let (key, other) = (IdentityKey::from_seed(&[1; 32]), IdentityKey::from_seed(&[2; 32]));
        let witness = Witness::new("w", other.public()).unwrap();
        let signed = head().sign(&key);
        let asked = signed.submission(7, &[[1; 32], [2; 32]]);
        let lines: Vec<&str> = asked.lines().collect();
        let first = BASE64_STANDARD.encode([1; 32]);
        assert_eq!((lines[0], lines[1], lines[3]), ("old 7", first.as_str(), ""));
        assert!(asked.ends_with(&format!("\n\n{signed}")), "{asked}");
        // What follows the proof is the head, as whoever is asked reads it.
        let (_, sent) = asked.split_once("\n\n").unwrap();
        assert_eq!(SignedHead::parse(sent, &key.public()), Ok(signed.clone()));

        let answer = signed.clone().witnessed("w", &other, 5).to_string();
        let line = answer.lines().last().unwrap();
        let both = signed.clone().signed_by(&witness, &format!("{line}\n")).unwrap();
        assert_eq!(both.seen_by(std::slice::from_ref(&witness)), 1);
        assert_eq!(both.to_string(), answer);
        assert_eq!(signed.clone().signed_by(&witness, ""), Err(HeadError::Signature));
        assert_eq!(signed.clone().signed_by(&witness, "sorry"), Err(HeadError::Written));
        let stranger = Witness::new("w", key.public()).unwrap();
        assert_eq!(signed.clone().signed_by(&stranger, line), Err(HeadError::Signature));
        // Of many lines one is taken, and a later answer takes its place: no witness makes a head longer and longer.
        let forged = line.replace("AAAF", "AAAG");
        let many = format!("{forged}\n{forged}\n{line}\n{line}\n");
        let both = signed.signed_by(&witness, &many).unwrap();
        assert_eq!((both.to_string(), both.seen_at(&witness)), (answer.clone(), Some(5)));
        let later = both.clone().witnessed("w", &other, 6).to_string();
        let both = both.signed_by(&witness, later.lines().last().unwrap()).unwrap();
        assert_eq!((both.to_string().len(), both.seen_at(&witness)), (answer.len(), Some(6)));
    }

    #[test]
    fn every_part_of_a_head_is_in_its_digest() {
        let digests = std::collections::BTreeSet::from([
            head().digest(),
            Head { size: 13, ..head() }.digest(),
            Head { root: [9; 32], ..head() }.digest(),
            Head { devices: 6, ..head() }.digest(),
            Head { unix_secs: 1, ..head() }.digest(),
            Head { previous: [9; 32], ..head() }.digest(),
        ]);
        assert_eq!(digests.len(), 6);
    }
}
