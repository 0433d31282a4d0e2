//! This device's own limits, checked on the device whatever the coordinator says.

use proto::ids::{Digest, TaskId};
use proto::plan::{Mode, Plan};
use serde::{Deserialize, Serialize};

/// This device's own limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Fewest devices of a round's roster. Default 10.
    pub smallest_cohort: u32,
    /// Fewest survivors for which a sum may be revealed, at most `smallest_cohort`. Default 7.
    pub smallest_report_goal: u32,
    /// Least noise standard deviation, divided by the clip norm. Default 0.5.
    pub least_noise_multiplier: f64,
    /// Largest ε over one task, by its own ledger, at the plan's δ. Default 8.
    pub largest_epsilon: f64,
    /// Most charged rounds over one task. Default 100.
    pub participations: u32,
    /// Whether a task without noise of the devices' own is acceptable: then whoever reads the sum of a round
    /// reads it exactly. Default no.
    pub allow_without_noise: bool,
    /// Tasks that this device takes part in; empty means all. Default empty.
    pub tasks: Vec<TaskId>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            smallest_cohort: 10,
            smallest_report_goal: 7,
            least_noise_multiplier: 0.5,
            largest_epsilon: 8.0,
            participations: 100,
            allow_without_noise: false,
            tasks: Vec::new(),
        }
    }
}

/// Why a device does not take part.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Breach {
    /// The task is not on the device's list.
    #[error("task {0} is not among the tasks that this device takes part in")]
    Task(TaskId),
    /// The device holds another base.
    #[error("the plan is for the base {wanted}, this device holds {held}")]
    Base {
        /// The plan's.
        wanted: Digest,
        /// The device's.
        held: Digest,
    },
    /// The plan has no noise, or leaves it to the coordinator.
    #[error("the plan's privacy mode is {0:?} and this device only contributes with noise of its own")]
    WithoutNoise(Mode),
    /// Too little noise.
    #[error("the plan's noise multiplier is {found}, this device asks for at least {least}")]
    Noise {
        /// The plan's.
        found: f64,
        /// The policy's.
        least: f64,
    },
    /// No round of the plan is large enough.
    #[error("the plan gathers at most {found} devices, this device asks for at least {least}")]
    Cohort {
        /// The plan's.
        found: u32,
        /// The policy's.
        least: u32,
    },
    /// The report goal is too small to hide in.
    #[error("the plan reveals sums of {found} devices, this device asks for at least {least}")]
    ReportGoal {
        /// The plan's.
        found: u32,
        /// The policy's.
        least: u32,
    },
    /// One more round would pass the device's own ε.
    #[error("one more round would bring this device to ε = {found:.3}, its limit is {most}")]
    Epsilon {
        /// After one more round.
        found: f64,
        /// The policy's.
        most: f64,
    },
    /// The device has taken part as often as it may.
    #[error("this device took part in {0} rounds of the task, as many as it or the plan allows")]
    Participations(u32),
}

impl Policy {
    /// Whether this device takes part in one more round of a task, having taken part in `spent`.
    pub fn admit(&self, task: TaskId, plan: &Plan, held: Digest, spent: u32) -> Result<(), Breach> {
        if !self.tasks.is_empty() && !self.tasks.contains(&task) {
            return Err(Breach::Task(task));
        }
        if plan.base != held {
            return Err(Breach::Base { wanted: plan.base, held });
        }
        if plan.round.cohort < self.smallest_cohort {
            let (found, least) = (plan.round.cohort, self.smallest_cohort);
            return Err(Breach::Cohort { found, least });
        }
        if plan.round.report_goal < self.smallest_report_goal {
            let (found, least) = (plan.round.report_goal, self.smallest_report_goal);
            return Err(Breach::ReportGoal { found, least });
        }
        if spent >= self.participations.min(plan.privacy.participations) {
            return Err(Breach::Participations(spent));
        }
        match plan.privacy.mode {
            Mode::Off | Mode::Central if self.allow_without_noise => Ok(()),
            mode @ (Mode::Off | Mode::Central) => Err(Breach::WithoutNoise(mode)),
            Mode::Distributed => self.admit_noise(plan, spent),
        }
    }

    fn admit_noise(&self, plan: &Plan, spent: u32) -> Result<(), Breach> {
        let found = plan.privacy.noise_multiplier;
        if found < self.least_noise_multiplier {
            return Err(Breach::Noise { found, least: self.least_noise_multiplier });
        }
        let epsilon = match (plan.mechanism(), plan.delta()) {
            (Ok(mechanism), Ok(delta)) => mechanism.epsilon(spent + 1, delta).epsilon,
            // A plan that cannot be computed is never admitted.
            (Err(_), _) | (_, Err(_)) => f64::INFINITY,
        };
        if epsilon > self.largest_epsilon {
            return Err(Breach::Epsilon { found: epsilon, most: self.largest_epsilon });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::adapter::{AdapterSpec, Factors, Method, Module};
    use proto::plan::{PrivacyPlan, RoundPlan};
    use proto::training::{LocalOptimizer, ServerOptimizer, TrainingPlan};

    use super::*;

    const TASK: TaskId = TaskId([9; 16]);
    const BASE: Digest = Digest([1; 32]);

    fn plan() -> Plan {
        Plan {
            name: "a plan".into(),
            base: BASE,
            initial_seed: Digest([2; 32]),
            adapter: AdapterSpec {
                method: Method::FrozenA,
                rank: 1,
                alpha: 1.0,
                factors: Factors::Seeded(Digest([3; 32])),
                modules: vec![Module { name: "m".into(), inputs: 8, outputs: 64 }],
            },
            training: TrainingPlan {
                local_steps: 1,
                batch_size: 1,
                sequence_len: 8,
                learning_rate: 0.1,
                warmup_steps: 0,
                max_grad_norm: 1.0,
                optimizer: LocalOptimizer::Sgd,
            },
            privacy: PrivacyPlan {
                mode: Mode::Distributed,
                clip_norm: 1.0,
                noise_multiplier: 2.0,
                scale: 4096.0,
                delta: 1e-5,
                corrupt_permille: 50,
                participations: 10,
                epsilon_budget: None,
            },
            round: RoundPlan {
                versions: 3,
                cohort: 12,
                report_goal: 10,
                join_millis: 1000,
                step_millis: 1000,
                grace_millis: 0,
            },
            server: ServerOptimizer::FedAvg { rate: 1.0 },
        }
    }

    fn refused(change: impl FnOnce(&mut Plan, &mut Policy), spent: u32) -> String {
        let (mut plan, mut policy) = (plan(), Policy::default());
        change(&mut plan, &mut policy);
        policy.admit(TASK, &plan, BASE, spent).unwrap_err().to_string()
    }

    #[test]
    fn an_ordinary_plan_is_admitted() {
        assert_eq!(Policy::default().admit(TASK, &plan(), BASE, 0), Ok(()));
    }

    #[test]
    fn every_limit_refuses_with_both_numbers() {
        let words = refused(|plan, _| plan.round.cohort = 9, 0);
        assert_eq!(words, "the plan gathers at most 9 devices, this device asks for at least 10");
        let words = refused(|plan, _| plan.round.report_goal = 6, 0);
        assert!(words.contains("sums of 6 devices") && words.contains('7'), "{words}");
        let words = refused(|plan, _| plan.privacy.noise_multiplier = 0.4, 0);
        assert!(words.contains("0.4") && words.contains("0.5"), "{words}");
        let words = refused(|_, policy| policy.tasks = vec![TaskId([8; 16])], 0);
        assert!(words.contains(&TASK.to_string()), "{words}");
        let words = refused(|plan, _| plan.base = Digest([7; 32]), 0);
        assert!(words.contains("holds"), "{words}");
        assert!(refused(|plan, _| plan.privacy.mode = Mode::Off, 0).contains("noise of its own"));
        assert!(refused(|plan, _| plan.privacy.mode = Mode::Central, 0).contains("noise of its own"));
    }

    #[test]
    fn what_was_spent_counts() {
        assert!(refused(|_, _| {}, 10).contains("10 rounds"));
        let policy = Policy { largest_epsilon: 3.0, ..Policy::default() };
        assert_eq!(policy.admit(TASK, &plan(), BASE, 0), Ok(()));
        let error = policy.admit(TASK, &plan(), BASE, 3).unwrap_err();
        assert!(matches!(error, Breach::Epsilon { most, .. } if most < 3.1), "{error}");
    }
}
