//! The cost of one participation at every order.

use serde::{Deserialize, Serialize};

use crate::params::NoiseMultiplier;

use super::{gaussian::gaussian_rdp, sampling::SamplingRate, subsampled::sampled_gaussian_rdp};

/// What the sampler of the noise adds to one participation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerError {
    /// The most by which the logarithm of the probability of a whole noise
    /// vector is off.
    pub log_ratio: f64,
    /// The total variation distance of the rest.
    pub distance: f64,
}

/// The Rényi divergence of one participation as a function of the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RdpCurve {
    /// There is no noise.
    Unbounded,
    /// Gaussian noise.
    Gaussian {
        /// z, never 0 in a curve with a bound.
        noise_multiplier: NoiseMultiplier,
    },
    /// Gaussian noise on a Poisson sample, against somebody who does not see who
    /// was drawn. The coordinator sees it, and devices that check in when they
    /// are free are not such a sample.
    SampledGaussian {
        /// z, never 0 in a curve with a bound.
        noise_multiplier: NoiseMultiplier,
        /// q.
        sampling_rate: SamplingRate,
    },
    /// Skellam noise on an integer vector.
    Skellam {
        /// Δ₁.
        delta1: f64,
        /// Δ₂.
        delta2: f64,
        /// μ, the variance of the noise in the sum.
        variance: f64,
        /// By how much what is drawn differs from Skellam noise.
        sampler: SamplerError,
    },
}

impl RdpCurve {
    /// The divergence of order `order` > 1.
    ///
    /// Where probabilities are off by a factor within e^±τ, both under a
    /// dataset and its neighbour, the divergence grows by at most
    /// τ·(2α − 1)/(α − 1): in ln Σ p^α·q^(1−α) the numerator gains α·τ and the
    /// denominator (α − 1)·τ.
    pub fn rdp(&self, order: f64) -> f64 {
        match *self {
            Self::Unbounded => f64::INFINITY,
            Self::Gaussian { noise_multiplier } => gaussian_rdp(order, noise_multiplier),
            Self::SampledGaussian { noise_multiplier, sampling_rate } => {
                sampled_gaussian_rdp(order, noise_multiplier, sampling_rate)
            }
            Self::Skellam { delta1, delta2, variance, sampler } => {
                skellam_rdp(order, delta1, delta2, variance)
                    + sampler.log_ratio * (2.0 * order - 1.0) / (order - 1.0)
            }
        }
    }

    /// The total variation distance between what happens and what
    /// [`rdp`](Self::rdp) describes.
    pub fn distance(&self) -> f64 {
        match self {
            Self::Unbounded | Self::Gaussian { .. } | Self::SampledGaussian { .. } => 0.0,
            Self::Skellam { sampler, .. } => sampler.distance,
        }
    }
}

/// The divergence of the Skellam mechanism: section 3 of Agarwal, Kairouz, Liu
/// 2021 (<https://arxiv.org/abs/2110.04995>), the corollary of Theorem 3.5 for
/// many dimensions, with `variance` = μ the variance of the noise.
///
/// The bound is proved for integer orders. Between two of them the divergence is
/// bounded by the chord of (α − 1)·D, which is 0 at α = 1 and convex in α by
/// Hölder's inequality (van Erven, Harremoës 2014,
/// <https://arxiv.org/abs/1206.2459>).
pub fn skellam_rdp(order: f64, delta1: f64, delta2: f64, variance: f64) -> f64 {
    let squared = delta2 * delta2;
    let at_integer = |order: f64| {
        let excess = ((2.0 * order - 1.0) * squared + 6.0 * delta1) / (4.0 * variance * variance);
        order * squared / (2.0 * variance) + excess.min(3.0 * delta1 / (2.0 * variance))
    };
    let (below, share) = (order.floor(), order.fract());
    if share <= 0.0 {
        return at_integer(order);
    }
    let chord = (1.0 - share) * (below - 1.0) * at_integer(below) + share * below * at_integer(below + 1.0);
    chord / (order - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skellam_bound_holds_between_integer_orders() {
        // One dimension is enough, for the divergences of coordinates add up
        // and so do the squares and the sizes of their shifts.
        for variance in [0.5, 2.0, 10.0, 100.0, 2000.0] {
            let log_mass = log_masses(variance);
            for shift in [1, 2, 5, 20] {
                let (delta, size) = (f64::from(shift), f64::from(shift).powi(2));
                if size > 40.0 * variance {
                    continue;
                }
                for order in [1.01, 1.25, 1.5, 1.75, 2.0, 2.5, 3.5, 4.3, 7.9, 15.5] {
                    let exact = divergence(order, &log_mass, shift);
                    let bound = skellam_rdp(order, delta, delta, variance);
                    assert!(exact <= bound * (1.0 + 1e-9), "μ {variance}, shift {shift}, order {order}");
                    if variance >= 1000.0 && order >= 2.0 {
                        assert!(exact > 0.9 * bound, "μ {variance}, shift {shift}, order {order}");
                    }
                }
            }
        }
    }

    /// The logarithms of the probabilities of 0, 1, …, which are proportional to
    /// Bessel functions of μ: I(k − 1) = I(k + 1) + (2k/μ)·I(k), downwards from
    /// far out, as ratios.
    fn log_masses(variance: f64) -> Vec<f64> {
        let most = 2000;
        let mut ratios = vec![0.0; most + 1];
        for k in (1..=most).rev() {
            let next = ratios.get(k + 1).copied().unwrap_or(0.0);
            ratios[k] = 1.0 / (2.0 * k as f64 / variance + next);
        }
        let mut logs = vec![0.0];
        for ratio in &ratios[1..] {
            logs.push(logs[logs.len() - 1] + f64::ln(*ratio));
        }
        let total: f64 = 2.0 * logs.iter().map(|log| log.exp()).sum::<f64>() - 1.0;
        logs.iter().map(|log| log - total.ln()).collect()
    }

    fn divergence(order: f64, log_mass: &[f64], shift: i32) -> f64 {
        let most = i32::try_from(log_mass.len()).unwrap() - 1 - shift;
        let at = |k: i32| log_mass[usize::try_from(k.abs()).unwrap()];
        let sum: f64 = (-most..=most).map(|k| (order * at(k) - (order - 1.0) * at(k + shift)).exp()).sum();
        sum.ln() / (order - 1.0)
    }
}
