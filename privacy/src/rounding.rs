//! Conditional stochastic rounding to integers.
//!
//! Every coordinate goes up or down to a neighbouring integer, without bias,
//! and the result is accepted only when its L2 norm is within the bound
//! (Section 3.1 of Kairouz, Liu, Steinke 2021,
//! <https://arxiv.org/abs/2102.06387>). With the bound Δ₂ of
//! [`Sensitivity`](crate::Sensitivity) one try is accepted with probability at
//! least 1 − e^(−1/2), so 64 tries all fail with probability below 2^−45; then
//! the vector is truncated towards zero, which shrinks it, instead. Unlike the
//! paper the loop has an end. The bound is checked on the integers, exactly, and
//! so holds whatever the rounding of floats did before.

use rand_core::CryptoRng;

use crate::{
    entropy::{Entropy, wipe},
    ring_integers::Ring,
};

/// How often rounding is tried before truncating.
const TRIES: u32 = 64;

/// Rounds a vector to ring elements, so that the norm of the integers is at
/// most `bound`. `write(start, x)` gives the vector's coordinates from `start`
/// on; it is asked for at most `block` at a time and once for each try, so that
/// the vector never stands in memory whole.
pub(crate) fn round<R: CryptoRng>(
    elements: &mut [u32],
    block: usize,
    mut write: impl FnMut(usize, &mut [f64]),
    bound: f64,
    ring: Ring,
    entropy: &mut Entropy<'_, R>,
) {
    let most = bound * bound * (1.0 - 2f64.powi(-50));
    let mut x = vec![0.0; block];
    for _ in 0..TRIES {
        let norm_squared = fill(elements, &mut x, &mut write, ring, |value| {
            floor(value + f64::from(entropy.u32()) * 2f64.powi(-32))
        });
        if norm_squared <= most {
            wipe(&mut x);
            return;
        }
    }
    let mut shrink = 1.0;
    while fill(elements, &mut x, &mut write, ring, |value| truncate(value * shrink)) > most {
        shrink *= 0.99;
    }
    wipe(&mut x);
}

/// Writes the rounded values and returns their squared norm, correct to one
/// rounding because it is summed in integers. `x` is where a block is worked on.
fn fill(
    elements: &mut [u32],
    x: &mut [f64],
    write: &mut impl FnMut(usize, &mut [f64]),
    ring: Ring,
    mut to_integer: impl FnMut(f64) -> i64,
) -> f64 {
    let block = x.len();
    let mut norm_squared = 0u128;
    for (index, elements) in elements.chunks_mut(block).enumerate() {
        let x = &mut x[..elements.len()];
        write(index * block, x);
        for (element, &value) in elements.iter_mut().zip(x.iter()) {
            let integer = to_integer(value);
            let size = u128::from(integer.unsigned_abs());
            norm_squared += size * size;
            *element = ring.reduce(integer);
        }
    }
    norm_squared as f64
}

/// The largest integer not above `value`; `f64::floor` is a function call on
/// processors that are only promised SSE2.
#[inline]
fn floor(value: f64) -> i64 {
    let integer = truncate(value);
    integer - i64::from(integer as f64 > value)
}

#[inline]
fn truncate(value: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the norm of a clipped, scaled update is far below 2^63, and the cast saturates"
    )]
    let integer = value as i64;
    integer
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    #[test]
    fn rounding_is_without_bias() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut entropy = Entropy::new(&mut rng);
        let ring = Ring::holding(1000.0).unwrap();
        let x = vec![-2.3; 40_000];
        let rounded = rounded(&x, 1e9, ring, &mut entropy);
        let mean = rounded.iter().map(|&q| f64::from(ring.center(q))).sum::<f64>() / 40_000.0;
        assert!((mean + 2.3).abs() < 0.01, "mean {mean}");
        assert!(rounded.iter().all(|&q| [-3, -2].contains(&ring.center(q))));
    }

    #[test]
    fn integers_stay_as_they_are() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let mut entropy = Entropy::new(&mut rng);
        let ring = Ring::holding(1000.0).unwrap();
        let rounded = rounded(&[-3.0, 0.0, 5.0], 100.0, ring, &mut entropy);
        let integers: Vec<_> = rounded.iter().map(|&q| ring.center(q)).collect();
        assert_eq!(integers, [-3, 0, 5]);
    }

    #[test]
    fn a_bound_that_no_rounding_meets_still_holds() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut entropy = Entropy::new(&mut rng);
        let ring = Ring::holding(1000.0).unwrap();
        let rounded = rounded(&[30.5, -40.5], 20.0, ring, &mut entropy);
        let norm_squared: i32 = rounded.iter().map(|&q| ring.center(q).pow(2)).sum();
        assert!(norm_squared <= 400 && norm_squared > 300, "{norm_squared}");
    }

    #[test]
    fn a_vector_is_rounded_in_blocks_as_it_is_whole() {
        let ring = Ring::holding(1000.0).unwrap();
        let x: Vec<f64> = (0..11).map(|i| f64::from(i) - 5.25).collect();
        let of = |block| {
            let mut rng = ChaCha20Rng::seed_from_u64(6);
            let mut elements = vec![0; x.len()];
            let write = |start: usize, out: &mut [f64]| out.copy_from_slice(&x[start..start + out.len()]);
            round(&mut elements, block, write, 1e9, ring, &mut Entropy::new(&mut rng));
            elements
        };
        assert_eq!(of(4), of(11));
        assert_eq!(of(1), of(16));
    }

    fn rounded<R: CryptoRng>(x: &[f64], bound: f64, ring: Ring, entropy: &mut Entropy<'_, R>) -> Vec<u32> {
        let mut elements = vec![0; x.len()];
        let write = |start: usize, out: &mut [f64]| out.copy_from_slice(&x[start..start + out.len()]);
        round(&mut elements, x.len(), write, bound, ring, entropy);
        elements
    }
}
