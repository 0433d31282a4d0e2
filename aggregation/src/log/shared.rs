//! One log for all who look at it while it grows.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use super::{Book, SignedHead};

/// The log of the authority that enrolls a coordinator's devices. It only grows.
#[derive(Clone, Debug, Default)]
pub struct EnrollmentLog {
    book: Arc<RwLock<Book>>,
    /// The last head that enough witnesses signed, where rounds are about such.
    witnessed: Arc<RwLock<Option<SignedHead>>>,
}

/// How much younger the newest head may be than the last one that witnesses signed, in seconds: devices take none that is older
/// than a day by default, and a head is signed every half hour.
const MOST_BEHIND_SECS: u64 = 23 * 3600;

impl EnrollmentLog {
    /// The log as it is.
    pub fn new(book: Book) -> Self {
        Self { book: Arc::new(RwLock::new(book)), witnessed: Arc::default() }
    }

    /// From now on rounds are about this head, which enough witnesses signed, until a later one is given here.
    pub fn goes_by_witnessed(&self, head: SignedHead) {
        *self.witnessed.write().unwrap_or_else(PoisonError::into_inner) = Some(head);
    }

    /// The head that rounds are about which are opened now: the last one that enough witnesses signed, where that is waited for.
    /// Where there was none within a day, it is the newest one: devices that demand witnesses refuse it, and the others go on.
    pub fn published(&self) -> Option<SignedHead> {
        let newest = self.look(|book| book.head().cloned());
        let witnessed = self.witnessed.read().unwrap_or_else(PoisonError::into_inner).clone();
        let secs = |head: &SignedHead| head.head().unix_secs;
        match (newest, witnessed) {
            (Some(newest), Some(witnessed))
                // One from the future was signed by a clock that has been mended.
                if secs(&newest).abs_diff(secs(&witnessed)) <= MOST_BEHIND_SECS =>
            {
                Some(witnessed)
            }
            (newest, _) => newest,
        }
    }

    /// A look at it. No guard is given out: who held one and looked a second time, while somebody waited to write between the
    /// two, would wait for ever.
    pub fn look<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        // A book is whole after each of its calls.
        look(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// To let it grow.
    pub fn write(&self) -> RwLockWriteGuard<'_, Book> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::IdentityKey, log::Leaf};

    #[test]
    fn rounds_are_about_heads_that_witnesses_signed_while_there_are_such() {
        let (key, hour) = (IdentityKey::from_seed(&[1; 32]), 3600);
        let log = EnrollmentLog::default();
        assert_eq!(log.published(), None);
        let grow = |unix_secs| {
            let mut book = log.write();
            book.append(&Leaf::Revocation { device: [1; 16], unix_secs });
            book.sign(&key, unix_secs);
            book.head().cloned().unwrap()
        };
        let (first, at) = (grow(100 * hour), || log.published().unwrap().head().size);
        assert_eq!(at(), 1);
        log.goes_by_witnessed(first);
        grow(101 * hour);
        assert_eq!(at(), 1);
        let third = grow(123 * hour);
        assert_eq!(at(), 1);
        // Too long ago.
        grow(124 * hour);
        assert_eq!(at(), 4);
        log.goes_by_witnessed(third);
        assert_eq!(at(), 3);
        // Signed by a clock that was ahead, and then by one that is right.
        log.goes_by_witnessed(grow(400 * hour));
        grow(125 * hour);
        assert_eq!(at(), 6);
    }
}
