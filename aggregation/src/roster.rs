//! The cohort of one session, in an order that everybody agrees on.

use std::{collections::BTreeSet, sync::Arc};

use thiserror::Error;

use crate::{
    advertisement::Advertisement,
    graph::{Graph, MAX_COMPLETE, MAX_DRAWS},
    index::DeviceIndex,
    merkle,
};

/// The advertisements of a cohort, sorted by device, and who shares with whom.
///
/// A device checks for itself the advertisements of its neighbours, and the
/// credentials of those whose signatures it counts. A copy is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    entries: Entries,
    graph: Graph,
    root: [u8; 32],
}

/// Why advertisements are not a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RosterError {
    /// There are too few, or too many.
    #[error("a roster of {got} devices, expected {least} to {most}")]
    Size {
        /// The devices there are.
        got: usize,
        /// The fewest.
        least: usize,
        /// The most.
        most: usize,
    },
    /// Two entries are of one device.
    #[error("a device is in the roster twice")]
    RepeatedDevice,
    /// Two entries have one identity key.
    #[error("an identity key is in the roster twice")]
    RepeatedIdentity,
    /// A one-time key is used twice, by two devices or for two purposes.
    #[error("a one-time key is in the roster twice")]
    RepeatedKey,
    /// So many may be corrupt or missing that no number of neighbours does.
    #[error("{got} devices of which so many may be corrupt or missing have no graph")]
    NoGraph {
        /// The devices there are.
        got: usize,
    },
    /// The session has had as many draws as it may.
    #[error("the session has had all its {MAX_DRAWS} draws of a graph")]
    DrawsSpent,
    /// There are more or fewer nonces than devices.
    #[error("{got} nonces for the draw, expected {expected}")]
    Nonces {
        /// The nonces there are.
        got: usize,
        /// The devices.
        expected: usize,
    },
    /// A nonce is not what its device committed to.
    #[error("the nonce of device {index} is not what it committed to for this draw")]
    Nonce {
        /// The place of the device.
        index: DeviceIndex,
    },
}

impl Roster {
    /// The roster of these advertisements, in any order, over the complete
    /// graph. Fails if there are none or more than [`MAX_COMPLETE`], or if a
    /// device or a key is repeated. The roster of more devices comes from a
    /// [`Draw`].
    ///
    /// [`Draw`]: crate::Draw
    pub fn new(entries: Vec<Advertisement>) -> Result<Self, RosterError> {
        let got = entries.len();
        let size = RosterError::Size { got, least: 1, most: MAX_COMPLETE };
        let graph = Graph::complete(got).ok_or(size)?;
        let entries = Entries::new(entries)?;
        Ok(Self { root: entries.root(), entries, graph })
    }

    pub(crate) const fn drawn(entries: Entries, graph: Graph, root: [u8; 32]) -> Self {
        Self { entries, graph, root }
    }

    /// What stands for all of the roster: the Merkle root over its entries,
    /// for a drawn one hashed with the number of the draw. The graph follows
    /// from it, since the entries hold the commitments to its nonces.
    pub const fn root(&self) -> [u8; 32] {
        self.root
    }

    /// The place of a device.
    pub fn index_of(&self, device: &[u8; 16]) -> Option<DeviceIndex> {
        self.entries.index_of(device)
    }

    /// The entry in a place.
    pub fn entry(&self, index: impl Into<DeviceIndex>) -> Option<&Advertisement> {
        self.entries().get(usize::from(index.into()))
    }

    /// All entries; an entry's position is its place.
    pub fn entries(&self) -> &[Advertisement] {
        self.entries.as_slice()
    }

    /// The devices in the roster, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a roster is never empty")]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether its graph was drawn: whether it is not the complete one.
    pub fn is_drawn(&self) -> bool {
        self.graph.is_ring()
    }

    /// Who shares with whom.
    pub const fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Fewest shares that rebuild a seed.
    pub fn threshold(&self) -> usize {
        self.graph.threshold()
    }
}

/// Advertisements of different devices with different keys, sorted by device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    sorted: Arc<[Advertisement]>,
    root: [u8; 32],
}

impl Entries {
    /// Fails if a device or a key is repeated.
    pub(crate) fn new(mut entries: Vec<Advertisement>) -> Result<Self, RosterError> {
        entries.sort_by_key(|entry| entry.credential.device);
        let mut devices = BTreeSet::new();
        let mut identities = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for entry in &entries {
            if !devices.insert(entry.credential.device) {
                return Err(RosterError::RepeatedDevice);
            }
            if !identities.insert(entry.credential.identity) {
                return Err(RosterError::RepeatedIdentity);
            }
            if !keys.insert(entry.masking_key) || !keys.insert(entry.sealing_key) {
                return Err(RosterError::RepeatedKey);
            }
        }
        let leaves: Vec<Vec<u8>> = entries.iter().map(Advertisement::to_leaf).collect();
        Ok(Self { root: merkle::root(&leaves), sorted: entries.into() })
    }

    pub(crate) const fn root(&self) -> [u8; 32] {
        self.root
    }

    pub(crate) fn as_slice(&self) -> &[Advertisement] {
        &self.sorted
    }

    pub(crate) fn index_of(&self, device: &[u8; 16]) -> Option<DeviceIndex> {
        let place = self.sorted.binary_search_by_key(device, |entry| entry.credential.device);
        u16::try_from(place.ok()?).ok().map(DeviceIndex::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credential::{Credential, Logged},
        identity::{IdentityPublic, Signature},
    };

    const LOGGED: Logged = Logged { place: 1, enrolled_unix_secs: 2, label: [3; 16], attested: [4; 32] };

    fn entry(id: u8) -> Advertisement {
        Advertisement {
            credential: Credential {
                device: [id; 16],
                identity: IdentityPublic([id; 32]),
                expires_unix_secs: 0,
                logged: None,
                signature: Signature([0; 64]),
            },
            masking_key: [id; 32],
            sealing_key: [id ^ 0x80; 32],
            key_commitment: [0; 32],
            self_commitment: [0; 32],
            draw_commitment: [0; 32],
            signature: Signature([0; 64]),
        }
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let one = Roster::new(vec![entry(3), entry(1), entry(2)]).unwrap();
        let other = Roster::new(vec![entry(1), entry(2), entry(3)]).unwrap();
        assert_eq!(one.root(), other.root());
        assert_eq!(one.index_of(&[3; 16]), Some(2.into()));
        assert_eq!(one.index_of(&[4; 16]), None);
        assert_eq!(one.threshold(), 2);
    }

    #[test]
    fn a_repeated_device_or_key_is_refused() {
        let with = |change: fn(&mut Advertisement)| {
            let mut second = entry(2);
            change(&mut second);
            Roster::new(vec![entry(1), second])
        };
        let device = with(|entry| entry.credential.device = [1; 16]);
        assert_eq!(device, Err(RosterError::RepeatedDevice));
        let identity = with(|entry| entry.credential.identity = IdentityPublic([1; 32]));
        assert_eq!(identity, Err(RosterError::RepeatedIdentity));
        let key = with(|entry| entry.masking_key = [1; 32]);
        assert_eq!(key, Err(RosterError::RepeatedKey));
        let crossed = with(|entry| entry.sealing_key = [1; 32]);
        assert_eq!(crossed, Err(RosterError::RepeatedKey));
    }

    #[test]
    fn an_empty_or_too_large_cohort_is_refused() {
        let size = |got| Err(RosterError::Size { got, least: 1, most: 256 });
        assert_eq!(Roster::new(vec![]), size(0));
        assert_eq!(Roster::new(vec![entry(1); MAX_COMPLETE + 1]), size(257));
    }

    #[test]
    fn every_part_of_an_entry_is_in_the_root() {
        let root = |change: fn(&mut Advertisement)| {
            let mut changed = entry(1);
            change(&mut changed);
            Roster::new(vec![changed]).unwrap().root()
        };
        let roots = BTreeSet::from([
            root(|_| {}),
            root(|entry| entry.credential.device = [9; 16]),
            root(|entry| entry.credential.identity = IdentityPublic([9; 32])),
            root(|entry| entry.credential.expires_unix_secs = 9),
            root(|entry| entry.credential.logged = Some(LOGGED)),
            root(|entry| entry.credential.logged = Some(Logged { place: 9, ..LOGGED })),
            root(|entry| entry.credential.logged = Some(Logged { enrolled_unix_secs: 9, ..LOGGED })),
            root(|entry| entry.credential.logged = Some(Logged { label: [9; 16], ..LOGGED })),
            root(|entry| entry.credential.logged = Some(Logged { attested: [9; 32], ..LOGGED })),
            root(|entry| entry.credential.signature = Signature([9; 64])),
            root(|entry| entry.masking_key = [9; 32]),
            root(|entry| entry.sealing_key = [9; 32]),
            root(|entry| entry.key_commitment = [9; 32]),
            root(|entry| entry.self_commitment = [9; 32]),
            root(|entry| entry.draw_commitment = [9; 32]),
            root(|entry| entry.signature = Signature([9; 64])),
        ]);
        assert_eq!(roots.len(), 16);
    }
}
