//! Numbers about a contribution that travel in the same sum, under the same noise.

use crate::error::ParamsError;

/// The most metrics that a contribution may carry.
const MOST_METRICS: usize = 64;

/// Metrics that weigh less drown in their own noise.
const LEAST_WEIGHT: f64 = 1e-3;

/// How many metrics a contribution carries and how much of the noise they pay for.
///
/// Each metric is a number in \[0, 1\]. What is summed is its distance from the
/// middle, scaled so that all metrics of a device together have a norm of at
/// most w·c. An update of norm at most c and its metrics then have a norm of
/// at most c·√(1 + w²), which is what the noise multiplier refers to: metrics
/// cost no ε, they make the noise of the update larger by √(1 + w²). Halving
/// the range by its middle is the trick of Andrew and others
/// 2021 (<https://arxiv.org/abs/1905.03871>) for their clipped-bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricParams {
    count: usize,
    weight: f64,
}

impl MetricParams {
    /// No metrics.
    pub const NONE: Self = Self { count: 0, weight: 0.0 };

    /// `count` metrics of weight w, or fails unless there are at most 64 and
    /// the weight is from 10^−3 to 1. Without metrics the weight is ignored.
    pub fn new(count: usize, weight: f64) -> Result<Self, ParamsError> {
        if count == 0 {
            return Ok(Self::NONE);
        }
        if count > MOST_METRICS {
            return Err(ParamsError::Metrics { value: count, most: MOST_METRICS });
        }
        if (LEAST_WEIGHT..=1.0).contains(&weight) {
            Ok(Self { count, weight })
        } else {
            Err(ParamsError::MetricWeight { value: weight })
        }
    }

    /// How many.
    pub fn count(self) -> usize {
        self.count
    }

    /// √(1 + w²), by how much metrics enlarge the noise of the update.
    pub fn growth(self) -> f64 {
        self.weight.hypot(1.0)
    }

    /// What a metric spans from 0 to 1, in units of the clip norm: 2w/√k.
    pub(crate) fn span(self) -> f64 {
        if self.count == 0 { 0.0 } else { 2.0 * self.weight / (self.count as f64).sqrt() }
    }
}
