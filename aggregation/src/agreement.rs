//! The two X25519 agreements between neighbours: for masks, and for sealing.

use curve25519_dalek::{EdwardsPoint, MontgomeryPoint};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    context::{Context, RosterContext},
    hash,
    index::DeviceIndex,
    modular::Sign,
    prg::Mask,
    seed::Seed,
};

/// A one-time X25519 key.
pub(crate) struct AgreementKey {
    secret: StaticSecret,
    public: [u8; 32],
}

impl AgreementKey {
    /// The masking key of a device, which whoever rebuilds its seed can repeat.
    pub(crate) fn masking(seed: &Seed, ctx: &Context, device: &[u8; 16]) -> Self {
        Self::derived(seed, ctx, "masking key", device)
    }

    /// The sealing key of a device.
    pub(crate) fn sealing(seed: &Seed, ctx: &Context, device: &[u8; 16]) -> Self {
        Self::derived(seed, ctx, "sealing key", device)
    }

    /// The public half.
    pub(crate) const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The secrets shared with the holders of `peers`, in their order; nothing
    /// for one that has low order and so leaves no secret
    /// ([RFC 7748](https://www.rfc-editor.org/rfc/rfc7748), section 6.1).
    ///
    /// Both public keys go into each: a key and its sum with a point of low order
    /// agree on the same point with everybody, and are two keys all the same.
    pub(crate) fn agree(&self, session: &[u8; 32], peers: &[&PeerKey]) -> Vec<Option<Seed>> {
        let derive = |(peer, point): (&&PeerKey, Option<Seed>)| {
            let (own, peer) = (&self.public, &peer.key);
            Some(point?.derive(session, "agreement", &[own.min(peer), own.max(peer)]))
        };
        peers.iter().zip(self.points(peers)).map(derive).collect()
    }

    /// X25519 with each of `peers`.
    ///
    /// On the Edwards curve, where there are vector instructions for it and one
    /// inversion is enough for all; a key on the twist, which no honest device
    /// has, goes up the ladder. Both say the same, in a time that depends on no
    /// secret. What the batch does not wipe of its own are inverses of
    /// denominators, which are half of what a coordinate is made of.
    fn points(&self, peers: &[&PeerKey]) -> Vec<Option<Seed>> {
        let secret = Zeroizing::new(self.secret.to_bytes());
        // With room for all: a vector that grows leaves what it held unwiped.
        let mut products: Zeroizing<Vec<EdwardsPoint>> = Zeroizing::new(Vec::with_capacity(peers.len()));
        products.extend(peers.iter().filter_map(|peer| Some(peer.point?.mul_clamped(*secret))));
        let coordinates = Zeroizing::new(EdwardsPoint::to_montgomery_batch(&products));
        let mut coordinates = coordinates.iter();
        let point = |peer: &&PeerKey| {
            let coordinate = match peer.point {
                Some(_) => Zeroizing::new(coordinates.next()?.to_bytes()),
                None => Zeroizing::new(MontgomeryPoint(peer.key).mul_clamped(*secret).to_bytes()),
            };
            let is_contributory = coordinate.ct_ne(&[0; 32]);
            bool::from(is_contributory).then(|| Seed::from_bytes(*coordinate))
        };
        peers.iter().map(point).collect()
    }

    /// The masks shared by the holder of this masking key, in place `own`, and
    /// the holders of `peers`, with the signs with which the holder of this key
    /// adds them. Fails with the place of the first whose key has low order.
    ///
    /// Both get the same mask only if both were given the same context, with its
    /// model and plan, and the same roster. No step of the argument rests on it:
    /// who has the seed of one of the keys has the mask all the same.
    pub(crate) fn pair_masks(
        &self,
        bound: &RosterContext,
        own: DeviceIndex,
        peers: &[(DeviceIndex, &PeerKey)],
    ) -> Result<Vec<(Sign, Mask)>, DeviceIndex> {
        let keys: Vec<&PeerKey> = peers.iter().map(|(_, key)| *key).collect();
        let mask = |((place, _), agreed): (&(DeviceIndex, &PeerKey), Option<Seed>)| {
            let low = own.min(*place).get().to_be_bytes();
            let high = own.max(*place).get().to_be_bytes();
            let parts: [&[u8]; 4] = [&bound.context_digest, &bound.roster_root, &low, &high];
            let seed = agreed.ok_or(*place)?.derive(&bound.session.0, "pair", &parts);
            let sign = if own < *place { Sign::Plus } else { Sign::Minus };
            Ok((sign, Mask::new(&seed, &bound.session.0, "pair mask")))
        };
        peers.iter().zip(self.agree(&bound.session.0, &keys)).map(mask).collect()
    }

    fn derived(seed: &Seed, ctx: &Context, label: &str, device: &[u8; 16]) -> Self {
        let derived = seed.derive(&ctx.session.0, label, &[device]);
        let secret = StaticSecret::from(*derived.as_bytes());
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }
}

/// Somebody's public key, ready to be agreed with by one or by many.
#[derive(Debug)]
pub(crate) struct PeerKey {
    key: [u8; 32],
    /// On the Edwards curve; nothing if the key is on the twist.
    point: Option<EdwardsPoint>,
}

impl PeerKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        // Of two points with this coordinate; their multiples have one coordinate too.
        Self { key: *key, point: MontgomeryPoint(*key).to_edwards(0) }
    }
}

/// Whether a key leaves no secret, whoever agrees with it: a clamped scalar is
/// a multiple of 8, the largest of the low orders.
pub(crate) fn is_of_low_order(key: &[u8; 32]) -> bool {
    let any = StaticSecret::from([1; 32]);
    !any.diffie_hellman(&PublicKey::from(*key)).was_contributory()
}

/// Whether a key is written in the one way that an honest device writes it:
/// below the prime 2^255 − 19, and with the last bit clear, which agreements
/// ignore ([RFC 7748](https://www.rfc-editor.org/rfc/rfc7748), section 5). Then
/// two entries of a roster with the same key are seen to have the same bytes.
pub(crate) fn is_canonical(key: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = key;
    let at_least_prime = *high == 0x7f && middle.iter().all(|byte| *byte == 0xff) && *low >= 0xed;
    *high < 0x80 && !at_least_prime
}

/// A device's own mask.
pub(crate) fn self_mask(seed: &Seed, ctx: &Context) -> Mask {
    Mask::new(seed, &ctx.session.0, "self mask")
}

/// Which of a device's two seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeedKind {
    /// The seed of the masking key.
    Key,
    /// The seed of the own mask.
    SelfMask,
}

/// The commitment of `device` to one of its seeds. A seed is uniform, so the
/// digest hides it.
pub(crate) fn commitment(
    kind: SeedKind,
    context_digest: &[u8; 32],
    device: &[u8; 16],
    seed: &Seed,
) -> [u8; 32] {
    let domain = match kind {
        SeedKind::Key => "key commitment",
        SeedKind::SelfMask => "self commitment",
    };
    hash::digest(domain, &[context_digest, device, seed.as_bytes()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::context::{ModelDigest, PlanDigest, SessionId, TaskId};
    use crate::prg::apply_all;

    fn context(model: u8) -> Context {
        Context {
            session: SessionId([1; 32]),
            task: TaskId([2; 16]),
            round: 3,
            model_digest: ModelDigest([model; 32]),
            plan_digest: PlanDigest([5; 32]),
            len: 8,
            ring_bits: 32,
            report_goal: 1,
            cohort: 100,
            corrupt: 5,
            missing_fraction_permille: 300,
            log: None,
        }
    }

    fn key(id: u8) -> AgreementKey {
        AgreementKey::masking(&Seed::from_bytes([id; 32]), &context(4), &[id; 16])
    }

    fn point(own: &AgreementKey, peer: &[u8; 32]) -> Option<[u8; 32]> {
        own.points(&[&PeerKey::new(peer)]).remove(0).map(|seed| *seed.as_bytes())
    }

    /// What the ladder says.
    fn climbed(own: &AgreementKey, peer: &[u8; 32]) -> Option<[u8; 32]> {
        let shared = own.secret.diffie_hellman(&PublicKey::from(*peer));
        shared.was_contributory().then(|| shared.to_bytes())
    }

    proptest! {
        // Half of all coordinates are on the curve, and half on the twist.
        #[test]
        fn many_at_once_agree_as_the_ladder_does(peers: Vec<[u8; 32]>, low in 0_usize..40) {
            let (own, mut peers) = (key(1), peers);
            if low < peers.len() {
                peers[low] = [0; 32];
            }
            let keys: Vec<PeerKey> = peers.iter().map(PeerKey::new).collect();
            let points = own.points(&keys.iter().collect::<Vec<_>>());
            prop_assert_eq!(points.len(), peers.len());
            for (point, peer) in points.into_iter().zip(&peers) {
                prop_assert_eq!(point.map(|seed| *seed.as_bytes()), climbed(&own, peer));
            }
        }
    }

    fn sum_of_pair(left: (&Context, u8), right: (&Context, u8)) -> [u32; 8] {
        let (a, b) = (key(1), key(2));
        let bound = |(ctx, root): (&Context, u8)| RosterContext::new(ctx, [root; 32]);
        let (of_a, of_b) = (PeerKey::new(&a.public()), PeerKey::new(&b.public()));
        let mut masks = a.pair_masks(&bound(left), 0.into(), &[(1.into(), &of_b)]).unwrap();
        masks.extend(b.pair_masks(&bound(right), 1.into(), &[(0.into(), &of_a)]).unwrap());
        let mut sum = [0; 8];
        apply_all(&masks, 0, &mut sum);
        sum
    }

    #[test]
    fn the_masks_of_a_pair_cancel() {
        assert_eq!(sum_of_pair((&context(4), 1), (&context(4), 1)), [0; 8]);
    }

    #[test]
    fn the_masks_of_a_pair_with_two_models_or_rosters_do_not_cancel() {
        assert_ne!(sum_of_pair((&context(4), 1), (&context(6), 1)), [0; 8]);
        assert_ne!(sum_of_pair((&context(4), 1), (&context(4), 2)), [0; 8]);
    }

    #[test]
    fn an_encoding_that_another_one_says_shorter_is_not_canonical() {
        // 2^255 - 19 + n is n.
        let with = |low: u8, high: u8| {
            let mut key = [0xff; 32];
            (key[0], key[31]) = (low, high);
            key
        };
        assert!(is_canonical(&with(0xec, 0x7f)));
        for n in 0..=0x12 {
            assert!(!is_canonical(&with(0xed + n, 0x7f)), "{n}");
        }
        assert!(!is_canonical(&with(0, 0xff)));
        let mut one = [0; 32];
        one[0] = 1;
        assert!(is_canonical(&one));
        one[31] = 0x80;
        assert!(!is_canonical(&one));
        assert!(is_canonical(&key(2).public()));
    }

    #[test]
    fn points_of_low_order_are_refused() {
        // 0, 1, −1 (order 4), and a point of order 8, from RFC 7748's curve.
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        let order_eight = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        for low in [[0; 32], one, minus_one, order_eight] {
            assert!(point(&key(1), &low).is_none());
            assert!(is_of_low_order(&low));
        }
        assert!(!is_of_low_order(&key(2).public()));
        assert!(point(&key(1), &key(2).public()).is_some());
    }

    #[test]
    fn a_key_and_its_sum_with_a_point_of_low_order_agree_on_different_secrets() {
        // u and 1/u differ by the point of order two: (x, y) + (0, 0) = (1/x, −y/x²). 9 is the base point, and this is
        // 1/9 modulo 2^255 − 19.
        let twin = [
            0x12, 0xc7, 0x71, 0x1c, 0xc7, 0x71, 0x1c, 0xc7, 0x71, 0x1c, 0xc7, 0x71, 0x1c, 0xc7, 0x71, 0x1c,
            0xc7, 0x71, 0x1c, 0xc7, 0x71, 0x1c, 0xc7, 0x71, 0x1c, 0xc7, 0x71, 0x1c, 0xc7, 0x71, 0x1c, 0x47,
        ];
        let (mut nine, a) = ([0; 32], key(1));
        nine[0] = 9;
        assert!(is_canonical(&twin) && !is_of_low_order(&twin));
        assert_eq!(point(&a, &nine), point(&a, &twin));
        let agreed = |peer| a.agree(&[1; 32], &[&PeerKey::new(peer)]).remove(0).map(|seed| *seed.as_bytes());
        assert_ne!(agreed(&nine), agreed(&twin));
    }

    #[test]
    fn the_agreement_agrees_with_rfc_7748_section_6_1() {
        let alice = StaticSecret::from([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
            0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ]);
        let bob = [
            0xde, 0x9e, 0xdb, 0x7d, 0x7b, 0x7d, 0xc1, 0xb4, 0xd3, 0x5b, 0x61, 0xc2, 0xec, 0xe4, 0x35, 0x37,
            0x3f, 0x83, 0x43, 0xc8, 0x5b, 0x78, 0x67, 0x4d, 0xad, 0xfc, 0x7e, 0x14, 0x6f, 0x88, 0x2b, 0x4f,
        ];
        let shared = [
            0x4a, 0x5d, 0x9d, 0x5b, 0xa4, 0xce, 0x2d, 0xe1, 0x72, 0x8e, 0x3b, 0xf4, 0x80, 0x35, 0x0f, 0x25,
            0xe0, 0x7e, 0x21, 0xc9, 0x47, 0xd1, 0x9e, 0x33, 0x76, 0xf0, 0x9b, 0x3c, 0x1e, 0x16, 0x17, 0x42,
        ];
        let public = PublicKey::from(&alice).to_bytes();
        let key = AgreementKey { secret: alice, public };
        assert_eq!(point(&key, &bob), Some(shared));
    }
}
