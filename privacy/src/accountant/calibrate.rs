//! How much noise a target ε takes.

use crate::{
    error::ParamsError,
    mechanism::Mechanism,
    params::{Delta, MechanismParams, NoiseMultiplier},
};

use super::{Accountant, RdpCurve, SamplingRate, gaussian::zcdp_rho, zcdp_epsilon};

/// The noise that is searched for: wider is useless, narrower is no privacy.
const RANGE: (f64, f64) = (1e-3, 1e6);

/// The least noise multiplier with which `participations` of the distributed or
/// central Skellam mechanism stay within `target_epsilon` at `delta`, within
/// 10^−9 relative and never too small. The mechanism has `params` but for its
/// noise multiplier. Fails when the target cannot be met, or when the noise that
/// meets it does not fit a ring.
pub fn calibrate_noise_multiplier(
    target_epsilon: f64,
    delta: Delta,
    participations: u32,
    params: &MechanismParams,
) -> Result<NoiseMultiplier, CalibrateError> {
    least(target_epsilon, |noise_multiplier| {
        let params = MechanismParams { noise_multiplier, ..params.clone() };
        Ok(Mechanism::new(params)?.epsilon(participations, delta).epsilon)
    })
}

/// The same for the Gaussian mechanism, by zero-concentrated differential
/// privacy.
pub fn calibrate_gaussian_noise_multiplier(
    target_epsilon: f64,
    delta: Delta,
    participations: u32,
) -> Result<NoiseMultiplier, CalibrateError> {
    least(target_epsilon, |noise_multiplier| {
        let rho = f64::from(participations) * zcdp_rho(noise_multiplier);
        Ok(zcdp_epsilon(rho, delta).epsilon)
    })
}

/// The same for Gaussian noise on a Poisson sample at `sampling_rate`, by its
/// Rényi divergence. It holds against whom
/// [`RdpCurve::SampledGaussian`] holds against.
pub fn calibrate_sampled_gaussian_noise_multiplier(
    target_epsilon: f64,
    delta: Delta,
    participations: u32,
    sampling_rate: SamplingRate,
) -> Result<NoiseMultiplier, CalibrateError> {
    least(target_epsilon, |noise_multiplier| {
        let curve = RdpCurve::SampledGaussian { noise_multiplier, sampling_rate };
        Ok(epsilon(&curve, participations, delta))
    })
}

/// The most participations at the cost of `curve` each that stay within
/// `target_epsilon` at `delta`; 0 when one is too many, and `u32::MAX` when that
/// many stay within it.
pub fn most_participations(curve: &RdpCurve, target_epsilon: f64, delta: Delta) -> u32 {
    let fits = |participations| epsilon(curve, participations, delta) <= target_epsilon;
    if !fits(1) {
        return 0;
    }
    let (mut low, mut high) = (1, 2);
    while fits(high) {
        if high == u32::MAX {
            return high;
        }
        (low, high) = (high, high.saturating_mul(2));
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn epsilon(curve: &RdpCurve, participations: u32, delta: Delta) -> f64 {
    let mut accountant = Accountant::new();
    accountant.add(curve.clone(), participations);
    accountant.epsilon(delta).epsilon
}

/// The least noise multiplier for which `epsilon` is at most `target`.
fn least(
    target: f64,
    epsilon: impl Fn(NoiseMultiplier) -> Result<f64, ParamsError>,
) -> Result<NoiseMultiplier, CalibrateError> {
    let met = |z: f64| -> Result<bool, ParamsError> { Ok(epsilon(NoiseMultiplier::new(z)?)? <= target) };
    if target.is_nan() || target <= 0.0 {
        return Err(CalibrateError::Unreachable { target });
    }
    let (mut low, most) = RANGE;
    if met(low)? {
        return Ok(NoiseMultiplier::new(low)?);
    }
    let mut high = low * 2.0;
    while !met(high)? {
        (low, high) = (high, 2.0 * high);
        if high > most {
            return Err(CalibrateError::Unreachable { target });
        }
    }
    while high / low > 1.0 + 1e-9 {
        let middle = (low * high).sqrt();
        if met(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(NoiseMultiplier::new(high)?)
}

/// A target for which no noise was found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CalibrateError {
    /// No noise multiplier up to 10^6 is enough.
    #[error("no noise multiplier up to 1e6 reaches an epsilon of {target}")]
    Unreachable {
        /// The ε that was asked for.
        target: f64,
    },
    /// The mechanism cannot be made with the noise that it would take.
    #[error(transparent)]
    Params(#[from] ParamsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_of_a_sample_meets_the_target_and_hardly_more() {
        let delta = Delta::new(1e-5).unwrap();
        for (q, participations, target) in [(0.04, 2250, 7.33), (0.01, 1, 0.1), (1.0, 10, 4.0)] {
            let sampling_rate = SamplingRate::new(q).unwrap();
            let noise_multiplier =
                calibrate_sampled_gaussian_noise_multiplier(target, delta, participations, sampling_rate)
                    .unwrap();
            let curve = RdpCurve::SampledGaussian { noise_multiplier, sampling_rate };
            let found = epsilon(&curve, participations, delta);
            assert!(found <= target && found > target * (1.0 - 1e-6), "q {q}: {found}");
        }
    }

    #[test]
    fn everybody_in_the_sample_takes_the_noise_of_the_plain_gaussian() {
        let delta = Delta::new(1e-6).unwrap();
        let plain = calibrate_gaussian_noise_multiplier(4.0, delta, 10).unwrap();
        let all = calibrate_sampled_gaussian_noise_multiplier(4.0, delta, 10, SamplingRate::ALL).unwrap();
        assert!((plain.get() / all.get() - 1.0).abs() < 1e-8, "{plain:?} {all:?}");
    }

    #[test]
    fn one_more_than_the_most_participations_is_too_many() {
        let delta = Delta::new(1e-6).unwrap();
        let noise_multiplier = NoiseMultiplier::new(4.0).unwrap();
        for q in [0.01, 0.1, 0.9, 1.0] {
            let sampling_rate = SamplingRate::new(q).unwrap();
            let curve = RdpCurve::SampledGaussian { noise_multiplier, sampling_rate };
            let most = most_participations(&curve, 4.0, delta);
            assert!(epsilon(&curve, most, delta) <= 4.0, "q {q}: {most}");
            assert!(epsilon(&curve, most + 1, delta) > 4.0, "q {q}: {most}");
        }
        // ε at K = 10 is 4.01.
        let curve = RdpCurve::Gaussian { noise_multiplier };
        assert_eq!(most_participations(&curve, 4.02, delta), 10);
        assert_eq!(most_participations(&curve, 4.0, delta), 9);
    }

    #[test]
    fn participations_without_end_or_without_noise() {
        let delta = Delta::new(1e-6).unwrap();
        assert_eq!(most_participations(&RdpCurve::Unbounded, 1e9, delta), 0);
        let noise_multiplier = NoiseMultiplier::new(1e9).unwrap();
        assert_eq!(most_participations(&RdpCurve::Gaussian { noise_multiplier }, 1.0, delta), u32::MAX);
    }
}
