//! Lists to which entries are added and never taken away: what was stated of devices, and whom to shut out.

use std::ops::Bound;

use proto::ids::{DeviceId, Digest};
use serde::{Deserialize, Serialize};
use shell::store::{Batch, Key, Store, StoreError};

const LIST: &str = "list";
const REVOCATIONS: &str = "revocations";
const ENDS: &str = "ends";

/// One thing that the authority did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// It stated that a device has a key.
    Stated {
        /// The device.
        device: DeviceId,
        /// Its key.
        identity: Digest,
        /// SHA-256 of its label.
        label: Digest,
        /// When.
        issued_unix_secs: u64,
        /// Until when it holds.
        expires_unix_secs: u64,
    },
    /// It revoked a device.
    Revoked {
        /// The device.
        device: DeviceId,
        /// When.
        at_unix_secs: u64,
    },
}

/// The lists, in a store. Whoever adds to them holds off everybody else from the reading of a batch to its commit.
#[derive(Debug)]
pub struct List {
    store: Store,
}

impl List {
    /// The lists of a store.
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Has a batch add an entry behind the last. A batch adds one at most.
    pub(super) fn append(&self, batch: &mut Batch, entry: &Entry) -> Result<(), StoreError> {
        self.append_to(LIST, batch, entry)
    }

    /// Has a batch add that a device was revoked, to both lists.
    pub(super) fn append_revoked(
        &self,
        batch: &mut Batch,
        device: DeviceId,
        at_unix_secs: u64,
    ) -> Result<(), StoreError> {
        self.append(batch, &Entry::Revoked { device, at_unix_secs })?;
        self.append_to(REVOCATIONS, batch, &device)
    }

    /// Devices that were revoked, from this place on, so many at most; where to go on, and whether there are more.
    pub(super) fn revoked_from(
        &self,
        from: u64,
        most: usize,
    ) -> Result<(Vec<DeviceId>, u64, bool), StoreError> {
        let end = self.end(REVOCATIONS)?;
        // Whoever asks from behind the end has seen another list: it is told of all of this one.
        let from = if from > end { 0 } else { from };
        let range = (Bound::Included(Key::from(from)), Bound::Unbounded);
        let items = self.store.scan::<DeviceId>(REVOCATIONS, range)?.take(most);
        let revoked = items.map(|item| Ok(item?.1)).collect::<Result<Vec<_>, StoreError>>()?;
        let next = from + revoked.len() as u64;
        Ok((revoked, next, next < end))
    }

    /// All entries, in order.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        self.store.scan_prefix::<Entry>(LIST, &Key::default())?.map(|item| Ok(item?.1)).collect()
    }

    fn append_to<T: Serialize>(
        &self,
        list: &'static str,
        batch: &mut Batch,
        entry: &T,
    ) -> Result<(), StoreError> {
        let end = self.end(list)?;
        batch.insert(list, end, entry)?;
        batch.put(ENDS, list, &(end + 1))?;
        Ok(())
    }

    fn end(&self, list: &'static str) -> Result<u64, StoreError> {
        Ok(self.store.get(ENDS, list)?.unwrap_or(0))
    }
}
