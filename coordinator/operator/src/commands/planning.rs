//! From the operator's options to a plan.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use coordinator::cli::CliError;
use coordinator::driver::check_frozen;
use formats::BaseInfo;
use proto::adapter::{AdapterSpec, Factors, Method};
use proto::files;
use proto::ids::{Digest, TaskId};
use proto::metrics::{Metric, MetricName};
use proto::plan::{AdaptiveClipPlan, ClassPlan, Mode, Plan, PrivacyPlan, RefreshPlan, RoundPlan};
use proto::training::{LocalOptimizer, ServerOptimizer, TrainingPlan};
use rand::rngs::SysRng;
use rand_core::{Rng, UnwrapErr};
use shell::cli::note;
use task::Task;
use task::worth::{GOOD_SNR, LEAST_SNR, usual_corrupt_permille, with_epsilon, with_usual_metrics, worth};

mod prediction;

use prediction::{Prediction, mends, predict, too_noisy};

/// How many of a round's devices may vanish, in thousandths.
const MISSING_PERMILLE: u16 = 300;

/// Where noise is on and nothing else is said.
const TARGET_EPSILON: f64 = 8.0;

/// What is tried in turn after `frozen_a` of rank 2 where neither method nor rank is given, until noise leaves enough to
/// learn.
const OTHER_ADAPTERS: [(MethodName, u32); 4] =
    [(MethodName::FrozenA, 1), (MethodName::Core, 4), (MethodName::Core, 2), (MethodName::Core, 1)];

/// A sum of fewer devices is one device's own update.
const LEAST_GOAL: u32 = 2;

/// What a task is made of.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct PlanArguments {
    /// The base: a Hugging Face folder. Of its weights the headers are read, and all of it once for its digest.
    #[arg(long, value_name = "DIR", required_unless_present = "plan", conflicts_with = "plan")]
    base: Option<PathBuf>,
    /// A plan as JSON; it says everything, so only --frozen and --accept-noise go with it.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// The task's label.
    #[arg(long, conflicts_with = "plan", default_value = "task")]
    name: String,
    /// Versions after which the task is complete.
    #[arg(long, conflicts_with = "plan", default_value_t = 10)]
    versions: u32,
    /// The adapter's rank; by default 2, or another, with a method, of which noise leaves something to learn.
    #[arg(long, help_heading = "Adapter", conflicts_with = "plan")]
    rank: Option<u32>,
    /// The adapter is scaled by alpha / rank; twice the rank by default.
    #[arg(long, help_heading = "Adapter", conflicts_with = "plan")]
    alpha: Option<f32>,
    /// Which matrices are trained; by default `frozen_a`, or `core` where noise would drown that.
    #[arg(long, help_heading = "Adapter", conflicts_with = "plan", value_enum)]
    method: Option<MethodName>,
    /// Versions after which the frozen factors are drawn anew, 0 for never; 3 by default with `frozen_a`, else never.
    #[arg(long, help_heading = "Adapter", conflicts_with = "plan", value_name = "N")]
    refresh_every: Option<u32>,
    /// The largest rank that is kept of all draws before; four times the rank by default.
    #[arg(long, help_heading = "Adapter", conflicts_with = "plan", value_name = "R")]
    accumulated_rank: Option<u32>,
    /// Let weak devices train fewer columns or layers than the adapter has, and move in each version only what at
    /// least so many devices trained.
    #[arg(long, help_heading = "Adapter", conflicts_with = "plan", value_name = "N")]
    least_trainers: Option<u32>,
    /// The rank of the adapter that comes out; four times the rank by default.
    #[arg(long, help_heading = "Adapter", conflicts_with = "plan", value_name = "R")]
    shipped_rank: Option<u32>,
    /// The adapted layers of every block: names such as `q_proj`, with commas between, or all.
    #[arg(
        long,
        help_heading = "Adapter",
        conflicts_with = "plan",
        value_delimiter = ',',
        default_value = "all"
    )]
    targets: Vec<String>,
    /// Optimiser steps of one assignment.
    #[arg(long, help_heading = "Training on a device", conflicts_with = "plan", default_value_t = 3)]
    local_steps: u32,
    /// Sequences of one step.
    #[arg(long, help_heading = "Training on a device", conflicts_with = "plan", default_value_t = 4)]
    batch_size: u32,
    /// Tokens of one sequence.
    #[arg(long, help_heading = "Training on a device", conflicts_with = "plan", default_value_t = 128)]
    sequence_len: u32,
    /// Step size on the device.
    #[arg(long, help_heading = "Training on a device", conflicts_with = "plan", default_value_t = 0.01)]
    learning_rate: f64,
    /// Who adds noise.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan", value_enum, default_value_t = Privacy::Distributed)]
    privacy: Privacy,
    /// The most ε of a device that takes part in every version it may; 8 by default, or --epsilon-budget where that is less.
    /// The noise follows from it.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan", value_name = "E")]
    target_epsilon: Option<f64>,
    /// Standard deviation of the sum's noise, divided by the clip norm, instead of a target.
    #[arg(long, help_heading = "Privacy", conflicts_with_all = ["plan", "target_epsilon"])]
    noise_multiplier: Option<f64>,
    /// Start the task although its noise is more than its devices can teach it.
    #[arg(long, help_heading = "Privacy")]
    accept_noise: bool,
    /// L2 bound of a contribution; 1 with noise and 100 without by default.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan")]
    clip: Option<f64>,
    /// The δ at which ε is stated.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan", default_value_t = 1e-5)]
    delta: f64,
    /// The task ends before its ε passes this.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan")]
    epsilon_budget: Option<f64>,
    /// What is summed beside the updates, under the same noise: names with commas between, or none. By default the gain, by
    /// which versions are judged, and as many others as leave it to be told.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan", value_enum, value_delimiter = ',')]
    metrics: Option<Vec<MetricChoice>>,
    /// The norm of a device's metrics, divided by the clip norm: more noise in the update for less in the metrics.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan", default_value_t = 0.25)]
    metrics_weight: f64,
    /// Let the clip norm follow the updates' norms, up to a hundred times --clip and down to a hundredth.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan")]
    adaptive_clip: bool,
    /// Which part of the updates the adaptive clip norm leaves as they are.
    #[arg(
        long,
        help_heading = "Privacy",
        conflicts_with = "plan",
        default_value_t = 0.5,
        requires = "adaptive_clip"
    )]
    clip_quantile: f64,
    /// Rounds that one device may take part in; as many as versions by default.
    #[arg(long, help_heading = "Privacy", conflicts_with = "plan")]
    participations: Option<u32>,
    /// Most devices of a round.
    #[arg(long, help_heading = "Rounds", conflicts_with = "plan", default_value_t = 10)]
    cohort: u32,
    /// Fewest survivors for which a sum may be revealed; two thirds of the cohort by default, and at least
    /// the quorum.
    #[arg(long, help_heading = "Rounds", conflicts_with = "plan")]
    report_goal: Option<u32>,
    /// Seconds that a round waits for devices that have finished training.
    #[arg(long, help_heading = "Rounds", conflicts_with = "plan", default_value_t = 60)]
    join_secs: u64,
    /// Seconds that each later step of a round waits.
    #[arg(long, help_heading = "Rounds", conflicts_with = "plan", default_value_t = 30)]
    step_secs: u64,
    /// Seconds that a round waits for stragglers once the report goal is reached.
    #[arg(long, help_heading = "Rounds", conflicts_with = "plan", default_value_t = 5)]
    grace_secs: u64,
    /// Frozen factors, raw little-endian f32, those of one draw after another; drawn from a random seed by default.
    #[arg(long, help_heading = "Adapter", value_name = "FILE")]
    frozen: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MethodName {
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
    fn method(self) -> Method {
        match self {
            Self::FrozenA => Method::FrozenA,
            Self::FrozenB => Method::FrozenB,
            Self::Alternate => Method::Alternate,
            Self::Core => Method::Core,
            Self::Both => Method::Both,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Privacy {
    Off,
    Central,
    Distributed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MetricChoice {
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
    fn metric(self) -> Option<MetricName> {
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
}

/// A plan's bytes, the factors that go with it, and what to expect of it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) plan: Vec<u8>,
    pub(super) frozen: Vec<u8>,
    pub(super) prediction: Prediction,
    /// The base, and where it lies, where the plan is made of it here.
    pub(super) base: Option<(Digest, PathBuf)>,
}

/// Makes a plan and checks all of it, as the coordinator will.
pub(super) fn prepare(arguments: &PlanArguments) -> Result<Prepared, CliError> {
    let read = |path: &Path| files::read(path).map_err(CliError::input);
    let frozen = arguments.frozen.as_deref().map(read).transpose()?;
    let bytes = match (&arguments.base, &arguments.plan) {
        (_, Some(path)) => read(path)?,
        (Some(dir), None) => {
            choose(arguments, dir, frozen.as_deref())?.to_bytes().map_err(CliError::input)?
        }
        (None, None) => return Err(CliError::Input("a task needs --base DIR or --plan FILE".to_owned())),
    };
    let nobody = aggregation::IdentityPublic([0; 32]);
    let plan = Plan::parse(&bytes).map_err(CliError::input)?;
    let frozen = frozen.unwrap_or_default();
    let given = check_frozen(&plan, &frozen)
        .map_err(|error| CliError::Input(format!("{error}; give the right factors with --frozen FILE")))?;
    let given = given.map(|(_, factors)| factors);
    let task = Task::new(TaskId([0; 16]), &bytes, given, nobody).map_err(CliError::input)?;
    let plan = task.plan();
    let goal = plan.round.report_goal;
    if goal < LEAST_GOAL {
        return Err(CliError::Input(format!(
            "a report goal of {goal} would reveal the update of a single device; use a cohort and a report goal \
             of at least {LEAST_GOAL}"
        )));
    }
    let prediction = predict(plan)?;
    if prediction.snr < LEAST_SNR && !arguments.accept_noise {
        let is_own = arguments.plan.is_none();
        if is_own {
            note(&mends(plan));
        }
        return Err(CliError::Input(too_noisy(plan, prediction.snr, is_own)));
    }
    let base = arguments.base.clone().map(|path| (plan.base, path));
    Ok(Prepared { plan: bytes, frozen, prediction, base })
}

/// The plan by the options; where neither method nor rank is given, with the first adapter that noise leaves enough of, or
/// else the one that it leaves most of.
fn choose(arguments: &PlanArguments, dir: &Path, frozen: Option<&[u8]>) -> Result<Plan, CliError> {
    let base = BaseInfo::open(dir).map_err(CliError::input)?;
    let first = (arguments.method.unwrap_or(MethodName::FrozenA), arguments.rank.unwrap_or(2));
    let mut best = compose(arguments, &base, frozen, first)?;
    // Factors and classes are of one kind of adapter.
    let is_fixed = arguments.method.is_some()
        || arguments.rank.is_some()
        || frozen.is_some()
        || arguments.least_trainers.is_some()
        || arguments.refresh_every.is_some()
        || arguments.accumulated_rank.is_some()
        || arguments.shipped_rank.is_some();
    let mut most = worth(&best).map_err(CliError::input)?.snr;
    for adapter in OTHER_ADAPTERS {
        if is_fixed || most >= GOOD_SNR {
            break;
        }
        // One that this base is too narrow for is none.
        let Ok(plan) = compose(arguments, &base, frozen, adapter) else { continue };
        if let Ok(worth) = worth(&plan)
            && worth.snr > most
        {
            (best, most) = (plan, worth.snr);
        }
    }
    Ok(best)
}

fn compose(
    arguments: &PlanArguments,
    base: &BaseInfo,
    frozen: Option<&[u8]>,
    (method, rank): (MethodName, u32),
) -> Result<Plan, CliError> {
    let factors = frozen.map_or_else(|| Factors::Seeded(random()), |bytes| Factors::Given(Digest::of(bytes)));
    let adapter = AdapterSpec {
        method: method.method(),
        rank,
        alpha: arguments.alpha.unwrap_or(2.0 * rank as f32),
        factors,
        modules: base.modules(&arguments.targets).map_err(CliError::input)?,
    };
    adapter.check().map_err(CliError::input)?;
    let (mode, noise_multiplier) = noise(arguments)?;
    let clip = arguments.clip.unwrap_or(if mode == Mode::Off { 100.0 } else { 1.0 });
    let cohort = arguments.cohort;
    let report_goal = arguments.report_goal.unwrap_or_else(|| default_goal(cohort));
    let training = TrainingPlan {
        local_steps: arguments.local_steps,
        batch_size: arguments.batch_size,
        sequence_len: arguments.sequence_len,
        learning_rate: arguments.learning_rate,
        warmup_steps: 0,
        max_grad_norm: 1.0,
        optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
    };
    let metrics = metrics(arguments, &training);
    let plan = Plan {
        name: arguments.name.clone(),
        base: base.digest(),
        initial_seed: random(),
        refresh: refresh(arguments, &adapter)?,
        classes: arguments.least_trainers.map(|least_trainers| ClassPlan { least_trainers }),
        adapter,
        training,
        privacy: PrivacyPlan {
            mode,
            clip_norm: clip,
            adaptive_clip: arguments
                .adaptive_clip
                .then(|| AdaptiveClipPlan::around(clip, arguments.clip_quantile)),
            noise_multiplier,
            scale: 1.0,
            metrics,
            metrics_weight: arguments.metrics_weight,
            delta: arguments.delta,
            corrupt_permille: usual_corrupt_permille(cohort),
            participations: arguments.participations.unwrap_or(arguments.versions),
            epsilon_budget: arguments.epsilon_budget,
        },
        round: RoundPlan {
            versions: arguments.versions,
            cohort,
            report_goal,
            join_millis: arguments.join_secs.saturating_mul(1000),
            step_millis: arguments.step_secs.saturating_mul(1000),
            grace_millis: arguments.grace_secs.saturating_mul(1000),
            missing_permille: MISSING_PERMILLE,
        },
        server: ServerOptimizer::FedAvg { rate: 1.0 },
    };
    // What is beyond the budget would not be spent.
    let most = arguments.epsilon_budget.map_or(TARGET_EPSILON, |budget| budget.min(TARGET_EPSILON));
    let with_noise = |plan: Plan| match (mode, arguments.noise_multiplier) {
        (Mode::Off, _) | (_, Some(_)) => plan.with_recommended_scale().map_err(CliError::input),
        (Mode::Central | Mode::Distributed, None) => {
            match arguments.target_epsilon {
                Some(target) => with_epsilon(plan, target),
                // A budget that no noise keeps to is refused for what it is, by whoever opens the task.
                None => with_epsilon(plan.clone(), most).or_else(|_| with_epsilon(plan, TARGET_EPSILON)),
            }
            .map_err(CliError::input)
        }
    };
    let plan = with_noise(plan)?;
    if arguments.metrics.is_some() {
        return Ok(plan);
    }
    // How many metrics there are hardly changes what the noise costs, and it is counted anew all the same.
    with_noise(with_usual_metrics(&plan).map_err(CliError::input)?)
}

/// When the frozen factors are drawn anew; ranks for what is never folded are refused.
fn refresh(arguments: &PlanArguments, adapter: &AdapterSpec) -> Result<Option<RefreshPlan>, CliError> {
    let usual = if adapter.method == Method::FrozenA { 3 } else { 0 };
    let every = arguments.refresh_every.unwrap_or(usual);
    if every == 0 {
        for (name, rank) in
            [("--accumulated-rank", arguments.accumulated_rank), ("--shipped-rank", arguments.shipped_rank)]
        {
            if let Some(rank) = rank {
                return Err(CliError::Input(format!(
                    "{name} {rank} has no effect on factors that are never drawn anew; leave it out, or give \
                     --refresh-every"
                )));
            }
        }
        return Ok(None);
    }
    let refresh = RefreshPlan::every(every, adapter);
    Ok(Some(RefreshPlan {
        accumulated_rank: arguments.accumulated_rank.unwrap_or(refresh.accumulated_rank),
        shipped_rank: arguments.shipped_rank.unwrap_or(refresh.shipped_rank),
        ..refresh
    }))
}

/// The metrics that are asked for; who adapts must know who was clipped.
fn metrics(arguments: &PlanArguments, training: &TrainingPlan) -> Vec<Metric> {
    let asked = arguments.metrics.iter().flatten();
    let mut names: Vec<MetricName> = asked.filter_map(|name| name.metric()).collect();
    if arguments.adaptive_clip && !names.contains(&MetricName::Clipped) {
        names.push(MetricName::Clipped);
    }
    names.into_iter().map(|name| Metric::of(name, training)).collect()
}

/// The mode and its noise; noise that would have no effect is refused.
fn noise(arguments: &PlanArguments) -> Result<(Mode, f64), CliError> {
    // Until it follows from a target.
    let asked = arguments.noise_multiplier.unwrap_or(1.0);
    match arguments.privacy {
        Privacy::Off if arguments.noise_multiplier.is_some() || arguments.target_epsilon.is_some() => {
            Err(CliError::Input(
                "--privacy off adds no noise; leave --noise-multiplier and --target-epsilon out, or choose central or \
                 distributed"
                    .to_owned(),
            ))
        }
        Privacy::Off => Ok((Mode::Off, 0.0)),
        Privacy::Central => Ok((Mode::Central, asked)),
        Privacy::Distributed => Ok((Mode::Distributed, asked)),
    }
}

/// Two thirds of the cohort, and at least its quorum.
fn default_goal(cohort: u32) -> u32 {
    let devices = cohort as usize;
    let quorum =
        aggregation::quorum(devices, aggregation::corrupt_devices(devices, usual_corrupt_permille(cohort)));
    let quorum = u32::try_from(quorum).unwrap_or(cohort);
    quorum.max((2 * u64::from(cohort)).div_ceil(3).try_into().unwrap_or(cohort))
}

fn random() -> Digest {
    let mut bytes = [0; 32];
    UnwrapErr(SysRng).fill_bytes(&mut bytes);
    Digest(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_goal_is_two_thirds_and_never_below_the_quorum() {
        for cohort in 3..=256 {
            let (goal, corrupt) = (
                default_goal(cohort),
                aggregation::corrupt_devices(cohort as usize, usual_corrupt_permille(cohort)),
            );
            assert!(goal as usize >= aggregation::quorum(cohort as usize, corrupt), "{cohort}");
            assert!(3 * goal >= 2 * cohort && goal <= cohort, "{cohort}");
        }
    }
}
