//! One log for all who look at it while it grows.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Book, SignedHead};

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
}
