//! What leaves the devices.

use std::collections::BTreeMap;

use aggregation::{Advertisement, UnmaskShares};
use prost::Message;
use proto::convert::request_to_wire;
use proto::message::Request;

/// Something that left a device.
struct Left {
    device: usize,
    /// The round's number, as the device was told.
    round: Option<u64>,
    name: &'static str,
    bytes: Vec<u8>,
}

/// One of the two shares that a device holds of another's seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    SelfMask,
    Key,
}

/// What left the devices. It panics the moment a device signs or answers twice in a round, and the moment both kinds
/// of share of one device have left any devices.
#[derive(Default)]
pub(crate) struct Log {
    left: Vec<Left>,
    /// What was revealed of a device, by its commitment for the round.
    revealed: BTreeMap<[u8; 32], Kind>,
}

impl Log {
    /// Keeps what leaves a device that is in this round and was given this roster.
    pub(crate) fn add(
        &mut self,
        device: usize,
        round: Option<u64>,
        roster: &[Advertisement],
        request: &Request,
    ) {
        let bytes = request_to_wire(request).encode_to_vec();
        let name = request.name();
        if matches!(request, Request::Agree { .. } | Request::Unmask { .. }) {
            let other = |left: &&Left| (left.device, left.round, left.name) == (device, round, name);
            for earlier in self.left.iter().filter(other) {
                assert!(earlier.bytes == bytes, "device {device} sent two `{name}` in round {round:?}");
            }
        }
        if let Request::Unmask { shares, .. } = request {
            for (owner, kind) in owners(shares) {
                let seed = roster[usize::from(owner)].key_commitment;
                let earlier = *self.revealed.entry(seed).or_insert(kind);
                assert_eq!(earlier, kind, "both kinds of share of place {owner} have left, in {round:?}");
            }
        }
        self.left.push(Left { device, round, name, bytes });
    }

    /// How many different requests of this name left a device.
    pub(crate) fn left(&self, device: usize, name: &str) -> usize {
        let mut bytes: Vec<&[u8]> = self
            .left
            .iter()
            .filter(|left| left.device == device && left.name == name)
            .map(|left| left.bytes.as_slice())
            .collect();
        bytes.sort_unstable();
        bytes.dedup();
        bytes.len()
    }

    /// Whether some device revealed its share of the own mask of the device with this commitment.
    pub(crate) fn opens(&self, entry: &Advertisement) -> bool {
        self.revealed.get(&entry.key_commitment) == Some(&Kind::SelfMask)
    }
}

fn owners(shares: &UnmaskShares) -> impl Iterator<Item = (u16, Kind)> {
    let alive = shares.self_mask.iter().map(|(owner, _)| (*owner, Kind::SelfMask));
    alive.chain(shares.key.iter().map(|(owner, _)| (*owner, Kind::Key)))
}
