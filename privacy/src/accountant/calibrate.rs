//! How much noise a target ε takes.

use crate::{
    mechanism::Mechanism,
    params::{Delta, MechanismParams, NoiseMultiplier, ParamsError},
};

use super::{curve::zcdp_rho, zcdp_epsilon};

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
