//! The enrollment log that rounds are about, shared by all tasks of a coordinator.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use aggregation::log::{Book, SignedHead};
use aggregation::{Advertisement, Credential, TreeHash};
use proto::message::LogOffer;

/// The log of the authority that enrolls a coordinator's devices. It only grows.
#[derive(Clone, Debug, Default)]
pub struct EnrollmentLog {
    book: Arc<RwLock<Book>>,
    witnessed: Arc<RwLock<Witnessed>>,
}

/// Which heads rounds are about.
#[derive(Debug, Default)]
enum Witnessed {
    /// The newest.
    #[default]
    NotNeeded,
    /// This one, which witnesses signed; none yet.
    By(Option<SignedHead>),
}

impl EnrollmentLog {
    /// The log as it is.
    pub fn new(book: Book) -> Self {
        Self { book: Arc::new(RwLock::new(book)), witnessed: Arc::default() }
    }

    /// From now on rounds are about heads that witnesses signed: this one, and later ones that are given here.
    pub fn goes_by_witnessed(&self, head: Option<SignedHead>) {
        *self.witnessed.write().unwrap_or_else(PoisonError::into_inner) = Witnessed::By(head);
    }

    /// The head that rounds are about which are opened now.
    pub fn published(&self) -> Option<SignedHead> {
        match &*self.witnessed.read().unwrap_or_else(PoisonError::into_inner) {
            Witnessed::NotNeeded => self.read().head().cloned(),
            Witnessed::By(head) => head.clone(),
        }
    }

    /// A look at it. Held for no longer than that.
    pub fn read(&self) -> RwLockReadGuard<'_, Book> {
        // A book is whole after each of its calls.
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To let it grow.
    pub fn write(&self) -> RwLockWriteGuard<'_, Book> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log up to its last head, for a round that is opened now. None where no head was signed yet.
    pub fn at_head(&self) -> Option<RoundLog> {
        let head = self.published()?;
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
