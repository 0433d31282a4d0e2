//! The log of enrollments, as it is kept: each entry and the head over it in one transaction with what it says.
//!
//! | tree | key | record |
//! | --- | --- | --- |
//! | `enrollment log` | place, eight bytes, the highest first | a [`Leaf`]'s bytes, in hex |
//! | `enrollment head` | `head` | the last [`SignedHead`]'s text |
//! | `enrollment head` | `witnessed` | that of the last one that enough witnesses signed, where rounds are about such |
//! | `unlogged versions` | task ‖ version | a [`Leaf::Version`]'s bytes, in hex, until it is an entry |

use std::sync::{Mutex, MutexGuard, PoisonError};

use aggregation::log::{Book, BookError, EnrollmentLog, HeadError, Leaf, SignedHead, Witness};
use aggregation::{IdentityKey, IdentityPublic, Signature};
use proto::admin::VersionStatus;
use proto::ids::{DeviceId, Digest, TaskId};
use proto::message::LogPart;
use shell::store::{Batch, Key, Store, StoreError};

mod following;

pub use following::FollowError;

/// The tree of the entries.
pub const ENTRIES: &str = "enrollment log";
/// The tree of the last head.
pub const HEADS: &str = "enrollment head";
const HEAD: &str = "head";
const WITNESSED: &str = "witnessed";
/// The tree of versions that wait to be entries.
pub const UNLOGGED: &str = "unlogged versions";

/// Entries that are read at a time: half a MiB at most.
pub const MOST_ENTRIES: usize = 4096;

/// How old a head may get before the next is signed over the same entries, in seconds: half an hour. Devices take none that is
/// older than a day, or than two hours where their users want that.
const HEAD_SECS: u64 = 1800;

/// A log that cannot be read, or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry is missing, or is none.
    #[error(
        "entry {place} of the enrollment log is missing or damaged: devices will not go on from a log without it; restore \
         the state folder from a backup"
    )]
    Entry {
        /// Where.
        place: u64,
    },
    /// The head is not readable, or not this authority's.
    #[error(
        "the last head of the enrollment log: {0}; the log is of another enrollment key, or damaged: restore the state \
         folder from a backup"
    )]
    Head(#[from] HeadError),
    /// The head is not that of the entries.
    #[error("the enrollment log: {0}; entries were lost or changed: restore the state folder from a backup")]
    Book(#[from] BookError),
}

/// By which whoever has an authority's key finds a device in its log, and nobody else: a signature that is published nowhere is
/// as good as a secret.
pub fn label_tag(authority: &IdentityKey, label: &str) -> [u8; 16] {
    let Signature(secret) = authority.sign("label in the enrollment log", &[label.as_bytes()]);
    Digest::of(&secret).0.first_chunk().copied().unwrap_or_default()
}

/// Writes down that a version is to become an entry, in the transaction that makes it durable.
pub fn will_log(
    batch: &mut Batch,
    task: TaskId,
    (plan, version, roster): (Digest, &VersionStatus, Option<Digest>),
) -> Result<(), StoreError> {
    let leaf = Leaf::Version {
        task: task.0,
        version: version.version,
        plan: plan.0,
        adapter: version.adapter.0,
        roster: roster.map_or([0; 32], |root| root.0),
        survivors: version.survivors,
        unix_secs: version.committed_unix_millis / 1000,
    };
    batch.put(UNLOGGED, Key::from(task.0).and_u64(version.version.into()), &hex::encode(leaf.to_bytes()))?;
    Ok(())
}

/// Fails, with why, unless this is what is kept of an entry.
pub fn is_leaf(kept: &str) -> Result<(), String> {
    let leaf = hex::decode(kept).ok().and_then(|bytes| Leaf::from_bytes(&bytes));
    leaf.map(drop).ok_or_else(|| "no entry of an enrollment log".to_owned())
}

/// The log of an authority, or a copy of it.
#[derive(Debug)]
pub struct KeptLog {
    store: Store,
    authority: IdentityPublic,
    log: EnrollmentLog,
    /// Entries come one after another.
    turn: Mutex<()>,
    /// Whether those from before there was a log are entries.
    begun: Mutex<bool>,
}

impl KeptLog {
    /// Reads all of it. Fails where an entry is missing or the head is not that of the entries. Blocks.
    pub fn open(store: Store, authority: IdentityPublic) -> Result<Self, LogError> {
        let log = Self::read(store, authority, u64::MAX)?;
        let (size, signed) = {
            let book = log.log.read();
            (book.size(), book.head().map(|head| head.head().size))
        };
        match signed {
            // Each entry has a head of its own.
            Some(signed) if signed < size => Err(BookError::Other { size: signed }.into()),
            None if size > 0 => Err(HeadError::Written.into()),
            Some(_) | None => Ok(log),
        }
    }

    /// Reads what is kept of the log of an authority that is elsewhere, which [`KeptLog::follow`] brings up to date. Blocks.
    pub fn open_copy(store: Store, authority: IdentityPublic) -> Result<Self, LogError> {
        let head: Option<String> = store.get(HEADS, HEAD)?;
        let head = head.map(|text| SignedHead::parse(&text, &authority)).transpose()?;
        Self::read(store, authority, head.map_or(0, |head| head.head().size))
    }

    /// Reads so many entries at most, and the head.
    fn read(store: Store, authority: IdentityPublic, most: u64) -> Result<Self, LogError> {
        let mut book = Book::default();
        for item in store.scan_prefix::<String>(ENTRIES, &Key::default())? {
            let place = book.size();
            if place == most {
                break;
            }
            let damaged = LogError::Entry { place };
            let (key, leaf) = match item {
                Err(StoreError::Damaged { .. } | StoreError::Unreadable { .. }) => return Err(damaged),
                other => other?,
            };
            let leaf = hex::decode(leaf).ok().and_then(|bytes| Leaf::from_bytes(&bytes));
            match leaf.filter(|_| key == Key::default().and_u64(place)) {
                Some(leaf) => book.append(&leaf),
                None => return Err(damaged),
            };
        }
        if let Some(text) = store.get::<String>(HEADS, HEAD)? {
            book.set_head(SignedHead::parse(&text, &authority)?)?;
        }
        let (turn, begun) = (Mutex::default(), Mutex::default());
        Ok(Self { store, authority, log: EnrollmentLog::new(book), turn, begun })
    }

    /// Reads what a store holds of a log, whoever's it is, or of a copy of one, and fails as a start does that opens it; nothing where it
    /// holds none. Blocks.
    pub fn check(store: &Store, is_copy: bool) -> Result<(), LogError> {
        let head: Option<String> = store.get(HEADS, HEAD)?;
        match head {
            Some(text) => {
                let authority = SignedHead::signer(&text).ok_or(HeadError::Written)?;
                let open = if is_copy { Self::open_copy } else { Self::open };
                open(store.clone(), authority).map(drop)
            }
            // Entries that came of a log elsewhere, and their head did not.
            None if is_copy => Ok(()),
            None if store.scan_prefix::<String>(ENTRIES, &Key::default())?.next().is_some() => {
                Err(HeadError::Written.into())
            }
            None => Ok(()),
        }
    }

    /// The log, to be looked at.
    pub fn log(&self) -> EnrollmentLog {
        self.log.clone()
    }

    /// Has the entries made that are to be before all others, once; it is tried again by the next call where it failed. Others wait
    /// meanwhile. Blocks.
    pub fn once_begun<E>(&self, begin: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if !*begun {
            begin()?;
            *begun = true;
        }
        Ok(())
    }

    /// The turn to add an entry. Waits for others, who wait for the disk: for threads that may block.
    pub fn turn(&self) -> Turn<'_> {
        let guard = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { log: &self.log, place: self.log.read().size(), state: TurnState::Fresh, _guard: guard }
    }

    /// Writes that a device was shut out, together with what `write` adds to the batch and makes durable; nothing is written
    /// where it says that there was nothing to do. Blocks.
    pub fn revoke<E: From<StoreError>>(
        &self,
        device: DeviceId,
        authority: &IdentityKey,
        now_unix_secs: u64,
        write: impl FnOnce(Batch) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut turn = self.turn();
        let mut batch = Batch::new();
        let leaf = Leaf::Revocation { device: device.0, unix_secs: now_unix_secs };
        turn.write(&mut batch, &leaf, authority, now_unix_secs)?;
        let is_new = write(batch)?;
        if is_new {
            turn.kept();
        }
        Ok(is_new)
    }

    /// Takes what is new of the log of an authority that is elsewhere, of which this is a copy: all entries behind those that are
    /// here, and the head over them; durable when this returns. Fails, and keeps what is here, where the log is shorter than
    /// this, or on another branch. Blocks.
    pub fn follow(&self, entries: &[Vec<u8>], head: &str) -> Result<(), FollowError> {
        let _guard = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let head = SignedHead::parse(head, &self.authority)?;
        if self.log.read().head() == Some(&head) {
            return Ok(());
        }
        let mut book = self.log.read().clone();
        let (first, size) = (book.size(), head.head().size);
        if size < first {
            let is_prefix = book.tree().root(size) == Some(head.head().root);
            let here = first;
            return Err(if is_prefix {
                FollowError::Shorter { size, here }
            } else {
                FollowError::OtherBranch { size, here }
            });
        }
        for (place, entry) in (first..).zip(entries) {
            book.append(&Leaf::from_bytes(entry).ok_or(FollowError::Entry { place })?);
        }
        book.set_head(head.clone()).map_err(|error| match error {
            BookError::Short { size, have } => FollowError::Incomplete { size, have },
            BookError::Other { size } => FollowError::OtherBranch { size, here: first },
        })?;
        let parts: Vec<&[Vec<u8>]> = entries.chunks(MOST_ENTRIES).collect();
        for (number, part) in parts.iter().enumerate() {
            let mut batch = Batch::new();
            let place = first + (number * MOST_ENTRIES) as u64;
            for (place, entry) in (place..).zip(*part) {
                // What is beyond the head was not read: a copying broke off.
                batch.put(ENTRIES, Key::default().and_u64(place), &hex::encode(entry))?;
            }
            self.store.commit_blocking(&batch)?;
        }
        let mut batch = Batch::new();
        batch.put(HEADS, HEAD, &head.to_string())?;
        self.store.commit_blocking(&batch)?;
        *self.log.write() = book;
        Ok(())
    }

    /// Has a batch remove what a store keeps of a log's heads, so that a copy begins anew. Its entries are written over as they come.
    pub fn forget(store: &Store, batch: &mut Batch) -> Result<u64, StoreError> {
        for key in [HEAD, WITNESSED] {
            batch.remove(HEADS, key);
        }
        Ok(store.scan_prefix::<String>(ENTRIES, &Key::default())?.count() as u64)
    }

    /// Keeps what witnesses signed of a head; durable when this returns. Where enough of them did, rounds are about it from now on.
    /// Blocks.
    pub fn cosigned(&self, head: &SignedHead, is_enough: bool) -> Result<(), LogError> {
        let _guard = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newest = self.log.read().head().is_some_and(|newest| newest.head() == head.head());
        let mut batch = Batch::new();
        for (key, _) in [(HEAD, is_newest), (WITNESSED, is_enough)].iter().filter(|(_, so)| *so) {
            batch.put(HEADS, *key, &head.to_string())?;
        }
        if is_newest || is_enough {
            self.store.commit_blocking(&batch)?;
        }
        if is_newest {
            self.log.write().set_head(head.clone())?;
        }
        if is_enough {
            self.log.goes_by_witnessed(head.clone());
        }
        Ok(())
    }

    /// From now on rounds are about the last head that so many of these witnesses signed; about the newest where that is 0, or
    /// there is none yet. Blocks.
    pub fn go_by(&self, least: usize, witnesses: &[Witness]) -> Result<(), LogError> {
        if least == 0 {
            return Ok(());
        }
        let kept = self.store.get::<String>(HEADS, WITNESSED)?;
        let kept = kept.map(|text| SignedHead::parse(&text, &self.authority)).transpose()?;
        let newest = self.log.read().head().cloned();
        let is_one = |head: &SignedHead| {
            let root = self.log.read().tree().root(head.head().size);
            root == Some(head.head().root) && head.seen_by(witnesses) >= least
        };
        if let Some(head) = newest.into_iter().chain(kept).find(is_one) {
            self.log.goes_by_witnessed(head);
        }
        Ok(())
    }

    /// How many versions are to become entries. Blocks.
    pub fn count_waiting(&self) -> Result<u64, LogError> {
        Ok(self.store.scan_prefix::<serde::de::IgnoredAny>(UNLOGGED, &Key::default())?.count() as u64)
    }

    /// The versions that are to become entries, oldest of each task first. One whose record cannot be read is named and left
    /// where it is; one that is none is named and waits no more. Blocks.
    pub fn waiting_versions(&self) -> Result<Vec<(Key, Leaf)>, LogError> {
        let mut versions = Vec::new();
        for item in self.store.scan_prefix::<String>(UNLOGGED, &Key::default())? {
            let (key, leaf) = match item {
                Err(error @ (StoreError::Damaged { .. } | StoreError::Unreadable { .. })) => {
                    tracing::error!(%error, "a version does not become an entry of the enrollment log");
                    continue;
                }
                other => other?,
            };
            match hex::decode(leaf).ok().and_then(|bytes| Leaf::from_bytes(&bytes)) {
                Some(leaf @ Leaf::Version { .. }) => versions.push((key, leaf)),
                Some(Leaf::Credential { .. } | Leaf::Revocation { .. }) | None => {
                    tracing::error!("a version that was to become an entry of the enrollment log is damaged");
                    self.waits_no_more(key)?;
                }
            }
        }
        Ok(versions)
    }

    /// A version is an entry now, or never will be. Blocks.
    pub fn waits_no_more(&self, key: Key) -> Result<(), LogError> {
        let mut batch = Batch::new();
        batch.remove(UNLOGGED, key);
        Ok(self.store.commit_blocking(&batch)?)
    }

    /// Makes entries of the versions that are to become some, oldest of each task first; durable when this returns. Blocks.
    pub fn log_versions(&self, authority: &IdentityKey, now_unix_secs: u64) -> Result<(), LogError> {
        for (key, leaf) in self.waiting_versions()? {
            let mut batch = Batch::new();
            batch.remove(UNLOGGED, key);
            let mut turn = self.turn();
            turn.write(&mut batch, &leaf, authority, now_unix_secs)?;
            self.store.commit_blocking(&batch)?;
            turn.kept();
        }
        Ok(())
    }

    /// The head, and the entries from a place on, at most [`MOST_ENTRIES`] and none beyond the head. Blocks.
    pub fn part(&self, from: u64) -> Result<LogPart, LogError> {
        let Some(head) = self.log.published() else {
            return Err(LogError::Head(HeadError::Written));
        };
        let places = from..head.head().size.min(from.saturating_add(MOST_ENTRIES as u64));
        let entry = |place| -> Result<Vec<u8>, LogError> {
            let leaf: Option<String> = self.store.get(ENTRIES, Key::default().and_u64(place))?;
            leaf.and_then(|leaf| hex::decode(leaf).ok()).ok_or(LogError::Entry { place })
        };
        Ok(LogPart { head: head.to_string(), entries: places.map(entry).collect::<Result<_, _>>()? })
    }

    /// Signs a head over what is there, where the last one gets old, is of a time to come, or there is none; durable when this
    /// returns. Blocks.
    pub fn refresh(&self, authority: &IdentityKey, now_unix_secs: u64) -> Result<(), LogError> {
        let _guard = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = self.log.read().head().map(|head| head.head().unix_secs);
        // A head from the future was signed by a clock that has been mended: devices refuse it.
        let age = signed.and_then(|secs| now_unix_secs.checked_sub(secs));
        if age.is_some_and(|age| age < HEAD_SECS) {
            return Ok(());
        }
        let head = self.log.read().next_head(authority, now_unix_secs);
        let mut batch = Batch::new();
        batch.put(HEADS, HEAD, &head.to_string())?;
        self.store.commit_blocking(&batch)?;
        Ok(self.log.write().set_head(head)?)
    }
}

/// One entry on its way. What was written to no store, as far as [`Turn::kept`] was not called, is taken back.
#[derive(Debug)]
pub struct Turn<'a> {
    log: &'a EnrollmentLog,
    place: u64,
    state: TurnState,
    _guard: MutexGuard<'a, ()>,
}

#[derive(Debug)]
enum TurnState {
    Fresh,
    Written(SignedHead),
    Kept,
}

impl Turn<'_> {
    /// Where the entry will be.
    pub const fn place(&self) -> u64 {
        self.place
    }

    /// Adds the entry, and the head over it, to a batch, once.
    pub fn write(
        &mut self,
        batch: &mut Batch,
        leaf: &Leaf,
        authority: &IdentityKey,
        now_unix_secs: u64,
    ) -> Result<(), StoreError> {
        batch.insert(ENTRIES, Key::default().and_u64(self.place), &hex::encode(leaf.to_bytes()))?;
        let mut book = self.log.write();
        book.append(leaf);
        let head = book.next_head(authority, now_unix_secs);
        drop(book);
        batch.put(HEADS, HEAD, &head.to_string())?;
        self.state = TurnState::Written(head);
        Ok(())
    }

    /// The batch is durable: the head is the log's.
    pub fn kept(mut self) {
        if let TurnState::Written(head) = std::mem::replace(&mut self.state, TurnState::Kept)
            && let Err(error) = self.log.write().set_head(head)
        {
            // It was made over these very entries.
            tracing::error!(%error, "the head of the enrollment log");
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if matches!(self.state, TurnState::Written(_)) {
            self.log.write().take_back();
        }
    }
}

#[cfg(test)]
mod tests;
