//! What a store lies on: framed records as bytes, in and out.
//!
//! An engine blocks. sled does, and a database is asked on a runtime of the engine's own, so that whoever may block can wait
//! for it, on a thread of any runtime or of none. What must not block goes through the async door of [`Store`](super::Store).

use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::feed::Feed;
use super::{Batch, StoreError};

/// A record with its key.
pub type Record = (Vec<u8>, Vec<u8>);

/// A record as it lies in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// The tree's name.
    pub tree: String,
    /// The key.
    pub key: Vec<u8>,
    /// The record, framed.
    pub record: Vec<u8>,
}

/// A part of a tree that is read next: from here to there.
pub type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Where a store is filled from: some records, none after the last, and nothing where it broke off.
pub type Source<'a> = dyn FnMut() -> Option<Vec<Raw>> + 'a;

/// Why a store was not filled.
#[derive(Debug)]
pub enum FillError {
    /// The engine failed.
    Store(StoreError),
    /// It has records already.
    NotEmpty,
    /// What it was filled from broke off.
    BrokeOff,
}

impl From<StoreError> for FillError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a store lies on. Every method may block.
///
/// Trees are made where they are written first, and one that nobody wrote is empty. The order of keys is that of their bytes.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Where it is, for people: a folder, or the address of a database without secrets.
    fn place(&self) -> PathBuf;

    /// The record under a key.
    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The first records of a range, at most so many, in the order of their keys. Nothing is held once it is answered.
    fn page(&self, tree: &str, range: Range<'_>, most: usize) -> Result<Vec<Record>, StoreError>;

    /// The names of all trees that may have records, in order.
    fn trees(&self) -> Result<Vec<String>, StoreError>;

    /// Gives all records by tree and key until `visit` breaks off. Where others write meanwhile, an engine that can shows all of
    /// one moment.
    fn all(&self, visit: &mut dyn FnMut(&Raw) -> ControlFlow<()>) -> Result<(), StoreError> {
        const AT_A_TIME: usize = 512;
        for tree in self.trees()? {
            let mut from = Bound::Unbounded;
            loop {
                let from_key = from.as_ref().map(Vec::as_slice);
                let page = self.page(&tree, (from_key, Bound::Unbounded), AT_A_TIME)?;
                let is_last = page.len() < AT_A_TIME;
                if let Some((key, _)) = page.last() {
                    from = Bound::Excluded(key.clone());
                }
                for (key, record) in page {
                    if visit(&Raw { tree: tree.clone(), key, record }).is_break() {
                        return Ok(());
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Makes a batch durable, or changes nothing. When this returns well, it outlives a power loss. Fails with
    /// [`StoreError::Conflict`] where something is not as the batch expects.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Puts records as they are into a store that has none, durably, and gives how many. Where it fails, a store that lies in
    /// files may have some of them: it is to be thrown away.
    fn fill(&self, source: &mut Source<'_>) -> Result<u64, FillError>;

    /// Fails while a commit would for want of room, or because nothing can be written.
    fn check_room(&self) -> Result<(), StoreError>;

    /// Changes how much must be free for a commit, so that a test can have a full disk. An engine that does not see its disk
    /// has no such floor.
    fn set_free_space_floor(&self, _bytes: u64) {}

    /// Whether a write failed half-way, so that nobody knows what is stored: then only a restart recovers.
    fn is_stopped(&self) -> bool;

    /// Milliseconds since 1970 by the one clock that all have who share the store. Never goes back for one that is open.
    fn now_millis(&self) -> Result<u64, StoreError>;

    /// Who is told of what was committed.
    fn feed(&self) -> &Feed;
}

/// A time that never goes back.
#[derive(Debug, Default)]
pub struct Forward(AtomicU64);

impl Forward {
    /// This time, or the latest that was given before.
    pub fn at(&self, millis: u64) -> u64 {
        self.0.fetch_max(millis, Ordering::AcqRel).max(millis)
    }
}

/// The next records of a range, which hold nothing between two pages.
#[derive(Debug)]
pub(super) struct Pages<E> {
    engine: E,
    tree: &'static str,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    page: std::vec::IntoIter<Record>,
    most: usize,
    is_over: bool,
}

impl<E: std::ops::Deref<Target = dyn Engine>> Pages<E> {
    const FIRST: usize = 32;
    const MOST: usize = 512;

    /// The pages of a range, of which the first is read.
    pub(super) fn new(
        engine: E,
        tree: &'static str,
        (from, to): (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> Result<Self, StoreError> {
        let is_over = is_empty(&from, &to);
        let page = Vec::new().into_iter();
        let mut pages = Self { engine, tree, from, to, page, most: Self::FIRST, is_over };
        pages.read()?;
        Ok(pages)
    }

    fn read(&mut self) -> Result<(), StoreError> {
        if self.is_over {
            return Ok(());
        }
        let range = (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice));
        let page = self.engine.page(self.tree, range, self.most)?;
        self.is_over = page.len() < self.most;
        if let Some((key, _)) = page.last() {
            self.from = Bound::Excluded(key.clone());
            self.is_over |= is_empty(&self.from, &self.to);
        }
        self.most = (self.most * 4).min(Self::MOST);
        self.page = page.into_iter();
        Ok(())
    }
}

impl<E: std::ops::Deref<Target = dyn Engine>> Iterator for Pages<E> {
    type Item = Result<Record, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.page.next() {
            return Some(Ok(record));
        }
        if let Err(error) = self.read() {
            self.is_over = true;
            return Some(Err(error));
        }
        self.page.next().map(Ok)
    }
}

/// Whether no key is in a range; engines are not asked then.
fn is_empty(from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
    }
}

/// The keys that begin with `prefix`.
pub(super) fn beginning_with(prefix: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut behind = prefix.to_vec();
    while behind.last() == Some(&u8::MAX) {
        behind.pop();
    }
    let to = match behind.last_mut() {
        None => Bound::Unbounded,
        Some(last) => {
            *last += 1;
            Bound::Excluded(behind)
        }
    };
    (Bound::Included(prefix.to_vec()), to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_begins_with_a_prefix_is_in_its_range_and_nothing_else(
            prefix in prop::collection::vec(prop_oneof![Just(0), Just(1), Just(254), Just(255)], 0..4),
            key in prop::collection::vec(prop_oneof![Just(0), Just(1), Just(254), Just(255)], 0..6),
        ) {
            let (from, to) = beginning_with(&prefix);
            let is_in = std::ops::RangeBounds::contains(&(from, to), &key);
            prop_assert_eq!(is_in, key.starts_with(&prefix));
        }
    }

    #[test]
    fn a_time_never_goes_back() {
        let forward = Forward::default();
        assert_eq!([5, 3, 7].map(|millis| forward.at(millis)), [5, 5, 7]);
    }
}
