//! The exact (ε, δ) of one Gaussian mechanism.

use std::f64::consts::SQRT_2;

use crate::params::{Delta, NoiseMultiplier};

use super::special::{erfc, scaled_erfc};

/// The least ε of one participation with Gaussian noise, by Theorem 8 of Balle,
/// Wang 2018 (<https://arxiv.org/abs/1805.06530>); infinite when z = 0. Unlike
/// their Algorithm 1 the root is found by bisection. The result is the upper
/// end of the bracket.
pub fn analytic_gaussian_epsilon(noise_multiplier: NoiseMultiplier, delta: Delta) -> f64 {
    let z = noise_multiplier.get();
    if z <= 0.0 {
        return f64::INFINITY;
    }
    if gaussian_delta(0.0, z) <= delta.get() {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while gaussian_delta(high, z) > delta.get() {
        (low, high) = (high, 2.0 * high);
        if high > f64::MAX / 4.0 {
            return f64::INFINITY;
        }
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if gaussian_delta(middle, z) > delta.get() {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// δ(ε) = Φ(1/(2z) − εz) − e^ε·Φ(−1/(2z) − εz). With a = εz − 1/(2z) and
/// b = εz + 1/(2z), b² − a² = 2ε, so the second term is ½·e^(−a²/2) times a
/// scaled error function and nothing overflows.
fn gaussian_delta(epsilon: f64, z: f64) -> f64 {
    let (first, second) = gaussian_terms(epsilon, z);
    first - second
}

/// The two terms of δ(ε), for ε·z ≥ −1/(2z).
pub(super) fn gaussian_terms(epsilon: f64, z: f64) -> (f64, f64) {
    let a = epsilon * z - 0.5 / z;
    let b = epsilon * z + 0.5 / z;
    let weight = 0.5 * (-a * a / 2.0).exp();
    let first = if a > 0.0 { weight * scaled_erfc(a / SQRT_2) } else { 0.5 * erfc(a / SQRT_2) };
    (first, weight * scaled_erfc(b / SQRT_2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gaussian_epsilon_matches_the_reference() {
        // dp_accounting 0.6.
        let epsilon =
            analytic_gaussian_epsilon(NoiseMultiplier::new(1.0).unwrap(), Delta::new(1e-5).unwrap());
        assert!((epsilon - 4.377_178_095_681).abs() < 1e-9, "{epsilon}");
    }

    #[test]
    fn epsilon_ends_at_zero_and_infinity() {
        let delta = Delta::new(0.1).unwrap();
        let epsilon = |z| analytic_gaussian_epsilon(NoiseMultiplier::new(z).unwrap(), delta);
        assert!(epsilon(0.0).is_infinite());
        assert!(epsilon(100.0).abs() < f64::EPSILON);
        assert!(epsilon(0.01) > 1000.0 && epsilon(0.01).is_finite());
    }
}
