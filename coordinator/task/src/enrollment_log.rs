//! The enrollment log that a round is about.

use aggregation::log::{EnrollmentLog, SignedHead};
use aggregation::{Advertisement, Credential, TreeHash};
use proto::message::LogOffer;

/// The log up to the head that a round is about.
#[derive(Clone, Debug)]
pub struct RoundLog {
    log: EnrollmentLog,
    head: SignedHead,
}

impl RoundLog {
    /// The log up to its last head, for a round that is opened now. None where no head was signed yet.
    pub fn now(log: &EnrollmentLog) -> Option<Self> {
        Some(Self { log: log.clone(), head: log.published()? })
    }

    /// The head.
    pub const fn head(&self) -> &SignedHead {
        &self.head
    }

    /// What a device is shown that has seen so many leaves. Where there are fewer here nothing shows that the log goes on,
    /// and the device says so. Witnesses may have signed the head since the round was opened: that is shown too.
    pub(crate) fn offer(&self, seen: u64) -> LogOffer {
        let size = self.head.head().size;
        let published = self.log.published().filter(|now| now.head() == self.head.head());
        let consistency = self.log.read().tree().consistency(size.min(seen), size.max(seen));
        let head = published.as_ref().unwrap_or(&self.head).to_string();
        LogOffer { head, consistency: consistency.unwrap_or_default() }
    }

    /// Whether a credential is a leaf below the head.
    pub(crate) fn has(&self, credential: &Credential) -> bool {
        self.log.read().has(credential, self.head.head())
    }

    /// What shows that all these are below the head; they are, if [`RoundLog::has`] said so of each.
    pub(crate) fn list(&self, entries: &[Advertisement]) -> Vec<TreeHash> {
        self.log.read().list(entries, self.head.head()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use aggregation::IdentityKey;
    use aggregation::log::{Book, Leaf, Witness};

    use super::*;

    #[test]
    fn what_witnesses_signed_since_a_round_was_opened_is_offered_in_it() {
        let (key, witness) = (IdentityKey::from_seed(&[1; 32]), IdentityKey::from_seed(&[2; 32]));
        let mut book = Book::default();
        book.append(&Leaf::Revocation { device: [1; 16], unix_secs: 9 });
        book.sign(&key, 9);
        let log = EnrollmentLog::new(book);
        let round = RoundLog::now(&log).unwrap();
        let known = [Witness::new("owl.example", witness.public()).unwrap()];
        let signed = || SignedHead::parse(&round.offer(0).head, &key.public()).unwrap().seen_by(&known);
        assert_eq!(signed(), 0);
        let head = log.published().unwrap().witnessed("owl.example", &witness, 10);
        log.write().set_head(head.clone()).unwrap();
        assert_eq!(signed(), 1);
        assert_eq!(round.head().head(), head.head());
        // A later head is another one.
        log.write().append(&Leaf::Revocation { device: [2; 16], unix_secs: 11 });
        log.write().sign(&key, 11);
        assert_eq!(
            (signed(), SignedHead::parse(&round.offer(0).head, &key.public()).unwrap().head().size),
            (0, 1)
        );
    }
}
