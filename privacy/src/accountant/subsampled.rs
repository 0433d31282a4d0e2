//! The Rényi divergence of the Gaussian mechanism on a Poisson sample.
//!
//! With z = `NoiseMultiplier`, q = `SamplingRate`, and outputs in units of the
//! clip norm, a device's presence changes N(0, z²) into the mixture
//! (1 − q)·N(0, z²) + q·N(1, z²). Its divergence of order α is
//! ln A(α)/(α − 1) with
//!
//! A(α) = E\[(1 − q + q·e^((2x − 1)/(2z²)))^α\], x ∼ N(0, z²),
//!
//! and the other direction has none larger: Mironov, Talwar, Zhang 2019
//! (<https://arxiv.org/abs/1908.10530>), whose section 3.3 is the way to compute
//! it. What differs here: every sum carries a bound on its rounding error, which
//! is added, and ln A is taken from above where the paper's series is not
//! precise enough.

use std::f64::consts::SQRT_2;

use crate::params::NoiseMultiplier;

use super::{
    gaussian::gaussian_rdp,
    sampling::SamplingRate,
    special::{ERFC_ERROR, scaled_erfc},
};

/// Above this order ln A between two integers is taken from their chord.
const LARGEST_SERIES_ORDER: f64 = 256.0;

/// Above this order the sample is not made use of.
const LARGEST_ORDER: f64 = 4096.0;

/// How far a series goes on beyond its order.
const MOST_TAIL_TERMS: u32 = 512;

/// Terms smaller than e^−44 of the largest are below the rounding error.
const NEGLIGIBLE: f64 = -44.0;

/// The divergence of order `order` > 1 of Gaussian noise of `noise_multiplier`
/// on a Poisson sample at `sampling_rate`; never below the true value.
///
/// An integer order is a finite sum. Another order up to 256 is two alternating
/// series; where they lose too much, and between larger orders, ln A is bounded
/// by its chord between the neighbouring integers, for ln A is convex in α. The
/// plain Gaussian bounds everything, because the divergence is quasi-convex in
/// its first argument, and is all that is used above order 4096. Infinite when
/// z = 0.
///
/// This holds only against somebody who does not see who was drawn. The
/// coordinator draws and sees the sample, so against it there is no
/// amplification at all; and devices that check in when they are free are not a
/// sample.
pub fn sampled_gaussian_rdp(
    order: f64,
    noise_multiplier: NoiseMultiplier,
    sampling_rate: SamplingRate,
) -> f64 {
    let plain = gaussian_rdp(order, noise_multiplier);
    let (z, q) = (noise_multiplier.get(), sampling_rate.get());
    if q >= 1.0 || plain.is_infinite() || order > LARGEST_ORDER {
        return plain;
    }
    let moments = Moments { inverse: 0.5 / (z * z), z, log_in: q.ln(), log_out: (-q).ln_1p() };
    let log_moment = if order.fract() <= 0.0 {
        moments.at_integer(order)
    } else {
        let (low, share) = (order.floor(), order.fract());
        let chord = (1.0 - share) * moments.at_integer(low) + share * moments.at_integer(low + 1.0);
        if order > LARGEST_SERIES_ORDER { chord } else { chord.min(moments.by_series(order)) }
    };
    let found = log_moment / (order - 1.0) * (1.0 + 4.0 * f64::EPSILON);
    if found.is_nan() { plain } else { found.min(plain) }
}

/// ln A(α) of one mechanism.
struct Moments {
    /// 1/(2z²).
    inverse: f64,
    z: f64,
    /// ln q.
    log_in: f64,
    /// ln(1 − q).
    log_out: f64,
}

impl Moments {
    /// ln A of an integer order n ≥ 1 from
    /// A − 1 = Σ C(n, k)·(1 − q)^(n−k)·q^k·(e^((k² − k)/(2z²)) − 1), the closed
    /// form of the paper less the binomial sum of 1: all its terms are positive.
    fn at_integer(&self, order: f64) -> f64 {
        let mut sum = LogSum::new();
        let mut binomial = LogBinomial::new(order);
        loop {
            let k = binomial.k;
            if k > order {
                break;
            }
            if k >= 2.0 {
                let exponent = k * (k - 1.0) * self.inverse;
                let parts = [
                    binomial.log,
                    (order - k) * self.log_out,
                    k * self.log_in,
                    exponent,
                    (-(-exponent).exp_m1()).ln(),
                ];
                sum.add(1.0, &parts, binomial.error);
            }
            binomial.next();
        }
        let excess = sum.log_upper();
        if excess > 0.0 { excess + (-excess).exp().ln_1p() } else { excess.exp().ln_1p() }
    }

    /// ln A of any order from the two series of the paper, split where both
    /// parts of the mixture weigh the same.
    ///
    /// From k > α on the terms of each alternate, and their sizes are moments of
    /// a positive measure on \[0, 1\]: |C(α, k)| is a Beta integral of x^(k−α−1),
    /// and the rest the integral of the k-th power of a ratio below 1. So they
    /// fall and are convex in k, and the rest of a series from a negative term −t
    /// on is at most −t/2.
    fn by_series(&self, order: f64) -> f64 {
        let split = 0.5 + (self.log_out - self.log_in) * self.z * self.z;
        let mut sum = LogSum::new();
        let mut binomial = LogBinomial::new(order);
        loop {
            let k = binomial.k;
            let j = order - k;
            let (below, below_error) = log_normal((split - k) / self.z);
            let (above, above_error) = log_normal((j - split) / self.z);
            let low = [binomial.log, j * self.log_out, k * self.log_in, k * (k - 1.0) * self.inverse, below];
            let high = [binomial.log, k * self.log_out, j * self.log_in, j * (j - 1.0) * self.inverse, above];
            let (below_error, above_error) = (binomial.error + below_error, binomial.error + above_error);
            let largest = low.iter().sum::<f64>().max(high.iter().sum());
            let enough = largest - sum.peak < NEGLIGIBLE || k > order + f64::from(MOST_TAIL_TERMS);
            if k > order && binomial.sign < 0.0 && enough {
                sum.add(-0.5, &low, below_error);
                sum.add(-0.5, &high, above_error);
                return sum.log_upper().max(0.0);
            }
            sum.add(binomial.sign, &low, below_error);
            sum.add(binomial.sign, &high, above_error);
            binomial.next();
        }
    }
}

/// |C(α, k)| for k = 0, 1, …, in logarithms.
struct LogBinomial {
    order: f64,
    k: f64,
    sign: f64,
    log: f64,
    /// What rounding can have added to `log`.
    error: f64,
}

impl LogBinomial {
    fn new(order: f64) -> Self {
        Self { order, k: 0.0, sign: 1.0, log: 0.0, error: 0.0 }
    }

    fn next(&mut self) {
        let factor = (self.order - self.k) / (self.k + 1.0);
        let step = factor.abs().ln();
        if factor < 0.0 {
            self.sign = -self.sign;
        }
        self.log += step;
        self.k += 1.0;
        self.error += f64::EPSILON * (3.0 + step.abs() + self.log.abs());
    }
}

/// A sum of signed terms given by their logarithms, with a bound on its error.
struct LogSum {
    /// The largest logarithm so far, in units of which the sums are kept.
    peak: f64,
    sum: f64,
    error: f64,
}

impl LogSum {
    fn new() -> Self {
        Self { peak: f64::NEG_INFINITY, sum: 0.0, error: 0.0 }
    }

    /// Adds `sign`·e^(Σ `parts`), where the exponent is known to within
    /// `error` beside the rounding of the parts themselves.
    fn add(&mut self, sign: f64, parts: &[f64; 5], error: f64) {
        let exponent: f64 = parts.iter().sum();
        let size: f64 = parts.iter().map(|part| part.abs()).sum();
        let term = self.scaled(exponent);
        self.sum += sign * term;
        // Each part is off by a few units in its last place, the sum of five by
        // five more, the exponential and the running sum by one each.
        let relative = 8.0 * f64::EPSILON * (1.0 + size) + error;
        self.error += term * relative.exp_m1() + f64::EPSILON * self.sum.abs();
    }

    fn scaled(&mut self, exponent: f64) -> f64 {
        if exponent > self.peak {
            let shrink = (self.peak - exponent).exp();
            self.sum *= shrink;
            self.error *= shrink;
            self.peak = exponent;
        }
        if self.peak.is_infinite() { 0.0 } else { (exponent - self.peak).exp() }
    }

    /// The logarithm of the sum, from above.
    fn log_upper(&self) -> f64 {
        if self.peak.is_infinite() {
            return self.peak;
        }
        let log = self.peak + (self.sum + self.error).ln();
        log + 2.0 * f64::EPSILON * log.abs()
    }
}

/// ln Φ(x), and by how much it may be off.
fn log_normal(x: f64) -> (f64, f64) {
    let y = x.abs() / SQRT_2;
    if x < 0.0 {
        return (-y * y + (0.5 * scaled_erfc(y)).ln(), ERFC_ERROR);
    }
    let tail = 0.5 * scaled_erfc(y) * (-y * y).exp();
    // Φ ≥ 1/2, and the rounding of x moves Φ by less than one unit in its last place.
    ((-tail).ln_1p(), 2.0 * tail * ERFC_ERROR + f64::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_match_the_published_ones() {
        // The test of dp_accounting's accountant for q = 0.01, z = 2.5, 50 times.
        for (order, expected) in [(5.0, 2.180_756_56e-3), (50.0, 2.384_603_75e-2), (100.0, 1.674_163_08e2)] {
            let found = 50.0 * rdp(order, 2.5, 0.01);
            assert!((found / expected - 1.0).abs() < 1e-7, "order {order}: {found}");
        }
        // Its values for fractional orders are above the divergence itself, which
        // mpmath integrates to the first number. Opacus agrees with mpmath.
        for (order, exact, published) in
            [(1.5, 6.500_708_971_881e-4, 6.705_797_41e-4), (2.5, 1.085_418_056_918e-3, 1.085_487_10e-3)]
        {
            let found = 50.0 * rdp(order, 2.5, 0.01);
            assert!(found >= exact && found < exact * (1.0 + 1e-7), "order {order}: {found}");
            assert!(found < published, "order {order}: {found}");
        }
    }

    #[test]
    fn everybody_in_the_sample_is_the_plain_gaussian() {
        for order in [1.000_001, 1.5, 2.0, 37.0, 255.5, 1e5, 1e9] {
            let plain = gaussian_rdp(order, NoiseMultiplier::new(1.7).unwrap());
            assert!((rdp(order, 1.7, 1.0) - plain).abs() <= 0.0, "{order}");
            assert!(rdp(order, 1.7, 0.999) <= plain, "{order}");
        }
        assert!(rdp(2.0, 0.0, 0.5).is_infinite());
    }

    #[test]
    fn divergences_match_an_integral() {
        for (z, q) in
            [(0.5, 0.3), (0.7, 0.01), (1.0, 0.2), (2.5, 0.01), (8.0, 0.001), (3.0, 0.7), (1.0, 0.97)]
        {
            for order in [1.01, 1.3, 1.9, 2.0, 2.4, 3.0, 5.5, 9.25, 17.7] {
                if order * (order + 14.0 * z) > 700.0 * z * z {
                    continue; // the integrand overflows
                }
                let (found, expected) = (rdp(order, z, q), integral(order, z, q));
                let ratio = found / expected;
                assert!(ratio > 1.0 - 1e-9, "z {z}, q {q}, order {order}: {found} below {expected}");
                // A low order may fall back to a chord, which is larger.
                let most = if order < 2.0 { 2.0 } else { 1.0 + 1e-6 };
                assert!(ratio < most, "z {z}, q {q}, order {order}: {found} above {expected}");
            }
        }
    }

    #[test]
    fn divergences_grow_with_the_order_up_to_the_plain_one() {
        for (z, q) in [(0.3, 0.05), (1.0, 1e-6), (1.0, 0.01), (20.0, 0.5), (200.0, 1e-4)] {
            let mut last = 0.0;
            for step in 0..400 {
                let order = 1.0 + (-14.0 + f64::from(step) * 37.0 / 400.0).exp();
                let found = rdp(order, z, q);
                assert!(
                    found.is_finite() && found >= last * (1.0 - 1e-6),
                    "z {z}, q {q}, order {order}: {found} after {last}"
                );
                // Below 2 the chord may give way to the series.
                last = if order < 2.0 { 0.0 } else { found };
            }
        }
    }

    /// The divergence by the trapezoid rule on A − 1 =
    /// E\[(1 + v)^α − 1 − α·v\] with v = q·(likelihood ratio − 1), whose
    /// integrand is positive.
    fn integral(order: f64, z: f64, q: f64) -> f64 {
        let (low, high) = (-14.0 * z, order + 14.0 * z);
        let steps = 40_000u32;
        let width = (high - low) / f64::from(steps);
        let mut sum = 0.0;
        for step in 0..=steps {
            let x = low + f64::from(step) * width;
            let v = q * ((2.0 * x - 1.0) / (2.0 * z * z)).exp_m1();
            let excess = if v.abs() < 1e-3 {
                // Four terms of the binomial series.
                let mut term = order * v;
                let mut total = 0.0;
                for k in 2..8u32 {
                    term *= v * (order - f64::from(k) + 1.0) / f64::from(k);
                    total += term;
                }
                total
            } else {
                (order * v.ln_1p()).exp_m1() - order * v
            };
            sum += excess * (-x * x / (2.0 * z * z)).exp();
        }
        let excess = sum * width / (z * (2.0 * std::f64::consts::PI).sqrt());
        excess.ln_1p() / (order - 1.0)
    }

    fn rdp(order: f64, z: f64, q: f64) -> f64 {
        sampled_gaussian_rdp(order, NoiseMultiplier::new(z).unwrap(), SamplingRate::new(q).unwrap())
    }
}
