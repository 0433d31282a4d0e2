//! `AdvertiseKeys`: fresh keys, and then the roster of everybody's.

use rand_core::CryptoRng;

use super::{Refusal, Seat, Shared, shared::Peer};
use crate::{
    advertisement::Advertisement,
    agreement::{AgreementKey, PeerKey, SeedKind, commitment, self_mask},
    batch::verify_all,
    context::{Context, RosterContext},
    credential::Credential,
    graph::{Draw, NonceChain},
    identity::{IdentityKey, IdentityPublic, Signature},
    index::DeviceIndex,
    modular::Sign,
    prg::Mask,
    roster::Roster,
    sealing::{Envelope, Route, SealedShare, SharePair},
    seed::Seed,
    shamir,
};

/// A device that advertised its one-time keys and waits for the roster.
#[derive(Debug)]
pub struct Advertised {
    ctx: Context,
    advertisement: Advertisement,
    key_seed: Seed,
    self_seed: Seed,
    sealing_seed: Seed,
    nonces: NonceChain,
    /// The last draw for which it opened its commitment.
    opened: Option<Opened>,
}

#[derive(Clone, Copy, Debug)]
struct Opened {
    attempt: u8,
    root: [u8; 32],
}

impl Advertised {
    /// Draws the device's seeds and signs its one-time keys.
    pub fn new(
        ctx: Context,
        identity: &IdentityKey,
        credential: Credential,
        rng: &mut impl CryptoRng,
    ) -> (Self, Advertisement) {
        let key_seed = Seed::random(rng);
        let self_seed = Seed::random(rng);
        let sealing_seed = Seed::random(rng);
        let device = credential.device;
        let digest = ctx.digest();
        let nonces = NonceChain::new(Seed::random(rng), digest, device);
        let advertisement = Advertisement {
            credential,
            masking_key: AgreementKey::masking(&key_seed, &ctx, &device).public(),
            sealing_key: AgreementKey::sealing(&sealing_seed, &ctx, &device).public(),
            key_commitment: commitment(SeedKind::Key, &digest, &device, &key_seed),
            self_commitment: commitment(SeedKind::SelfMask, &digest, &device, &self_seed),
            draw_commitment: nonces.commitment(),
            signature: Signature([0; 64]),
        }
        .signed(&digest, identity);
        let announced = advertisement.clone();
        let opened = None;
        let state = Self { ctx, advertisement, key_seed, self_seed, sealing_seed, nonces, opened };
        (state, announced)
    }

    /// The device's nonce for a draw of the graph. Asked again for the same
    /// draw it says the same.
    ///
    /// Refuses a cohort larger than the plan's, one without this device or with
    /// other keys for it, and a draw that does not come after the last: whoever
    /// has seen a nonce must not choose what it is for.
    pub fn reveal(&mut self, draw: &Draw) -> Result<[u8; 32], Refusal> {
        self.ctx.check()?;
        self.check_size(draw.entries().len())?;
        let index = draw.index_of(&self.advertisement.credential.device).ok_or(Refusal::NotInRoster)?;
        if draw.entries().get(usize::from(index)) != Some(&self.advertisement) {
            return Err(Refusal::OwnEntryChanged);
        }
        let (attempt, root) = (draw.attempt(), draw.root());
        match self.opened {
            Some(last) if last.attempt > attempt || (last.attempt == attempt && last.root != root) => {
                return Err(Refusal::EarlierDraw { last: last.attempt, attempt });
            }
            Some(_) | None => self.opened = Some(Opened { attempt, root }),
        }
        Ok(self.nonces.nonce(attempt))
    }

    /// Shares both seeds among the device's neighbours in the roster.
    ///
    /// Refuses a context with a value outside its range, a roster smaller than
    /// `smallest_cohort` or the report goal or of which half may be corrupt, one
    /// larger than the plan's cohort, one without this device or with other keys
    /// for it, a drawn one that this device gave no nonce for, any but the one
    /// that it last gave a nonce for, and one with a neighbour whose entry does
    /// not hold in this context or whose keys are of low order.
    pub fn share(
        self,
        roster: Roster,
        authority: &IdentityPublic,
        now_unix_secs: u64,
        smallest_cohort: usize,
        rng: &mut impl CryptoRng,
    ) -> Result<(Shared, Vec<SealedShare>), Refusal> {
        self.ctx.check()?;
        let majority = 2 * self.ctx.corrupt + 1;
        let (got, need) = (roster.len(), smallest_cohort.max(self.ctx.report_goal).max(majority));
        if got < need {
            return Err(Refusal::SmallCohort { got, need });
        }
        self.check_size(got)?;
        let device = self.advertisement.credential.device;
        let index = roster.index_of(&device).ok_or(Refusal::NotInRoster)?;
        if roster.entry(index) != Some(&self.advertisement) {
            return Err(Refusal::OwnEntryChanged);
        }
        let known = match self.opened {
            Some(opened) => opened.root == roster.root(),
            None => !roster.is_drawn(),
        };
        if !known {
            return Err(Refusal::OtherDraw);
        }
        let digest = self.ctx.digest();
        verify_all(neighbors(&roster, index), |(place, entry), check| {
            let holds = entry.verify_by(&digest, authority, now_unix_secs, check);
            holds.map_err(|source| Refusal::Advertisement { index: place, source })
        })?;

        let masking = AgreementKey::masking(&self.key_seed, &self.ctx, &device);
        let sealing = AgreementKey::sealing(&self.sealing_seed, &self.ctx, &device);
        let bound = RosterContext::new(&self.ctx, roster.root());
        let holders = roster.graph().holders(index);
        let mut own = None;
        let mut dealt = Vec::with_capacity(holders.len());
        let pairs = self.split(roster.threshold(), &holders, rng);
        for (place, pair) in holders.into_iter().zip(pairs) {
            // Every holder is in the roster.
            match roster.entry(place).filter(|_| place != index) {
                Some(entry) => dealt.push((place, entry, pair)),
                None => own = Some(pair),
            }
        }
        let met = dealt.iter().map(|(place, entry, _)| (*place, *entry)).collect::<Vec<_>>();
        let (peers, outward): (Vec<Peer>, Vec<Envelope>) =
            meet(&bound, index, &met, &masking, &sealing)?.into_iter().unzip();
        let outbox =
            outward.into_iter().zip(&dealt).map(|(outward, (.., pair))| outward.seal(pair)).collect();
        let self_mask = self_mask(&self.self_seed, &self.ctx);
        let seat = Seat { ctx: self.ctx, roster, index, authority: *authority, now_unix_secs };
        Ok((Shared::new(seat, self_mask, own, peers), outbox))
    }

    /// Fails if there are more devices than the plan's cohort.
    const fn check_size(&self, got: usize) -> Result<(), Refusal> {
        let most = self.ctx.cohort;
        if got > most { Err(Refusal::LargeCohort { got, most }) } else { Ok(()) }
    }

    /// Shares of both seeds for each of these places.
    fn split(&self, threshold: usize, holders: &[DeviceIndex], rng: &mut impl CryptoRng) -> Vec<SharePair> {
        let keys = shamir::split(&self.key_seed, threshold, holders, rng);
        let self_masks = shamir::split(&self.self_seed, threshold, holders, rng);
        let pairs = keys.into_iter().zip(self_masks);
        pairs.map(|(key, self_mask)| SharePair { key, self_mask }).collect()
    }
}

/// What is shared with each neighbour, and the envelope to it.
fn meet(
    bound: &RosterContext,
    own: DeviceIndex,
    neighbors: &[(DeviceIndex, &Advertisement)],
    masking: &AgreementKey,
    sealing: &AgreementKey,
) -> Result<Vec<(Peer, Envelope)>, Refusal> {
    let keys = |key: fn(&Advertisement) -> &[u8; 32]| -> Vec<PeerKey> {
        neighbors.iter().map(|(_, entry)| PeerKey::new(key(entry))).collect()
    };
    let (masking_keys, sealing_keys) = (keys(|entry| &entry.masking_key), keys(|entry| &entry.sealing_key));
    let places = neighbors.iter().map(|(place, _)| *place);
    let masked: Vec<(DeviceIndex, &PeerKey)> = places.clone().zip(&masking_keys).collect();
    let masks = masking.pair_masks(bound, own, &masked).map_err(|index| Refusal::LowOrderKey { index })?;
    let agreed = sealing.agree(&bound.session.0, &sealing_keys.iter().collect::<Vec<_>>());
    let meet = |((index, (sign, mask)), agreed): ((DeviceIndex, (Sign, Mask)), Option<Seed>)| {
        let agreed = agreed.ok_or(Refusal::LowOrderKey { index })?;
        let envelope = |from, to| Envelope::new(&agreed, bound, Route { from, to });
        Ok((Peer { index, sign, mask, inward: envelope(index, own) }, envelope(own, index)))
    };
    places.zip(masks).zip(agreed).map(meet).collect()
}

fn neighbors(
    roster: &Roster,
    of: DeviceIndex,
) -> impl Iterator<Item = (DeviceIndex, &Advertisement)> + Clone {
    let places = roster.graph().neighbors(of).into_iter();
    places.filter_map(|place| Some((place, roster.entry(place)?)))
}
