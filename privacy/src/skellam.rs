//! Skellam noise: the difference of two independent Poisson variables of equal
//! mean μ/2, an integer of mean 0 and variance μ with
//! P(k) = e^(−μ)·I_|k|(μ) (Agarwal, Kairouz, Liu 2021,
//! <https://arxiv.org/abs/2110.04995>).
//!
//! # How it is sampled
//!
//! A sign and a size are drawn. Sizes are cut into blocks of 2^j integers. A
//! block is drawn from an alias table in proportion to the density at its head,
//! an integer uniformly within the block, and it is accepted in proportion to
//! its density over that of the head (the histogram rejection of Devroye,
//! "Non-Uniform Random Variate Generation", Section VIII.2, 1986,
//! <http://www.nrbook.com/devroye/>). −0 is refused, since it would count zero
//! twice. For a variance below 2^18 a block is one integer and nothing else is
//! ever refused; above, a block is a 64th to a 128th of the standard deviation
//! wide, and a lower bound of the acceptance is kept for each block, so that
//! only one sample in a hundred looks at the density.
//!
//! # What it is off by
//!
//! Densities are computed with about 106 bits (see `density`) and every
//! comparison with a random number is decided by as many random bits as it
//! takes: a few at first, more when they tie. What is drawn differs from a true
//! Skellam variable in two ways, both constants here:
//!
//! - [`sampler_relative_error`]: on the support the logarithm of each
//!   probability is off by at most 2^−84 (2^−86 for a density and as much for
//!   each acceptance, doubled by normalising);
//! - [`sampler_distance`]: apart from that the total variation is at most
//!   2^−110. Sizes beyond about 12.9 standard deviations are never drawn, which
//!   Chernoff's bound 2·exp(−k·asinh(k/μ) + √(μ²+k²) − μ) puts below 2^−118;
//!   and each of at most 2^13 cells of the alias table is rounded by less than
//!   4·2^−127.
//!
//! The accountant charges both, for every coordinate and honest device.

use std::fmt;

use rand_core::CryptoRng;

use crate::{double::Double, entropy::Entropy, ring_integers::Ring};

use alias::AliasTable;

mod alias;
mod density;

/// The least variance that can be sampled.
pub(crate) const LEAST_VARIANCE: f64 = 1.0 / 1_073_741_824.0;

/// From this variance on blocks have more than one integer, and densities come
/// from the asymptotic expansion.
const BLOCKS_FROM: f64 = 262_144.0;

/// Sizes are drawn up to where the tail is below two to the minus this.
const TAIL_BITS: f64 = 119.0;

/// Bits of a first word that give the place in a block, if they are enough.
const OFFSET_BITS: u32 = 12;

/// The most by which the logarithm of a probability of the sampled noise is
/// off, for one sample.
pub const fn sampler_relative_error() -> f64 {
    1.0 / (1u128 << 84) as f64
}

/// The total variation distance of one sample from a distribution within
/// [`sampler_relative_error`] of the true one.
pub const fn sampler_distance() -> f64 {
    1.0 / (1u128 << 110) as f64
}

/// A sampler for one variance.
#[derive(Clone)]
pub(crate) struct Skellam {
    variance: f64,
    table: AliasTable,
    /// j: a block has 2^j integers.
    block_bits: u32,
    /// For every block the first 16 bits from which on the density must be
    /// looked at; 2^16 where it never must.
    squeezes: Vec<u32>,
}

impl Skellam {
    /// Prepares the tables for `variance`, at least [`LEAST_VARIANCE`].
    pub(crate) fn new(variance: f64) -> Self {
        if variance < BLOCKS_FROM {
            let densities = density::table(variance, TAIL_BITS);
            let squeezes = vec![1 << 16; densities.len()];
            return Self { variance, table: AliasTable::new(&densities), block_bits: 0, squeezes };
        }
        let mut block_bits = 0;
        while f64::from(1u32 << (block_bits + 1)) <= variance.sqrt() / 64.0 {
            block_bits += 1;
        }
        let last = density::size_with_tail(variance, TAIL_BITS);
        let densities: Vec<_> =
            (0..=last >> block_bits).map(|block| density::expansion(variance, block << block_bits)).collect();
        let squeezes = (0..=last >> block_bits)
            .map(|block| {
                let head = block << block_bits;
                let least = density::ratio(variance, head + (1 << block_bits), head);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a ratio of a falling density lies between 0 and 1"
                )]
                let squeeze = (least * 65_536.0).floor() as u32;
                // One less than the floor, so that the error of the ratio cannot matter.
                squeeze.saturating_sub(1)
            })
            .collect();
        Self { variance, table: AliasTable::new(&densities), block_bits, squeezes }
    }

    /// Adds one sample to each element.
    pub(crate) fn add_to<R: CryptoRng>(
        &self,
        elements: &mut [u32],
        ring: Ring,
        entropy: &mut Entropy<'_, R>,
    ) {
        for element in elements {
            *element = ring.add(*element, self.sample(entropy));
        }
    }

    /// Draws one sample.
    #[inline]
    pub(crate) fn sample<R: CryptoRng>(&self, entropy: &mut Entropy<'_, R>) -> i64 {
        loop {
            // Bit 0 is the sign, from bit 1 on the cell, bits 12 to 27 the
            // acceptance, 28 to 39 the offset, 40 to 63 the alias. Only where a
            // block is one integer does the cell reach beyond bit 11, and then
            // there is no acceptance and no offset.
            let word = entropy.u64();
            let block = self.table.pick(word >> 1, word >> 40, entropy);
            let offset = if self.block_bits <= OFFSET_BITS { word >> 28 } else { u64::from(entropy.u32()) };
            let offset = offset & ((1 << self.block_bits) - 1);
            let size = (u64::from(block) << self.block_bits) | offset;
            let start = word >> 12 & 0xffff;
            if start >= u64::from(self.squeezes[block as usize])
                && !self.accepts(u64::from(block) << self.block_bits, size, start, entropy)
            {
                continue;
            }
            let negative = (word & 1).cast_signed();
            if size == 0 && negative == 1 {
                continue;
            }
            return size.cast_signed() * (1 - 2 * negative);
        }
    }

    /// Whether a uniform number in [0, 1) that begins with the 16 bits `start`
    /// is below the density of `size` over that of `head`. Decided in floats,
    /// whose error is below 2^−40, unless the two are within 2^−36.
    #[cold]
    fn accepts<R: CryptoRng>(&self, head: u64, size: u64, start: u64, entropy: &mut Entropy<'_, R>) -> bool {
        let more = entropy.u64();
        let uniform = (start as f64 + more as f64 * 2f64.powi(-64)) * 2f64.powi(-16);
        let ratio = density::ratio(self.variance, size, head);
        if (uniform - ratio).abs() > 2f64.powi(-36) {
            return uniform < ratio;
        }
        accepts_exactly(self.variance, (head, size), (start, more, entropy.u64()))
    }
}

impl fmt::Debug for Skellam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skellam").field("variance", &self.variance).finish_non_exhaustive()
    }
}

/// The same decision with 144 random bits and 106-bit densities.
fn accepts_exactly(variance: f64, (head, size): (u64, u64), (start, more, last): (u64, u64, u64)) -> bool {
    let uniform = Double::from_u64(start).times_power_of_two(-16)
        + Double::from_u64(more).times_power_of_two(-80)
        + Double::from_u64(last).times_power_of_two(-144);
    let ratio = density::expansion(variance, size) / density::expansion(variance, head);
    (uniform - ratio).to_f64() < 0.0
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "test values are small and known"
)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    /// Chi-square of `samples` against the density, in about sixty bins of
    /// equal width over ±4σ and the two tails, in standard deviations of the
    /// chi-square distribution.
    fn chi_square(variance: f64, seed: u64, samples: u32) -> f64 {
        let sampler = Skellam::new(variance);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut entropy = Entropy::new(&mut rng);
        let width = (variance.sqrt() * 8.0 / 60.0).ceil().max(1.0) as i64;
        let reach = (variance.sqrt() * 4.0 / width as f64).ceil().max(1.0) as i64;
        let bin = |k: i64| k.div_euclid(width).clamp(-reach, reach) + reach;
        let mut counts = vec![0.0; 2 * reach as usize + 1];
        for _ in 0..samples {
            counts[bin(sampler.sample(&mut entropy)) as usize] += 1.0;
        }
        let mut expected = vec![0.0; counts.len()];
        let last = density::size_with_tail(variance, 119.0).cast_signed();
        let mut total = 0.0;
        for k in -last..=last {
            let p = density::ratio(variance, k.unsigned_abs(), 0);
            expected[bin(k) as usize] += p;
            total += p;
        }
        let statistic: f64 = counts
            .iter()
            .zip(&expected)
            .filter(|(_, e)| **e / total * f64::from(samples) > 5.0)
            .map(|(count, e)| {
                let e = e / total * f64::from(samples);
                (count - e).powi(2) / e
            })
            .sum();
        let freedom = counts.len() as f64 - 1.0;
        (statistic - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn samples_follow_the_density() {
        for (seed, variance) in
            [20.0, 300.0, 40_000.0, 262_143.0, 262_144.0, 3_000_000.0, 1e9].into_iter().enumerate()
        {
            let deviation = chi_square(variance, seed as u64, 400_000);
            assert!(deviation.abs() < 4.5, "variance {variance}: {deviation}");
        }
    }

    #[test]
    fn a_tiny_variance_has_the_right_zeros() {
        // P(0) = e^(-1/2)·I_0(1/2), from mpmath.
        let sampler = Skellam::new(0.5);
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let mut entropy = Entropy::new(&mut rng);
        let zeros = (0..400_000).filter(|_| sampler.sample(&mut entropy) == 0).count();
        assert!((zeros as f64 / 4e5 - 0.645_035_270_449_151).abs() < 0.004, "{zeros}");
    }

    #[test]
    fn mean_and_variance_are_right() {
        for (seed, exponent) in [(1, -8), (2, 0), (3, 10), (4, 17), (5, 18), (6, 40), (7, 54)] {
            let variance = 2f64.powi(exponent);
            let sampler = Skellam::new(variance);
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut entropy = Entropy::new(&mut rng);
            let count = 500_000;
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..count {
                let sample = sampler.sample(&mut entropy) as f64 / variance.sqrt();
                sum += sample;
                squares += sample * sample;
            }
            let root = f64::from(count).sqrt();
            assert!((sum / root).abs() < 4.5, "mean at 2^{exponent}: {sum}");
            // The fourth moment of a standardised Skellam variable is 3 + 1/μ.
            let spread = (2.0 + 1.0 / variance).sqrt() * root;
            let deviation = (squares - f64::from(count)) / spread;
            assert!(deviation.abs() < 4.5, "variance at 2^{exponent}: {deviation}");
        }
    }

    #[test]
    fn the_low_bits_of_wide_noise_are_uniform() {
        let sampler = Skellam::new(2f64.powi(44));
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        let mut entropy = Entropy::new(&mut rng);
        let mut counts = [0f64; 256];
        for _ in 0..256_000 {
            counts[(sampler.sample(&mut entropy) & 255) as usize] += 1.0;
        }
        let statistic: f64 = counts.iter().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
        assert!((statistic - 255.0).abs() < 4.5 * 510f64.sqrt(), "{statistic}");
    }

    #[test]
    fn the_exact_decision_agrees_with_the_floats_away_from_a_tie() {
        let variance = 2f64.powi(30);
        let (head, size) = (40_960, 41_100);
        let ratio = density::ratio(variance, size, head);
        for nudge in [-1e-9, 1e-9] {
            let bits = ((ratio + nudge) * 2f64.powi(48)) as u64;
            let parts = (bits >> 32, bits << 32, 0);
            assert_eq!(accepts_exactly(variance, (head, size), parts), nudge < 0.0);
        }
    }
}
