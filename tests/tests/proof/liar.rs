//! Whoever sits between the devices and the coordinator, and shows one of them something else than the others, or sends a second
//! word in a device's name. To the devices it is a coordinator that lies, to the coordinator a device that does.

use std::collections::BTreeMap;

use aggregation::{Advertisement, DeviceIndex, Evidence, IndexSet, Signature};
use prost::Message;
use proto::convert::{reply_from_wire, reply_to_wire, request_from_wire, request_to_wire};
use proto::ids::{Digest, SessionId};
use proto::message::{Reply, Request};
use proto::wire;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use sim::world::Leg;

use super::weather::mix;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Two devices are shown two rosters.
    Rosters,
    /// Two devices are shown two sets of those who shared.
    Sharers,
    /// Two devices are shown two sets of survivors, with the signatures that were given for each.
    Survivors,
    /// Something else is sent in a device's name, before or behind what it sends itself.
    Second,
}

impl Lie {
    /// Of a number that was drawn: mostly none.
    pub(crate) fn of(drawn: u64) -> Option<Self> {
        [Self::Rosters, Self::Sharers, Self::Survivors, Self::Second]
            .get(usize::try_from(drawn % 12).unwrap())
            .copied()
    }
}

/// It, and what it has heard.
#[derive(Debug)]
pub(crate) struct Liar {
    seed: u64,
    lie: Option<Lie>,
    /// An advertisement of each device, of the last session but one.
    earlier: BTreeMap<usize, Advertisement>,
    newest: BTreeMap<usize, Advertisement>,
    /// The survivors that a device was shown, and what it signed of that.
    shown: BTreeMap<(SessionId, usize), IndexSet>,
    signed: BTreeMap<(SessionId, usize), Signature>,
    /// The session that a device is in.
    session: BTreeMap<usize, SessionId>,
    /// Which of its roster a device is, and of how many.
    place: BTreeMap<usize, (u16, usize)>,
}

impl Liar {
    pub(crate) fn new(seed: u64, lie: Option<Lie>) -> Self {
        Self {
            seed,
            lie,
            earlier: BTreeMap::new(),
            newest: BTreeMap::new(),
            shown: BTreeMap::new(),
            signed: BTreeMap::new(),
            session: BTreeMap::new(),
            place: BTreeMap::new(),
        }
    }

    /// How often it repeats a device's words, in ten thousand, beside what the network does.
    pub(crate) fn copies(&self) -> u64 {
        if self.lie == Some(Lie::Second) { 5_000 } else { 0 }
    }

    /// Changes what passes, if it wants that. Returns whether it did.
    pub(crate) fn touches(
        &mut self,
        device: usize,
        leg: Leg,
        bytes: &mut Vec<u8>,
        rng: &mut ChaCha20Rng,
    ) -> bool {
        let Some(lie) = self.lie else { return false };
        let before = bytes.clone();
        match leg {
            Leg::Request => {
                let request = request_from_wire(wire::Request::decode(bytes.as_slice()).unwrap()).unwrap();
                self.hears(device, request);
            }
            Leg::Copy if lie == Lie::Second => {
                let request = request_from_wire(wire::Request::decode(bytes.as_slice()).unwrap()).unwrap();
                *bytes = request_to_wire(&self.second(device, request, rng)).encode_to_vec();
            }
            Leg::Artifact | Leg::Copy => {}
            Leg::Reply => {
                let reply = reply_from_wire(wire::Reply::decode(bytes.as_slice()).unwrap()).unwrap();
                *bytes = reply_to_wire(self.shows(lie, device, reply, rng)).encode_to_vec();
            }
        }
        *bytes != before
    }

    fn hears(&mut self, device: usize, request: Request) {
        if let Some(session) = request.session() {
            self.session.insert(device, session);
        }
        match request {
            Request::Advertise { advertisement, .. } => {
                if let Some(before) = self.newest.insert(device, *advertisement.clone())
                    && before != *advertisement
                {
                    self.earlier.insert(device, before);
                }
            }
            Request::Agree { session, signature } => {
                self.signed.insert((session, device), signature);
            }
            Request::CheckIn(_)
            | Request::Fetch { .. }
            | Request::Join { .. }
            | Request::Decline { .. }
            | Request::Draw { .. }
            | Request::ShareKeys { .. }
            | Request::MaskedChunk { .. }
            | Request::MaskedDone { .. }
            | Request::Unmask { .. } => {}
        }
    }

    /// Whether this device is among those who are shown something else in its round.
    fn is_other(&self, device: usize) -> bool {
        let Some(session) = self.session.get(&device) else { return false };
        let drawn = |device: usize| mix(&[self.seed, u64::from(session.0[0]), device as u64]);
        // Not in every round, so that some of them end.
        drawn(usize::MAX).is_multiple_of(2) && drawn(device).is_multiple_of(2)
    }

    fn shows(&mut self, lie: Lie, device: usize, reply: Reply, rng: &mut ChaCha20Rng) -> Reply {
        let session = self.session.get(&device).copied();
        if let Reply::Roster { entries, .. } = &reply
            && let Some(own) = self.newest.get(&device)
            && let Some(place) = entries.iter().position(|entry| entry == own)
        {
            self.place.insert(device, (u16::try_from(place).unwrap(), entries.len()));
        }
        let is_other = self.is_other(device);
        match (lie, reply) {
            (Lie::Rosters, Reply::Roster { mut entries, listed }) if is_other => {
                let at = below(rng, entries.len());
                let owner =
                    self.newest.iter().find(|(_, newest)| **newest == entries[at]).map(|(owner, _)| *owner);
                let earlier = owner.and_then(|owner| self.earlier.get(&owner));
                match (rng.next_u32() % 3, earlier) {
                    (0, _) => {
                        entries.remove(at);
                    }
                    (1, Some(earlier)) => entries[at] = earlier.clone(),
                    (_, _) => {
                        let other = below(rng, entries.len());
                        entries.swap(at, other);
                    }
                }
                Reply::Roster { entries, listed }
            }
            (Lie::Sharers, Reply::Inbox { mut sharers, mut shares }) if is_other => {
                if let Some(gone) = one_of(&sharers, rng) {
                    sharers.remove(gone);
                    shares.retain(|share| DeviceIndex::from(share.from) != gone);
                }
                Reply::Inbox { sharers, shares }
            }
            (Lie::Survivors, Reply::Survivors(mut survivors)) => {
                if is_other && let Some(gone) = one_of(&survivors, rng) {
                    survivors.remove(gone);
                }
                if let Some(session) = session {
                    self.shown.insert((session, device), survivors.clone());
                }
                Reply::Survivors(survivors)
            }
            (Lie::Survivors, Reply::Evidence(evidence)) if is_other => {
                Reply::Evidence(self.evidence_for(device, evidence))
            }
            (Lie::Rosters | Lie::Sharers | Lie::Survivors | Lie::Second, reply) => reply,
        }
    }

    /// What shows this device that others signed what it was shown: theirs who were shown the same, and of the rest what there is.
    fn evidence_for(&self, device: usize, mut evidence: Evidence) -> Evidence {
        let Some(session) = self.session.get(&device).copied() else { return evidence };
        let Some(shown) = self.shown.get(&(session, device)) else { return evidence };
        let alike = |other: &usize| self.shown.get(&(session, *other)) == Some(shown);
        let Some((_, places)) = self.place.get(&device) else { return evidence };
        let mut agreed = IndexSet::new(*places);
        let mut signatures = Vec::new();
        for survivor in shown.iter() {
            let who = self.place.iter().find(|(_, (place, _))| survivor == *place).map(|(who, _)| *who);
            let signed = who.filter(alike).and_then(|who| self.signed.get(&(session, who)));
            // Whoever did not sign this gets a signature that is not theirs.
            let any = evidence.signatures.first().copied().unwrap_or(Signature([0; 64]));
            signatures.push(signed.copied().unwrap_or(any));
            if signed.is_some() || agreed.len() + 1 < shown.len() {
                agreed.insert(survivor).unwrap();
            }
        }
        evidence.agreed = agreed;
        evidence.signatures = signatures;
        evidence
    }

    /// Another word than the device's own.
    fn second(&self, device: usize, request: Request, rng: &mut ChaCha20Rng) -> Request {
        match request {
            Request::Advertise { session, advertisement } => {
                let earlier = self.earlier.get(&device).cloned();
                Request::Advertise { session, advertisement: earlier.map_or(advertisement, Box::new) }
            }
            Request::ShareKeys { session, mut shares } => {
                if shares.len() > 1 {
                    let bytes = shares[0].bytes.clone();
                    shares[0].bytes = std::mem::replace(&mut shares[1].bytes, bytes);
                }
                Request::ShareKeys { session, shares }
            }
            Request::MaskedChunk { session, offset, mut packed } => {
                let at = below(rng, packed.len());
                packed[at] ^= 1;
                Request::MaskedChunk { session, offset, packed }
            }
            Request::MaskedDone { session, digest, sharing } => {
                let digest = Digest::of(&digest.0);
                Request::MaskedDone { session, digest, sharing }
            }
            Request::Agree { session, mut signature } => {
                signature.0[below(rng, 64)] ^= 1;
                Request::Agree { session, signature }
            }
            Request::Unmask { session, mut shares } => {
                shares.self_mask.pop();
                Request::Unmask { session, shares }
            }
            same @ (Request::CheckIn(_)
            | Request::Fetch { .. }
            | Request::Join { .. }
            | Request::Decline { .. }
            | Request::Draw { .. }) => same,
        }
    }
}

fn one_of(set: &IndexSet, rng: &mut ChaCha20Rng) -> Option<DeviceIndex> {
    set.iter().nth(below(rng, set.len().max(1)))
}

fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound.max(1) as u64).unwrap()
}
