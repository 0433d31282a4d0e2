//! What one commit changes, and what it expects to find.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{StoreError, frame};

/// A key whose order as bytes is the order of its parts: fixed-length bytes
/// and big-endian numbers, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// This key with bytes behind it. For an order by parts, all keys of one
    /// tree must have bytes of the same length here.
    #[must_use]
    pub fn and_bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// This key with a big-endian number behind it.
    #[must_use]
    pub fn and_u64(self, number: u64) -> Self {
        self.and_bytes(&number.to_be_bytes())
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Key {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<u64> for Key {
    fn from(number: u64) -> Self {
        Self::default().and_u64(number)
    }
}

/// Changes to any number of trees that happen together or not at all, each
/// possibly bound to what must be there before.
///
/// A later change of a key replaces an earlier one in the same batch.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: BTreeMap<(&'static str, Key), Step>,
}

/// What happens to one key.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// What must be there before.
    pub expected: Option<Expected>,
    /// What is there afterwards; as it is where nothing is written.
    pub write: Option<Write>,
}

/// What must be there before, or the whole batch is refused.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// This record, framed.
    Record(Vec<u8>),
}

/// What is there afterwards.
#[derive(Clone, Debug)]
pub enum Write {
    /// This record, framed.
    Put(Vec<u8>),
    /// Nothing.
    Remove,
}

impl Batch {
    /// A batch that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do and nothing to expect.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What happens to each key, by tree and key.
    pub fn steps(&self) -> impl Iterator<Item = (&'static str, &Key, &Step)> {
        self.changes.iter().map(|((tree, key), step)| (*tree, key, step))
    }

    /// Puts a value. Fails when its record would be over 4 KiB.
    pub fn put<T: Serialize>(
        &mut self,
        tree: &'static str,
        key: impl Into<Key>,
        value: &T,
    ) -> Result<&mut Self, StoreError> {
        let key = key.into();
        let record = encode(tree, &key, value)?;
        self.change(tree, key).write = Some(Write::Put(record));
        Ok(self)
    }

    /// Removes whatever is under the key.
    pub fn remove(&mut self, tree: &'static str, key: impl Into<Key>) -> &mut Self {
        self.change(tree, key.into()).write = Some(Write::Remove);
        self
    }

    /// Refuses the whole batch, at commit, when the key has a value.
    pub fn expect_absent(&mut self, tree: &'static str, key: impl Into<Key>) -> &mut Self {
        self.change(tree, key.into()).expected = Some(Expected::Absent);
        self
    }

    /// Refuses the whole batch, at commit, when the key has another value than
    /// this one or none. Values are compared as they are written, so the type
    /// must write the same value in the same way always (no hash maps).
    pub fn expect<T: Serialize>(
        &mut self,
        tree: &'static str,
        key: impl Into<Key>,
        value: &T,
    ) -> Result<&mut Self, StoreError> {
        let key = key.into();
        let record = encode(tree, &key, value)?;
        self.change(tree, key).expected = Some(Expected::Record(record));
        Ok(self)
    }

    /// Puts a value where there must be none yet.
    pub fn insert<T: Serialize>(
        &mut self,
        tree: &'static str,
        key: impl Into<Key>,
        value: &T,
    ) -> Result<&mut Self, StoreError> {
        let key = key.into();
        self.expect_absent(tree, key.clone());
        self.put(tree, key, value)
    }

    /// Compare-and-set: replaces `old` by `new`.
    pub fn replace<T: Serialize>(
        &mut self,
        tree: &'static str,
        key: impl Into<Key>,
        old: &T,
        new: &T,
    ) -> Result<&mut Self, StoreError> {
        let key = key.into();
        self.expect(tree, key.clone(), old)?;
        self.put(tree, key, new)
    }

    fn change(&mut self, tree: &'static str, key: Key) -> &mut Step {
        self.changes.entry((tree, key)).or_default()
    }
}

fn encode<T: Serialize>(tree: &'static str, key: &Key, value: &T) -> Result<Vec<u8>, StoreError> {
    let payload = serde_json::to_vec(value).map_err(|source| StoreError::Unwritable {
        tree: tree.to_owned(),
        key: hex::encode(key.as_bytes()),
        source,
    })?;
    frame::encode(tree, key.as_bytes(), &payload).ok_or_else(|| StoreError::TooLarge {
        tree: tree.to_owned(),
        key: hex::encode(key.as_bytes()),
        bytes: frame::OVERHEAD_BYTES + payload.len(),
        limit_bytes: frame::RECORD_LIMIT_BYTES,
    })
}
