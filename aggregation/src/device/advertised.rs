//! `AdvertiseKeys`: fresh keys, and then the roster of everybody's.

use rand_core::CryptoRng;

use super::{Refusal, Seat, Shared, shared::Peer};
use crate::{
    advertisement::Advertisement,
    agreement::{AgreementKey, SeedKind, commitment, self_mask},
    context::Context,
    identity::{Credential, IdentityKey, IdentityPublic, Signature},
    index::DeviceIndex,
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
        let advertisement = Advertisement {
            credential,
            masking_key: AgreementKey::masking(&key_seed, &ctx, &device).public(),
            sealing_key: AgreementKey::sealing(&sealing_seed, &ctx, &device).public(),
            key_commitment: commitment(SeedKind::Key, &digest, &device, &key_seed),
            self_commitment: commitment(SeedKind::SelfMask, &digest, &device, &self_seed),
            signature: Signature([0; 64]),
        }
        .signed(&digest, identity);
        let state = Self { ctx, advertisement: advertisement.clone(), key_seed, self_seed, sealing_seed };
        (state, advertisement)
    }

    /// Shares both seeds among the devices of the roster.
    ///
    /// Refuses a context with a value outside its range, a roster smaller than
    /// `smallest_cohort` or the report goal, a roster without this device or
    /// with other keys for it, and a roster with an entry that does not hold
    /// in this context or whose keys are of low order.
    pub fn share(
        self,
        roster: Roster,
        authority: &IdentityPublic,
        now_unix_secs: u64,
        smallest_cohort: usize,
        rng: &mut impl CryptoRng,
    ) -> Result<(Shared, Vec<SealedShare>), Refusal> {
        self.ctx.check()?;
        let (got, need) = (roster.len(), smallest_cohort.max(self.ctx.report_goal));
        if got < need {
            return Err(Refusal::SmallCohort { got, need });
        }
        let device = self.advertisement.credential.device;
        let index = roster.index_of(&device).ok_or(Refusal::NotInRoster)?;
        if roster.entry(index) != Some(&self.advertisement) {
            return Err(Refusal::OwnEntryChanged);
        }
        let digest = self.ctx.digest();
        for (index, entry) in roster.graph().places().zip(roster.entries()) {
            entry
                .verify_in(&digest, authority, now_unix_secs)
                .map_err(|source| Refusal::Advertisement { index, source })?;
        }

        let pairs = self.split(&roster, rng);
        let masking = AgreementKey::masking(&self.key_seed, &self.ctx, &device);
        let sealing = AgreementKey::sealing(&self.sealing_seed, &self.ctx, &device);
        let mut own = None;
        let mut peers = Vec::with_capacity(pairs.len());
        let mut outbox = Vec::with_capacity(pairs.len());
        let entries = roster.graph().places().zip(roster.entries());
        for ((place, entry), pair) in entries.zip(pairs) {
            if place == index {
                own = Some(pair);
                continue;
            }
            let (peer, outward) = self.meet(&roster, index, (place, entry), &masking, &sealing)?;
            peers.push(peer);
            outbox.push(outward.seal(&pair));
        }
        // The roster has this device, so its own pair was among them.
        let own = own.ok_or(Refusal::NotInRoster)?;
        let self_mask = self_mask(&self.self_seed, &self.ctx);
        let seat = Seat { ctx: self.ctx, roster, index };
        Ok((Shared::new(seat, self_mask, own, peers), outbox))
    }

    /// Shares of both seeds for every place of the roster.
    fn split(&self, roster: &Roster, rng: &mut impl CryptoRng) -> Vec<SharePair> {
        let (threshold, count) = (roster.threshold(), roster.graph().size());
        let keys = shamir::split(&self.key_seed, threshold, count, rng);
        let self_masks = shamir::split(&self.self_seed, threshold, count, rng);
        let pairs = keys.into_iter().zip(self_masks);
        pairs.map(|(key, self_mask)| SharePair { key, self_mask }).collect()
    }

    /// What is shared with one neighbour, and the envelope to it.
    fn meet(
        &self,
        roster: &Roster,
        own: DeviceIndex,
        (place, entry): (DeviceIndex, &Advertisement),
        masking: &AgreementKey,
        sealing: &AgreementKey,
    ) -> Result<(Peer, Envelope), Refusal> {
        let low_order = Refusal::LowOrderKey { index: place };
        let (sign, mask) = masking.pair_mask(&self.ctx, own, (place, &entry.masking_key)).ok_or(low_order)?;
        let agreed = sealing.agree(&entry.sealing_key).ok_or(low_order)?;
        let envelope = |from, to| Envelope::new(&agreed, &self.ctx, &roster.root(), Route { from, to });
        let peer = Peer { index: place, sign, mask, inward: envelope(place, own) };
        Ok((peer, envelope(own, place)))
    }
}
