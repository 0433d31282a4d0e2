//! The Rényi divergence of the Gaussian mechanism.

use crate::params::NoiseMultiplier;

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
