//! The ledger and the state are written one after the other: what is found after a crash, or after a write that failed,
//! and how a device goes on with it.

use proto::ids::Digest;

use super::device_store::{DeviceStore, Entry};
use super::error::DeviceStoreError;
use super::ledger::LedgerError;

const HEAD: &str = "ledger-head";

impl DeviceStore {
    /// Writes a record; it is on disk when this returns.
    pub(super) fn append(&mut self, entry: Entry) -> Result<(), DeviceStoreError> {
        // It was written, and only that it was could not be told.
        if self.written.take().is_some_and(|written| written.is_again(&entry)) {
            return Ok(());
        }
        // What the state could not be told of is not written: nobody pays for a round in which nothing is sent.
        self.state.check_room()?;
        self.failed = Some(entry.clone());
        self.ledger.append(&entry)?;
        self.entries.push(entry);
        self.put_head()?;
        self.failed = None;
        Ok(())
    }

    /// Fails where a write failed, so that nothing can be kept before [`Self::recover`].
    pub(crate) fn check_written(&self) -> Result<(), DeviceStoreError> {
        self.state.check()?;
        if self.ledger.is_stopped() || self.failed.is_some() {
            return Err(LedgerError::Stopped { path: self.folder.join("ledger") }.into());
        }
        Ok(())
    }

    /// Finds out what is on disk after a write that failed, and takes writes again. Fails where the disk still fails, and
    /// where what is there is not what this device wrote.
    pub(crate) fn recover(&mut self) -> Result<(), DeviceStoreError> {
        self.ledger.recover()?;
        self.entries = self.ledger.entries()?;
        self.state.reopen()?;
        self.check_head()?;
        // That it can be read is no sign that it can be written.
        self.put_head()?;
        // Whoever wanted a record written wants it again, and it may be there.
        let is_last = |failed: &Entry| self.entries.last().is_some_and(|last| last.is_again(failed));
        self.written = self.failed.take().filter(is_last);
        Ok(())
    }

    /// What must be free on the disk for a write of the state, so that a test can have a full disk.
    pub fn free_space_floor(&self) -> impl Fn(u64) + Send + 'static {
        let state = self.state.clone();
        move |bytes| state.set_free_space_floor(bytes)
    }

    fn put_head(&self) -> Result<(), DeviceStoreError> {
        let (records, hash) = self.ledger.head();
        Ok(self.state.put(HEAD, &(records, Digest(hash)))?)
    }

    /// One record more than the state knows, after those that it knows, is a crash between the two writes: the state is
    /// told of it, so that the next crash is again of one. Anything else is another ledger, or another state.
    pub(super) fn check_head(&self) -> Result<(), DeviceStoreError> {
        let (found, _) = self.ledger.head();
        let head = self.state.get::<(usize, Digest)>(HEAD)?;
        let (expected, known) = head.unwrap_or((0, Digest([0; 32])));
        if found < expected {
            return Err(DeviceStoreError::Truncated { expected, found });
        }
        if found > expected.saturating_add(1) {
            return Err(DeviceStoreError::Ahead { expected, found });
        }
        if self.ledger.hash_of_first(expected) != Some(known.0) {
            return Err(DeviceStoreError::Foreign);
        }
        if found > expected { self.put_head() } else { Ok(()) }
    }
}

impl Entry {
    /// Whether it says the same as an earlier one, at whatever time.
    fn is_again(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Charge { charge, .. }, Self::Charge { charge: earlier, .. }) => charge == earlier,
            (Self::FoundAtCoordinator { found, .. }, Self::FoundAtCoordinator { found: earlier, .. }) => {
                found == earlier
            }
            (Self::Signature(signed), Self::Signature(earlier))
            | (Self::Answer(signed), Self::Answer(earlier)) => signed == earlier,
            (
                Self::Charge { .. } | Self::FoundAtCoordinator { .. } | Self::Signature(_) | Self::Answer(_),
                Self::Charge { .. } | Self::FoundAtCoordinator { .. } | Self::Signature(_) | Self::Answer(_),
            ) => false,
        }
    }
}
