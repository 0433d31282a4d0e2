//! A store in memory: for tests and simulations, and for what need not outlive its process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::clock::Clock;
use super::engine::{Engine, FillError, Range, Record, Source};
use super::feed::Feed;
use super::{Batch, Expected, StoreError, Write};

/// What is free in memory, as far as a floor is concerned.
const FREE_BYTES: u64 = 1 << 40;

type Trees = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Records in memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    trees: RwLock<Trees>,
    clock: Clock,
    feed: Feed,
    floor_bytes: AtomicU64,
}

impl Memory {
    fn read(&self) -> RwLockReadGuard<'_, Trees> {
        // A batch is looked at before any of it is written, and writing cannot fail.
        self.trees.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Trees> {
        self.trees.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Memory {
    fn place(&self) -> PathBuf {
        PathBuf::from("memory")
    }

    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read().get(tree).and_then(|records| records.get(key)).cloned())
    }

    fn page(&self, tree: &str, range: Range<'_>, most: usize) -> Result<Vec<Record>, StoreError> {
        let trees = self.read();
        let Some(records) = trees.get(tree) else { return Ok(Vec::new()) };
        let page = records.range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>(range).take(most);
        Ok(page.map(|(key, record)| (key.clone(), record.clone())).collect())
    }

    fn trees(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.read().keys().cloned().collect())
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.check_room()?;
        let mut trees = self.write();
        for (tree, key, step) in batch.steps() {
            let found = trees.get(tree).and_then(|records| records.get(key.as_bytes()));
            let holds = match &step.expected {
                None => true,
                Some(Expected::Absent) => found.is_none(),
                Some(Expected::Record(record)) => found == Some(record),
            };
            if !holds {
                return Err(StoreError::conflict(tree, key.as_bytes()));
            }
        }
        for (tree, key, step) in batch.steps() {
            match &step.write {
                None => {}
                Some(Write::Put(record)) => {
                    let records = trees.entry(tree.to_owned()).or_default();
                    records.insert(key.as_bytes().to_vec(), record.clone());
                }
                Some(Write::Remove) => {
                    if let Some(records) = trees.get_mut(tree) {
                        records.remove(key.as_bytes());
                    }
                }
            }
        }
        // In the order of the commits.
        self.feed.committed(batch);
        Ok(())
    }

    fn fill(&self, source: &mut Source<'_>) -> Result<u64, FillError> {
        self.check_room()?;
        let mut filled = Trees::new();
        let mut count = 0;
        loop {
            let records = source().ok_or(FillError::BrokeOff)?;
            if records.is_empty() {
                break;
            }
            for raw in records {
                filled.entry(raw.tree).or_default().insert(raw.key, raw.record);
                count += 1;
            }
        }
        let mut trees = self.write();
        if trees.values().any(|records| !records.is_empty()) {
            return Err(FillError::NotEmpty);
        }
        *trees = filled;
        Ok(count)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        let floor_bytes = self.floor_bytes.load(Ordering::Acquire);
        if floor_bytes <= FREE_BYTES {
            return Ok(());
        }
        Err(StoreError::DiskFull { path: self.place(), free_bytes: FREE_BYTES, floor_bytes })
    }

    fn set_free_space_floor(&self, bytes: u64) {
        self.floor_bytes.store(bytes, Ordering::Release);
    }

    fn is_stopped(&self) -> bool {
        false
    }

    fn now_millis(&self) -> Result<u64, StoreError> {
        Ok(self.clock.now_millis())
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }
}
