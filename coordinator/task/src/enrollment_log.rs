//! The enrollment log that rounds are about, shared by all tasks of a coordinator.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use aggregation::log::{Book, SignedHead};
use aggregation::{Advertisement, Credential, TreeHash};
use proto::message::LogOffer;

/// The log of the authority that enrolls a coordinator's devices. It only grows.
#[derive(Clone, Debug, Default)]
pub struct EnrollmentLog(Arc<RwLock<Book>>);

impl EnrollmentLog {
    /// The log as it is.
    pub fn new(book: Book) -> Self {
        Self(Arc::new(RwLock::new(book)))
    }

    /// A look at it. Held for no longer than that.
    pub fn read(&self) -> RwLockReadGuard<'_, Book> {
        // A book is whole after each of its calls.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To let it grow.
    pub fn write(&self) -> RwLockWriteGuard<'_, Book> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log up to its last head, for a round that is opened now. None where no head was signed yet.
    pub fn at_head(&self) -> Option<RoundLog> {
        let head = self.read().head()?.clone();
        Some(RoundLog { log: self.clone(), head })
    }
}

/// The log up to the head that a round is about.
#[derive(Clone, Debug)]
pub struct RoundLog {
    log: EnrollmentLog,
    head: SignedHead,
}

impl RoundLog {
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
