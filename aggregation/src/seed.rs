//! A 32-byte secret, and HKDF-SHA256 over it.

use std::fmt;

use rand_core::CryptoRng;
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::hash;

/// A 32-byte secret, wiped on drop and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A fresh seed.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Self([0; 32]);
        rng.fill_bytes(&mut seed.0);
        seed
    }

    /// The seed with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A further seed, bound to `session` and to the labelled `parts`.
    pub(crate) fn derive(&self, session: &[u8; 32], label: &str, parts: &[&[u8]]) -> Self {
        let mut out = Self([0; 32]);
        hkdf(session, &self.0, &[&hash::encode(label, parts)], &mut out.0);
        out
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// One block of HKDF-SHA256 ([RFC 5869](https://www.rfc-editor.org/rfc/rfc5869)).
#[expect(clippy::expect_used, reason = "HKDF fails only for an output above 255 blocks; this is one block")]
fn hkdf(salt: &[u8], secret: &[u8], info: &[&[u8]], out: &mut [u8; 32]) {
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, HKDF_SHA256)
        .and_then(|okm| okm.fill(out))
        .expect("one block is a length that HKDF allows");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hkdf_agrees_with_rfc_5869_case_1() {
        let salt: Vec<u8> = (0x00..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let mut out = [0; 32];
        hkdf(&salt, &[0x0b; 22], &[&info], &mut out);
        // The first block of the 42 bytes of output keying material.
        let expected = [
            0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a, 0x90, 0x43, 0x4f, 0x64, 0xd0, 0x36, 0x2f, 0x2a,
            0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a, 0x5a, 0x4c, 0x5d, 0xb0, 0x2d, 0x56, 0xec, 0xc4, 0xc5, 0xbf,
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn a_derived_seed_depends_on_session_label_and_parts() {
        let seed = Seed::from_bytes([7; 32]);
        let base = seed.derive(&[1; 32], "a", &[b"x"]);
        for other in [
            seed.derive(&[2; 32], "a", &[b"x"]),
            seed.derive(&[1; 32], "b", &[b"x"]),
            seed.derive(&[1; 32], "a", &[b"y"]),
        ] {
            assert_ne!(base.as_bytes(), other.as_bytes());
        }
    }

    #[test]
    fn a_seed_is_not_printed() {
        assert_eq!(format!("{:?}", Seed::from_bytes([9; 32])), "Seed(..)");
    }
}
