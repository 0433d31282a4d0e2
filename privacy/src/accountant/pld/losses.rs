//! The privacy loss of one participation, on a grid.
//!
//! Let P and Q be the densities of the outcome with a device and without it, and
//! H(l) = E\[max(0, P − e^l·Q)\], which is δ as a function of l = ε. As a function of
//! e^l it is convex and falls. The line through its values at the grid's points
//! is therefore nowhere below it, and is the H of a loss that only takes the
//! grid's values, and +∞ with probability H at the last point: "connect the
//! dots", Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022
//! (<https://arxiv.org/abs/2207.04380>). A pair with a larger H everywhere
//! dominates, and dominating pairs compose, adaptively too: Zhu, Dong, Wang 2022
//! (<https://arxiv.org/abs/2106.08567>). With points h apart such a loss is at
//! least l + h with probability
//!
//! G(l + h) = (H(l) − e^(−h)·H(l + h))/(1 − e^(−h)).
//!
//! What is kept is G and a bound on its rounding error: a loss that exceeds
//! every value with a larger probability is worse, in every composition.
//! Losses below the grid are moved up to its first point.

use crate::accountant::{analytic::gaussian_terms, special::ERFC_ERROR};

/// The ends of the grid are this many standard deviations of the noise out,
/// where the Gaussian has less than 10^−30 left.
const REACH: f64 = 11.5;

/// From here on e^−l is below half a unit in the last place of 1.
const LARGE: f64 = 37.0;

/// Which of two neighbours is the true one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    /// With the device, against without.
    Removed,
    /// Without the device, against with.
    Added,
}

/// The losses of one participation and their probabilities.
#[derive(Debug)]
pub(super) struct Losses {
    /// The first point of the grid, in units of the interval; below 0.
    pub(super) first: i64,
    /// The probability of each point; `first` is the smallest loss.
    pub(super) masses: Vec<f64>,
    /// The probability of an infinite loss.
    pub(super) infinite: f64,
}

/// The losses between which the grid lies when a device is removed; mirrored
/// when it is added.
pub(super) fn loss_range(z: f64, q: f64) -> (f64, f64) {
    let end = REACH / z + 0.5 / (z * z);
    (loss(-end, q), loss(end, q))
}

impl Losses {
    /// The losses with noise z at rate q, on a grid of `interval`.
    pub(super) fn new(direction: Direction, z: f64, q: f64, interval: f64) -> Self {
        let (low, high) = loss_range(z, q);
        let (low, high) = match direction {
            Direction::Removed => (low, high),
            Direction::Added => (-high, -low),
        };
        let (below, above) = (points(-low, interval), points(high, interval));
        let profile = Profile { direction, z, q };
        let shrink = (-interval).exp();
        let width = -(-interval).exp_m1();

        // 1 − G from −1 point downwards is H(l) − (1 − e^l) treated likewise.
        let mut under = Vec::with_capacity(below + 1);
        let (mut value, mut error) = profile.at(0.0);
        for point in 1..=below {
            let (next, next_error) = profile.at(-(point as f64) * interval);
            let found = (shrink * value - next - error - next_error) / width;
            under.push(found.clamp(0.0, under.last().copied().unwrap_or(1.0)));
            (value, error) = (next, next_error);
        }
        under.push(0.0);

        // G from 1 point upwards.
        let mut over = Vec::with_capacity(above + 1);
        let (mut value, mut error) = profile.at(0.0);
        for point in 1..=above {
            let (next, next_error) = profile.at(point as f64 * interval);
            over.push(((value - shrink * next + error + next_error) / width).clamp(0.0, 1.0));
            (value, error) = (next, next_error);
        }
        over.push((value + error).min(1.0));
        for place in (1..over.len()).rev() {
            over[place - 1] = over[place - 1].max(over[place]);
        }

        // `under[k]` is 1 − G at point −k, `over[k]` is G at point k + 1.
        let infinite = over[above];
        under[0] = under[0].min(1.0 - over[0]);
        for place in 1..under.len() {
            under[place] = under[place].min(under[place - 1]);
        }
        let mut masses: Vec<f64> = under.windows(2).map(|pair| pair[0] - pair[1]).rev().collect();
        // The one mass that is a difference from 1.
        masses.push(1.0 - over[0] - under[0] + f64::EPSILON);
        masses.extend(over.windows(2).map(|pair| pair[0] - pair[1]));
        Self { first: -to_index(below as f64), masses, infinite }
    }
}

/// δ as a function of ε, for one participation.
struct Profile {
    direction: Direction,
    z: f64,
    q: f64,
}

impl Profile {
    /// H(l) from l = 0 upwards and H(l) − (1 − e^l) from 0 downwards, each with
    /// a bound on its error. When a device is added, P and Q change places,
    /// which makes the one at l e^l times the other at −l.
    fn at(&self, l: f64) -> (f64, f64) {
        match self.direction {
            Direction::Removed => self.removed(l),
            Direction::Added => {
                let (value, error) = self.removed(-l);
                (l.exp() * value, l.exp() * error)
            }
        }
    }

    /// With P = (1 − q)·Q + q·P₁ and Q, P₁ the plain Gaussians,
    /// H(l) = q·H₁(l₁), where e^l₁ = 1 + (e^l − 1)/q; and below 0
    /// H(l) − (1 − e^l) = q·e^l₁·H₁(−l₁), because the plain ones are symmetric.
    fn removed(&self, l: f64) -> (f64, f64) {
        let Some(inner) = inner_loss(l, self.q) else {
            return (0.0, 0.0);
        };
        let (first, second) = gaussian_terms(inner.abs(), self.z);
        let weight = self.q * inner.min(0.0).exp();
        // The terms themselves are off by the error of erfc and the rounding of
        // their arguments, which is below it; l₁ by a few units of its last
        // place, or of 1 − (1 − e^l)/q, by which e^l₁ has to be divided.
        let error = weight * ERFC_ERROR + self.q * 8.0 * f64::EPSILON * (1.0 + inner.abs());
        (weight * (first - second).max(0.0), error * (first + second))
    }
}

/// l for a given l₁.
fn loss(inner: f64, q: f64) -> f64 {
    if q >= 1.0 {
        inner
    } else if inner > LARGE {
        inner + q.ln()
    } else {
        (q * inner.exp_m1()).ln_1p()
    }
}

/// l₁ for a given l; none below the least loss, ln(1 − q).
fn inner_loss(l: f64, q: f64) -> Option<f64> {
    if q >= 1.0 {
        return Some(l);
    }
    if l > LARGE {
        return Some(l - q.ln());
    }
    let excess = l.exp_m1() / q;
    (excess > -1.0).then(|| excess.ln_1p())
}

/// How many intervals reach from 0 to `end`, at least one.
fn points(end: f64, interval: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the interval is chosen so that the grid has some 10^6 points"
    )]
    let points = (end / interval).ceil().max(1.0) as usize;
    points
}

/// A whole number as an integer.
pub(super) fn to_index(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, far beyond any grid")]
    let index = value as i64;
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one() {
        for direction in [Direction::Removed, Direction::Added] {
            for (z, q) in [(1.0, 1.0), (0.3, 0.2), (1.0, 0.001), (20.0, 0.5)] {
                let losses = Losses::new(direction, z, q, 0.03 * q / z);
                let total = losses.masses.iter().sum::<f64>() + losses.infinite;
                assert!((total - 1.0).abs() < 1e-10, "z {z}, q {q}: {total}");
                assert!(losses.masses.iter().all(|&mass| mass >= 0.0));
                assert!(losses.infinite < 1e-20);
            }
        }
    }

    #[test]
    fn the_grid_is_nowhere_below_the_profile_and_meets_it_at_its_points() {
        for direction in [Direction::Removed, Direction::Added] {
            for (z, q, interval) in [(1.0, 1.0, 0.05), (0.7, 0.2, 0.01), (1.0, 0.01, 1e-3)] {
                let losses = Losses::new(direction, z, q, interval);
                let profile = Profile { direction, z, q };
                for step in 0..200u32 {
                    let epsilon = f64::from(step) * interval / 4.0;
                    let mut found = losses.infinite;
                    for (point, mass) in (losses.first..).zip(&losses.masses) {
                        found += mass * (-(epsilon - point as f64 * interval).exp_m1()).max(0.0);
                    }
                    let (expected, _) = profile.at(epsilon);
                    assert!(found >= expected * (1.0 - 1e-12), "z {z}, q {q}, {epsilon}: {found} {expected}");
                    if step % 4 == 0 {
                        assert!(found < expected + 1e-9, "z {z}, q {q}, {epsilon}: {found} {expected}");
                    }
                }
            }
        }
    }
}
