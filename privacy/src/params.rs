//! The parameters of a mechanism, as checked types.

use serde::{Deserialize, Serialize};

use crate::metrics::MetricParams;

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
    /// γ, the fraction of the cohort that may collude and add no noise.
    pub corrupt_fraction: f64,
    /// The metrics that travel with an update.
    pub metrics: MetricParams,
}

impl MechanismParams {
    /// c·√(1 + w²), the L2 bound of an update and its metrics together.
    pub(crate) fn bound(&self) -> f64 {
        self.clip_norm.get() * self.metrics.growth()
    }

    /// n\* − A, the devices whose noise is relied on, or fails when none is
    /// left or when a count or the fraction makes no sense.
    pub(crate) fn honest_devices(&self) -> Result<usize, ParamsError> {
        let Self { cohort, report_goal, corrupt_fraction, .. } = *self;
        if cohort == 0 {
            return Err(ParamsError::Cohort { value: cohort });
        }
        if report_goal == 0 || report_goal > cohort {
            return Err(ParamsError::ReportGoal { report_goal, cohort });
        }
        if !(0.0..1.0).contains(&corrupt_fraction) {
            return Err(ParamsError::CorruptFraction { value: corrupt_fraction });
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 ≤ γ < 1, so the product lies between 0 and the cohort"
        )]
        let corrupt = (corrupt_fraction * cohort as f64).floor() as usize;
        match report_goal.checked_sub(corrupt) {
            Some(honest) if honest > 0 => Ok(honest),
            _ => Err(ParamsError::NoHonestDevice { report_goal, corrupt }),
        }
    }
}

/// A parameter that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParamsError {
    /// The clip norm is not a positive number.
    #[error("clip norm must be finite and above 0, got {value}")]
    ClipNorm {
        /// What was given.
        value: f64,
    },
    /// The noise multiplier is negative or not a number.
    #[error("noise multiplier must be finite and at least 0, got {value}")]
    NoiseMultiplier {
        /// What was given.
        value: f64,
    },
    /// δ is not a probability strictly between 0 and 1.
    #[error("delta must be above 0 and below 1, got {value}")]
    Delta {
        /// What was given.
        value: f64,
    },
    /// The scale is not a positive number.
    #[error("scale must be finite and above 0, got {value}")]
    Scale {
        /// What was given.
        value: f64,
    },
    /// There are no coordinates, or more than can be counted in an update.
    #[error("coordinates must be between 1 and {most}, got {value}")]
    Coordinates {
        /// What was given.
        value: usize,
        /// The most that are supported.
        most: usize,
    },
    /// The cohort is empty.
    #[error("cohort must have at least 1 device, got {value}")]
    Cohort {
        /// What was given.
        value: usize,
    },
    /// The report goal is zero or larger than the cohort.
    #[error("report goal must be between 1 and the cohort of {cohort}, got {report_goal}")]
    ReportGoal {
        /// What was given.
        report_goal: usize,
        /// The largest cohort.
        cohort: usize,
    },
    /// The corrupt fraction is not in [0, 1).
    #[error("corrupt fraction must be at least 0 and below 1, got {value}")]
    CorruptFraction {
        /// What was given.
        value: f64,
    },
    /// All survivors at the report goal could be corrupt.
    #[error("report goal of {report_goal} leaves no honest device when {corrupt} may be corrupt")]
    NoHonestDevice {
        /// n\*.
        report_goal: usize,
        /// A = ⌊γN⌋.
        corrupt: usize,
    },
    /// Rounding would enlarge the sensitivity by more than one per cent.
    #[error(
        "scale {scale} is too small for {padded_len} padded coordinates, it must be at least \
         {least_scale}"
    )]
    ScaleTooSmall {
        /// What was given.
        scale: f64,
        /// d, after padding.
        padded_len: usize,
        /// The least scale for this many coordinates and this clip norm.
        least_scale: f64,
    },
    /// The quantile of an adaptive clip norm is not in (0, 1).
    #[error("the quantile of the clip norm must be above 0 and below 1, got {value}")]
    ClipQuantile {
        /// What was given.
        value: f64,
    },
    /// The rate of an adaptive clip norm is not in (0, 1].
    #[error("the rate of the clip norm must be above 0 and at most 1, got {value}")]
    ClipRate {
        /// What was given.
        value: f64,
    },
    /// The range of an adaptive clip norm is empty.
    #[error("a clip norm cannot range from {least} to {most}")]
    ClipRange {
        /// The lower end.
        least: f64,
        /// The upper end.
        most: f64,
    },
    /// There are too many metrics.
    #[error("a contribution carries at most {most} metrics, got {value}")]
    Metrics {
        /// What was given.
        value: usize,
        /// The most.
        most: usize,
    },
    /// The weight of the metrics is not in (0, 1].
    #[error("the weight of the metrics must be above 0 and at most 1, got {value}")]
    MetricWeight {
        /// What was given.
        value: f64,
    },
    /// The sum would not fit the widest ring.
    #[error("the sum needs a ring of more than {most} bits with scale {scale}")]
    RingTooWide {
        /// The scale that was asked for, or the least that could be recommended.
        scale: f64,
        /// The most bits that a ring may have.
        most: u32,
    },
    /// There is noise, but so little that it is surely a mistake.
    #[error("noise of variance {variance} in integer units is below the least of {least}")]
    NoiseTooSmall {
        /// The variance of one device's share, in integer units.
        variance: f64,
        /// The least variance that the sampler supports.
        least: f64,
    },
}
