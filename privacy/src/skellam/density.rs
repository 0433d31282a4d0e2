//! The density of the Skellam distribution, `P(k) = e^(−μ)·I_k(μ)`, up to a
//! constant factor.
//!
//! Three ways, each for its own purpose: [`table`] for all sizes of a small
//! variance and [`expansion`] for one size of a large variance, both to about
//! 86 bits or better, and [`ratio`] in floats.

use std::f64::consts::LN_2;

use crate::double::Double;

/// The coefficients of powers of t² in `U_j(t)/t^j`, j = 1 to 4, and their common
/// denominator: <https://dlmf.nist.gov/10.41#E10>.
const DEBYE: [(&[f64], f64); 4] = [
    (&[3.0, -5.0], 24.0),
    (&[81.0, -462.0, 385.0], 1152.0),
    (&[30_375.0, -369_603.0, 765_765.0, -425_425.0], 414_720.0),
    (&[4_465_125.0, -94_121_676.0, 349_922_430.0, -446_185_740.0, 185_910_725.0], 39_813_120.0),
];

/// The negative logarithm of Chernoff's bound on P(X ≥ k), which is within a
/// small factor of the truth: k·asinh(k/μ) − (√(μ² + k²) − μ).
fn tail_exponent(variance: f64, size: f64) -> f64 {
    size * (size / variance).asinh() - size * size / (size.hypot(variance) + variance)
}

/// The least size at which Chernoff's bound is at most two to the minus `bits`.
pub(super) fn size_with_tail(variance: f64, bits: f64) -> u64 {
    let (mut below, mut enough) = (0, 1);
    while tail_exponent(variance, enough as f64) < bits * LN_2 {
        below = enough;
        enough *= 2;
    }
    while enough - below > 1 {
        let middle = u64::midpoint(below, enough);
        if tail_exponent(variance, middle as f64) < bits * LN_2 {
            below = middle;
        } else {
            enough = middle;
        }
    }
    enough
}

/// The densities of 0, 1, …, up to where the tail is below two to the minus
/// `tail_bits`, up to a common factor.
///
/// Miller's backward recurrence `I_(k−1) = I_(k+1) + (2k/μ)·I_k`, started 60 bits
/// further out so that the start is forgotten (Gautschi 1967, "Computational
/// aspects of three-term recurrence relations",
/// <https://doi.org/10.1137/1009002>). All terms are positive, so each step adds
/// a relative error of at most three operations, 3·2^−102, and the 2^14 steps
/// that the variance allows add up to less than 2^−86.
pub(super) fn table(variance: f64, tail_bits: f64) -> Vec<Double> {
    let last = size_with_tail(variance, tail_bits);
    let reached = tail_exponent(variance, last as f64) / LN_2;
    let start = size_with_tail(variance, reached + 60.0) + 1;
    let factor = Double::from(2.0) / Double::from(variance);

    let (mut above, mut current) = (Double::ZERO, Double::ONE.times_power_of_two(-400));
    let mut densities = Vec::new();
    for k in (1..=start).rev() {
        if k <= last {
            densities.push(current);
        }
        let below = above + factor * Double::from_u64(k) * current;
        (above, current) = (current, below);
    }
    densities.push(current);
    densities.reverse();
    densities
}

/// P(size)·√(2πμ) for a variance of at least 2^18 and a size within 13 standard
/// deviations.
///
/// Debye's uniform expansion (<https://dlmf.nist.gov/10.41#E3>) with four
/// terms, written in y = k/μ and R = √(μ² + k²) so that it also holds at k = 0:
///
/// ```text
/// P(k) ∝ exp(−μ·S(y))·(1 + y²)^(−1/4)·(1 + Σ_j U_j(t)/k^j),  t = k/R
/// S(y) = ∫₀^y asinh = Σ_n c_n·y^(2n+2)/((2n+1)(2n+2))
/// ```
///
/// with `c_n` the coefficients of 1/√(1 + x²) in powers of x².
///
/// The exponent is at most 85, so its error is below 2^−93; the next term of
/// the expansion is 0.23/μ⁵ < 2^−92 and the rest smaller still. A test compares
/// it with [`table`] where both hold.
pub(super) fn expansion(variance: f64, size: u64) -> Double {
    let mu = Double::from(variance);
    let k = Double::from_u64(size);
    let y = k / mu;
    let y_squared = y * y;

    let mut integral = Double::ZERO;
    let (mut coefficient, mut power) = (Double::ONE, Double::ONE);
    // y² < 2^−10, so 12 terms leave less than 2^−120.
    for n in 0..12u32 {
        let (odd, even) = (Double::from(f64::from(2 * n + 1)), Double::from(f64::from(2 * n + 2)));
        integral = integral + coefficient * power / (odd * even);
        coefficient = -(coefficient * odd / even);
        power = power * y_squared;
    }
    let exponent = -(k * y * integral);

    let one_plus = Double::ONE + y_squared;
    let root = one_plus.sqrt();
    let t_squared = y_squared / one_plus;
    let inverse_r = Double::ONE / (mu * root);
    let mut series = Double::ONE;
    let mut power = Double::ONE;
    for (coefficients, denominator) in DEBYE {
        power = power * inverse_r;
        let polynomial =
            coefficients.iter().rev().fold(Double::ZERO, |sum, &c| sum * t_squared + Double::from(c));
        series = series + polynomial / Double::from(denominator) * power;
    }
    exponent.exp() / root.sqrt() * series
}

/// P(size)/P(head), in floats: for a variance of at least 2^18 the error is
/// below 2^−40.
pub(super) fn ratio(variance: f64, size: u64, head: u64) -> f64 {
    (log_density(variance, size as f64) - log_density(variance, head as f64)).exp()
}

/// ln P(k) up to a constant, with one term of the expansion of [`expansion`];
/// the next, 0.08/μ², is below 2^−40 from a variance of 2^18 on.
fn log_density(variance: f64, k: f64) -> f64 {
    let r = k.hypot(variance);
    let t = k / r;
    -tail_exponent(variance, k) - 0.5 * (r / variance).ln() + (3.0 - 5.0 * t * t) / (24.0 * r)
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "test values are small and known"
)]
mod tests {
    use super::*;

    #[test]
    fn the_expansion_agrees_with_the_recurrence() {
        let variance = 262_144.0;
        let table = table(variance, 119.0);
        let scale = expansion(variance, 0) / table[0];
        for (k, density) in (0u64..).zip(&table) {
            let error = expansion(variance, k) / (*density * scale) - Double::ONE;
            assert!(error.to_f64().abs() < 2f64.powi(-86), "size {k}: {}", error.to_f64());
        }
    }

    #[test]
    fn the_ratio_agrees_with_the_expansion() {
        for variance in [262_144.0, 1e8, 2f64.powi(50)] {
            for tenths in 0..120u32 {
                let head = (variance.sqrt() * f64::from(tenths) / 10.0) as u64;
                let size = head + (variance.sqrt() / 80.0) as u64;
                let exact = (expansion(variance, size) / expansion(variance, head)).to_f64();
                let error = ratio(variance, size, head) - exact;
                assert!(error.abs() < 2f64.powi(-40), "variance {variance}, {tenths}: {error}");
            }
        }
    }

    #[test]
    fn densities_match_the_bessel_function() {
        // e^(-mu) I_k(mu), from mpmath at 60 digits.
        for (variance, k, expected) in [
            (1e-09, 0, 0.999_999_999),
            (1e-09, 2, 1.249_999_998_75e-19),
            (0.5, 0, 0.645_035_270_449_150_1),
            (0.5, 3, 0.001_604_341_507_565_460_8),
            (30.0, 17, 0.000_620_067_599_010_234_8),
            (5000.0, 0, 0.005_642_036_898_744_589),
            (5000.0, 700, 3.187_526_689_671_458_6e-24),
            (200_000.0, 3000, 1.509_830_783_293_684_5e-13),
        ] {
            let table = table(variance, 119.0);
            let zero_and_up = table.iter().rev().fold(Double::ZERO, |sum, &p| sum + p);
            let total = zero_and_up + zero_and_up - table[0];
            let found = (table[k] / total).to_f64();
            assert!((found / expected - 1.0).abs() < 1e-15, "{variance} {k}: {found}");
        }
    }

    #[test]
    fn the_tail_bound_holds() {
        for variance in [1e-9, 0.5, 30.0, 5000.0] {
            let table = table(variance, 119.0);
            let last = size_with_tail(variance, 20.0);
            let zero_and_up: f64 = table.iter().rev().map(|p| p.to_f64()).sum();
            let total = 2.0 * zero_and_up - table[0].to_f64();
            let tail: f64 = table.iter().skip(usize::try_from(last).unwrap()).rev().map(|p| p.to_f64()).sum();
            assert!(tail / total <= 2f64.powi(-20), "variance {variance}");
        }
    }
}
