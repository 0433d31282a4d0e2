//! Options become a plan.

use proto::adapter::{AdapterError, AdapterSpec, Factors, Method, Module};
use proto::ids::Digest;
use proto::metrics::{Metric, MetricName};
use proto::plan::{AdaptiveClipPlan, ClassPlan, Mode, Plan, PlanError, PrivacyPlan, RefreshPlan, RoundPlan};
use proto::training::{LocalOptimizer, ServerOptimizer, TrainingPlan};
use task::worth::{GOOD_SNR, WorthError, usual_corrupt_permille, with_epsilon, with_usual_metrics, worth};

use crate::options::{MethodName, PlanOptions, Privacy};

/// How many of a round's devices may vanish, in thousandths.
const MISSING_PERMILLE: u16 = 300;

/// Where noise is on and nothing else is said.
const TARGET_EPSILON: f64 = 8.0;

/// What is tried in turn after `frozen_a` of rank 2 where neither method nor rank is given, until noise leaves enough to
/// learn.
const OTHER_ADAPTERS: [(MethodName, u32); 4] =
    [(MethodName::FrozenA, 1), (MethodName::Core, 4), (MethodName::Core, 2), (MethodName::Core, 1)];

/// What a plan is made for, which no default can know.
#[derive(Clone, Debug)]
pub struct Subject {
    /// A label for people.
    pub name: String,
    /// The digest of the base.
    pub base: Digest,
    /// The layers of the base that [`PlanOptions::targets`] names.
    pub modules: Vec<Module>,
    /// Where the frozen factors come from.
    pub factors: Factors,
    /// The seed of version 0.
    pub initial_seed: Digest,
    /// Most devices of a round.
    pub cohort: u32,
}

/// Options of which no plan can be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanningError {
    /// Noise is asked for and turned off.
    #[error(
        "--privacy off adds no noise; leave --noise-multiplier and --target-epsilon out, or choose central or distributed"
    )]
    NoNoise,
    /// A rank of what is never folded.
    #[error(
        "{option} {rank} has no effect on factors that are never drawn anew; leave it out, or give --refresh-every"
    )]
    NeverFolded {
        /// The option.
        option: &'static str,
        /// What was given.
        rank: u32,
    },
    /// The adapter cannot be.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The plan cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no noise of that ε.
    #[error(transparent)]
    Worth(#[from] WorthError),
}

impl PlanningError {
    /// Whether two options do not go together, whatever the base and the devices are.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoNoise | Self::NeverFolded { .. } => true,
            Self::Adapter(_) | Self::Plan(_) | Self::Worth(_) => false,
        }
    }
}

/// Rounds that a device may take part in where nobody says how many: a round that ends without a version counts too, and a
/// task of which every device is needed would come to no end with as many as its versions. Without noise there is nothing
/// to be spared.
fn usual_participations(mode: Mode, versions: u32) -> u32 {
    match mode {
        Mode::Off => versions.saturating_mul(10),
        Mode::Central | Mode::Distributed => versions.saturating_add(versions.div_ceil(5)),
    }
}

impl PlanOptions {
    /// The plan by the options; where neither method nor rank is given, with the first adapter that noise leaves enough of,
    /// or else the one that it leaves most of.
    pub fn plan(&self, subject: &Subject) -> Result<Plan, PlanningError> {
        let first = (self.method.unwrap_or(MethodName::FrozenA), self.rank.unwrap_or(2));
        let mut best = self.with_adapter(subject, first)?;
        // Factors and classes are of one kind of adapter.
        let is_given = match subject.factors {
            Factors::Given(_) => true,
            Factors::Seeded(_) => false,
        };
        let is_fixed = is_given
            || self.method.is_some()
            || self.rank.is_some()
            || self.least_trainers.is_some()
            || self.refresh_every.is_some()
            || self.accumulated_rank.is_some()
            || self.shipped_rank.is_some();
        if is_fixed {
            return Ok(best);
        }
        let mut most = worth(&best)?.snr;
        for adapter in OTHER_ADAPTERS {
            if most >= GOOD_SNR {
                break;
            }
            // One that this base is too narrow for is none.
            let Ok(plan) = self.with_adapter(subject, adapter) else { continue };
            if let Ok(worth) = worth(&plan)
                && worth.snr > most
            {
                (best, most) = (plan, worth.snr);
            }
        }
        Ok(best)
    }

    fn with_adapter(
        &self,
        subject: &Subject,
        (method, rank): (MethodName, u32),
    ) -> Result<Plan, PlanningError> {
        let Subject { name, base, modules, factors, initial_seed, cohort } = subject;
        let adapter = AdapterSpec {
            method: method.method(),
            rank,
            alpha: self.alpha.unwrap_or(2.0 * rank as f32),
            factors: *factors,
            modules: modules.clone(),
        };
        adapter.check()?;
        let (mode, noise_multiplier) = self.noise()?;
        let clip = self.clip.unwrap_or(if mode == Mode::Off { 100.0 } else { 1.0 });
        let training = TrainingPlan {
            local_steps: self.local_steps,
            batch_size: self.batch_size,
            sequence_len: self.sequence_len,
            learning_rate: self.learning_rate.unwrap_or(usual_rate(method)),
            warmup_steps: 0,
            max_grad_norm: 1.0,
            optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
        };
        let metrics = self.metrics(&training);
        let corrupt_permille = self.corrupt_permille.unwrap_or_else(|| usual_corrupt_permille(*cohort));
        let plan = Plan {
            name: name.clone(),
            base: *base,
            initial_seed: *initial_seed,
            refresh: self.refresh(&adapter)?,
            classes: self.least_trainers.map(|least_trainers| ClassPlan { least_trainers }),
            adapter,
            training,
            privacy: PrivacyPlan {
                mode,
                clip_norm: clip,
                adaptive_clip: self.adaptive_clip.then(|| AdaptiveClipPlan::around(clip, self.clip_quantile)),
                noise_multiplier,
                scale: 1.0,
                metrics,
                metrics_weight: self.metrics_weight,
                delta: self.delta,
                corrupt_permille,
                participations: self
                    .participations
                    .unwrap_or_else(|| usual_participations(mode, self.versions)),
                epsilon_budget: self.epsilon_budget,
            },
            round: RoundPlan {
                versions: self.versions,
                cohort: *cohort,
                report_goal: self.report_goal.unwrap_or_else(|| default_goal(*cohort, corrupt_permille)),
                rounds: self.rounds,
                min_rounds: self.min_rounds.unwrap_or(self.rounds),
                join_millis: self.join_secs.saturating_mul(1000),
                step_millis: self.step_secs.saturating_mul(1000),
                grace_millis: self.grace_secs.saturating_mul(1000),
                missing_permille: MISSING_PERMILLE,
            },
            server: ServerOptimizer::FedAvg { rate: 1.0 },
        };
        let plan = self.with_noise(plan)?;
        if self.metrics.is_some() {
            return Ok(plan);
        }
        // How many metrics there are hardly changes what the noise costs, and it is counted anew all the same.
        self.with_noise(with_usual_metrics(&plan)?)
    }

    /// The same plan with the noise that is asked for, and a scale that suits it.
    fn with_noise(&self, plan: Plan) -> Result<Plan, PlanningError> {
        match (plan.privacy.mode, self.noise_multiplier) {
            (Mode::Off, _) | (_, Some(_)) => Ok(plan.with_recommended_scale()?),
            (Mode::Central | Mode::Distributed, None) => {
                // What is beyond the budget would not be spent.
                let most = self.epsilon_budget.map_or(TARGET_EPSILON, |budget| budget.min(TARGET_EPSILON));
                Ok(match self.target_epsilon {
                    Some(target) => with_epsilon(plan, target)?,
                    // A budget that no noise keeps to is refused for what it is, by whoever opens the task.
                    None => {
                        with_epsilon(plan.clone(), most).or_else(|_| with_epsilon(plan, TARGET_EPSILON))?
                    }
                })
            }
        }
    }

    /// When the frozen factors are drawn anew; ranks for what is never folded are refused.
    fn refresh(&self, adapter: &AdapterSpec) -> Result<Option<RefreshPlan>, PlanningError> {
        let usual = if adapter.method == Method::FrozenA { 3 } else { 0 };
        let every = self.refresh_every.unwrap_or(usual);
        if every == 0 {
            let ranks =
                [("--accumulated-rank", self.accumulated_rank), ("--shipped-rank", self.shipped_rank)];
            return match ranks.into_iter().find_map(|(option, rank)| rank.map(|rank| (option, rank))) {
                Some((option, rank)) => Err(PlanningError::NeverFolded { option, rank }),
                None => Ok(None),
            };
        }
        let refresh = RefreshPlan::every(every, adapter);
        Ok(Some(RefreshPlan {
            accumulated_rank: self.accumulated_rank.unwrap_or(refresh.accumulated_rank),
            shipped_rank: self.shipped_rank.unwrap_or(refresh.shipped_rank),
            ..refresh
        }))
    }

    /// The metrics that are asked for; who adapts must know who was clipped.
    fn metrics(&self, training: &TrainingPlan) -> Vec<Metric> {
        let asked = self.metrics.iter().flatten();
        let mut names: Vec<MetricName> = asked.filter_map(|name| name.metric()).collect();
        if self.adaptive_clip && !names.contains(&MetricName::Clipped) {
            names.push(MetricName::Clipped);
        }
        names.into_iter().map(|name| Metric::of(name, training)).collect()
    }

    /// The mode and its noise; noise that would have no effect is refused.
    fn noise(&self) -> Result<(Mode, f64), PlanningError> {
        match self.privacy {
            Privacy::Off if self.noise_multiplier.is_some() || self.target_epsilon.is_some() => {
                Err(PlanningError::NoNoise)
            }
            Privacy::Off => Ok((Mode::Off, 0.0)),
            // Until it follows from a target.
            privacy @ (Privacy::Central | Privacy::Distributed) => {
                Ok((privacy.mode(), self.noise_multiplier.unwrap_or(1.0)))
            }
        }
    }
}

/// The step size of a device where none is given.
fn usual_rate(method: MethodName) -> f64 {
    match method {
        MethodName::FrozenA | MethodName::FrozenB | MethodName::Alternate => 1e-2,
        MethodName::Core => 2e-2,
        MethodName::Both => 3e-3,
    }
}

/// Two thirds of the cohort, and at least its quorum.
fn default_goal(cohort: u32, corrupt_permille: u16) -> u32 {
    let devices = cohort as usize;
    let quorum = aggregation::quorum(devices, aggregation::corrupt_devices(devices, corrupt_permille));
    let quorum = u32::try_from(quorum).unwrap_or(cohort);
    quorum.max((2 * u64::from(cohort)).div_ceil(3).try_into().unwrap_or(cohort))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(cohort: u32) -> Subject {
        let names = ["q_proj", "v_proj", "up_proj", "down_proj"];
        let module = |name: &str| Module { name: name.to_owned(), inputs: 64, outputs: 64 };
        Subject {
            name: "notes".to_owned(),
            base: Digest([1; 32]),
            modules: names.map(module).to_vec(),
            factors: Factors::Seeded(Digest([2; 32])),
            initial_seed: Digest([3; 32]),
            cohort,
        }
    }

    #[test]
    fn the_default_goal_is_two_thirds_and_never_below_the_quorum() {
        for (cohort, more) in (3..=256).flat_map(|cohort| [0, 150].map(|more| (cohort, more))) {
            let permille = usual_corrupt_permille(cohort) + more;
            let goal = default_goal(cohort, permille);
            let corrupt = aggregation::corrupt_devices(cohort as usize, permille);
            assert!(goal as usize >= aggregation::quorum(cohort as usize, corrupt), "{cohort}");
            assert!(3 * goal >= 2 * cohort && goal <= cohort, "{cohort}");
        }
    }

    #[test]
    fn the_goal_follows_the_cohort_and_what_is_given_stays() {
        let goals = [10, 60, 300]
            .map(|cohort| PlanOptions::default().plan(&subject(cohort)).unwrap().round.report_goal);
        assert_eq!(goals, [7, 40, 200]);
        let given = PlanOptions { report_goal: Some(55), ..PlanOptions::default() };
        assert_eq!(given.plan(&subject(60)).unwrap().round.report_goal, 55);
    }

    #[test]
    fn the_same_options_and_subject_give_the_same_bytes() {
        let options = PlanOptions { rank: Some(3), ..PlanOptions::default() };
        let bytes = || options.plan(&subject(40)).unwrap().to_bytes().unwrap();
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn the_step_size_is_the_methods_unless_it_is_given() {
        let rate = |method, learning_rate| {
            let options =
                PlanOptions { method: Some(method), rank: Some(2), learning_rate, ..PlanOptions::default() };
            options.plan(&subject(60)).unwrap().training.learning_rate
        };
        assert_eq!(rate(MethodName::Core, None).to_bits(), 2e-2_f64.to_bits());
        assert_eq!(rate(MethodName::Both, None).to_bits(), 3e-3_f64.to_bits());
        assert_eq!(rate(MethodName::Both, Some(0.5)).to_bits(), 0.5_f64.to_bits());
    }

    #[test]
    fn options_that_do_not_go_together_are_named() {
        let off =
            PlanOptions { privacy: Privacy::Off, noise_multiplier: Some(1.0), ..PlanOptions::default() };
        let error = off.plan(&subject(10)).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("adds no noise"), "{error}");
        let never = PlanOptions { refresh_every: Some(0), shipped_rank: Some(2), ..PlanOptions::default() };
        let error = never.plan(&subject(10)).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("--shipped-rank 2"), "{error}");
        let wide = PlanOptions { rank: Some(65), ..PlanOptions::default() };
        assert!(!wide.plan(&subject(10)).unwrap_err().is_usage());
    }
}
