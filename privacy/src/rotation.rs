//! The public random rotation, in blocks.
//!
//! For a block g of m coordinates it is H·D·g/√m, with H the m×m
//! Walsh–Hadamard matrix and D a diagonal of random signs (Section 2.3 of
//! Kairouz, Liu, Steinke 2021, <https://arxiv.org/abs/2102.06387>). It is an
//! isometry that spreads an update evenly over its coordinates, so that the
//! ring can be small. Unlike the paper it works on blocks of at most 2^15
//! coordinates, which fit a cache and need little padding.
//!
//! The signs are the bits of SHA-256(context ‖ seed ‖ counter), counter = 0, 1,
//! …, least significant bit first, a set bit meaning −1.

use ring::digest::{Context, SHA256};

/// The largest block.
const LARGEST_BLOCK: usize = 1 << 15;

/// Binds the hash to this use of it.
const CONTEXT: &[u8] = b"nightshift privacy rotation signs v1\0";

/// Signs that one hash gives.
const SIGNS_PER_DIGEST: usize = 256;

/// The block m for updates of `coordinates` coordinates.
pub(crate) fn block_len(coordinates: usize) -> usize {
    coordinates.min(LARGEST_BLOCK).next_power_of_two()
}

/// Rotates block number `index` of a vector in place; the length of `x` is the
/// block's, a power of two. Only a vector's single block is shorter than a hash.
pub(crate) fn rotate(x: &mut [f64], index: usize, seed: &[u8; 32]) {
    flip_signs(x, index, seed);
    transform(x);
}

/// Undoes [`rotate`].
pub(crate) fn rotate_back(x: &mut [f64], index: usize, seed: &[u8; 32]) {
    transform(x);
    flip_signs(x, index, seed);
}

/// Multiplies by D.
fn flip_signs(x: &mut [f64], index: usize, seed: &[u8; 32]) {
    let first = index as u64 * (x.len() / SIGNS_PER_DIGEST) as u64;
    for (counter, values) in (first..).zip(x.chunks_mut(SIGNS_PER_DIGEST)) {
        let mut context = Context::new(&SHA256);
        context.update(CONTEXT);
        context.update(seed);
        context.update(&counter.to_le_bytes());
        let digest = context.finish();
        for (byte, values) in digest.as_ref().iter().zip(values.chunks_mut(8)) {
            for (bit, value) in values.iter_mut().enumerate() {
                let sign = u64::from(byte >> bit & 1) << 63;
                *value = f64::from_bits(value.to_bits() ^ sign);
            }
        }
    }
}

/// Multiplies a block by H/√m.
fn transform(x: &mut [f64]) {
    let block = x.len();
    let mut half = 1;
    if block.trailing_zeros() % 2 == 1 {
        for pair in x.chunks_exact_mut(2) {
            (pair[0], pair[1]) = (pair[0] + pair[1], pair[0] - pair[1]);
        }
        half = 2;
    }
    while half < block {
        double_stage(x, half);
        half *= 4;
    }
    let norm = 1.0 / (block as f64).sqrt();
    for value in x {
        *value *= norm;
    }
}

/// The butterflies of distance `half` and then `2·half`, in one pass over memory.
fn double_stage(values: &mut [f64], half: usize) {
    for group in values.chunks_exact_mut(4 * half) {
        let (first, second) = group.split_at_mut(2 * half);
        let (a, b) = first.split_at_mut(half);
        let (c, d) = second.split_at_mut(half);
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (ab, a_b) = (*a + *b, *a - *b);
            let (cd, c_d) = (*c + *d, *c - *d);
            (*a, *b, *c, *d) = (ab + cd, a_b + c_d, ab - cd, a_b - c_d);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_one_hot_block_spreads_evenly() {
        for block in [1, 2, 4, 8, 16, 1 << 15] {
            let mut x = vec![0.0; block];
            x[block / 2] = 1.0;
            rotate(&mut x, 0, &[7; 32]);
            let expected = 1.0 / (block as f64).sqrt();
            assert!(x.iter().all(|v| (v.abs() - expected).abs() < 1e-12), "block {block}");
        }
    }

    #[test]
    fn every_block_has_signs_of_its_own() {
        let signs = |index| {
            let mut x = vec![1.0; 512];
            flip_signs(&mut x, index, &[7; 32]);
            x
        };
        assert_ne!(signs(0), signs(1));
        assert_ne!(signs(0)[256..], signs(1)[..256]);
    }

    #[test]
    fn the_signs_depend_on_every_bit_of_the_seed() {
        let signs = |seed: &[u8; 32]| {
            let mut x = vec![1.0; 512];
            flip_signs(&mut x, 0, seed);
            x
        };
        let base = signs(&[0; 32]);
        for bit in 0..256 {
            let mut seed = [0; 32];
            seed[bit / 8] = 1 << (bit % 8);
            assert_ne!(signs(&seed), base);
        }
        let negative = base.iter().filter(|v| **v < 0.0).count();
        assert!((180..332).contains(&negative), "{negative} of 512 signs are negative");
    }

    proptest! {
        #[test]
        fn the_rotation_is_an_isometry_and_is_undone(
            (exponent, x) in (0u32..11).prop_flat_map(|exponent| {
                (Just(exponent), prop::collection::vec(-1e3f64..1e3, 1 << exponent))
            }),
            index in 0usize..5,
            seed: [u8; 32],
        ) {
            let index = if exponent < 8 { 0 } else { index };
            let mut rotated = x.clone();
            rotate(&mut rotated, index, &seed);
            let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
            prop_assert!((norm(&rotated) - norm(&x)).abs() <= 1e-12 * norm(&x));
            rotate_back(&mut rotated, index, &seed);
            for (back, original) in rotated.iter().zip(&x) {
                prop_assert!((back - original).abs() < 1e-9);
            }
        }
    }
}
