//! Whom to shut out, in the order in which it was said: a list to which devices are added and never taken away.

use std::ops::Bound;

use proto::ids::DeviceId;
use shell::store::{Batch, Key, Store, StoreError};

const REVOCATIONS: &str = "revocations";
const ENDS: &str = "ends";

/// The list, in a store. Whoever adds to it holds off everybody else from the reading of a batch to its commit.
#[derive(Debug)]
pub struct List {
    store: Store,
}

impl List {
    /// The list of a store.
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Has a batch add a device behind the last. A batch adds one at most.
    pub(super) fn append_revoked(&self, batch: &mut Batch, device: DeviceId) -> Result<(), StoreError> {
        let end = self.end()?;
        batch.insert(REVOCATIONS, end, &device)?;
        batch.put(ENDS, REVOCATIONS, &(end + 1))?;
        Ok(())
    }

    /// Devices that were revoked, from this place on, so many at most; where to go on, and whether there are more.
    pub(super) fn revoked_from(
        &self,
        from: u64,
        most: usize,
    ) -> Result<(Vec<DeviceId>, u64, bool), StoreError> {
        let end = self.end()?;
        // Whoever asks from behind the end has seen another list: it is told of all of this one.
        let from = if from > end { 0 } else { from };
        let range = (Bound::Included(Key::from(from)), Bound::Unbounded);
        let items = self.store.scan::<DeviceId>(REVOCATIONS, range)?.take(most);
        let revoked = items.map(|item| Ok(item?.1)).collect::<Result<Vec<_>, StoreError>>()?;
        let next = from + revoked.len() as u64;
        Ok((revoked, next, next < end))
    }

    fn end(&self) -> Result<u64, StoreError> {
        Ok(self.store.get(ENDS, REVOCATIONS)?.unwrap_or(0))
    }
}
