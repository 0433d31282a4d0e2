//! What a device says about its training: inside the secure sum, and nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::training::{PlanValueError, TrainingPlan};

/// The largest mean loss that is told apart by default, in nats a token: a uniform guess among 22,000 tokens.
const LARGEST_LOSS: f64 = 10.0;

/// The largest range that a plan may ask for.
const LARGEST_RANGE: f64 = 1e9;

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
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Examples => "examples",
            Self::Norm => "norm",
            Self::Clipped => "clipped",
        })
    }
}

/// A metric that a plan asks for. Smaller is `0`, larger counts as `most`: the range is what noise is sized for.
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
        };
        Self { name, most }
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

    /// The device's value as a part of the range, from 0 to 1.
    pub fn share(&self, local: &LocalMetrics) -> f64 {
        let value = match self.name {
            MetricName::Loss => local.loss,
            MetricName::Examples => f64::from(local.examples),
            MetricName::Norm => local.norm,
            MetricName::Clipped => f64::from(u8::from(local.norm > 1.0)),
        };
        let share = value / self.most;
        if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parts_of_their_range() {
        let local = LocalMetrics { loss: 3.0, examples: 50, norm: 1.5 };
        let share = |name, most| Metric { name, most }.share(&local);
        assert!((share(MetricName::Loss, 12.0) - 0.25).abs() < 1e-15);
        assert!((share(MetricName::Examples, 25.0) - 1.0).abs() < 1e-15);
        assert!((share(MetricName::Norm, 2.0) - 0.75).abs() < 1e-15);
        assert!((share(MetricName::Clipped, 1.0) - 1.0).abs() < 1e-15);
        let broken = LocalMetrics { loss: f64::NAN, examples: 0, norm: 1.0 };
        assert!((Metric { name: MetricName::Loss, most: 12.0 }.share(&broken) - 1.0).abs() < 1e-15);
        assert!(Metric { name: MetricName::Clipped, most: 1.0 }.share(&broken).abs() < 1e-15);
    }

    #[test]
    fn a_device_s_metrics_do_not_show_in_debug() {
        let local = LocalMetrics { loss: 3.25, examples: 77, norm: 1.5 };
        assert_eq!(format!("{local:?}"), "LocalMetrics { .. }");
    }

    #[test]
    fn ranges_that_mean_nothing_are_refused() {
        let refused = |name, most| Metric { name, most }.check().unwrap_err().to_string();
        assert!(refused(MetricName::Loss, 0.0).contains("found 0"));
        assert!(refused(MetricName::Loss, f64::INFINITY).contains("inf"));
        assert!(refused(MetricName::Clipped, 2.0).contains("1 for the metric"));
    }
}
