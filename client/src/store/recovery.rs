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

    /// Fails where a write failed, so that nothing can be kept before [`Self::recover`], and where the disk is full.
    pub(crate) fn check_written(&self) -> Result<(), DeviceStoreError> {
        self.state.check()?;
        self.state.check_room()?;
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

#[cfg(test)]
mod tests {
    use proto::ids::TaskId;
    use session::Signed;

    use super::*;

    fn signed(round: u64) -> Signed {
        Signed { task: TaskId([1; 16]), round, statement: Digest([2; 32]) }
    }

    #[test]
    fn on_a_full_disk_nothing_is_written_and_later_it_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DeviceStore::open(folder.path()).unwrap();
        store.sign(signed(1)).unwrap();
        assert!(store.check_written().is_ok());
        let must_be_free = store.free_space_floor();
        must_be_free(u64::MAX);
        let error = store.sign(signed(2)).unwrap_err();
        assert!(error.may_pass() && store.check_written().is_err(), "{error}");
        assert!(store.recover().unwrap_err().may_pass());
        assert_eq!(store.entries().len(), 1);
        must_be_free(0);
        store.recover().unwrap();
        store.sign(signed(2)).unwrap();
        assert!(store.check_written().is_ok());
        drop((store, must_be_free));
        assert_eq!(DeviceStore::open(folder.path()).unwrap().entries().len(), 2);
    }

    #[test]
    fn a_record_that_is_there_although_its_writing_seemed_to_fail_is_not_written_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DeviceStore::open(folder.path()).unwrap();
        store.answer(signed(1)).unwrap();
        // The ledger has it, and the state was never told.
        let entry = Entry::Answer(signed(2));
        store.ledger.append(&entry).unwrap();
        store.failed = Some(entry);
        assert!(store.check_written().is_err());
        store.recover().unwrap();
        assert_eq!(store.entries().len(), 2);
        store.append(Entry::Answer(signed(2))).unwrap();
        store.append(Entry::Answer(signed(3))).unwrap();
        drop(store);
        assert_eq!(DeviceStore::open(folder.path()).unwrap().entries().len(), 3);
        // One that is not there is written when it is wanted again.
        let mut store = DeviceStore::open(folder.path()).unwrap();
        store.failed = Some(Entry::Answer(signed(4)));
        store.recover().unwrap();
        store.append(Entry::Answer(signed(4))).unwrap();
        assert_eq!(store.entries().len(), 4);
    }
}
