//! What is refused: parameters at construction, updates, and sums.

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
    /// All survivors at the report goal could be corrupt.
    #[error("report goal of {report_goal} leaves no honest device when {corrupt} may be corrupt")]
    NoHonestDevice {
        /// n\*.
        report_goal: usize,
        /// f.
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
    /// The weight of the metrics is not from 10^−3 to 1.
    #[error("the weight of the metrics must be from 0.001 to 1, got {value}")]
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

/// An update that cannot be encoded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// It does not have the task's number of coordinates.
    #[error("expected an update of {expected} coordinates, got {got}")]
    Length {
        /// The task's coordinates.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// A coordinate is infinite or not a number.
    #[error("coordinate {index} of the update is {value}, expected a finite number")]
    NotFinite {
        /// The first such coordinate.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// There are more or fewer metrics than agreed.
    #[error("expected {expected} metrics, got {got}")]
    Metrics {
        /// How many were agreed.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// A metric is not in \[0, 1\].
    #[error("metric {index} is {value}, expected a number from 0 to 1")]
    MetricRange {
        /// The first such metric.
        index: usize,
        /// Its value.
        value: f64,
    },
}

/// A sum that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It does not have the padded length.
    #[error("expected a sum of {expected} elements, got {got}")]
    Length {
        /// The padded length.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// There are no survivors, or more than the ring was made for.
    #[error("expected between 1 and {cohort} survivors, got {survivors}")]
    Survivors {
        /// What was given.
        survivors: usize,
        /// The largest cohort.
        cohort: usize,
    },
    /// An element is not reduced.
    #[error("element {index} of the sum is {value}, expected at most {most}")]
    OutsideRing {
        /// The first such element.
        index: usize,
        /// Its value.
        value: u32,
        /// The largest element of the ring.
        most: u32,
    },
}
