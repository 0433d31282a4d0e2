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

use crate::{entropy::Entropy, ring_integers::Ring};

/// How often rounding is tried before truncating.
const TRIES: u32 = 64;

/// Rounds `x` to ring elements, so that the norm of the integers is at most
/// `bound`.
pub(crate) fn round<R: CryptoRng>(
    x: &[f64],
    bound: f64,
    ring: Ring,
    entropy: &mut Entropy<'_, R>,
) -> Vec<u32> {
    let most = bound * bound * (1.0 - 2f64.powi(-50));
    let mut rounded = vec![0; x.len()];
    for _ in 0..TRIES {
        let norm_squared =
            fill(&mut rounded, x, ring, |value| floor(value + f64::from(entropy.u32()) * 2f64.powi(-32)));
        if norm_squared <= most {
            return rounded;
        }
    }
    let mut shrink = 1.0;
    while fill(&mut rounded, x, ring, |value| truncate(value * shrink)) > most {
        shrink *= 0.99;
    }
    rounded
}

/// Writes the rounded values and returns their squared norm, correct to one
/// rounding because it is summed in integers.
fn fill(rounded: &mut [u32], x: &[f64], ring: Ring, mut to_integer: impl FnMut(f64) -> i64) -> f64 {
    let mut norm_squared = 0u128;
    for (element, &value) in rounded.iter_mut().zip(x) {
        let integer = to_integer(value);
        let size = u128::from(integer.unsigned_abs());
        norm_squared += size * size;
        *element = ring.reduce(integer);
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
        let rounded = round(&x, 1e9, ring, &mut entropy);
        let mean = rounded.iter().map(|&q| f64::from(ring.centre(q))).sum::<f64>() / 40_000.0;
        assert!((mean + 2.3).abs() < 0.01, "mean {mean}");
        assert!(rounded.iter().all(|&q| [-3, -2].contains(&ring.centre(q))));
    }

    #[test]
    fn integers_stay_as_they_are() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let mut entropy = Entropy::new(&mut rng);
        let ring = Ring::holding(1000.0).unwrap();
        let rounded = round(&[-3.0, 0.0, 5.0], 100.0, ring, &mut entropy);
        let integers: Vec<_> = rounded.iter().map(|&q| ring.centre(q)).collect();
        assert_eq!(integers, [-3, 0, 5]);
    }

    #[test]
    fn a_bound_that_no_rounding_meets_still_holds() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut entropy = Entropy::new(&mut rng);
        let ring = Ring::holding(1000.0).unwrap();
        let rounded = round(&[30.5, -40.5], 20.0, ring, &mut entropy);
        let norm_squared: i32 = rounded.iter().map(|&q| ring.centre(q).pow(2)).sum();
        assert!(norm_squared <= 400 && norm_squared > 300, "{norm_squared}");
    }
}
