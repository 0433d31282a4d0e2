//! The sum of independent losses, by Fourier transform.
//!
//! Small probabilities drown in the rounding error of a transform. So what is
//! transformed are the masses p(l)·e^(λl − K(λ)), K(λ) = ln Σ p(l)·e^(λl), which
//! have their bulk where ε is: with C the sum of all K,
//!
//! P(L = l) = e^(C(λ) − λl)·P̃(L = l).
//!
//! The tilt λ is chosen near the order that is best for Rényi divergence; every
//! λ gives a valid bound.

use rustfft::{FftPlanner, num_complex::Complex64};

use super::losses::{Losses, to_index};

/// Chernoff bounds put less than e^−46 of the tilted mass on either side of the
/// window.
const TAIL: f64 = 46.0;

/// The forward error of a transform in units of ε·log₂ N, relative in L2. For a
/// radix-2 transform with roots as precise as can be it is about 8 half units:
/// Theorem 24.2 of Higham, Accuracy and Stability of Numerical Algorithms, 2002.
/// Taken twice as large.
const TRANSFORM_ERROR: f64 = 8.0;

/// The tilts that are tried, as ln λ, and steps of golden section after that.
const LOG_TILTS: (f64, f64) = (-9.0, 14.0);
const TILTS: u32 = 24;
const SECTIONS: u32 = 12;

/// What the sum is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// ε at this δ.
    Delta(f64),
    /// δ at this ε.
    Epsilon(f64),
}

/// The distribution of a sum of losses, ready to be asked.
#[derive(Debug)]
pub(super) struct Sum {
    interval: f64,
    /// The first point of the window, in intervals.
    first: i64,
    /// At each point, the probability of at least that loss; 0 at the end.
    at_least: Vec<f64>,
    /// At each point l, Σ P(L = k)·e^(l − k) over k ≥ l; 0 at the end.
    discounted: Vec<f64>,
    /// At each point, what the transform's error can add to δ.
    noise: Vec<f64>,
    /// The relative error of the probabilities.
    drift: f64,
    /// The probability of an infinite loss, or of one beyond the window.
    beyond: f64,
}

impl Sum {
    /// The sum of all `parts`, each as often as it says. Fails with the number
    /// of points that the window would need when that is more than `most`.
    pub(super) fn new(parts: &[(Losses, u32)], interval: f64, goal: Goal, most: f64) -> Result<Self, f64> {
        let cumulants = Cumulants::new(parts, interval);
        let tilt = cumulants.best_tilt(goal);
        let center = cumulants.exact(tilt);
        let (low, high) = cumulants.window(tilt, center);
        let points = (high - low) / interval + 2.0;
        if !(points.is_finite() && center.is_finite() && points <= most) {
            return Err(points);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "2 ≤ points ≤ most")]
        let len = (points as usize).next_power_of_two();
        let first = to_index((low / interval).floor());

        let (masses, error) = convolve(parts, interval, tilt, len, first);
        let mut sum = Self {
            interval,
            first,
            at_least: vec![0.0; len + 1],
            discounted: vec![0.0; len + 1],
            noise: vec![0.0; len + 1],
            drift: cumulants.drift(tilt) + 4.0 * f64::EPSILON * len as f64,
            beyond: 1.01 * (center - TAIL - tilt * high).exp()
                + parts.iter().map(|(losses, count)| f64::from(*count) * losses.infinite).sum::<f64>(),
        };
        // By Cauchy-Schwarz, and a geometric series for the squared weights.
        let spread = (1.0 / -(-2.0 * tilt * interval).exp_m1()).min(len as f64).sqrt();
        for place in (0..len).rev() {
            let weight = (center - tilt * sum.point(place)).exp();
            let mass = weight * masses[place].max(0.0);
            sum.at_least[place] = mass + sum.at_least[place + 1];
            sum.discounted[place] = mass + (-interval).exp() * sum.discounted[place + 1];
            sum.noise[place] = weight * error * spread;
        }
        Ok(sum)
    }

    /// δ at `epsilon`, from above.
    pub(super) fn delta(&self, epsilon: f64) -> f64 {
        if epsilon < self.point(0) {
            return 1.0;
        }
        let end = self.at_least.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and saturates"
        )]
        let mut place = ((epsilon / self.interval - self.first as f64) as usize).min(end);
        while place < end && self.point(place) <= epsilon {
            place += 1;
        }
        let all = self.at_least[place];
        let found = all - (epsilon - self.point(place)).exp() * self.discounted[place];
        let rounding = self.drift * all;
        let delta = (found + rounding).max(0.0) * self.drift.exp() + self.noise[place] + self.beyond;
        if delta.is_nan() { 1.0 } else { delta.min(1.0) }
    }

    /// The least ε of this window that has at most `delta`.
    pub(super) fn epsilon(&self, delta: f64) -> f64 {
        let mut low = self.point(0).max(0.0);
        let mut high = self.point(self.at_least.len() - 1).max(low);
        if self.delta(low) <= delta {
            return low;
        }
        if self.delta(high) > delta {
            return f64::INFINITY;
        }
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if self.delta(middle) <= delta {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }

    fn point(&self, place: usize) -> f64 {
        (self.first as f64 + place as f64) * self.interval
    }
}

/// The tilted masses of the sum in the window of `len` points from `first`, and
/// a bound on the L2 norm of their error.
///
/// Mass outside the window reappears inside, where it counts as more loss or is
/// in `beyond`. The error: a transform x̂ of norm √N·‖x‖ is off by η·‖x̂‖, and as
/// |x̂| ≤ 1 its T-th power by T times that and by the rounding of at most T
/// products, 3 units each; so are products of powers. The way back adds η·‖x‖.
fn convolve(parts: &[(Losses, u32)], interval: f64, tilt: f64, len: usize, first: i64) -> (Vec<f64>, f64) {
    let mut planner = FftPlanner::new();
    let forward = planner.plan_fft_forward(len);
    let one_transform = TRANSFORM_ERROR * f64::EPSILON * f64::from(len.trailing_zeros() + 1);
    let mut spectrum = vec![Complex64::new(1.0, 0.0); len];
    let (mut error, mut largest) = (0.0, 0.0f64);
    for (losses, count) in parts {
        let cumulant = cumulant(losses, interval, tilt);
        let mut buffer = vec![Complex64::default(); len];
        let mut place = wrap(losses.first, len);
        for (point, &mass) in (losses.first..).zip(&losses.masses) {
            if mass > 0.0 {
                buffer[place].re += mass * (tilt * point as f64 * interval - cumulant).exp();
            }
            place = (place + 1) % len;
        }
        let norm = buffer.iter().map(|value| value.re * value.re).sum::<f64>().sqrt();
        largest = largest.max(norm);
        error += f64::from(*count) * (one_transform + 3.0 * f64::EPSILON) * norm;
        forward.process(&mut buffer);
        for (total, one) in spectrum.iter_mut().zip(&buffer) {
            *total *= one.powu(*count);
        }
    }
    // A value of the spectrum may exceed 1 by no more than its error, which the
    // power then enlarges by less than e^(√N·error).
    let growth = ((len as f64).sqrt() * error).exp();
    planner.plan_fft_inverse(len).process(&mut spectrum);
    let scale = 1.0 / len as f64;
    let start = wrap(first, len);
    let masses = (0..len).map(|place| spectrum[(start + place) % len].re * scale).collect();
    (masses, growth * error + (1.0 + growth * error) * one_transform * largest)
}

/// Where a point lies in a circle of `len`.
fn wrap(point: i64, len: usize) -> usize {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    usize::try_from(point.rem_euclid(len)).unwrap_or_default()
}

/// The logarithms of the moments of a sum.
struct Cumulants<'a> {
    parts: &'a [(Losses, u32)],
    interval: f64,
    sketches: Vec<Sketch>,
}

impl<'a> Cumulants<'a> {
    fn new(parts: &'a [(Losses, u32)], interval: f64) -> Self {
        let sketches = parts.iter().map(|(losses, count)| Sketch::new(losses, *count, interval)).collect();
        Self { parts, interval, sketches }
    }

    /// C(θ).
    fn exact(&self, theta: f64) -> f64 {
        self.parts
            .iter()
            .map(|(losses, count)| f64::from(*count) * cumulant(losses, self.interval, theta))
            .sum()
    }

    /// About C(θ), to choose by.
    fn about(&self, theta: f64) -> f64 {
        self.sketches.iter().map(|sketch| sketch.cumulant(theta)).sum()
    }

    /// The relative error of tilted masses, in all powers together.
    fn drift(&self, tilt: f64) -> f64 {
        let one = |losses: &Losses| {
            let ends = [losses.first as f64, losses.first as f64 + losses.masses.len() as f64];
            let widest = ends[0].abs().max(ends[1].abs()) * self.interval * tilt;
            4.0 * f64::EPSILON * (4.0 + widest + cumulant(losses, self.interval, tilt).abs())
        };
        self.parts.iter().map(|(losses, count)| f64::from(*count) * one(losses)).sum()
    }

    /// A λ for which the tilted sum has its bulk near the ε that is sought: the
    /// one with the best bound of Proposition 12 of Canonne, Kamath, Steinke
    /// 2020 (<https://arxiv.org/abs/2004.00010>) at the order 1 + λ.
    fn best_tilt(&self, goal: Goal) -> f64 {
        let bound = |log_tilt: f64| {
            let tilt = log_tilt.exp();
            let log_delta = self.about(tilt) + tilt * log_tilt - (1.0 + tilt) * tilt.ln_1p();
            match goal {
                Goal::Delta(delta) => (log_delta - delta.ln()) / tilt,
                Goal::Epsilon(epsilon) => log_delta - tilt * epsilon,
            }
        };
        let (low, high) = LOG_TILTS;
        let step = (high - low) / f64::from(TILTS);
        let (mut best, mut center) = (f64::INFINITY, low);
        for point in 0..=TILTS {
            let place = low + f64::from(point) * step;
            let found = bound(place);
            if found < best {
                (best, center) = (found, place);
            }
        }
        let ratio = (5f64.sqrt() - 1.0) / 2.0;
        let (mut left, mut right) = (center - step, center + step);
        for _ in 0..SECTIONS {
            let width = ratio * (right - left);
            if bound(right - width) < bound(left + width) {
                right = left + width;
            } else {
                left = right - width;
            }
        }
        f64::midpoint(left, right).exp()
    }

    /// Losses outside of which a sum tilted by `tilt` has less than e^−46 on
    /// either side: P̃(L ≥ h) ≤ e^(C(λ+s) − C(λ) − s·h) for every s > 0, and
    /// likewise below. The sketch chooses s, the bound is exact.
    fn window(&self, tilt: f64, center: f64) -> (f64, f64) {
        let about = self.about(tilt);
        let nudge = 1e-3 * tilt;
        let variance = (self.about(tilt + nudge) - 2.0 * about + self.about(tilt - nudge)) / (nudge * nudge);
        // About where the best s would be, were the sum a Gaussian.
        let start = if variance > 0.0 { (2.0 * TAIL / variance).sqrt() } else { tilt };
        let best = |sign: f64| {
            let width = |s: f64| (self.about(tilt + sign * s) - about + TAIL) / s;
            let steps = (-12..=12).map(|power| start * (f64::from(power) / 2.0).exp2());
            steps.min_by(|&a, &b| width(a).total_cmp(&width(b))).unwrap_or(start)
        };
        let (up, down) = (best(1.0), best(-1.0));
        let high = (self.exact(tilt + up) - center + TAIL) / up;
        let low = (center - self.exact(tilt - down) - TAIL) / down;
        // No sum lies outside of these.
        let (mut least, mut most) = (0.0, 0.0);
        for (losses, count) in self.parts {
            let step = f64::from(*count) * self.interval;
            least += step * losses.first as f64;
            most += step * (losses.first as f64 + losses.masses.len() as f64);
        }
        (low.max(least), high.min(most))
    }
}

/// K(θ) = ln Σ p(l)·e^(θl).
fn cumulant(losses: &Losses, interval: f64, theta: f64) -> f64 {
    let scale = theta * interval;
    let mut total = LogTotal::default();
    for (point, &mass) in (losses.first..).zip(&losses.masses) {
        if mass > 0.0 {
            total.add(mass, scale * point as f64);
        }
    }
    total.log()
}

/// A sum of m·e^x in units that grow with its largest term.
struct LogTotal {
    unit: f64,
    sum: f64,
}

/// Terms this much larger than the unit, in logarithms, change the unit.
const WIDEST: f64 = 300.0;

impl Default for LogTotal {
    fn default() -> Self {
        Self { unit: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl LogTotal {
    fn add(&mut self, mass: f64, exponent: f64) {
        if exponent > self.unit + WIDEST {
            self.sum *= (self.unit - exponent).exp();
            self.unit = exponent;
        }
        self.sum += mass * (exponent - self.unit).exp();
    }

    fn log(&self) -> f64 {
        self.unit + self.sum.ln()
    }
}

/// The losses of one participation in few groups, each with its moments.
struct Sketch {
    count: f64,
    /// Mass, mean and variance of a group.
    groups: Vec<[f64; 3]>,
}

/// The groups of a sketch.
const GROUPS: usize = 1024;

impl Sketch {
    fn new(losses: &Losses, count: u32, interval: f64) -> Self {
        let size = losses.masses.len().div_ceil(GROUPS);
        let groups =
            (losses.first..).step_by(size).zip(losses.masses.chunks(size)).filter_map(|(start, chunk)| {
                let mass: f64 = chunk.iter().sum();
                let moment = |about: f64, power: i32| {
                    let terms = chunk
                        .iter()
                        .enumerate()
                        .map(|(place, mass)| mass * (place as f64 - about).powi(power));
                    terms.sum::<f64>() / mass
                };
                let mean = moment(0.0, 1);
                let variance = moment(mean, 2) * interval * interval;
                (mass > 0.0).then_some([mass, (start as f64 + mean) * interval, variance])
            });
        Self { count: f64::from(count), groups: groups.collect() }
    }

    /// About `count`·K(θ): as if each group were a Gaussian.
    fn cumulant(&self, theta: f64) -> f64 {
        let mut total = LogTotal::default();
        for [mass, mean, variance] in &self.groups {
            total.add(*mass, theta * mean + theta * theta * variance / 2.0);
        }
        self.count * total.log()
    }
}
