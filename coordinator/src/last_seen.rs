//! When each device called last, and by which program: in memory, and written down now and then.
//!
//! A call costs a look into a map, and no write. What has changed is written every [`WRITTEN_EVERY_SECS`], many devices in one
//! transaction, and once more when the coordinator stops; after a crash a device was seen when it was last written down. There
//! are no more entries than devices that ever enrolled.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::ids::DeviceId;
use serde::{Deserialize, Serialize};
use shell::store::{Batch, Key, Store, StoreError};

/// The tree in which it is kept, by device.
pub(crate) const TREE: &str = "seen";

/// How often what has changed is written down, in seconds.
pub const WRITTEN_EVERY_SECS: u64 = 300;

/// Devices in one transaction.
const DEVICES_A_COMMIT: usize = 1_000;

/// The longest name of a program that is kept, in bytes.
const LONGEST_CLIENT: usize = 64;

/// What is kept of a device's last call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it was.
    pub at_unix_secs: u64,
    /// The program by which it called, as that says of itself; empty where it does not.
    pub client: String,
}

#[derive(Clone, Debug)]
struct Entry {
    seen: Seen,
    is_written: bool,
}

/// When each device called last.
#[derive(Debug, Default)]
pub struct LastSeen {
    devices: Mutex<BTreeMap<DeviceId, Entry>>,
}

impl LastSeen {
    /// Reads what was written down. A record that is damaged is of a device that nobody saw.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let mut devices = BTreeMap::new();
        for item in store.scan_prefix::<Seen>(TREE, &Key::default())? {
            match item {
                Ok((key, seen)) => {
                    if let Ok(id) = key.as_bytes().try_into() {
                        devices.insert(DeviceId(id), Entry { seen, is_written: true });
                    }
                }
                Err(StoreError::Damaged { .. } | StoreError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { devices: Mutex::new(devices) })
    }

    /// A device that is enrolled has called, by a program that says this of itself.
    pub fn saw(&self, device: DeviceId, client: &str, now_unix_secs: u64) {
        let mut devices = self.lock();
        let new = || Entry { seen: Seen::default(), is_written: false };
        let entry = devices.entry(device).or_insert_with(new);
        let is_other = !is_same(&entry.seen.client, client);
        if entry.seen.at_unix_secs >= now_unix_secs && !is_other {
            return;
        }
        entry.seen.at_unix_secs = entry.seen.at_unix_secs.max(now_unix_secs);
        if is_other {
            entry.seen.client = kept(client).collect();
        }
        entry.is_written = false;
    }

    /// When a device called last; nothing where nobody knows.
    pub fn of(&self, device: DeviceId) -> Seen {
        self.lock().get(&device).map(|entry| entry.seen.clone()).unwrap_or_default()
    }

    /// When any device called last; 0 where none did.
    pub fn newest_unix_secs(&self) -> u64 {
        self.lock().values().map(|entry| entry.seen.at_unix_secs).max().unwrap_or(0)
    }

    /// Writes down what has changed since it was written last. What the disk does not take is written the next time.
    pub async fn write(&self, store: &Store) -> Result<(), StoreError> {
        loop {
            let mut batch = Batch::new();
            let due: Vec<(DeviceId, Seen)> = {
                let devices = self.lock();
                let due = devices.iter().filter(|(_, entry)| !entry.is_written);
                due.take(DEVICES_A_COMMIT).map(|(device, entry)| (*device, entry.seen.clone())).collect()
            };
            if due.is_empty() {
                return Ok(());
            }
            for (device, seen) in &due {
                batch.put(TREE, device.0, seen)?;
            }
            store.commit(batch).await?;
            let mut devices = self.lock();
            for (device, seen) in due {
                if let Some(entry) = devices.get_mut(&device) {
                    // It may have called again meanwhile.
                    entry.is_written = entry.seen == seen;
                }
            }
            if devices.values().filter(|entry| !entry.is_written).count() < DEVICES_A_COMMIT {
                return Ok(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Entry>> {
        // A map is whole after each change.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept of a name that a program gives itself: visible ASCII, and not all of a long one.
fn kept(client: &str) -> impl Iterator<Item = char> + '_ {
    client.chars().filter(char::is_ascii_graphic).take(LONGEST_CLIENT)
}

fn is_same(known: &str, client: &str) -> bool {
    known.chars().eq(kept(client))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DeviceId = DeviceId([1; 16]);
    const B: DeviceId = DeviceId([2; 16]);

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart_and_what_came_later_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let seen = LastSeen::open(&store).unwrap();
        assert_eq!((seen.of(A), seen.newest_unix_secs()), (Seen::default(), 0));
        seen.saw(A, "nightshift/1.2.3", 10);
        seen.saw(B, "", 12);
        seen.write(&store).await.unwrap();
        seen.saw(A, "nightshift/1.2.3", 20);
        assert_eq!(seen.of(A).at_unix_secs, 20);

        let again = LastSeen::open(&store).unwrap();
        assert_eq!(again.of(A), Seen { at_unix_secs: 10, client: "nightshift/1.2.3".into() });
        assert_eq!(again.newest_unix_secs(), 12);
        // A clock that went back takes nothing away, and another program is told at once.
        again.saw(B, "nightshift/2", 5);
        assert_eq!(again.of(B), Seen { at_unix_secs: 12, client: "nightshift/2".into() });
    }

    #[tokio::test]
    async fn a_full_disk_loses_nothing_that_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let seen = LastSeen::open(&store).unwrap();
        for id in 0..2_500_u16 {
            let mut device = [0; 16];
            device[..2].copy_from_slice(&id.to_be_bytes());
            seen.saw(DeviceId(device), "nightshift/1", 7);
        }
        store.set_free_space_floor(u64::MAX);
        assert!(matches!(seen.write(&store).await, Err(StoreError::DiskFull { .. })));
        store.set_free_space_floor(0);
        // Less than a whole transaction may wait for the next time.
        seen.write(&store).await.unwrap();
        seen.write(&store).await.unwrap();
        let again = LastSeen::open(&store).unwrap();
        assert_eq!(again.lock().len(), 2_500);
    }

    #[test]
    fn a_name_that_would_order_a_terminal_is_kept_without_that() {
        let seen = LastSeen::default();
        seen.saw(A, &format!("a\u{1b}[2J b\n{}", "x".repeat(100)), 1);
        let client = seen.of(A).client;
        assert!(client.starts_with("a[2Jbxx") && client.len() == LONGEST_CLIENT, "{client}");
        let before = seen.lock()[&A].is_written;
        seen.saw(A, &format!("a\u{1b}[2J b\n{}", "x".repeat(100)), 1);
        assert_eq!(seen.lock()[&A].is_written, before);
    }
}
