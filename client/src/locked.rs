//! Small secrets in memory that the system does not write to swap, where it allows that, and wiped when they are dropped.
//!
//! Each has whole pages of its own: a page is locked or not, and unlocking it for one secret would unlock another. Only
//! what is kept here is locked. Libraries copy what they are given: ring holds the identity key for signing and the keys
//! that it derives, rustls the TLS key, rcgen the key that it reads or makes, and what is read from a file passes through
//! a buffer that is wiped but not locked. To lock all of the process instead is not sensible: it holds gigabytes of
//! weights. Hibernation writes locked memory, too.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Once;

use region::{LockGuard, page};
use zeroize::Zeroize;

/// A secret's bytes.
pub(crate) struct Locked {
    // Unlocked before the pages are given back.
    lock: Option<LockGuard>,
    pages: Vec<u8>,
    at: Range<usize>,
}

impl Locked {
    /// So many zeros. Where the system refuses to lock them they are as good as other memory, and that is said once.
    pub(crate) fn zeroed(len: usize) -> Self {
        let page = page::size();
        let whole = len.next_multiple_of(page);
        let pages = vec![0; whole.saturating_add(page)];
        let from = pages.as_ptr().align_offset(page).min(page);
        let at = from..from.saturating_add(len);
        let lock = pages.get(at.clone()).filter(|bytes| !bytes.is_empty()).and_then(lock);
        Self { lock, pages, at }
    }

    /// A copy of `bytes`, which their owner wipes.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }

    /// Whether the system took care that they are not written to swap.
    #[cfg(test)]
    fn is_locked(&self) -> bool {
        self.lock.is_some()
    }
}

fn lock(bytes: &[u8]) -> Option<LockGuard> {
    static SAID: Once = Once::new();
    match region::lock(bytes.as_ptr(), bytes.len()) {
        Ok(lock) => Some(lock),
        Err(error) => {
            SAID.call_once(|| {
                tracing::warn!(
                    %error,
                    "keys may be written to swap, because no memory can be locked; raise the limit (`ulimit -l`, \
                     LimitMEMLOCK= of systemd), or encrypt the swap"
                );
            });
            None
        }
    }
}

impl Deref for Locked {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.get(self.at.clone()).unwrap_or_default()
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages.get_mut(self.at.clone()).unwrap_or_default()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.pages.zeroize();
        drop(self.lock.take());
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_back_and_shows_itself_to_nobody() {
        for len in [0, 1, 32, page::size(), page::size() + 1] {
            let bytes = vec![7; len];
            let locked = Locked::copy_of(&bytes);
            assert_eq!(*locked, *bytes);
            assert_eq!(format!("{locked:?}"), "Locked { .. }");
        }
    }

    #[test]
    fn no_two_secrets_share_a_page() {
        let secrets: Vec<Locked> = (0..8).map(|i| Locked::copy_of(&[i; 32])).collect();
        let mut pages: Vec<usize> =
            secrets.iter().map(|secret| secret.as_ptr().addr() / page::size()).collect();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), secrets.len());
        for secret in &secrets {
            assert_eq!(secret.as_ptr().addr() % page::size(), 0, "a secret begins with its page");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_says_that_a_secret_is_locked() {
        let locked_kib = |address: usize| -> Option<u64> {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut within = false;
            for line in maps.lines() {
                let first = line.split(' ').next().unwrap_or_default();
                if let Some((from, to)) = first.split_once('-') {
                    let number = |text| usize::from_str_radix(text, 16).unwrap();
                    within = (number(from)..number(to)).contains(&address);
                } else if let Some(kib) = line.strip_prefix("Locked:").filter(|_| within) {
                    return kib.trim().strip_suffix("kB")?.trim().parse().ok();
                }
            }
            None
        };
        let locked = Locked::copy_of(&[9; 32]);
        // A system that locks nothing for this user is one on which the rest goes on.
        let expected = if locked.is_locked() { 1.. } else { 0.. };
        assert!(expected.contains(&locked_kib(locked.as_ptr().addr()).unwrap()));
    }
}
