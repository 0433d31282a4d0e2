//! The probability with which a device is drawn.

use serde::{Deserialize, Serialize};

/// q, the probability that a device is in a Poisson sample: every device is
/// drawn by itself, whatever happens to the others.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct SamplingRate(f64);

impl SamplingRate {
    /// Every device takes part: no sampling at all.
    pub const ALL: Self = Self(1.0);

    /// Wraps `value`, or fails unless it is above 0 and at most 1.
    pub fn new(value: f64) -> Result<Self, SamplingRateError> {
        if value > 0.0 && value <= 1.0 { Ok(Self(value)) } else { Err(SamplingRateError { value }) }
    }

    /// The probability.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for SamplingRate {
    type Error = SamplingRateError;

    fn try_from(value: f64) -> Result<Self, SamplingRateError> {
        Self::new(value)
    }
}

impl From<SamplingRate> for f64 {
    fn from(rate: SamplingRate) -> Self {
        rate.get()
    }
}

/// A sampling rate that is no probability, or that draws nobody.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("sampling rate must be above 0 and at most 1, got {value}")]
pub struct SamplingRateError {
    /// What was given.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_above_zero_and_at_most_one() {
        for value in [0.0, -0.1, 1.0 + f64::EPSILON, f64::NAN, f64::INFINITY] {
            assert!(SamplingRate::new(value).is_err(), "{value}");
        }
        assert_eq!(SamplingRate::new(1.0), Ok(SamplingRate::ALL));
        let tiny = SamplingRate::new(f64::MIN_POSITIVE).unwrap();
        assert!(tiny < SamplingRate::ALL && tiny.get() > 0.0);
    }
}
