//! Whom to shut out, in the order in which it was said: a list to which devices are added and never taken away.

use proto::ids::{DeviceId, Digest};
use shell::store::{Batch, Key, Store, StoreError};

const REVOCATIONS: &str = "revocations";
const ENDS: &str = "ends";

/// The bits of a place in which there is how many devices are before it.
const COUNT: u64 = u32::MAX as u64;

/// Where a list goes on behind these devices: how many they are, and above that 32 bits of the hash of them all. A list that came
/// back from a backup and grew again has other places, so whoever read the one from before skips nothing.
fn place(read: &[DeviceId]) -> u64 {
    if read.is_empty() {
        return 0;
    }
    let all: Vec<u8> = read.iter().flat_map(|device| device.0).collect();
    let [a, b, c, d, ..] = Digest::of(&all).0;
    u64::from(u32::from_be_bytes([a, b, c, d])) << 32 | (read.len() as u64 & COUNT)
}

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

    /// Devices that were revoked, behind where whoever asks has read to, so many at most; where to go on, and whether there are
    /// more. Whoever has read another list than this is told of all of it.
    pub(super) fn revoked_from(
        &self,
        from: u64,
        most: usize,
    ) -> Result<(Vec<DeviceId>, u64, bool), StoreError> {
        let all = self.store.scan_prefix::<DeviceId>(REVOCATIONS, &Key::default())?;
        let all = all.map(|item| Ok(item?.1)).collect::<Result<Vec<_>, StoreError>>()?;
        let read = usize::try_from(from & COUNT).ok().and_then(|count| all.get(..count));
        let read = read.filter(|read| place(read) == from).map_or(0, <[DeviceId]>::len);
        let next = all.len().min(read.saturating_add(most));
        let (told, all_told) = (all.get(read..next).unwrap_or_default(), all.get(..next).unwrap_or_default());
        Ok((told.to_vec(), place(all_told), next < all.len()))
    }

    fn end(&self) -> Result<u64, StoreError> {
        Ok(self.store.get(ENDS, REVOCATIONS)?.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(list: &List, id: u8) {
        let mut batch = Batch::new();
        list.append_revoked(&mut batch, DeviceId([id; 16])).unwrap();
        list.store.commit_blocking(&batch).unwrap();
    }

    #[test]
    fn a_list_that_came_back_from_a_backup_and_grew_again_is_read_from_its_beginning() {
        let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [list, restored] = [&folder, &backup].map(|at| List::new(Store::open(at.path()).unwrap()));
        for id in [1, 2, 3] {
            add(&list, id);
        }
        let ids = |list: &List, from, most| {
            let (devices, next, more) = list.revoked_from(from, most).unwrap();
            (devices.iter().map(|device| device.0[0]).collect::<Vec<_>>(), next, more)
        };
        let (first, on, more) = ids(&list, 0, 2);
        assert_eq!((first, more), (vec![1, 2], true));
        let (second, end, more) = ids(&list, on, 2);
        assert_eq!((second, more), (vec![3], false));
        assert_eq!(ids(&list, end, 2), (vec![], end, false));
        // It grew to as many, and to more, with another one in the middle.
        for id in [1, 9, 3] {
            add(&restored, id);
        }
        assert_eq!(ids(&restored, end, 9).0, [1, 9, 3]);
        add(&restored, 4);
        assert_eq!(ids(&restored, end, 9).0, [1, 9, 3, 4]);
        assert_eq!(ids(&restored, on, 9).0, [1, 9, 3, 4]);
        // A count alone is that of an authority from before.
        assert_eq!(ids(&list, 3, 9).0, [1, 2, 3]);
    }
}
