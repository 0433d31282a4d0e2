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
    /// and the device says so.
    pub(crate) fn offer(&self, seen: u64) -> LogOffer {
        let size = self.head.head().size;
        let consistency = self.log.read().tree().consistency(size.min(seen), size.max(seen));
        LogOffer { head: self.head.to_string(), consistency: consistency.unwrap_or_default() }
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
