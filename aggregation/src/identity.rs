//! Who a device is: its Ed25519 key.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use rand_core::CryptoRng;
use ring::{
    error::KeyRejected,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{hash, seed::Seed};

/// The start of a PKCS#8 version 2 document with an Ed25519 seed
/// ([RFC 8410](https://www.rfc-editor.org/rfc/rfc8410), section 7).
const PKCS8_BEFORE_SEED: [u8; 16] =
    [0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What stands between the seed and the public key in that document.
const PKCS8_BEFORE_PUBLIC: [u8; 3] = [0x81, 0x21, 0x00];

/// An Ed25519 signing key: of a device, or of an enrolment authority.
pub struct IdentityKey {
    pair: Ed25519KeyPair,
    public: IdentityPublic,
}

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityPublic(pub [u8; 32]);

/// An Ed25519 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// Why bytes are not an identity key.
#[derive(Clone, Debug, Error)]
#[error("not an Ed25519 key in PKCS#8: {0}")]
pub struct IdentityError(KeyRejected);

impl IdentityKey {
    /// The key with this seed.
    #[expect(clippy::expect_used, reason = "any 32 bytes are an Ed25519 seed (RFC 8032, section 5.1.5)")]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("the seed has 32 bytes");
        Self::from_pair(pair)
    }

    /// The key in a PKCS#8 document, with or without its public half. Fails if
    /// it is none, or the public half is of another key.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, IdentityError> {
        match Ed25519KeyPair::from_pkcs8_maybe_unchecked(document) {
            Ok(pair) => Ok(Self::from_pair(pair)),
            Err(rejected) => Err(IdentityError(rejected)),
        }
    }

    /// A fresh key as a PKCS#8 version 2 document, for [`IdentityKey::from_pkcs8`].
    pub fn generate_pkcs8(rng: &mut impl CryptoRng) -> Zeroizing<Vec<u8>> {
        let seed = Seed::random(rng);
        let public = Self::from_seed(seed.as_bytes()).public();
        let mut document = Zeroizing::new(Vec::with_capacity(83));
        document.extend_from_slice(&PKCS8_BEFORE_SEED);
        document.extend_from_slice(seed.as_bytes());
        document.extend_from_slice(&PKCS8_BEFORE_PUBLIC);
        document.extend_from_slice(&public.0);
        document
    }

    /// The public half.
    pub const fn public(&self) -> IdentityPublic {
        self.public
    }

    /// Signs `parts` under `domain`; see [`IdentityPublic::verify`].
    pub fn sign(&self, domain: &str, parts: &[&[u8]]) -> Signature {
        self.sign_text(&hash::encode(domain, parts))
    }

    /// Signs a text as it is, as others do who know nothing of this protocol. No text begins as what
    /// [`IdentityKey::sign`] signs, which is with a zero byte.
    pub(crate) fn sign_text(&self, text: &[u8]) -> Signature {
        let mut signature = Signature([0; 64]);
        signature.0.copy_from_slice(self.pair.sign(text).as_ref());
        signature
    }

    fn from_pair(pair: Ed25519KeyPair) -> Self {
        let mut public = IdentityPublic([0; 32]);
        public.0.copy_from_slice(pair.public_key().as_ref());
        Self { pair, public }
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(..)")
    }
}

impl IdentityPublic {
    /// Whether `signature` is this key's over the same `parts` under the same
    /// `domain`.
    #[must_use]
    pub fn verify(&self, domain: &str, parts: &[&[u8]], signature: &Signature) -> bool {
        self.verify_text(&hash::encode(domain, parts), signature)
    }

    /// Whether `signature` is this key's over a text as it is.
    pub(crate) fn verify_text(&self, text: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(text, &signature.0).is_ok()
    }
}

/// Why bytes are not the public half of a key that anybody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublicKeyError {
    /// They are no point of the curve, or not in the one encoding that it has.
    #[error("the identity key is no Ed25519 public key")]
    NoPoint,
    /// The point is of low order: there are signatures of it that nobody made.
    #[error("the identity key is of low order, so anybody can sign for it")]
    LowOrder,
}

impl IdentityPublic {
    /// Fails unless this is a public key that a seed can have: a point in its one encoding that is not of low order.
    pub fn check(&self) -> Result<(), PublicKeyError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| PublicKeyError::NoPoint)?;
        if key.to_edwards().compress().0 != self.0 {
            return Err(PublicKeyError::NoPoint);
        }
        if key.is_weak() { Err(PublicKeyError::LowOrder) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_generated_document_gives_back_its_key() {
        let document = IdentityKey::generate_pkcs8(&mut ChaCha20Rng::from_seed([2; 32]));
        let key = IdentityKey::from_pkcs8(&document).unwrap();
        assert_eq!(key.public().0, document[51..]);
        let seed = document[16..48].try_into().unwrap();
        assert_eq!(IdentityKey::from_seed(seed).public(), key.public());
    }

    #[test]
    fn a_document_with_another_public_half_is_refused() {
        let mut document = IdentityKey::generate_pkcs8(&mut ChaCha20Rng::from_seed([2; 32]));
        document[60] ^= 1;
        assert!(IdentityKey::from_pkcs8(&document).is_err());
        assert!(IdentityKey::from_pkcs8(b"").is_err());
    }

    #[test]
    fn the_public_key_agrees_with_rfc_8032_test_1() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = [
            0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
            0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
        ];
        assert_eq!(IdentityKey::from_seed(&seed).public(), IdentityPublic(public));
    }

    #[test]
    fn keys_of_low_order_and_second_encodings_are_refused() {
        // The neutral element, a point of order 2 and one of order 4 (y = 1, -1, 0).
        let neutral = {
            let mut y = [0; 32];
            y[0] = 1;
            y
        };
        let minus_one = {
            let mut y = [0xff; 32];
            y[0] = 0xec;
            y[31] = 0x7f;
            y
        };
        for key in [neutral, minus_one, [0; 32]] {
            assert_eq!(IdentityPublic(key).check(), Err(PublicKeyError::LowOrder));
        }
        // y = p + 1 is the neutral element again.
        let second = {
            let mut y = [0xff; 32];
            y[0] = 0xee;
            y[31] = 0x7f;
            y
        };
        assert_eq!(IdentityPublic(second).check(), Err(PublicKeyError::NoPoint));
        // x = 0 with the other sign.
        let signed = {
            let mut y = neutral;
            y[31] = 0x80;
            y
        };
        assert_eq!(IdentityPublic(signed).check(), Err(PublicKeyError::NoPoint));
        assert_eq!(IdentityKey::from_seed(&[1; 32]).public().check(), Ok(()));
    }

    #[test]
    fn a_signature_does_not_move_to_another_domain() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let signature = key.sign("a", &[b"x"]);
        assert!(key.public().verify("a", &[b"x"], &signature));
        assert!(!key.public().verify("b", &[b"x"], &signature));
        assert!(!key.public().verify("a", &[b"x", b""], &signature));
    }
}
