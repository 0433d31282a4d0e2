//! Shamir's secret sharing of 32-byte seeds over the prime field of 2^61 − 1.
//!
//! [Shamir 1979](https://doi.org/10.1145/359168.359176). A seed is cut into
//! five limbs of at most seven bytes, and each limb is the constant term of its
//! own random polynomial of degree t − 1. The share of the device in place `i`
//! is the value of the five polynomials at `i + 1`.

mod decode;
mod field;

use std::{collections::BTreeSet, fmt};

use rand_core::CryptoRng;
use rayon::prelude::*;
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{index::DeviceIndex, seed::Seed};
use decode::Decoded;
use field::{Fp, invert_all};

/// Field elements in a share, and limbs in a seed.
const LIMBS: usize = 5;

/// Bytes of a limb but the last, which has the remaining four.
const LIMB_BYTES: usize = 7;

/// Bytes of a [`Share`].
pub const SHARE_BYTES: usize = 8 * LIMBS;

/// One device's share of one seed. Secret: wiped on drop and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Share([Fp; LIMBS]);

/// Why bytes are not a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ShareError {
    /// There are too few or too many bytes.
    #[error("a share of {got} bytes, expected {SHARE_BYTES}")]
    Length {
        /// The bytes that came.
        got: usize,
    },
    /// A word is not below the prime.
    #[error("word {word} of a share is not below 2^61 - 1")]
    OutOfField {
        /// The place of the word.
        word: usize,
    },
}

impl Share {
    /// The share as little-endian words, each below the prime.
    pub fn to_bytes(&self) -> [u8; SHARE_BYTES] {
        let mut bytes = [0; SHARE_BYTES];
        let (words, _) = bytes.as_chunks_mut::<8>();
        for (word, limb) in words.iter_mut().zip(&self.0) {
            *word = limb.canonical().to_le_bytes();
        }
        bytes
    }

    /// The share with these bytes. Fails on a wrong length, and on a word that
    /// is not below the prime.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ShareError> {
        let fixed: &[u8; SHARE_BYTES] =
            bytes.try_into().map_err(|_| ShareError::Length { got: bytes.len() })?;
        let mut share = Self([Fp::ZERO; LIMBS]);
        let (words, _) = fixed.as_chunks::<8>();
        for (word, (limb, bytes)) in share.0.iter_mut().zip(words).enumerate() {
            *limb = Fp::new(u64::from_le_bytes(*bytes)).ok_or(ShareError::OutOfField { word })?;
        }
        Ok(share)
    }
}

impl ConstantTimeEq for Share {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.to_bytes().ct_eq(&other.to_bytes())
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for Share {}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share(..)")
    }
}

/// Shares `seed` among the devices in `places` so that any `threshold` of them
/// rebuild it and fewer learn nothing; the shares are in the same order.
///
/// A threshold of zero is taken as one.
pub fn split(seed: &Seed, threshold: usize, places: &[DeviceIndex], rng: &mut impl CryptoRng) -> Vec<Share> {
    let mut polynomials = limbs(seed).map(|limb| {
        let mut coefficients = Zeroizing::new(Vec::with_capacity(threshold.max(1)));
        coefficients.push(limb);
        coefficients.extend((1..threshold).map(|_| Fp::random(rng)));
        coefficients
    });
    let share = |place: &DeviceIndex| {
        let x = abscissa(*place);
        Share(polynomials.each_ref().map(|polynomial| field::evaluate(polynomial, x)))
    };
    let shares = places.iter().map(share).collect();
    polynomials.zeroize();
    shares
}

/// Rebuilds seeds from the shares of one fixed set of devices: the Lagrange
/// coefficients are worked out once, whatever the number of seeds.
#[derive(Clone, Debug)]
pub struct Rebuilder {
    coefficients: Vec<Fp>,
}

impl Rebuilder {
    /// For the shares of these places, in this order. Fails, with nothing, if
    /// there is none or a place is repeated.
    pub fn new(places: &[DeviceIndex]) -> Option<Self> {
        if places.is_empty() {
            return None;
        }
        let xs: Vec<Fp> = places.iter().copied().map(abscissa).collect();
        // λ_i = Π_{j≠i} x_j / (x_j − x_i) = (Π_j x_j) / (x_i · Π_{j≠i} (x_j − x_i))
        let mut coefficients = Vec::with_capacity(xs.len());
        let mut product = Fp::ONE;
        for (i, xi) in xs.iter().enumerate() {
            product = product * *xi;
            let others = xs.iter().enumerate().filter(|(j, _)| *j != i);
            coefficients.push(others.fold(*xi, |all, (_, xj)| all * (*xj - *xi)));
        }
        if coefficients.contains(&Fp::ZERO) {
            return None;
        }
        invert_all(&mut coefficients);
        for coefficient in &mut coefficients {
            *coefficient = *coefficient * product;
        }
        Some(Self { coefficients })
    }

    /// The seed of which these are shares, in the order of the places. Gives
    /// nothing if the number of shares is another, or if what they rebuild is
    /// not a seed. What they rebuild is right only if every share is: compare
    /// it with a commitment.
    pub fn rebuild<'a>(&self, shares: impl IntoIterator<Item = &'a Share>) -> Option<Seed> {
        let mut sums = Zeroizing::new([Fp::ZERO; LIMBS]);
        let mut used = 0;
        for share in shares {
            let coefficient = *self.coefficients.get(used)?;
            used += 1;
            for (sum, limb) in sums.iter_mut().zip(&share.0) {
                *sum = *sum + coefficient * *limb;
            }
        }
        (used == self.coefficients.len()).then_some(())?;
        seed_of(&sums)
    }
}

/// Rebuilds a seed from shares of which at most ⌊(n − t) / 2⌋ are wrong, where
/// n is their number; says also whose are wrong. Gives nothing if more are, or
/// a place is repeated. The limbs are decoded on the threads of the rayon pool.
pub fn decode(shares: &[(DeviceIndex, &Share)], threshold: usize) -> Option<(Seed, Vec<DeviceIndex>)> {
    let xs: Vec<Fp> = shares.iter().map(|(place, _)| abscissa(*place)).collect();
    let decode = |word: usize| {
        let ys: Zeroizing<Vec<Fp>> = Zeroizing::new(shares.iter().map(|(_, share)| share.0[word]).collect());
        decode::decode(&xs, &ys, threshold)
    };
    let words: Vec<Decoded> = (0..LIMBS).into_par_iter().map(decode).collect::<Option<_>>()?;
    let mut limbs = Zeroizing::new([Fp::ZERO; LIMBS]);
    let mut wrong = BTreeSet::new();
    for (limb, decoded) in limbs.iter_mut().zip(&words) {
        *limb = decoded.constant;
        wrong.extend(decoded.wrong.iter().map(|place| shares[*place].0));
    }
    Some((seed_of(&limbs)?, wrong.into_iter().collect()))
}

fn abscissa(place: DeviceIndex) -> Fp {
    Fp::from(u32::from(place.get()) + 1)
}

fn limbs(seed: &Seed) -> [Fp; LIMBS] {
    let mut limbs = [Fp::ZERO; LIMBS];
    for (limb, bytes) in limbs.iter_mut().zip(seed.as_bytes().chunks(LIMB_BYTES)) {
        let mut word = Zeroizing::new([0; 8]);
        word[..bytes.len()].copy_from_slice(bytes);
        *limb = Fp::reduced(u64::from_le_bytes(*word));
    }
    limbs
}

fn seed_of(limbs: &[Fp; LIMBS]) -> Option<Seed> {
    let mut bytes = Zeroizing::new([0; 32]);
    let mut excess = 0;
    for (out, limb) in bytes.chunks_mut(LIMB_BYTES).zip(limbs) {
        let word = Zeroizing::new(limb.canonical().to_le_bytes());
        let (low, high) = word.split_at(out.len());
        out.copy_from_slice(low);
        excess |= high.iter().fold(0, |all, byte| all | byte);
    }
    (excess == 0).then(|| Seed::from_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::subsequence};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn shares_of(seed: [u8; 32], threshold: usize, count: u16) -> Vec<(DeviceIndex, Share)> {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let places: Vec<DeviceIndex> = (0..count).map(DeviceIndex::from).collect();
        let shares = split(&Seed::from_bytes(seed), threshold, &places, &mut rng);
        places.into_iter().zip(shares).collect()
    }

    fn rebuild(shares: &[(DeviceIndex, Share)]) -> Option<[u8; 32]> {
        let places: Vec<DeviceIndex> = shares.iter().map(|(place, _)| *place).collect();
        let seed = Rebuilder::new(&places)?.rebuild(shares.iter().map(|(_, share)| share))?;
        Some(*seed.as_bytes())
    }

    fn borrowed(shares: &[(DeviceIndex, Share)]) -> Vec<(DeviceIndex, &Share)> {
        shares.iter().map(|(place, share)| (*place, share)).collect()
    }

    proptest! {
        #[test]
        fn any_t_shares_rebuild_and_fewer_do_not(
            (count, chosen) in (1_usize..40).prop_flat_map(|count| {
                (Just(count), subsequence((0..count).collect::<Vec<_>>(), 1..=count))
            }),
            seed: [u8; 32],
        ) {
            let threshold = chosen.len();
            let shares = shares_of(seed, threshold, u16::try_from(count).unwrap());
            let subset: Vec<_> = chosen.iter().map(|place| shares[*place].clone()).collect();
            prop_assert_eq!(rebuild(&subset), Some(seed));
            prop_assert_ne!(rebuild(&subset[1..]), Some(seed));
        }

        #[test]
        fn wrong_shares_within_the_radius_are_decoded_away(
            threshold in 1_usize..20,
            spare in 0_usize..20,
            seed: [u8; 32],
        ) {
            let count = threshold + spare;
            let mut shares = shares_of(seed, threshold, u16::try_from(count).unwrap());
            for (_, share) in shares.iter_mut().take(spare / 2) {
                share.0[2] = share.0[2] + Fp::ONE;
            }
            let decoded = decode(&borrowed(&shares), threshold);
            let (decoded, wrong) = decoded.unwrap();
            prop_assert_eq!(*decoded.as_bytes(), seed);
            prop_assert_eq!(wrong.len(), spare / 2);
        }

        #[test]
        fn a_share_survives_its_bytes(words: [u64; LIMBS]) {
            let share = Share(words.map(Fp::reduced));
            prop_assert_eq!(Share::from_bytes(&share.to_bytes()), Ok(share));
        }
    }

    #[test]
    fn more_wrong_shares_than_the_radius_do_not_decode_to_the_seed() {
        let mut shares = shares_of([5; 32], 4, 7);
        for (_, share) in shares.iter_mut().take(2) {
            share.0[0] = share.0[0] + Fp::ONE;
        }
        let decoded = decode(&borrowed(&shares), 4);
        assert!(decoded.is_none_or(|(seed, _)| *seed.as_bytes() != [5; 32]));
    }

    #[test]
    fn a_repeated_place_is_refused() {
        assert!(Rebuilder::new(&[2, 3, 2].map(DeviceIndex::from)).is_none());
        let shares = shares_of([5; 32], 2, 3);
        let twice = [&shares[0], &shares[0], &shares[1]].map(|(place, share)| (*place, share));
        assert!(decode(&twice, 2).is_none());
    }

    #[test]
    fn the_wrong_number_of_shares_is_refused() {
        let shares = shares_of([5; 32], 2, 3);
        let rebuilder = Rebuilder::new(&[0, 1].map(DeviceIndex::from)).unwrap();
        assert!(rebuilder.rebuild([&shares[0].1]).is_none());
        assert!(rebuilder.rebuild(shares.iter().map(|(_, share)| share)).is_none());
    }

    #[test]
    fn share_bytes_of_another_length_or_above_the_prime_are_refused() {
        assert_eq!(Share::from_bytes(&[0; 39]), Err(ShareError::Length { got: 39 }));
        let mut bytes = [0; SHARE_BYTES];
        bytes[8..16].copy_from_slice(&((1_u64 << 61) - 1).to_le_bytes());
        assert_eq!(Share::from_bytes(&bytes), Err(ShareError::OutOfField { word: 1 }));
    }

    #[test]
    fn a_share_is_not_printed() {
        assert_eq!(format!("{:?}", Share([Fp::ONE; LIMBS])), "Share(..)");
    }
}
