//! The log on the side of whoever keeps it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use thiserror::Error;

use super::{Head, Leaf, SignedHead, Tree};
use crate::{advertisement::Advertisement, credential::Credential, identity::IdentityKey, merkle::TreeHash};

/// All of a log, in memory: its tree, who enrolled, and its last head.
///
/// An authority's own, or a copy of it from which a coordinator answers. What
/// is durable is the caller's to keep.
#[derive(Clone, Debug, Default)]
pub struct Book {
    tree: Tree,
    /// When each device enrolled first, in seconds since 1970.
    devices: HashMap<[u8; 16], u64>,
    /// The device of the last entry, where it is new by it.
    newest: Option<[u8; 16]>,
    head: Option<SignedHead>,
}

/// Why a head is not one of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BookError {
    /// It is about more leaves than there are.
    #[error("the head is over {size} leaves, {have} are here")]
    Short {
        /// Those of the head.
        size: u64,
        /// Those that there are.
        have: u64,
    },
    /// The leaves that there are have another root, or another number of devices.
    #[error("the head is not that of the {size} leaves that are here")]
    Other {
        /// The leaves of the head.
        size: u64,
    },
}

impl Book {
    /// Adds an entry at the end. Returns its place.
    pub fn append(&mut self, leaf: &Leaf) -> u64 {
        let place = self.tree.size();
        self.newest = match leaf {
            Leaf::Credential { device, enrolled_unix_secs, .. } => match self.devices.entry(*device) {
                Entry::Vacant(new) => {
                    new.insert(*enrolled_unix_secs);
                    Some(*device)
                }
                Entry::Occupied(_) => None,
            },
            Leaf::Revocation { .. } | Leaf::Version { .. } => None,
        };
        self.tree.append(leaf.hash());
        place
    }

    /// Takes the last entry back, which could not be kept. What is below a head stays, and only one entry can be taken back
    /// after another was added.
    pub fn take_back(&mut self) {
        let last = self.tree.size().saturating_sub(1);
        let below = self.head.as_ref().map_or(0, |head| head.head().size);
        if last >= below && last < self.tree.size() {
            self.tree.truncate(last);
            if let Some(device) = self.newest.take() {
                self.devices.remove(&device);
            }
        }
    }

    /// The entries there are.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The devices that ever enrolled.
    pub fn devices(&self) -> u64 {
        self.devices.len() as u64
    }

    /// Those of them that enrolled first at this second or later, by what their entries say.
    pub fn enrolled_since(&self, unix_secs: u64) -> u64 {
        self.devices.values().filter(|enrolled| **enrolled >= unix_secs).count() as u64
    }

    /// The last head, if there is one.
    pub const fn head(&self) -> Option<&SignedHead> {
        self.head.as_ref()
    }

    /// A head over all that is here, after the last one: not its head yet.
    pub fn next_head(&self, authority: &IdentityKey, now_unix_secs: u64) -> SignedHead {
        let before = self.head.as_ref().map(SignedHead::head);
        let head = Head {
            size: self.tree.size(),
            root: self.tree.root(self.tree.size()).unwrap_or_default(),
            devices: self.devices(),
            // As the clock says: one that was ahead and is right again would keep heads in the future else.
            unix_secs: now_unix_secs,
            previous: before.map_or([0; 32], Head::digest),
        };
        head.sign(authority)
    }

    /// Signs a head over all that is here, which is the last one now.
    pub fn sign(&mut self, authority: &IdentityKey, now_unix_secs: u64) {
        self.head = Some(self.next_head(authority, now_unix_secs));
    }

    /// Takes this as the last head. Fails unless it is over what is here; the number of devices is looked at where
    /// it is over all that is here.
    pub fn set_head(&mut self, head: SignedHead) -> Result<(), BookError> {
        let Head { size, root, devices, .. } = *head.head();
        let Some(own) = self.tree.root(size) else {
            return Err(BookError::Short { size, have: self.tree.size() });
        };
        if own != root || (size == self.tree.size() && devices != self.devices()) {
            return Err(BookError::Other { size });
        }
        self.head = Some(head);
        Ok(())
    }

    /// The tree, for proofs.
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether a credential is a leaf, and below the head.
    pub fn has(&self, credential: &Credential, head: &Head) -> bool {
        let Some((place, leaf)) = credential.leaf() else { return false };
        place < head.size && self.tree.leaf(place) == Some(&leaf.hash())
    }

    /// What shows that all these are below the head ([`Watch::check_listed`](super::Watch::check_listed)), if they are.
    pub fn list(&self, entries: &[Advertisement], head: &Head) -> Option<Vec<TreeHash>> {
        let mut places: Vec<u64> = entries
            .iter()
            .map(|entry| Some(entry.credential.logged.as_ref()?.place))
            .collect::<Option<_>>()?;
        places.sort_unstable();
        self.tree.inclusions(&places, head.size)
    }
}
