//! The cohort of one session, in an order that everybody agrees on.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::{
    advertisement::Advertisement,
    graph::{Graph, MAX_COHORT},
    index::DeviceIndex,
    merkle,
};

/// The advertisements of a cohort, sorted by device.
///
/// That each of them holds is checked by every device for itself; see
/// [`Advertisement::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    entries: Vec<Advertisement>,
    graph: Graph,
    root: [u8; 32],
}

/// Why advertisements are not a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RosterError {
    /// There are none, or too many.
    #[error("a roster of {got} devices, expected 1 to {MAX_COHORT}")]
    Size {
        /// The devices there are.
        got: usize,
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
}

impl Roster {
    /// The roster of these advertisements, in any order. Fails if there are
    /// none or more than [`MAX_COHORT`], or if a device or a key is repeated.
    pub fn new(mut entries: Vec<Advertisement>) -> Result<Self, RosterError> {
        let got = entries.len();
        let graph = Graph::complete(got).ok_or(RosterError::Size { got })?;
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
        Ok(Self { root: merkle::root(&leaves), entries, graph })
    }

    /// The Merkle root over the entries.
    pub const fn root(&self) -> [u8; 32] {
        self.root
    }

    /// The place of a device.
    pub fn index_of(&self, device: &[u8; 16]) -> Option<DeviceIndex> {
        let place = self.entries.binary_search_by_key(device, |entry| entry.credential.device);
        u16::try_from(place.ok()?).ok().map(DeviceIndex::from)
    }

    /// The entry in a place.
    pub fn entry(&self, index: impl Into<DeviceIndex>) -> Option<&Advertisement> {
        self.entries.get(usize::from(index.into()))
    }

    /// All entries; an entry's position is its place.
    pub fn entries(&self) -> &[Advertisement] {
        &self.entries
    }

    /// The devices in the roster, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a roster is never empty")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Who shares with whom.
    pub const fn graph(&self) -> Graph {
        self.graph
    }

    /// Fewest shares that rebuild a seed.
    pub fn threshold(&self) -> usize {
        self.graph.threshold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Credential, IdentityPublic, Signature};

    fn entry(id: u8) -> Advertisement {
        Advertisement {
            credential: Credential {
                device: [id; 16],
                identity: IdentityPublic([id; 32]),
                expires_unix_secs: 0,
                signature: Signature([0; 64]),
            },
            masking_key: [id; 32],
            sealing_key: [id ^ 0x80; 32],
            key_commitment: [0; 32],
            self_commitment: [0; 32],
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
        assert_eq!(Roster::new(vec![]), Err(RosterError::Size { got: 0 }));
        let many = vec![entry(1); MAX_COHORT + 1];
        assert_eq!(Roster::new(many), Err(RosterError::Size { got: 257 }));
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
            root(|entry| entry.credential.signature = Signature([9; 64])),
            root(|entry| entry.masking_key = [9; 32]),
            root(|entry| entry.sealing_key = [9; 32]),
            root(|entry| entry.key_commitment = [9; 32]),
            root(|entry| entry.self_commitment = [9; 32]),
            root(|entry| entry.signature = Signature([9; 64])),
        ]);
        assert_eq!(roots.len(), 10);
    }
}
