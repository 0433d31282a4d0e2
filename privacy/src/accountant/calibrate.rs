//! How much noise a target ε takes.

use crate::mechanism::Mechanism;
use crate::params::{Delta, MechanismParams, NoiseMultiplier, ParamsError};

use super::{Accountant, curve::RdpCurve};

/// The privacy that a device shall have after its last participation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseTarget {
    /// The largest ε.
    pub epsilon: f64,
    /// The δ that goes with it.
    pub delta: Delta,
    /// How often the device takes part.
    pub participations: u32,
}

/// The noise that is searched for: wider is useless, narrower is no privacy.
const RANGE: (f64, f64) = (1e-3, 1e6);

impl NoiseTarget {
    /// The least noise multiplier of the Gaussian mechanism that meets the
    /// target, within 10^−9 relative and never too small. Fails when the target
    /// cannot be met.
    pub fn gaussian(&self) -> Result<NoiseMultiplier, CalibrateError> {
        self.least(|noise_multiplier| Ok(RdpCurve::Gaussian { noise_multiplier }))
    }

    /// The same for the distributed or central Skellam mechanism that has
    /// `params` but for its noise multiplier. Fails when the target cannot be
    /// met, or when the noise that meets it does not fit a ring.
    pub fn skellam(&self, params: &MechanismParams) -> Result<NoiseMultiplier, CalibrateError> {
        self.least(|noise_multiplier| {
            let params = MechanismParams { noise_multiplier, ..params.clone() };
            Ok(Mechanism::new(params)?.curve())
        })
    }

    fn least(
        &self,
        curve: impl Fn(NoiseMultiplier) -> Result<RdpCurve, ParamsError>,
    ) -> Result<NoiseMultiplier, CalibrateError> {
        let Self { epsilon: target, .. } = *self;
        let met = |z: f64| -> Result<bool, CalibrateError> {
            let mut accountant = Accountant::new();
            accountant.add(curve(NoiseMultiplier::new(z)?)?, self.participations);
            Ok(accountant.epsilon(self.delta).epsilon <= target)
        };
        let unreachable = CalibrateError::Unreachable { target };
        if target.is_nan() || target <= 0.0 {
            return Err(unreachable);
        }
        let (mut low, most) = RANGE;
        if met(low)? {
            return Ok(NoiseMultiplier::new(low)?);
        }
        let mut high = low * 2.0;
        while !met(high)? {
            (low, high) = (high, 2.0 * high);
            if high > most {
                return Err(unreachable);
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
