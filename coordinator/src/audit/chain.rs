//! The audit log as a chain: each entry names the hash of the one before and is signed, so that none can be changed, taken
//! out, put in or moved without the key. A *head* says which entry is the newest. One that is kept elsewhere than the log
//! shows that entries at the end are missing, or that an older log was put in the place of a newer one.
//!
//! Pure: lines in, lines out. Who has the key can write another chain; it cannot be made to hold against a head that
//! somebody else kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use proto::ids::{Digest, Serial};
use proto::role::Role;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

const ENTRY_CONTEXT: &[u8] = b"nightshift audit entry v1\0";
const HEAD_CONTEXT: &[u8] = b"nightshift audit head v1\0";

/// What the first entry names as the hash of the one before.
const NOTHING: Digest = Digest([0; 32]);

/// What an entry is called that says that older ones were removed to make room.
pub const REMOVE: &str = "remove entries";

/// The key of [`REMOVE`] under which the number of the oldest entry stands that is left.
pub const OLDEST: &str = "oldest";

/// The key of [`REMOVE`] under which the hash of the entry before that one stands.
pub const BEFORE: &str = "before";

/// What an entry is called that says that a head was found that is later than the log.
pub const FOUND: &str = "found a later head";

/// What came of what an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is about to be done; another entry says what came of it.
    Intent,
    /// It is done.
    Done,
    /// It was refused, and nothing was changed.
    Refused,
    /// The coordinator ended before it was written down what came of it: it was done or not.
    Unknown,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number; the first one's is 1.
    pub n: u64,
    /// When it was written, by the coordinator's clock.
    pub at_unix_millis: u64,
    /// `operator NAME`, `device ID` or `coordinator`.
    pub who: String,
    /// The serial number of the operator's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// The operator's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What was asked for.
    pub what: String,
    /// With what: names, or digests of what is long.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub with: BTreeMap<String, String>,
    /// What came of it.
    pub outcome: Outcome,
    /// By which kind of rejection it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The number of the intent that this is the outcome of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// The hash of the entry before.
    pub before: Digest,
}

/// An entry before it has its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// When.
    pub at_unix_millis: u64,
    /// Who.
    pub who: String,
    /// By which certificate.
    pub serial: Option<Serial>,
    /// In which role.
    pub role: Option<Role>,
    /// What.
    pub what: String,
    /// With what.
    pub with: BTreeMap<String, String>,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was refused.
    pub why: Option<String>,
    /// Of which intent.
    pub of: Option<u64>,
}

/// A line of the log.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    entry: Entry,
    signature: Signed,
}

/// Which entry is the newest, signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The number of the newest entry.
    pub n: u64,
    /// Its hash.
    pub hash: Digest,
    /// The key that signed.
    pub key: Digest,
    /// Over number and hash.
    pub signature: Signed,
}

/// A signature, in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed([u8; 64]);

/// What signs entries.
pub struct AuditKey(Ed25519KeyPair);

/// Where the next entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The number of the newest entry; 0 where there is none.
    pub n: u64,
    /// Its hash.
    pub hash: Digest,
}

/// Why a log is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line is no entry.
    #[error("the line after entry {after} is no entry, or was changed: {why}")]
    Unreadable {
        /// The number of the entry before, 0 where it is the first line.
        after: u64,
        /// What is wrong.
        why: String,
    },
    /// Entries do not follow one another.
    #[error("entry {expected} is expected, and entry {found} is there: one was taken out, put in or moved")]
    Number {
        /// What comes next.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// An entry does not name the one before.
    #[error("entry {0} does not name the entry before it: one of the two was changed")]
    Chain(u64),
    /// The signature is not the key's.
    #[error("entry {n} is not signed by the key {key}: it was changed, or another key signed it")]
    Signature {
        /// The entry.
        n: u64,
        /// Whose signature is expected.
        key: Digest,
    },
    /// The first entries are not there, and none says that they were removed.
    #[error(
        "the log begins with entry {0}, and no entry says that those before it were removed to make room: they were taken \
         away, or lost"
    )]
    Beginning(u64),
    /// A head that was kept elsewhere is later than the log.
    #[error(
        "the log {}, but a head that was kept elsewhere is of entry {head}: the end is missing, or an older log was put in its \
         place", ends(*last)
    )]
    Shorter {
        /// The newest entry, 0 where there is none.
        last: u64,
        /// What was kept.
        head: u64,
    },
    /// A head that was kept elsewhere is of another entry with this number.
    #[error("entry {0} is not the one of which a head was kept elsewhere: the log was written anew")]
    Other(u64),
    /// A head is not signed by the key.
    #[error(
        "the head of entry {n} that was kept elsewhere is signed by the key {found}, and not by {expected}"
    )]
    HeadKey {
        /// Of which entry.
        n: u64,
        /// Whose signature it has, or claims.
        found: Digest,
        /// Whose it should have.
        expected: Digest,
    },
}

/// What a log was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The oldest entry, 0 where there is none.
    pub first: u64,
    /// The newest entry.
    pub last: u64,
    /// Heads that were kept elsewhere and were found in the log.
    pub heads_found: usize,
    /// Heads of entries that were removed since.
    pub heads_before: usize,
    /// Intents of which nothing says what came of them.
    pub open: BTreeSet<u64>,
    /// Entries that say that the coordinator found a head that is later than its log.
    pub found: Vec<u64>,
}

/// Goes through a log, line by line.
#[derive(Debug)]
pub struct Verifier {
    key: Digest,
    heads: Vec<Head>,
    end: Option<End>,
    first: Option<(u64, Digest)>,
    removed: BTreeMap<u64, Option<Digest>>,
    report: Report,
}

impl AuditKey {
    /// The key of this seed; `None` where the seed is of no use, which none of 32 bytes is.
    pub fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self)
    }

    /// The key that verifies.
    pub fn public(&self) -> Digest {
        let mut public = [0; 32];
        // Both have 32 bytes.
        for (to, from) in public.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        Digest(public)
    }

    /// The head that ends here.
    pub fn head(&self, end: End) -> Head {
        let mut signature = [0; 64];
        for (to, from) in signature.iter_mut().zip(self.0.sign(&head_bytes(end)).as_ref()) {
            *to = *from;
        }
        Head { n: end.n, hash: end.hash, key: self.public(), signature: Signed(signature) }
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditKey").finish_non_exhaustive()
    }
}

impl Default for End {
    /// Before the first entry.
    fn default() -> Self {
        Self { n: 0, hash: NOTHING }
    }
}

impl From<&Head> for End {
    fn from(head: &Head) -> Self {
        Self { n: head.n, hash: head.hash }
    }
}

impl End {
    /// The line of the next entry, with its end, and where the one after it goes.
    pub fn next(self, said: &Said, key: &AuditKey) -> Result<(Vec<u8>, Self), serde_json::Error> {
        let Said { at_unix_millis, who, serial, role, what, with, outcome, why, of } = said.clone();
        let (n, before) = (self.n.saturating_add(1), self.hash);
        let entry = Entry { n, at_unix_millis, who, serial, role, what, with, outcome, why, of, before };
        let end = Self { n, hash: hash(&entry)? };
        let mut line = serde_json::to_vec(&Line { entry, signature: key.head(end).signature })?;
        line.push(b'\n');
        Ok((line, end))
    }
}

impl Verifier {
    /// For a log that this key signed, of which these heads were kept elsewhere.
    pub fn new(key: Digest, heads: &[Head]) -> Result<Self, Fault> {
        for head in heads {
            if head.key != key || !is_signed(&key, head.into(), &head.signature) {
                return Err(Fault::HeadKey { n: head.n, found: head.key, expected: key });
            }
        }
        let (heads, removed) = (heads.to_vec(), BTreeMap::new());
        Ok(Self { key, heads, end: None, first: None, removed, report: Report::default() })
    }

    /// The next line, without its end.
    pub fn line(&mut self, line: &[u8]) -> Result<Entry, Fault> {
        let after = self.end.unwrap_or_default().n;
        let unreadable = |why: String| Fault::Unreadable { after, why };
        let read: Line = serde_json::from_slice(line).map_err(|error| unreadable(error.to_string()))?;
        let (entry, signature) = (&read.entry, read.signature);
        // There is one way to write an entry, so nothing of a line can be changed unnoticed.
        if serde_json::to_vec(&read).ok().as_deref() != Some(line) {
            return Err(unreadable("it is not written as entries are".to_owned()));
        }
        let n = entry.n;
        match self.end {
            None if n == 0 || (n == 1) != (entry.before == NOTHING) => return Err(Fault::Chain(n)),
            None => self.first = Some((n, entry.before)),
            Some(end) if n != end.n.saturating_add(1) => {
                return Err(Fault::Number { expected: end.n.saturating_add(1), found: n });
            }
            Some(end) if entry.before != end.hash => return Err(Fault::Chain(n)),
            Some(_) => {}
        }
        let end = End { n, hash: hash(entry).map_err(|error| unreadable(error.to_string()))? };
        if !is_signed(&self.key, end, &signature) {
            return Err(Fault::Signature { n, key: self.key });
        }
        for head in self.heads.iter().filter(|head| head.n == n) {
            if head.hash != end.hash {
                return Err(Fault::Other(n));
            }
            self.report.heads_found += 1;
        }
        self.end = Some(end);
        self.note(entry);
        Ok(read.entry)
    }

    fn note(&mut self, entry: &Entry) {
        match (entry.outcome, entry.of) {
            (Outcome::Intent, _) => {
                self.report.open.insert(entry.n);
            }
            (Outcome::Done | Outcome::Refused | Outcome::Unknown, Some(of)) => {
                self.report.open.remove(&of);
            }
            (Outcome::Done | Outcome::Refused | Outcome::Unknown, None) => {}
        }
        if entry.what == FOUND {
            self.report.found.push(entry.n);
        }
        if entry.what == REMOVE
            && let Some(oldest) = entry.with.get(OLDEST).and_then(|oldest| oldest.parse().ok())
        {
            let before = entry.with.get(BEFORE).and_then(|before| before.parse().ok());
            self.removed.insert(oldest, before);
        }
    }

    /// Intents so far of which nothing says what came of them.
    pub fn open(&self) -> &BTreeSet<u64> {
        &self.report.open
    }

    /// Where the log has come to.
    pub fn end(&self) -> End {
        self.end.unwrap_or_default()
    }

    /// What it is, when all lines were given.
    pub fn finish(mut self) -> Result<Report, Fault> {
        let last = self.end().n;
        if let Some((first, before)) = self.first {
            let removed_up_to = self.removed.keys().next_back().copied().unwrap_or(1);
            let other =
                self.removed.get(&first).is_some_and(|known| known.is_some_and(|known| known != before));
            if first > removed_up_to || other {
                return Err(Fault::Beginning(first));
            }
            self.report.heads_before = self.heads.iter().filter(|head| head.n < first).count();
            self.report.first = first;
        }
        if let Some(head) = self.heads.iter().map(|head| head.n).filter(|head| *head > last).max() {
            return Err(Fault::Shorter { last, head });
        }
        self.report.last = last;
        Ok(self.report)
    }
}

fn ends(last: u64) -> String {
    if last == 0 { "has no entry".to_owned() } else { format!("ends with entry {last}") }
}

fn hash(entry: &Entry) -> Result<Digest, serde_json::Error> {
    let mut bytes = ENTRY_CONTEXT.to_vec();
    serde_json::to_writer(&mut bytes, entry)?;
    Ok(Digest::of(&bytes))
}

fn head_bytes(end: End) -> Vec<u8> {
    [HEAD_CONTEXT, &end.n.to_be_bytes(), &end.hash.0].concat()
}

fn is_signed(key: &Digest, end: End, signature: &Signed) -> bool {
    UnparsedPublicKey::new(&ED25519, &key.0).verify(&head_bytes(end), &signature.0).is_ok()
}

impl Serialize for Signed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes)
            .map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests;
