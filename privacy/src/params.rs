//! The parameters of a mechanism, as checked types.

use serde::{Deserialize, Serialize};

use crate::{error::ParamsError, metrics::MetricParams};

/// The largest L2 norm that an update may have; larger ones are scaled down.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct ClipNorm(f64);

impl ClipNorm {
    /// Wraps `value`, or fails unless it is finite and above zero.
    pub fn new(value: f64) -> Result<Self, ParamsError> {
        if value.is_finite() && value > 0.0 { Ok(Self(value)) } else { Err(ParamsError::ClipNorm { value }) }
    }

    /// The norm.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The standard deviation of the noise of the sum, divided by the clip norm.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct NoiseMultiplier(f64);

impl NoiseMultiplier {
    /// Wraps `value`, or fails unless it is finite and not negative.
    pub fn new(value: f64) -> Result<Self, ParamsError> {
        if value.is_finite() && value >= 0.0 {
            Ok(Self(value))
        } else {
            Err(ParamsError::NoiseMultiplier { value })
        }
    }

    /// The multiplier.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for NoiseMultiplier {
    type Error = ParamsError;

    fn try_from(value: f64) -> Result<Self, ParamsError> {
        Self::new(value)
    }
}

impl From<NoiseMultiplier> for f64 {
    fn from(noise_multiplier: NoiseMultiplier) -> Self {
        noise_multiplier.get()
    }
}

/// The δ of (ε, δ)-differential privacy.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Delta(f64);

impl Delta {
    /// Wraps `value`, or fails unless it lies strictly between 0 and 1.
    pub fn new(value: f64) -> Result<Self, ParamsError> {
        if value > 0.0 && value < 1.0 { Ok(Self(value)) } else { Err(ParamsError::Delta { value }) }
    }

    /// The probability.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Where the noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrivacyMode {
    /// Nowhere. Updates are still clipped, rotated and rounded, because that is
    /// the fixed-point code of the secure sum; the noise multiplier is ignored.
    Off,
    /// The coordinator adds all of it to the sum.
    Central,
    /// Every device adds a share before masking.
    Distributed,
}

/// Everything that both sides must agree on before a round.
#[derive(Clone, Debug, PartialEq)]
pub struct MechanismParams {
    /// Where the noise comes from.
    pub mode: PrivacyMode,
    /// c, the L2 bound of an update.
    pub clip_norm: ClipNorm,
    /// z, the noise of the sum in units of the clip norm.
    pub noise_multiplier: NoiseMultiplier,
    /// s, how many integer steps make 1.0.
    pub scale: f64,
    /// The length of an update, before padding.
    pub coordinates: usize,
    /// N, the most devices that a sum can have.
    pub cohort: usize,
    /// n\*, the fewest survivors for which a sum may be revealed.
    pub report_goal: usize,
    /// f, the most devices of the cohort that may collude and add no noise: a
    /// whole number, the very one that the protocol of the sum reckons with.
    pub corrupt: usize,
    /// The metrics that travel with an update.
    pub metrics: MetricParams,
}

impl MechanismParams {
    /// c·√(1 + w²), the L2 bound of an update and its metrics together.
    pub(crate) fn bound(&self) -> f64 {
        self.clip_norm.get() * self.metrics.growth()
    }

    /// n\* − f, the devices whose noise is relied on, or fails when none is
    /// left or when a count makes no sense.
    pub(crate) fn honest_devices(&self) -> Result<usize, ParamsError> {
        let Self { cohort, report_goal, corrupt, .. } = *self;
        if cohort == 0 {
            return Err(ParamsError::Cohort { value: cohort });
        }
        if report_goal == 0 || report_goal > cohort {
            return Err(ParamsError::ReportGoal { report_goal, cohort });
        }
        match report_goal.checked_sub(corrupt) {
            Some(honest) if honest > 0 => Ok(honest),
            _ => Err(ParamsError::NoHonestDevice { report_goal, corrupt }),
        }
    }
}
