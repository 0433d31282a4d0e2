//! What participations cost.
//!
//! An [`RdpCurve`] is the cost of one participation: its Rényi divergence at
//! every order. Curves of rounds with different parameters add up, order by
//! order, in an [`Accountant`], which converts the sum to (ε, δ).
//!
//! Devices that check in when they are free are not a secret random sample, and
//! the coordinator knows who takes part, so what a federation promises its
//! devices has no amplification by sampling. [`RdpCurve::SampledGaussian`] and a
//! [`SamplingRate`] below 1 are for the other promise: an enrolled population
//! that is really sampled, against somebody who sees the results only. No program
//! here makes that promise: this curve and the two functions that calibrate by it
//! serve comparisons with frameworks that do, and tests.
//!
//! A [`PldAccountant`] does the same sums for Gaussian noise from the whole
//! distribution of the privacy loss: slower, for Gaussian noise only, and the
//! tightest ε there is but for its grid. No program here charges by it either: tests
//! hold the Rényi accountant against it.

use crate::params::Delta;

use convert::Epsilon;

pub use calibrate::{
    CalibrateError, calibrate_gaussian_noise_multiplier, calibrate_noise_multiplier,
    calibrate_sampled_gaussian_noise_multiplier, most_participations,
};
pub use convert::convert;
pub use curve::{RdpCurve, SamplerError, skellam_rdp};
pub use gaussian::{gaussian_rdp, zcdp_rho};
pub use pld::PldAccountant;
pub use sampling::{SamplingRate, SamplingRateError};
pub use subsampled::sampled_gaussian_rdp;

pub(crate) mod analytic;
mod calibrate;
pub(crate) mod convert;
mod curve;
mod gaussian;
mod pld;
mod sampling;
mod special;
mod subsampled;

/// What ε compares, in words for whoever reads it: the adjacency. Two inputs of a sum are neighbours if one is the other
/// with one device added or removed, so the sensitivity Δ₂ is the bound of one contribution; replacing one contribution
/// by another can change the sum by 2Δ₂.
pub const ADJACENCY: &str = "ε compares a run with a device to the same run without it (add or remove one); to compare two \
                             texts of a device that takes part, reckon with twice the sensitivity";

/// The sum of the costs of many participations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accountant {
    charges: Vec<(RdpCurve, u32)>,
}

impl Accountant {
    /// Nothing spent yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `participations` at the cost of `curve` each.
    pub fn add(&mut self, curve: RdpCurve, participations: u32) {
        if participations == 0 {
            return;
        }
        match self.charges.iter_mut().find(|(known, _)| *known == curve) {
            Some((_, count)) if count.checked_add(participations).is_some() => {
                *count += participations;
            }
            _ => self.charges.push((curve, participations)),
        }
    }

    /// Adds everything that `other` holds.
    pub fn add_all(&mut self, other: &Self) {
        for (curve, participations) in &other.charges {
            self.add(curve.clone(), *participations);
        }
    }

    /// The Rényi divergence of order `order` > 1 of everything added.
    pub fn rdp(&self, order: f64) -> f64 {
        self.charges.iter().map(|(curve, count)| f64::from(*count) * curve.rdp(order)).sum()
    }

    /// The ε at `delta`; infinite when something without noise was added, or
    /// when δ is not larger than what the sampler's error costs.
    ///
    /// What is drawn is within total variation η of a mechanism that has the
    /// summed divergence, where η adds up one sample's distance over
    /// coordinates, honest devices and participations. A mechanism within η of
    /// an (ε, δ′) one is (ε, δ′ + (1 + e^ε)·η), so the result is the least ε
    /// that is at least the conversion at δ′ = δ − (1 + e^ε)·η.
    pub fn epsilon(&self, delta: Delta) -> Epsilon {
        let distance: f64 =
            self.charges.iter().map(|(curve, count)| f64::from(*count) * curve.distance()).sum();
        let mut found = convert(|order| self.rdp(order), delta.get());
        if distance <= 0.0 {
            return found;
        }
        // The right side grows with ε, so going up from the conversion at δ
        // itself meets the least solution first.
        for _ in 0..MOST_STEPS {
            let claimed = found.epsilon * (1.0 + STEP);
            let left = delta.get() - (1.0 + claimed.exp()) * distance;
            if left <= 0.0 {
                break;
            }
            found = convert(|order| self.rdp(order), left);
            if found.epsilon <= claimed {
                return Epsilon { epsilon: claimed, order: found.order };
            }
        }
        Epsilon::UNBOUNDED
    }
}

/// How often the search for ε goes up before it gives up.
const MOST_STEPS: u32 = 64;

/// The relative amount by which a claimed ε may exceed the least one.
const STEP: f64 = 1e-10;

/// The ε at `delta` of ρ-zero-concentrated differential privacy, by the tight
/// conversion.
pub fn zcdp_epsilon(rho: f64, delta: Delta) -> Epsilon {
    convert(|order| order * rho, delta.get())
}

#[cfg(test)]
mod tests {
    use crate::params::{ClipNorm, MechanismParams, NoiseMultiplier, PrivacyMode};

    use super::*;

    #[test]
    fn zcdp_matches_the_references() {
        // OpenDP, TF Privacy, and the continuous minimum to ten digits.
        for (rho, delta, expected) in [
            (1.0 / 32.0, 1e-3, 0.688_002_455_487_8),
            (0.81, 1e-10, 8.922_207_283_4),
            (0.1, 1e-6, 2.141_938_928_4),
            (0.3125, 1e-6, 4.010_280_776_2),
            (0.5, 1e-6, 5.221_534_444_5),
            (1.0, 1e-6, 7.766_216_625_3),
            (1.0, 1e-5, 7.077_196_695_8),
        ] {
            let found = zcdp_epsilon(rho, Delta::new(delta).unwrap());
            assert!((found.epsilon / expected - 1.0).abs() < 1e-9, "ρ {rho}: {found:?}");
        }
    }

    #[test]
    fn skellam_divergences_match_the_formula() {
        for (order, delta1, delta2, variance, expected) in [
            (2.0, 1.0, 1.0, 10.0, 0.1225),
            (8.0, 1.0, 1.0, 10.0, 0.4525),
            (4.0, 5.0, 3.0, 100.0, 0.182_325),
            (16.0, 100.0, 10.0, 1e4, 0.080_009_25),
        ] {
            let found = skellam_rdp(order, delta1, delta2, variance);
            assert!((found / expected - 1.0).abs() < 1e-12, "{found}");
        }
    }

    #[test]
    fn gaussian_participations_match_the_reference() {
        let noise_multiplier = multiplier(4.0);
        for (participations, expected) in [(1, 1.14), (4, 2.42), (10, 4.01), (30, 7.48)] {
            let mut accountant = Accountant::new();
            accountant.add(RdpCurve::Gaussian { noise_multiplier }, participations);
            let found = accountant.epsilon(Delta::new(1e-6).unwrap()).epsilon;
            assert!((found - expected).abs() < 0.005 + 1e-9, "K {participations}: {found}");
        }
    }

    #[test]
    fn different_rounds_add_up_order_by_order() {
        let delta = Delta::new(1e-6).unwrap();
        let mut accountant = Accountant::new();
        accountant.add(RdpCurve::Gaussian { noise_multiplier: multiplier(2.0) }, 3);
        accountant.add(RdpCurve::Gaussian { noise_multiplier: multiplier(4.0) }, 4);
        accountant.add(RdpCurve::Gaussian { noise_multiplier: multiplier(2.0) }, 1);
        let rho = 4.0 / 8.0 + 4.0 / 32.0;
        assert!((accountant.rdp(3.0) - 3.0 * rho).abs() < 1e-12);
        let expected = zcdp_epsilon(rho, delta).epsilon;
        assert!((accountant.epsilon(delta).epsilon - expected).abs() < 1e-12);
        accountant.add(RdpCurve::Unbounded, 1);
        assert!(accountant.epsilon(delta).epsilon.is_infinite());
    }

    #[test]
    fn nothing_spent_is_nothing() {
        let mut accountant = Accountant::new();
        accountant.add(RdpCurve::Unbounded, 0);
        let epsilon = accountant.epsilon(Delta::new(1e-9).unwrap()).epsilon;
        assert!(epsilon.abs() < f64::EPSILON, "{epsilon}");
    }

    #[test]
    fn a_distance_takes_its_part_of_delta() {
        let curve = |distance| RdpCurve::Skellam {
            delta1: 100.0,
            delta2: 10.0,
            variance: 1600.0,
            sampler: SamplerError { log_ratio: 0.0, distance },
        };
        let epsilon = |distance, delta| {
            let mut accountant = Accountant::new();
            accountant.add(curve(distance), 5);
            accountant.epsilon(Delta::new(delta).unwrap()).epsilon
        };
        let found = epsilon(1e-9, 1e-6);
        let left = 1e-6 - (1.0 + found.exp()) * 5e-9;
        assert!((found / epsilon(0.0, left) - 1.0).abs() < 1e-9, "{found}");
        assert!(found > epsilon(0.0, 1e-6));
        assert!(epsilon(1e-7, 1e-6).is_infinite());
    }

    #[test]
    fn calibrated_noise_meets_the_target_and_hardly_more() {
        let delta = Delta::new(1e-6).unwrap();
        let z = calibrate_gaussian_noise_multiplier(4.0, delta, 10).unwrap();
        let found = zcdp_epsilon(10.0 * zcdp_rho(z), delta).epsilon;
        assert!(found <= 4.0 && found > 4.0 - 1e-6, "{found}");

        let params = MechanismParams {
            mode: PrivacyMode::Distributed,
            clip_norm: ClipNorm::new(1.0).unwrap(),
            noise_multiplier: multiplier(0.0),
            scale: 4096.0,
            coordinates: 1 << 20,
            cohort: 100,
            report_goal: 80,
            corrupt: 10,
            metrics: crate::MetricParams::NONE,
        };
        let noise_multiplier = calibrate_noise_multiplier(4.0, delta, 10, &params).unwrap();
        assert!(noise_multiplier.get() > z.get());
        let mechanism = crate::Mechanism::new(MechanismParams { noise_multiplier, ..params }).unwrap();
        let found = mechanism.epsilon(10, delta).epsilon;
        assert!(found <= 4.0 && found > 4.0 - 1e-6, "{found}");
    }

    #[test]
    fn a_target_out_of_reach_is_an_error() {
        let delta = Delta::new(1e-6).unwrap();
        for epsilon in [0.0, -1.0, f64::NAN, 1e-9] {
            let error = calibrate_gaussian_noise_multiplier(epsilon, delta, 1000);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("no noise multiplier up to 1e6"), "{error}");
        }
    }

    fn multiplier(z: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(z).unwrap()
    }
}
