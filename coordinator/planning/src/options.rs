//! What a person says of a plan, and what holds where it is left out.

use clap::{Args, ValueEnum};
use proto::adapter::Method;
use proto::metrics::MetricName;
use proto::plan::Mode;

const VERSIONS: u32 = 10;
const TARGETS: &str = "all";
const LOCAL_STEPS: u32 = 3;
const BATCH_SIZE: u32 = 4;
const SEQUENCE_LEN: u32 = 128;
const DELTA: f64 = 1e-5;
const METRICS_WEIGHT: f64 = 0.25;
const CLIP_QUANTILE: f64 = 0.5;
const JOIN_SECS: u64 = 60;
const STEP_SECS: u64 = 30;
const GRACE_SECS: u64 = 5;

/// What a plan is made of, beside its name, its base and its devices.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// Versions after which the task is complete.
    #[arg(long, default_value_t = VERSIONS)]
    pub versions: u32,
    /// The adapter's rank; by default 2, or another, with a method, of which noise leaves something to learn.
    #[arg(long, help_heading = "Adapter")]
    pub rank: Option<u32>,
    /// The adapter is scaled by alpha / rank; twice the rank by default.
    #[arg(long, help_heading = "Adapter")]
    pub alpha: Option<f32>,
    /// Which matrices are trained; by default `frozen_a`, or `core` where noise would drown that.
    #[arg(long, help_heading = "Adapter", value_enum)]
    pub method: Option<MethodName>,
    /// Versions after which the frozen factors are drawn anew, 0 for never; 3 by default with `frozen_a`, else never.
    #[arg(long, help_heading = "Adapter", value_name = "N")]
    pub refresh_every: Option<u32>,
    /// The largest rank that is kept of all draws before; four times the rank by default.
    #[arg(long, help_heading = "Adapter", value_name = "R")]
    pub accumulated_rank: Option<u32>,
    /// Let weak devices train fewer columns or layers than the adapter has, and move in each version only what at
    /// least so many devices trained.
    #[arg(long, help_heading = "Adapter", value_name = "N")]
    pub least_trainers: Option<u32>,
    /// The rank of the adapter that comes out; four times the rank by default.
    #[arg(long, help_heading = "Adapter", value_name = "R")]
    pub shipped_rank: Option<u32>,
    /// The adapted layers of every block: names such as `q_proj`, with commas between, or all.
    #[arg(long, help_heading = "Adapter", value_delimiter = ',', default_value = TARGETS)]
    pub targets: Vec<String>,
    /// Optimizer steps of one assignment.
    #[arg(long, help_heading = "Training on a device", default_value_t = LOCAL_STEPS)]
    pub local_steps: u32,
    /// Sequences of one step.
    #[arg(long, help_heading = "Training on a device", default_value_t = BATCH_SIZE)]
    pub batch_size: u32,
    /// Tokens of one sequence.
    #[arg(long, help_heading = "Training on a device", default_value_t = SEQUENCE_LEN)]
    pub sequence_len: u32,
    /// Step size on the device; by default 0.01, with `core` 0.02, with `both` 0.003.
    #[arg(long, help_heading = "Training on a device")]
    pub learning_rate: Option<f64>,
    /// Who adds noise: nobody, the coordinator after the sum, or every device before masking.
    #[arg(long, help_heading = "Privacy", value_enum, default_value_t = Privacy::Distributed)]
    pub privacy: Privacy,
    /// The most ε of a device that takes part in every version it may; 8 by default, or --epsilon-budget where that is less.
    /// The noise follows from it.
    #[arg(long, help_heading = "Privacy", value_name = "E")]
    pub target_epsilon: Option<f64>,
    /// Standard deviation of the sum's noise, divided by the clip norm, instead of a target.
    #[arg(long, help_heading = "Privacy", conflicts_with = "target_epsilon")]
    pub noise_multiplier: Option<f64>,
    /// L2 bound of a contribution; 1 with noise and 100 without by default.
    #[arg(long, help_heading = "Privacy")]
    pub clip: Option<f64>,
    /// The δ at which ε is stated.
    #[arg(long, help_heading = "Privacy", default_value_t = DELTA)]
    pub delta: f64,
    /// The task ends before its ε passes this.
    #[arg(long, help_heading = "Privacy")]
    pub epsilon_budget: Option<f64>,
    /// What is summed beside the updates, under the same noise: names with commas between, or none. By default the gain, by
    /// which versions are judged, and as many others as leave it to be told.
    #[arg(long, help_heading = "Privacy", value_enum, value_delimiter = ',')]
    pub metrics: Option<Vec<MetricChoice>>,
    /// The norm of a device's metrics, divided by the clip norm: more noise in the update for less in the metrics.
    #[arg(long, help_heading = "Privacy", default_value_t = METRICS_WEIGHT)]
    pub metrics_weight: f64,
    /// Let the clip norm follow the updates' norms, up to a hundred times --clip and down to a hundredth.
    #[arg(long, help_heading = "Privacy")]
    pub adaptive_clip: bool,
    /// Which part of the updates the adaptive clip norm leaves as they are.
    #[arg(long, help_heading = "Privacy", default_value_t = CLIP_QUANTILE, requires = "adaptive_clip")]
    pub clip_quantile: f64,
    /// Rounds that one device may take part in, those that end without a version too; by default a fifth more than versions,
    /// and without noise ten times as many.
    #[arg(long, help_heading = "Privacy")]
    pub participations: Option<u32>,
    /// Devices of a round that may collude with the coordinator and add no noise, in thousandths; 50 by default, and from a
    /// cohort of ten on as many as make one device.
    #[arg(long, help_heading = "Privacy", value_name = "M")]
    pub corrupt_permille: Option<u16>,
    /// Fewest survivors for which a sum may be revealed; two thirds of the most devices of a round by default, and at
    /// least the quorum.
    #[arg(long, help_heading = "Rounds")]
    pub report_goal: Option<u32>,
    /// Most rounds of one version, beside each other, whose sums are added up: for versions of more devices than fit one sum.
    #[arg(long, help_heading = "Rounds", default_value_t = 1)]
    pub rounds: u32,
    /// Fewest rounds whose sums make a version; all by default.
    #[arg(long, help_heading = "Rounds", value_name = "ROUNDS")]
    pub min_rounds: Option<u32>,
    /// Seconds that a round waits for devices that have finished training.
    #[arg(long, help_heading = "Rounds", default_value_t = JOIN_SECS)]
    pub join_secs: u64,
    /// Seconds that each later step of a round waits.
    #[arg(long, help_heading = "Rounds", default_value_t = STEP_SECS)]
    pub step_secs: u64,
    /// Seconds that a round waits for stragglers once the report goal is reached, and a version for further rounds that lack
    /// theirs once it has sums enough.
    #[arg(long, help_heading = "Rounds", default_value_t = GRACE_SECS)]
    pub grace_secs: u64,
}

impl Default for PlanOptions {
    /// What an empty command line says.
    fn default() -> Self {
        Self {
            versions: VERSIONS,
            rank: None,
            alpha: None,
            method: None,
            refresh_every: None,
            accumulated_rank: None,
            least_trainers: None,
            shipped_rank: None,
            targets: vec![TARGETS.to_owned()],
            local_steps: LOCAL_STEPS,
            batch_size: BATCH_SIZE,
            sequence_len: SEQUENCE_LEN,
            learning_rate: None,
            privacy: Privacy::Distributed,
            target_epsilon: None,
            noise_multiplier: None,
            clip: None,
            delta: DELTA,
            epsilon_budget: None,
            metrics: None,
            metrics_weight: METRICS_WEIGHT,
            adaptive_clip: false,
            clip_quantile: CLIP_QUANTILE,
            participations: None,
            corrupt_permille: None,
            report_goal: None,
            rounds: 1,
            min_rounds: None,
            join_secs: JOIN_SECS,
            step_secs: STEP_SECS,
            grace_secs: GRACE_SECS,
        }
    }
}

/// A kind of adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// Only B: exact averages.
    #[value(name = "frozen_a")]
    FrozenA,
    /// Only A: exact averages.
    #[value(name = "frozen_b")]
    FrozenB,
    /// B and A in turns: exact averages.
    Alternate,
    /// Only a small matrix between frozen factors: exact averages, the smallest updates.
    Core,
    /// Both A and B: the average of factors is not that of their products.
    Both,
}

impl MethodName {
    /// As a plan has it.
    pub fn method(self) -> Method {
        match self {
            Self::FrozenA => Method::FrozenA,
            Self::FrozenB => Method::FrozenB,
            Self::Alternate => Method::Alternate,
            Self::Core => Method::Core,
            Self::Both => Method::Both,
        }
    }

    /// As an option has it.
    pub fn of(method: Method) -> Self {
        match method {
            Method::FrozenA => Self::FrozenA,
            Method::FrozenB => Self::FrozenB,
            Method::Alternate => Self::Alternate,
            Method::Core => Self::Core,
            Method::Both => Self::Both,
        }
    }
}

/// Who adds noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Privacy {
    /// Nobody.
    Off,
    /// The coordinator, after the sum.
    Central,
    /// Every device, before masking.
    Distributed,
}

impl Privacy {
    /// As a plan has it.
    pub fn mode(self) -> Mode {
        match self {
            Self::Off => Mode::Off,
            Self::Central => Mode::Central,
            Self::Distributed => Mode::Distributed,
        }
    }

    /// As an option has it.
    pub fn of(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Central => Self::Central,
            Mode::Distributed => Self::Distributed,
        }
    }
}

/// What may be summed beside the updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricChoice {
    /// By how much a version is better than the one before, on text that devices hold out.
    Gain,
    /// The same against the base.
    BaseGain,
    /// Mean loss of the training.
    Loss,
    /// Sequences that were trained on.
    Examples,
    /// Norms of updates, before they are clipped.
    Norm,
    /// Which part of the updates was clipped.
    Clipped,
    /// Nothing.
    None,
}

impl MetricChoice {
    /// As a plan has it; none for nothing.
    pub fn metric(self) -> Option<MetricName> {
        match self {
            Self::Gain => Some(MetricName::Gain),
            Self::BaseGain => Some(MetricName::BaseGain),
            Self::Loss => Some(MetricName::Loss),
            Self::Examples => Some(MetricName::Examples),
            Self::Norm => Some(MetricName::Norm),
            Self::Clipped => Some(MetricName::Clipped),
            Self::None => None,
        }
    }

    /// As an option has it.
    pub fn of(name: MetricName) -> Self {
        match name {
            MetricName::Gain => Self::Gain,
            MetricName::BaseGain => Self::BaseGain,
            MetricName::Loss => Self::Loss,
            MetricName::Examples => Self::Examples,
            MetricName::Norm => Self::Norm,
            MetricName::Clipped => Self::Clipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: PlanOptions,
    }

    #[test]
    fn what_is_left_unsaid_is_the_same_on_a_command_line_and_in_code() {
        assert_eq!(Line::parse_from(["line"]).options, PlanOptions::default());
    }

    #[test]
    fn names_of_options_and_of_plans_are_each_others() {
        for name in MethodName::value_variants() {
            assert_eq!(MethodName::of(name.method()), *name);
            let word = name.to_possible_value().unwrap();
            assert_eq!(word.get_name(), name.method().as_str());
        }
        for privacy in Privacy::value_variants() {
            assert_eq!(Privacy::of(privacy.mode()), *privacy);
        }
        for choice in MetricChoice::value_variants() {
            assert_eq!(choice.metric().map_or(MetricChoice::None, MetricChoice::of), *choice);
        }
    }
}
