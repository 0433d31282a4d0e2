//! The cost of one participation at every order.

use crate::params::NoiseMultiplier;

use super::{sampling::SamplingRate, subsampled::sampled_gaussian_rdp};

/// What the sampler of the noise adds to one participation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplerError {
    /// The most by which the logarithm of the probability of a whole noise
    /// vector is off.
    pub log_ratio: f64,
    /// The total variation distance of the rest.
    pub distance: f64,
}

/// The Rényi divergence of one participation as a function of the order.
#[derive(Clone, Debug, PartialEq)]
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

/// The divergence of the Gaussian mechanism, α/(2z²): Corollary 3 of Mironov
/// 2017 (<https://arxiv.org/abs/1702.07476>). Infinite when z = 0.
pub fn gaussian_rdp(order: f64, noise_multiplier: NoiseMultiplier) -> f64 {
    order * zcdp_rho(noise_multiplier)
}

/// ρ = 1/(2z²) of the Gaussian mechanism: Proposition 1.6 of Bun, Steinke 2016
/// (<https://arxiv.org/abs/1605.02065>). Infinite when z = 0.
pub fn zcdp_rho(noise_multiplier: NoiseMultiplier) -> f64 {
    0.5 / (noise_multiplier.get() * noise_multiplier.get())
}

/// The divergence of the Skellam mechanism: Theorem 3.5 of Agarwal, Kairouz,
/// Liu 2021 (<https://arxiv.org/abs/2110.04995>), with `variance` = μ the
/// variance of the noise.
pub fn skellam_rdp(order: f64, delta1: f64, delta2: f64, variance: f64) -> f64 {
    let squared = delta2 * delta2;
    let excess = ((2.0 * order - 1.0) * squared + 6.0 * delta1) / (4.0 * variance * variance);
    order * squared / (2.0 * variance) + excess.min(3.0 * delta1 / (2.0 * variance))
}
