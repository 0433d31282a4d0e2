//! (ε, δ) from the distribution of the privacy loss.
//!
//! The loss of an outcome is L = ln(P/Q), P and Q its densities with a device
//! and without it, and δ(ε) = E\[max(0, 1 − e^(ε−L))\] under P. Losses of many
//! participations add up. [`PldAccountant`] puts the loss of one participation
//! on a grid ([`losses`]), convolves it ([`sum`]) and reads ε off the result.
//! Everything that is inexact is counted against the mechanism, so ε and δ are
//! upper bounds: the grid, what lies beyond its ends, what the circular
//! convolution wraps around, and the rounding of the transform.

use crate::params::{Delta, NoiseMultiplier};

use super::sampling::SamplingRate;

use losses::{Direction, Losses, loss_range};
use sum::{Goal, Sum};

mod losses;
mod sum;

/// The coarsest grid that is used by choice. A narrow loss gets a finer one.
const LARGEST_INTERVAL: f64 = 1e-4;

/// The finest grid.
const SMALLEST_INTERVAL: f64 = 1e-12;

/// The least number of grid points in q/z, which is about the standard
/// deviation of one participation's loss. The grid adds less than (1/32)²/6 to
/// its variance in units of q²/z².
const POINTS_A_DEVIATION: f64 = 32.0;

/// The most grid points of one participation's loss, and of the sum. Where they
/// do not suffice the grid is coarser, and ε larger.
const MOST_POINTS: f64 = 524_288.0;
const LARGEST_WINDOW: f64 = 1_048_576.0;

/// How often a grid is made coarser before ε is called infinite.
const MOST_GRIDS: u32 = 8;

/// What participations with Gaussian noise cost, by the distribution of their
/// privacy loss; never below the true value, and tighter than any bound by Rényi
/// divergence.
///
/// Sampling below [`SamplingRate::ALL`] holds against whom
/// [`RdpCurve::SampledGaussian`](super::RdpCurve::SampledGaussian) holds against.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PldAccountant {
    charges: Vec<Charge>,
}

/// Equal participations.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Charge {
    z: f64,
    q: f64,
    participations: u32,
}

impl PldAccountant {
    /// Nothing spent yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `participations` in sums with Gaussian noise of `noise_multiplier`,
    /// over a Poisson sample at `sampling_rate` or over all.
    pub fn add(
        &mut self,
        noise_multiplier: NoiseMultiplier,
        sampling_rate: SamplingRate,
        participations: u32,
    ) {
        if participations == 0 {
            return;
        }
        let (z, q) = (noise_multiplier.get(), sampling_rate.get());
        let same =
            |charge: &&mut Charge| charge.z.to_bits() == z.to_bits() && charge.q.to_bits() == q.to_bits();
        match self.charges.iter_mut().find(same) {
            Some(charge) if charge.participations.checked_add(participations).is_some() => {
                charge.participations += participations;
            }
            _ => self.charges.push(Charge { z, q, participations }),
        }
    }

    /// The ε at `delta`; infinite when something without noise was added.
    pub fn epsilon(&self, delta: Delta) -> f64 {
        self.worst(Goal::Delta(delta.get()), |sum| sum.epsilon(delta.get()), f64::INFINITY)
    }

    /// The δ at `epsilon`, which is taken as 0 when it is negative; 1 when
    /// something without noise was added.
    pub fn delta(&self, epsilon: f64) -> f64 {
        let epsilon = epsilon.max(0.0);
        self.worst(Goal::Epsilon(epsilon), |sum| sum.delta(epsilon), 1.0)
    }

    /// The worse of both directions: a device's contribution taken away, or
    /// added. They are the same where nobody is left out.
    fn worst(&self, goal: Goal, read: impl Fn(&Sum) -> f64, unbounded: f64) -> f64 {
        if self.charges.is_empty() {
            return 0.0;
        }
        let sampled = self.charges.iter().any(|charge| charge.q < 1.0);
        let directions =
            if sampled { &[Direction::Removed, Direction::Added][..] } else { &[Direction::Removed] };
        directions
            .iter()
            .map(|&direction| self.sum(direction, goal).map_or(unbounded, |sum| read(&sum)))
            .fold(0.0, f64::max)
    }

    /// The sum of all losses in one direction; none when it has no end.
    fn sum(&self, direction: Direction, goal: Goal) -> Option<Sum> {
        let mut interval = self.interval()?;
        for _ in 0..MOST_GRIDS {
            let parts: Vec<_> = self
                .charges
                .iter()
                .map(|charge| (Losses::new(direction, charge.z, charge.q, interval), charge.participations))
                .collect();
            match Sum::new(&parts, interval, goal, LARGEST_WINDOW) {
                Ok(sum) => return Some(sum),
                Err(window) if window.is_finite() => interval *= window / LARGEST_WINDOW,
                Err(_) => return None,
            }
        }
        None
    }

    /// The grid for these charges; none when a loss has no end.
    fn interval(&self) -> Option<f64> {
        let mut interval = LARGEST_INTERVAL;
        for charge in &self.charges {
            interval = interval.min(charge.q / (POINTS_A_DEVIATION * charge.z));
        }
        interval = interval.max(SMALLEST_INTERVAL);
        for charge in &self.charges {
            let (low, high) = loss_range(charge.z, charge.q);
            interval = interval.max((high - low) / MOST_POINTS);
        }
        interval.is_finite().then_some(interval)
    }
}

#[cfg(test)]
mod tests {
    use crate::accountant::{Accountant, RdpCurve, analytic::analytic_gaussian_epsilon};

    use super::*;

    #[test]
    fn participations_of_all_are_one_gaussian_with_less_noise() {
        for (z, participations, delta) in [
            (1.0, 1, 1e-5),
            (0.3, 1, 1e-6),
            (4.0, 30, 1e-6),
            (10.0, 500, 1e-8),
            (2.0, 3, 1e-12),
            (50.0, 100_000, 1e-5),
            (100.0, 1, 1e-4),
        ] {
            let found = spent(z, 1.0, participations).epsilon(Delta::new(delta).unwrap());
            let one = z / f64::from(participations).sqrt();
            let exact =
                analytic_gaussian_epsilon(NoiseMultiplier::new(one).unwrap(), Delta::new(delta).unwrap());
            assert!(found >= exact, "z {z}, T {participations}: {found} below {exact}");
            assert!(found <= exact * 1.001, "z {z}, T {participations}: {found} above {exact}");
        }
    }

    #[test]
    fn it_is_tighter_than_renyi_divergence_on_the_published_cases() {
        for (q, z, participations, delta) in [
            (0.04, 1.5, 2250, 1e-5),
            (0.0025, 1.3, 6000, 1e-5),
            (0.001, 1.0, 30_000, 1e-7),
            (0.01, 0.7, 120, 1e-5),
            (0.01, 2.5, 50, 1e-6),
        ] {
            let delta = Delta::new(delta).unwrap();
            let mut renyi = Accountant::new();
            let curve = RdpCurve::SampledGaussian {
                noise_multiplier: NoiseMultiplier::new(z).unwrap(),
                sampling_rate: SamplingRate::new(q).unwrap(),
            };
            renyi.add(curve, participations);
            let (found, bound) = (spent(z, q, participations).epsilon(delta), renyi.epsilon(delta).epsilon);
            assert!(found < bound && found > 0.5 * bound, "q {q}, z {z}: {found} and {bound}");
        }
    }

    #[test]
    fn epsilon_and_delta_are_inverse() {
        for (q, z, participations) in [(0.04, 1.5, 2250), (1.0, 3.0, 7), (0.3, 1.0, 1)] {
            let accountant = spent(z, q, participations);
            let epsilon = accountant.epsilon(Delta::new(1e-5).unwrap());
            let delta = accountant.delta(epsilon);
            assert!((delta / 1e-5 - 1.0).abs() < 1e-4, "q {q}: {delta}");
        }
    }

    #[test]
    fn one_participation_on_a_sample_matches_its_closed_form() {
        // δ of a sample at rate q is q·δ of the plain mechanism at
        // ε′ = ln(1 + (e^ε − 1)/q): Balle, Barthe, Gaboardi 2018
        // (https://arxiv.org/abs/1807.01647).
        let plain = |epsilon: f64, z: f64| {
            let mut accountant = PldAccountant::new();
            accountant.add(NoiseMultiplier::new(z).unwrap(), SamplingRate::ALL, 1);
            accountant.delta(epsilon)
        };
        for (q, z, epsilon) in [(0.3, 1.0, 0.5), (0.01, 0.8, 0.1), (0.9, 2.0, 1.0)] {
            let found = spent(z, q, 1).delta(epsilon);
            let inner = (f64::exp_m1(epsilon) / q).ln_1p();
            let expected = q * plain(inner, z);
            assert!((found / expected - 1.0).abs() < 1e-5, "q {q}: {found} and {expected}");
        }
    }

    #[test]
    fn different_participations_add_up() {
        // All of them plain, so that they are one Gaussian with
        // 1/z² = Σ T/z².
        let mut accountant = PldAccountant::new();
        let mut inverse = 0.0;
        for (z, participations) in [(4.0, 5), (10.0, 100), (2.0, 1)] {
            accountant.add(NoiseMultiplier::new(z).unwrap(), SamplingRate::ALL, participations);
            inverse += f64::from(participations) / (z * z);
        }
        let delta = Delta::new(1e-6).unwrap();
        let found = accountant.epsilon(delta);
        let exact = analytic_gaussian_epsilon(NoiseMultiplier::new(inverse.powf(-0.5)).unwrap(), delta);
        assert!(found >= exact && found <= exact * 1.001, "{found} and {exact}");

        // And of a sample: in two halves, in halves that hardly differ,
        // and after more.
        let once = spent(1.0, 0.01, 100).epsilon(delta);
        let mut halves = spent(1.0, 0.01, 50);
        halves.add(NoiseMultiplier::new(1.0).unwrap(), SamplingRate::new(0.01).unwrap(), 50);
        assert_eq!(halves, spent(1.0, 0.01, 100));
        let mut halves = spent(1.0, 0.01, 50);
        halves.add(NoiseMultiplier::new(1.0 + 1e-12).unwrap(), SamplingRate::new(0.01).unwrap(), 50);
        assert!((halves.epsilon(delta) / once - 1.0).abs() < 1e-6);
        halves.add(NoiseMultiplier::new(30.0).unwrap(), SamplingRate::new(0.5).unwrap(), 10);
        assert!(halves.epsilon(delta) > once);
    }

    #[test]
    fn nothing_costs_nothing_and_no_noise_everything() {
        let delta = Delta::new(1e-6).unwrap();
        assert!(PldAccountant::new().epsilon(delta) <= 0.0);
        assert!(PldAccountant::new().delta(0.0) <= 0.0);
        assert!(spent(1.0, 0.5, 0).epsilon(delta) <= 0.0);
        assert!(spent(0.0, 0.5, 1).epsilon(delta).is_infinite());
        assert!(spent(0.0, 1.0, 1).delta(5.0) >= 1.0);
    }

    #[test]
    fn extreme_parameters_end_in_a_bound() {
        let delta = Delta::new(1e-6).unwrap();
        for (z, q, participations) in [
            (1e-3, 1.0, 1),
            (1e-200, 1.0, 1),
            (0.05, 0.01, 10),
            (1e9, 1.0, 1000),
            (1e6, 1.0, u32::MAX),
            (1.0, 1e-9, 1000),
            (5.0, 1e-300, 3),
            (0.5, 0.999_999_999, 2),
        ] {
            let found = spent(z, q, participations).epsilon(delta);
            assert!(!found.is_nan() && found >= 0.0, "z {z}, q {q}: {found}");
            let plain = z / f64::from(participations).sqrt();
            let plain = analytic_gaussian_epsilon(NoiseMultiplier::new(plain).unwrap(), delta);
            assert!(found <= plain * 1.5 + 1e-3 || plain > 1e6, "z {z}, q {q}: {found} above {plain}");
        }
    }

    fn spent(z: f64, q: f64, participations: u32) -> PldAccountant {
        let mut accountant = PldAccountant::new();
        accountant.add(NoiseMultiplier::new(z).unwrap(), SamplingRate::new(q).unwrap(), participations);
        accountant
    }
}
