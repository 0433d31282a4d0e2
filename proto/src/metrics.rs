//! What a device says about its training: inside the secure sum, and nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::training::{PlanValueError, TrainingPlan};

/// The largest mean loss that is told apart by default, in nats a token: a uniform guess among 22,000 tokens.
const LARGEST_LOSS: f64 = 10.0;

/// The largest range that a plan may ask for.
const LARGEST_RANGE: f64 = 1e9;

/// The largest gain, and the largest loss of quality, that is told apart by default, in nats a token.
const LARGEST_GAIN: f64 = 1.0;

/// The largest norm that is told apart by default, in units of the clip norm.
const LARGEST_NORM: f64 = 4.0;

/// A number about the training of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricName {
    /// Mean loss over the local training, in nats a token.
    Loss,
    /// Sequences trained on.
    Examples,
    /// L2 norm of the update before clipping, in units of the clip norm.
    Norm,
    /// 1 where the update was clipped, else 0.
    Clipped,
    /// By how much the version that the device trained from is better than the one before, on text that the device holds
    /// out: its loss less, in nats a token. 0 where the device cannot tell.
    Gain,
    /// The same against the base without any adapter.
    BaseGain,
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Examples => "examples",
            Self::Norm => "norm",
            Self::Clipped => "clipped",
            Self::Gain => "gain",
            Self::BaseGain => "gain over the base",
        })
    }
}

/// A metric that a plan asks for. Smaller counts as [`Metric::least`], larger as `most`: the range is what noise is sized
/// for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Which.
    pub name: MetricName,
    /// The largest value that is told apart.
    pub most: f64,
}

/// What a device knows about its own training. Its `Debug` shows nothing of it.
#[derive(Clone, Copy, PartialEq)]
pub struct LocalMetrics {
    /// Mean loss over the local training, in nats a token.
    pub loss: f64,
    /// Sequences trained on.
    pub examples: u32,
    /// L2 norm of the update before clipping, in units of the clip norm.
    pub norm: f64,
    /// What the version gained, on text that is held out.
    pub gains: Gains,
}

/// By how much the version that a device was given is better on text that the device holds out, in nats a token; `None`
/// where that was not measured. Its `Debug` shows nothing of it.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Gains {
    /// Than the version before.
    pub over_before: Option<f64>,
    /// Than the base.
    pub over_base: Option<f64>,
}

impl fmt::Debug for Gains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gains").finish_non_exhaustive()
    }
}

impl fmt::Debug for LocalMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalMetrics").finish_non_exhaustive()
    }
}

impl Metric {
    /// A metric with a range that suits a training.
    pub fn of(name: MetricName, training: &TrainingPlan) -> Self {
        let most = match name {
            MetricName::Loss => LARGEST_LOSS,
            MetricName::Examples => f64::from(training.local_steps) * f64::from(training.batch_size),
            MetricName::Norm => LARGEST_NORM,
            MetricName::Clipped => 1.0,
            MetricName::Gain | MetricName::BaseGain => LARGEST_GAIN,
        };
        Self { name, most }
    }

    /// The least value that is told apart.
    pub fn least(&self) -> f64 {
        match self.name {
            MetricName::Loss | MetricName::Examples | MetricName::Norm | MetricName::Clipped => 0.0,
            MetricName::Gain | MetricName::BaseGain => -self.most,
        }
    }

    /// What is told apart, from the least to the largest value.
    pub fn range(&self) -> f64 {
        self.most - self.least()
    }

    /// Whether the metric can be summed.
    pub fn check(&self) -> Result<(), PlanValueError> {
        let (name, found) = ("most", self.most);
        if !(found > 0.0 && found <= LARGEST_RANGE) {
            return Err(PlanValueError { name, wanted: "above 0 and at most 1e9", found });
        }
        if self.name == MetricName::Clipped && (found - 1.0).abs() > 0.0 {
            return Err(PlanValueError { name, wanted: "1 for the metric `clipped`", found });
        }
        Ok(())
    }

    /// The device's value as a part of the range, from 0 to 1. What is no number counts as the worst that there is.
    pub fn share(&self, local: &LocalMetrics) -> f64 {
        let (value, worst) = match self.name {
            MetricName::Loss => (local.loss, 1.0),
            MetricName::Examples => (f64::from(local.examples), 1.0),
            MetricName::Norm => (local.norm, 1.0),
            MetricName::Clipped => (f64::from(u8::from(local.norm > 1.0)), 1.0),
            MetricName::Gain => (local.gains.over_before.unwrap_or(0.0), 0.0),
            MetricName::BaseGain => (local.gains.over_base.unwrap_or(0.0), 0.0),
        };
        let share = (value - self.least()) / self.range();
        if share.is_nan() { worst } else { share.clamp(0.0, 1.0) }
    }

    /// The value that is this part of the range.
    pub fn value(&self, share: f64) -> f64 {
        self.least() + share * self.range()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parts_of_their_range() {
        let local = LocalMetrics { loss: 3.0, examples: 50, norm: 1.5, gains: Gains::default() };
        let share = |name, most| Metric { name, most }.share(&local);
        assert!((share(MetricName::Loss, 12.0) - 0.25).abs() < 1e-15);
        assert!((share(MetricName::Examples, 25.0) - 1.0).abs() < 1e-15);
        assert!((share(MetricName::Norm, 2.0) - 0.75).abs() < 1e-15);
        assert!((share(MetricName::Clipped, 1.0) - 1.0).abs() < 1e-15);
        let broken = LocalMetrics { loss: f64::NAN, examples: 0, norm: 1.0, gains: Gains::default() };
        assert!((Metric { name: MetricName::Loss, most: 12.0 }.share(&broken) - 1.0).abs() < 1e-15);
        assert!(Metric { name: MetricName::Clipped, most: 1.0 }.share(&broken).abs() < 1e-15);
    }

    #[test]
    fn a_gain_counts_from_minus_to_plus_its_most_and_one_that_was_not_measured_is_none() {
        let training = crate::plan::Plan::example().training;
        let share = |over_before| {
            let gains = Gains { over_before, over_base: Some(0.25) };
            let local = LocalMetrics { loss: 3.0, examples: 50, norm: 1.5, gains };
            let metric = Metric::of(MetricName::Gain, &training);
            let over_base = Metric::of(MetricName::BaseGain, &training).share(&local);
            assert!((over_base - 0.625).abs() < 1e-15);
            let share = metric.share(&local);
            (share, metric.value(share))
        };
        for (gain, expected, value) in [
            (None, 0.5, 0.0),
            (Some(0.5), 0.75, 0.5),
            (Some(-3.0), 0.0, -1.0),
            (Some(7.0), 1.0, 1.0),
            (Some(f64::NAN), 0.0, -1.0),
        ] {
            assert_eq!(share(gain), (expected, value), "{gain:?}");
        }
    }

    #[test]
    fn a_device_s_metrics_do_not_show_in_debug() {
        let gains = Gains { over_before: Some(0.125), over_base: None };
        let local = LocalMetrics { loss: 3.25, examples: 77, norm: 1.5, gains };
        assert_eq!(format!("{local:?}"), "LocalMetrics { .. }");
        assert_eq!(format!("{gains:?}"), "Gains { .. }");
    }

    #[test]
    fn ranges_that_mean_nothing_are_refused() {
        let refused = |name, most| Metric { name, most }.check().unwrap_err().to_string();
        assert!(refused(MetricName::Loss, 0.0).contains("found 0"));
        assert!(refused(MetricName::Loss, f64::INFINITY).contains("inf"));
        assert!(refused(MetricName::Clipped, 2.0).contains("1 for the metric"));
    }
}
