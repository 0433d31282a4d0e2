//! Seals a pair of shares for one neighbour.
//!
//! ChaCha20-Poly1305 ([RFC 8439](https://www.rfc-editor.org/rfc/rfc8439))
//! under a key that is derived from the sealing keys' agreement for one
//! direction and one roster. Such a key seals one message, so its nonce is zero.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{
    context::RosterContext,
    hash,
    index::DeviceIndex,
    seed::Seed,
    shamir::{SHARE_BYTES, Share},
};

/// Bytes of a sealed pair of shares.
pub const SEALED_SHARE_BYTES: usize = 2 * SHARE_BYTES + 16;

/// A pair of shares that only the device in place `to` can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedShare {
    /// The place of the device whose seeds are shared.
    pub from: u16,
    /// The place of the device that can open it.
    pub to: u16,
    /// The sealed bytes; [`SEALED_SHARE_BYTES`] of them.
    pub bytes: Vec<u8>,
}

/// A device's shares of both seeds of one device. It gives away one of them
/// and loses the other.
#[derive(Debug)]
pub(crate) struct SharePair {
    pub(crate) key: Share,
    pub(crate) self_mask: Share,
}

/// From whom to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) from: DeviceIndex,
    pub(crate) to: DeviceIndex,
}

/// The key for one sealed pair.
#[derive(Debug)]
pub(crate) struct Envelope {
    key: Seed,
    route: Route,
    associated: [u8; 32],
}

impl Envelope {
    /// For one direction between two devices whose sealing keys agree on
    /// `shared`.
    pub(crate) fn new(shared: &Seed, bound: &RosterContext, route: Route) -> Self {
        let from = route.from.get().to_be_bytes();
        let to = route.to.get().to_be_bytes();
        let parts: [&[u8]; 4] = [&bound.context_digest, &bound.roster_root, &from, &to];
        Self {
            key: shared.derive(&bound.session.0, "seal", &parts),
            route,
            associated: hash::digest("sealed share", &parts),
        }
    }

    /// Seals a pair; there is one pair for an envelope.
    pub(crate) fn seal(self, pair: &SharePair) -> SealedShare {
        let mut bytes = Vec::with_capacity(SEALED_SHARE_BYTES);
        bytes.extend_from_slice(&pair.key.to_bytes());
        bytes.extend_from_slice(&pair.self_mask.to_bytes());
        self.seal_bytes(&mut bytes);
        SealedShare { from: self.route.from.get(), to: self.route.to.get(), bytes }
    }

    /// Opens a pair, or gives nothing if it was not sealed in this envelope.
    pub(crate) fn open(self, sealed: SealedShare) -> Option<SharePair> {
        let mut bytes = Zeroizing::new(sealed.bytes);
        let plain = self.cipher().open_in_place(nonce(), Aad::from(self.associated), &mut bytes).ok()?;
        let (key, self_mask) = plain.split_at_checked(SHARE_BYTES)?;
        Some(SharePair { key: Share::from_bytes(key).ok()?, self_mask: Share::from_bytes(self_mask).ok()? })
    }

    #[expect(clippy::expect_used, reason = "sealing fails only above 2^38 bytes; a pair has 80")]
    fn seal_bytes(&self, bytes: &mut Vec<u8>) {
        self.cipher()
            .seal_in_place_append_tag(nonce(), Aad::from(self.associated), bytes)
            .expect("a pair of shares is short");
    }

    #[expect(clippy::expect_used, reason = "the cipher takes any 32 bytes as a key")]
    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, self.key.as_bytes());
        LessSafeKey::new(key.expect("a seed has 32 bytes"))
    }
}

/// The nonce of a key's only message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Context, ModelDigest, PlanDigest, SessionId, TaskId};

    fn envelope(session: u8, root: u8, from: u16, to: u16) -> Envelope {
        let ctx = Context {
            session: SessionId([session; 32]),
            task: TaskId([2; 16]),
            round: 3,
            model_digest: ModelDigest([4; 32]),
            plan_digest: PlanDigest([5; 32]),
            len: 8,
            ring_bits: 32,
            report_goal: 1,
            cohort: 100,
            corrupt: 5,
            missing_fraction_permille: 300,
            log: None,
        };
        let route = Route { from: from.into(), to: to.into() };
        Envelope::new(&Seed::from_bytes([7; 32]), &RosterContext::new(&ctx, [root; 32]), route)
    }

    fn pair() -> SharePair {
        SharePair {
            key: Share::from_bytes(&[1; SHARE_BYTES]).unwrap(),
            self_mask: Share::from_bytes(&[2; SHARE_BYTES]).unwrap(),
        }
    }

    #[test]
    fn a_sealed_pair_opens_to_itself() {
        let sealed = envelope(1, 1, 0, 1).seal(&pair());
        assert_eq!((sealed.from, sealed.to), (0, 1));
        assert_eq!(sealed.bytes.len(), SEALED_SHARE_BYTES);
        let opened = envelope(1, 1, 0, 1).open(sealed).unwrap();
        assert_eq!(opened.key, pair().key);
        assert_eq!(opened.self_mask, pair().self_mask);
    }

    #[test]
    fn a_sealed_pair_opens_only_in_its_session_roster_and_direction() {
        let sealed = envelope(1, 1, 0, 1).seal(&pair());
        for other in [envelope(2, 1, 0, 1), envelope(1, 2, 0, 1), envelope(1, 1, 1, 0), envelope(1, 1, 0, 2)]
        {
            assert!(other.open(sealed.clone()).is_none());
        }
    }

    #[test]
    fn a_changed_or_cut_pair_does_not_open() {
        let sealed = envelope(1, 1, 0, 1).seal(&pair());
        let mut changed = sealed.clone();
        changed.bytes[3] ^= 1;
        assert!(envelope(1, 1, 0, 1).open(changed).is_none());
        let mut cut = sealed;
        cut.bytes.truncate(20);
        assert!(envelope(1, 1, 0, 1).open(cut).is_none());
    }
}
