//! What a witness of logs does: it signs heads that go on from all that it saw
//! of a log ([tlog-witness](https://c2sp.org/tlog-witness)).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use thiserror::Error;

use super::{LogKey, Witness, check_consistency, note::Note};
use crate::{
    identity::IdentityKey,
    merkle::{TreeHash, empty},
};

/// The most hashes of a proof: more are in none of any log.
pub const MOST_PROOF_LINES: usize = 63;

/// A head that a witness is asked to sign, with what leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What the witness has seen, by whoever asks.
    old: u64,
    path: Vec<TreeHash>,
    note: Note,
    size: u64,
    root: TreeHash,
}

/// Why a witness does not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unsigned {
    /// It is not written as it should be.
    #[error("not written as a head with what leads to it (https://c2sp.org/tlog-witness): {0}")]
    Malformed(&'static str),
    /// The log did not sign it.
    #[error("not signed by the key by which this witness knows the log")]
    NotByLog,
    /// The witness saw another number of entries last.
    #[error("this witness saw {size} entries of the log last")]
    Other {
        /// So many.
        size: u64,
    },
    /// The witness saw other entries, as many.
    #[error("this witness saw {size} other entries of the log: it was forked")]
    Forked {
        /// So many.
        size: u64,
    },
    /// It does not go on from what the witness saw.
    #[error("nothing shows that the log goes on from the {size} entries that this witness saw")]
    Inconsistent {
        /// So many.
        size: u64,
    },
}

impl Submission {
    /// The submission that a text is.
    pub fn parse(text: &str) -> Result<Self, Unsigned> {
        let malformed = Unsigned::Malformed;
        let (asked, head) = text.split_once("\n\n").ok_or(malformed("no empty line"))?;
        let mut lines = asked.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(number);
        let old = old.ok_or(malformed("the first line is not `old` and a size"))?;
        let path: Option<Vec<TreeHash>> = lines.map(hash).collect();
        let path = path.filter(|path| path.len() <= MOST_PROOF_LINES);
        let path = path.ok_or(malformed("a line of the proof is no hash, or there are too many"))?;
        let note = Note::parse(head).ok_or(malformed("the head is no text with signatures"))?;
        let mut lines = note.text.split('\n').skip(1);
        let (size, root) = (lines.next().and_then(number), lines.next().and_then(hash));
        let (size, root) = size.zip(root).ok_or(malformed("the head has no size or no root"))?;
        if old > size {
            return Err(malformed("the size in its first line is larger than that of the head"));
        }
        Ok(Self { old, path, note, size, root })
    }

    /// Of which log it says that it is.
    pub fn log(&self) -> &str {
        self.note.text.split('\n').next().unwrap_or_default()
    }

    /// What a witness has seen of the log once it has signed this: so many entries, and their root. Fails where it must not sign
    /// it. `seen` is what it saw last. What this gives is to be durable before [`Submission::sign`].
    pub fn judge(&self, log: &LogKey, seen: Option<(u64, TreeHash)>) -> Result<(u64, TreeHash), Unsigned> {
        if self.log() != log.name() || !log.signed(&self.note) {
            return Err(Unsigned::NotByLog);
        }
        let (size, root) = seen.unwrap_or_else(|| (0, empty()));
        if self.old != size {
            return Err(Unsigned::Other { size });
        }
        if self.size == size && self.root != root {
            return Err(Unsigned::Forked { size });
        }
        let next = (self.size, &self.root);
        check_consistency((size, &root), next, &self.path).map_err(|_| Unsigned::Inconsistent { size })?;
        Ok((self.size, self.root))
    }

    /// What a witness answers that has seen it: one line.
    pub fn sign(&self, name: &str, key: &IdentityKey, unix_secs: u64) -> String {
        format!("{}\n", Witness::line(name, key, &self.note.text, unix_secs))
    }
}

/// A size, written in one way only.
fn number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

fn hash(text: &str) -> Option<TreeHash> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::{Book, Leaf, log_key},
        merkle::TreeHash,
    };

    const NOW: u64 = 1_800_000_000;

    fn version(version: u32) -> Leaf {
        let (plan, adapter, roster) = ([1; 32], [2; 32], [3; 32]);
        Leaf::Version { task: [0; 16], version, plan, adapter, roster, survivors: 4, unix_secs: NOW }
    }

    /// A log with so many entries, and its signed head.
    fn log(authority: &IdentityKey, entries: std::ops::Range<u32>) -> Book {
        let mut book = Book::default();
        for entry in entries {
            book.append(&version(entry));
        }
        book.sign(authority, NOW);
        book
    }

    fn submitted(book: &Book, old: u64) -> Submission {
        let head = book.head().unwrap();
        let path = book.tree().consistency(old, head.head().size).unwrap_or_default();
        Submission::parse(&head.submission(old, &path)).unwrap()
    }

    #[test]
    fn a_witness_signs_what_goes_on_from_what_it_saw_and_nothing_else() {
        let (authority, own) = (IdentityKey::from_seed(&[1; 32]), IdentityKey::from_seed(&[2; 32]));
        let key = log_key(&authority.public());
        let (five, nine, other) = (log(&authority, 0..5), log(&authority, 0..9), log(&authority, 100..109));
        let first = submitted(&five, 0);
        assert_eq!(first.log(), key.name());
        let seen = first.judge(&key, None).unwrap();
        assert_eq!(seen, (5, five.head().unwrap().head().root));
        // What it answers is its signature of that head.
        let witness = Witness::new("w", own.public()).unwrap();
        let signed = five.head().unwrap().clone().signed_by(&witness, &first.sign("w", &own, 9)).unwrap();
        assert_eq!(signed.seen_at(&witness), Some(9));

        assert_eq!(first.judge(&key, Some(seen)), Err(Unsigned::Other { size: 5 }));
        let next = submitted(&nine, 5);
        assert_eq!(next.judge(&key, None), Err(Unsigned::Other { size: 0 }));
        let seen = next.judge(&key, Some(seen)).unwrap();
        // The same once more, and a head of a later time over the same.
        assert_eq!(submitted(&nine, 9).judge(&key, Some(seen)), Ok(seen));
        // Rolled back, and forked.
        assert_eq!(submitted(&five, 5).judge(&key, Some(seen)), Err(Unsigned::Other { size: 9 }));
        assert_eq!(submitted(&other, 9).judge(&key, Some(seen)), Err(Unsigned::Forked { size: 9 }));
        let longer = log(&authority, 100..112);
        assert_eq!(submitted(&longer, 9).judge(&key, Some(seen)), Err(Unsigned::Inconsistent { size: 9 }));
        // Of a stranger, in the log's name or not.
        let stranger = IdentityKey::from_seed(&[3; 32]);
        assert_eq!(submitted(&log(&stranger, 0..5), 0).judge(&key, None), Err(Unsigned::NotByLog));
        let forged = five.head().unwrap().submission(0, &[]).replace("devices 0", "devices 1");
        assert_eq!(Submission::parse(&forged).unwrap().judge(&key, None), Err(Unsigned::NotByLog));
    }

    #[test]
    fn a_proof_where_nothing_was_seen_and_a_root_of_nothing_that_is_not_one_are_refused() {
        let authority = IdentityKey::from_seed(&[1; 32]);
        let key = log_key(&authority.public());
        let head = log(&authority, 0..3).head().unwrap().clone();
        let with_proof = Submission::parse(&head.submission(0, &[[1; 32]])).unwrap();
        assert_eq!(with_proof.judge(&key, None), Err(Unsigned::Inconsistent { size: 0 }));
        let nothing = log(&authority, 0..0).head().unwrap().clone();
        assert_eq!(Submission::parse(&nothing.submission(0, &[])).unwrap().judge(&key, None).unwrap().0, 0);
        let head = *nothing.head();
        let wrong: TreeHash = [7; 32];
        let wrong = crate::log::Head { root: wrong, ..head }.sign(&authority).submission(0, &[]);
        assert_eq!(Submission::parse(&wrong).unwrap().judge(&key, None), Err(Unsigned::Forked { size: 0 }));
    }

    #[test]
    fn what_is_not_written_so_is_refused_with_what_is_wrong() {
        let authority = IdentityKey::from_seed(&[1; 32]);
        let whole = log(&authority, 0..3).head().unwrap().submission(2, &[[1; 32], [2; 32]]);
        assert!(Submission::parse(&whole).is_ok());
        let wrong = |from: &str, to: &str| {
            let Err(Unsigned::Malformed(why)) = Submission::parse(&whole.replacen(from, to, 1)) else {
                panic!("{from:?} as {to:?}")
            };
            why
        };
        for to in ["old 02", "old +2", "old -2", "old ", "new 2", "old 18446744073709551616"] {
            assert!(wrong("old 2", to).contains("`old`"), "{to}");
        }
        assert!(wrong("old 2", "old 4").contains("larger"));
        assert!(wrong("AQEB", "!QEB").contains("proof"));
        assert!(wrong("AQEB", "").contains("proof"));
        assert!(wrong("\n3\n", "\n03\n").contains("size"));
        assert!(wrong("\n3\n", "\n3\nx").contains("root"));
        let many = format!("old 2\n{}", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n".repeat(64));
        assert!(wrong("old 2\n", &many).contains("too many"));
        assert_eq!(Submission::parse("old 0\n"), Err(Unsigned::Malformed("no empty line")));
        for cut in 0..whole.len() - 1 {
            if let Some(cut) = whole.get(..cut) {
                assert!(Submission::parse(cut).is_err(), "{cut}");
            }
        }
    }
}
