//! `ShareKeys`: the shares of the others.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{Held, Masking, Refusal, Seat};
use crate::{
    index::{DeviceIndex, IndexSet},
    modular::Sign,
    prg::Mask,
    sealing::{Envelope, SealedShare, SharePair},
};

/// A device that shared its seeds and waits for the shares of the others.
#[derive(Debug)]
pub struct Shared {
    seat: Seat,
    self_mask: Mask,
    /// In the complete graph a device holds a share of its own seeds.
    own: Option<SharePair>,
    peers: Vec<Peer>,
}

/// What a device has in common with one neighbour.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) index: DeviceIndex,
    pub(super) sign: Sign,
    pub(super) mask: Mask,
    /// In which the neighbour's shares come.
    pub(super) inward: Envelope,
}

impl Shared {
    pub(super) const fn new(seat: Seat, self_mask: Mask, own: Option<SharePair>, peers: Vec<Peer>) -> Self {
        Self { seat, self_mask, own, peers }
    }

    /// The device's place in the roster.
    pub const fn index(&self) -> DeviceIndex {
        self.seat.index
    }

    /// Opens the shares of every neighbour that shared.
    ///
    /// Refuses sharers over another roster, without this device, with fewer of
    /// its neighbours than the threshold, fewer than the report goal or, in the
    /// complete graph, the quorum; an inbox that has not exactly one share from
    /// each neighbour that shared; and more shares that do not open than
    /// neighbours may be corrupt.
    ///
    /// So few are shares fewer to hold and no reason to leave: else a single
    /// neighbour that seals nonsense could end everybody's session.
    pub fn receive(self, sharers: IndexSet, inbox: Vec<SealedShare>) -> Result<Masking, Refusal> {
        let Self { seat, self_mask, own, peers } = self;
        seat.check_places(&sharers)?;
        if !sharers.contains(seat.index) {
            return Err(Refusal::NotASharer);
        }
        let (got, need) = (sharers.len(), seat.fewest());
        if got < need {
            return Err(Refusal::FewSharers { got, need });
        }

        seat.check_neighbors(&sharers)?;

        let mut sealed = sort(inbox, &seat, &sharers)?;
        let mut unopened = 0;
        let mut masks = vec![(Sign::Plus, self_mask)];
        let own = own.map(|pair| Held { owner: seat.index, pair });
        let mut held: Vec<Held> = own.into_iter().collect();
        for peer in peers.into_iter().filter(|peer| sharers.contains(peer.index)) {
            let from = peer.index;
            let share = sealed.remove(&from).ok_or(Refusal::MissingShare { from })?;
            masks.push((peer.sign, peer.mask));
            match peer.inward.open(share) {
                Some(pair) => held.push(Held { owner: from, pair }),
                None => unopened += 1,
            }
        }
        let (got, most) = (unopened, seat.most_unopened());
        if got > most {
            return Err(Refusal::UnopenedShares { got, most });
        }
        let ring = seat.ctx.ring()?;
        Ok(Masking::new(seat, ring, sharers, masks, held))
    }
}

/// The inbox by sender. Refuses what is for another device, from a device that
/// sends none, or repeated.
fn sort(
    inbox: Vec<SealedShare>,
    seat: &Seat,
    sharers: &IndexSet,
) -> Result<BTreeMap<DeviceIndex, SealedShare>, Refusal> {
    let own = seat.index;
    let mut sorted = BTreeMap::new();
    for sealed in inbox {
        let (from, to) = (DeviceIndex::from(sealed.from), DeviceIndex::from(sealed.to));
        if to != own {
            return Err(Refusal::Misdelivered { to, own });
        }
        if !seat.roster.graph().are_neighbors(from, own) || !sharers.contains(from) {
            return Err(Refusal::UnexpectedShare { from });
        }
        match sorted.entry(from) {
            Entry::Vacant(place) => place.insert(sealed),
            Entry::Occupied(_) => return Err(Refusal::RepeatedShare { from }),
        };
    }
    Ok(sorted)
}
