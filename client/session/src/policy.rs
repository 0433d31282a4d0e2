//! This device's own limits, checked on the device whatever the coordinator says.

use std::time::Duration;

use privacy::Delta;
use proto::adapter::{AdapterSpec, Class};
use proto::counted::counted;
use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::DeclineReason;
use proto::plan::{Mode, Plan};
use serde::{Deserialize, Serialize};

use crate::log_policy::LogPolicy;
use crate::spending::Spending;

const MIB: u64 = 1 << 20;

/// This device's own limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Fewest devices of a round's roster. Default 10.
    pub smallest_cohort: u32,
    /// Fewest survivors for which a sum may be revealed, at most `smallest_cohort`. Default 7.
    pub smallest_report_goal: u32,
    /// Smallest fraction of corrupt devices, in thousandths, that a plan must withstand: the quorum, the graph
    /// of a large cohort and the noise are sized by it. Default 50.
    pub smallest_corrupt_permille: u16,
    /// Fewest corrupt devices in a round, as a number, that a plan must withstand: whoever proposes a plan chooses how
    /// small its cohort is, and a fraction of few devices is none. Default 1.
    pub smallest_corrupt: u32,
    /// Least noise standard deviation, divided by the clip norm. Default 0.5.
    pub least_noise_multiplier: f64,
    /// Largest ε over one task, by its own ledger, at the plan's δ. Default 8.
    pub largest_epsilon: f64,
    /// Largest ε over all tasks together, at `largest_delta`; without it only each task is limited. Default none.
    pub largest_epsilon_in_total: Option<f64>,
    /// Largest δ at which a plan may state its ε: a bound that fails more often is none. Default 1e-5.
    pub largest_delta: f64,
    /// Most charged rounds over one task. Default 100.
    pub participations: u32,
    /// Most charged rounds within 24 hours, over all tasks. Default 24.
    pub participations_a_day: u32,
    /// Most charged rounds ever, over all tasks; without it as many as the tasks allow. Default none.
    pub participations_in_total: Option<u32>,
    /// Most columns of an adapter that this device trains; the rest stays as it is where the plan takes that, else
    /// the device takes no part. Without it all. Default none.
    pub largest_rank: Option<u32>,
    /// Most layers that this device trains, those nearest to the output, which is what saves it time and memory; as
    /// `largest_rank`. Default none.
    pub top_layers: Option<u32>,
    /// Most tokens of one assignment: steps times sequences of a step times tokens of a sequence. Default 10 million.
    pub largest_tokens_a_round: u64,
    /// Longest training of one assignment, in minutes, by its first steps; and it never trains longer than that in one
    /// go. Default 240.
    pub longest_training_minutes: u32,
    /// Most memory of a training beside the base, in MiB; without it what the system has free. Default none.
    pub largest_memory_mib: Option<u64>,
    /// Whether a task without noise of the devices' own is acceptable: then whoever reads the sum of a round
    /// reads it exactly. Default no.
    pub allow_without_noise: bool,
    /// Tasks that this device takes part in; empty means all. Default empty.
    pub tasks: Vec<TaskId>,
    /// Bases that this device trains; empty means whichever it holds. Default empty.
    pub bases: Vec<Digest>,
    /// Most disk for bases that are fetched from the coordinator when a task needs one that is not here, in MiB; with 0
    /// none is fetched. Default 0.
    pub coordinator_bases_mib: u64,
    /// What it demands of the log of its enrollment authority.
    pub log: LogPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            smallest_cohort: 10,
            smallest_report_goal: 7,
            smallest_corrupt_permille: 50,
            smallest_corrupt: 1,
            least_noise_multiplier: 0.5,
            largest_epsilon: 8.0,
            largest_epsilon_in_total: None,
            largest_delta: 1e-5,
            participations: 100,
            participations_a_day: 24,
            participations_in_total: None,
            largest_rank: None,
            top_layers: None,
            largest_tokens_a_round: 10_000_000,
            longest_training_minutes: 240,
            largest_memory_mib: None,
            allow_without_noise: false,
            tasks: Vec::new(),
            bases: Vec::new(),
            coordinator_bases_mib: 0,
            log: LogPolicy::default(),
        }
    }
}

/// Why a device does not take part.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Breach {
    /// The task is not on the device's list.
    #[error("task {0} is not among the tasks that this device takes part in")]
    Task(TaskId),
    /// The user left the task.
    #[error("task {0} was left by this device's user")]
    Forgotten(TaskId),
    /// The base is not on the device's list.
    #[error("the base {0} is not among the bases that this device trains")]
    BaseNotAllowed(Digest),
    /// The device holds other bases.
    #[error("the plan is for the base {wanted}, this device holds {}", listed(held))]
    Base {
        /// The plan's.
        wanted: Digest,
        /// The device's.
        held: Vec<Digest>,
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
    #[error("the plan gathers at most {}, this device asks for at least {least}", counted(*found, "device", "devices"))]
    Cohort {
        /// The plan's.
        found: u32,
        /// The policy's.
        least: u32,
    },
    /// The report goal is too small to hide in.
    #[error("the plan reveals sums of {}, this device asks for at least {least}", counted(*found, "device", "devices"))]
    ReportGoal {
        /// The plan's.
        found: u32,
        /// The policy's.
        least: u32,
    },
    /// The plan takes more devices to be honest than this device does.
    #[error(
        "the plan withstands {found} thousandths of corrupt devices, this device asks for at least {least}"
    )]
    Corrupt {
        /// The plan's.
        found: u16,
        /// The policy's.
        least: u16,
    },
    /// So few devices are gathered that the plan's fraction of them is too few.
    #[error(
        "the plan withstands {} in a round of {cohort}, this device asks for at least {least}",
        counted(*found, "corrupt device", "corrupt devices")
    )]
    CorruptDevices {
        /// The plan's.
        found: usize,
        /// The plan's cohort.
        cohort: u32,
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
    /// One more round would pass the device's own ε over all tasks.
    #[error("one more round would bring this device to ε = {found:.3} over all tasks, its limit is {most}")]
    EpsilonInTotal {
        /// After one more round.
        found: f64,
        /// The policy's.
        most: f64,
    },
    /// The plan's ε holds too rarely.
    #[error("the plan states its ε at δ = {found:e}, this device asks for at most {most:e}")]
    Delta {
        /// The plan's.
        found: f64,
        /// The policy's.
        most: f64,
    },
    /// The device has taken part as often as it may.
    #[error("this device took part in {} of the task, as many as it or the plan allows", counted(*.0, "round", "rounds"))]
    Participations(u32),
    /// The device has taken part as often as it may ever.
    #[error("this device took part in {} of all tasks, as many as it allows in total", counted(*.0, "round", "rounds"))]
    InTotal(u32),
    /// The adapter is larger than this device trains.
    #[error(
        "the plan asks for all of an adapter of rank {} in {}, this device trains rank {} in {} at most",
        whole.rank, counted(whole.layers, "layer", "layers"), most.rank, most.layers
    )]
    Size {
        /// The plan's.
        whole: Class,
        /// The policy's.
        most: Class,
    },
    /// The training reads more tokens than this device trains on.
    #[error(
        "the plan asks for {} in a round (local_steps times batch_size times sequence_len), this device trains on at most \
         {most}; raise policy.largest_tokens_a_round to take part",
        counted(*found, "token", "tokens")
    )]
    Tokens {
        /// The plan's.
        found: u64,
        /// The policy's.
        most: u64,
    },
    /// The plan adapts what the base does not have.
    #[error("the plan adapts the layer {0:?}, which this device's base does not have")]
    Layer(String),
    /// The version cannot be kept on this device's disk.
    #[error("what came cannot be kept on this disk: {0}")]
    NotKept(String),
    /// The training needs more memory than the user allows.
    #[error(
        "the training needs {needed_mib} MiB of memory beside the base, this device allows {most_mib} MiB; raise \
         policy.largest_memory_mib, or set `recompute = true`, to take part"
    )]
    Memory {
        /// What it needs.
        needed_mib: u64,
        /// The policy's.
        most_mib: u64,
    },
    /// The training needs more memory than there is.
    #[error(
        "the training needs {needed_mib} MiB of memory beside the base and {free_mib} MiB are free; close other \
         programs, or set `recompute = true`, to take part"
    )]
    FreeMemory {
        /// What it needs.
        needed_mib: u64,
        /// What the system has.
        free_mib: u64,
    },
    /// The training takes longer than this device trains.
    #[error(
        "the training would take {} by what was done so far, this device trains for {} at most; raise \
         policy.longest_training_minutes to take part",
        counted(*found, "minute", "minutes"), counted(*most, "minute", "minutes")
    )]
    Time {
        /// Estimated, rounded up.
        found: u64,
        /// The policy's.
        most: u32,
    },
    /// The device has taken part as often as it may in a day.
    #[error(
        "this device takes part in at most {} a day, and did; it rests until the oldest is a day ago",
        counted(*most, "round", "rounds")
    )]
    Resting {
        /// When one more is allowed.
        until: Timestamp,
        /// The policy's.
        most: u32,
    },
}

/// Bases by their digests, for people.
fn listed(bases: &[Digest]) -> String {
    let all: Vec<String> = bases.iter().map(Digest::to_string).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(" and ") }
}

impl Breach {
    /// What the coordinator may know of it.
    pub fn reason(&self) -> DeclineReason {
        match self {
            Self::Task(_) | Self::Forgotten(_) | Self::BaseNotAllowed(_) => DeclineReason::NotAllowed,
            Self::Base { .. } => DeclineReason::Base,
            Self::WithoutNoise(_) | Self::Noise { .. } => DeclineReason::Noise,
            Self::Cohort { .. }
            | Self::ReportGoal { .. }
            | Self::Corrupt { .. }
            | Self::CorruptDevices { .. } => DeclineReason::Cohort,
            Self::Epsilon { .. } | Self::EpsilonInTotal { .. } | Self::Delta { .. } => DeclineReason::Epsilon,
            Self::Participations(_) | Self::InTotal(_) | Self::Resting { .. } => {
                DeclineReason::Participations
            }
            Self::Size { .. } => DeclineReason::Size,
            Self::Layer(_) => DeclineReason::Plan,
            Self::Memory { .. } | Self::FreeMemory { .. } | Self::NotKept(_) => DeclineReason::Memory,
            Self::Tokens { .. } | Self::Time { .. } => DeclineReason::Work,
        }
    }

    /// Whether it is about what this device spent, and not about what the plan asks for.
    fn is_of_spending(&self) -> bool {
        match self {
            Self::Epsilon { .. }
            | Self::EpsilonInTotal { .. }
            | Self::Participations(_)
            | Self::InTotal(_)
            | Self::Resting { .. } => true,
            Self::Task(_)
            | Self::Forgotten(_)
            | Self::BaseNotAllowed(_)
            | Self::Base { .. }
            | Self::WithoutNoise(_)
            | Self::Noise { .. }
            | Self::Cohort { .. }
            | Self::ReportGoal { .. }
            | Self::Corrupt { .. }
            | Self::CorruptDevices { .. }
            | Self::Delta { .. }
            | Self::Size { .. }
            | Self::Tokens { .. }
            | Self::NotKept(_)
            | Self::Memory { .. }
            | Self::FreeMemory { .. }
            | Self::Layer(_)
            | Self::Time { .. } => false,
        }
    }
}

impl Policy {
    /// How much of an adapter this device trains, where that is not all of it.
    pub fn class(&self, adapter: &AdapterSpec) -> Option<Class> {
        let class = Class::within(adapter, self.largest_rank, self.top_layers);
        (class != Class::whole(adapter)).then_some(class)
    }

    /// Whether there is a limit on what all tasks together spend.
    pub fn limits_all_tasks(&self) -> bool {
        self.largest_epsilon_in_total.is_some() || self.participations_in_total.is_some()
    }

    /// Whether a version of a task is one that this device may hold at all: a task and a base on its lists, and a base
    /// that it has.
    pub fn knows(&self, task: TaskId, plan: &Plan, held: &[Digest]) -> Result<(), Breach> {
        if !self.tasks.is_empty() && !self.tasks.contains(&task) {
            return Err(Breach::Task(task));
        }
        if !self.bases.is_empty() && !self.bases.contains(&plan.base) {
            return Err(Breach::BaseNotAllowed(plan.base));
        }
        if !held.contains(&plan.base) {
            return Err(Breach::Base { wanted: plan.base, held: held.to_vec() });
        }
        Ok(())
    }

    /// Whether a version that this device may not train is one to keep for its user all the same: it took part in the
    /// task, or rests for today. Anything else would be built for nobody.
    pub fn keeps(&self, task: TaskId, breach: &Breach, spending: &Spending) -> bool {
        let rests = matches!(breach, Breach::Resting { .. });
        rests || breach.is_of_spending() && spending.participations(task) > 0
    }

    /// Whether a training that needs so many bytes beside the base has the memory, where the system has `free` bytes.
    pub fn memory(&self, needed: u64, free: Option<u64>) -> Result<(), Breach> {
        let needed_mib = needed.div_ceil(MIB);
        if let Some(most_mib) = self.largest_memory_mib.filter(|most| needed_mib > *most) {
            return Err(Breach::Memory { needed_mib, most_mib });
        }
        match free {
            Some(free) if needed > free => Err(Breach::FreeMemory { needed_mib, free_mib: free / MIB }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a training that takes so long has the time.
    pub fn time(&self, training: Duration) -> Result<(), Breach> {
        if training <= self.longest_training() {
            return Ok(());
        }
        let found = training.as_secs().div_ceil(60).max(u64::from(self.longest_training_minutes) + 1);
        Err(Breach::Time { found, most: self.longest_training_minutes })
    }

    /// The longest that it trains in one go.
    pub fn longest_training(&self) -> Duration {
        Duration::from_secs(60 * u64::from(self.longest_training_minutes))
    }

    /// Whether this device takes part in one more round of a task, having spent `spending`. Asked before the
    /// training, and again before every further round for the same update.
    pub fn admit(
        &self,
        task: TaskId,
        plan: &Plan,
        held: &[Digest],
        spending: &Spending,
        now: Timestamp,
    ) -> Result<(), Breach> {
        self.knows(task, plan, held)?;
        if plan.round.cohort < self.smallest_cohort {
            let (found, least) = (plan.round.cohort, self.smallest_cohort);
            return Err(Breach::Cohort { found, least });
        }
        if plan.round.report_goal < self.smallest_report_goal {
            let (found, least) = (plan.round.report_goal, self.smallest_report_goal);
            return Err(Breach::ReportGoal { found, least });
        }
        if plan.privacy.corrupt_permille < self.smallest_corrupt_permille {
            let (found, least) = (plan.privacy.corrupt_permille, self.smallest_corrupt_permille);
            return Err(Breach::Corrupt { found, least });
        }
        let (found, least) = (plan.corrupt_devices(), self.smallest_corrupt);
        if found < least as usize {
            return Err(Breach::CorruptDevices { found, cohort: plan.round.cohort, least });
        }
        if let (None, Some(most)) = (plan.classes, self.class(&plan.adapter)) {
            return Err(Breach::Size { whole: Class::whole(&plan.adapter), most });
        }
        let found = plan.training.assignment_tokens();
        if found > self.largest_tokens_a_round {
            return Err(Breach::Tokens { found, most: self.largest_tokens_a_round });
        }
        match plan.privacy.mode {
            Mode::Off | Mode::Central if self.allow_without_noise => {}
            mode @ (Mode::Off | Mode::Central) => return Err(Breach::WithoutNoise(mode)),
            Mode::Distributed => self.admit_noise(task, plan, spending)?,
        }
        if let Some(most) = self.largest_epsilon_in_total {
            // A limit that cannot be computed is kept by taking no part.
            let delta = Delta::new(self.largest_delta);
            let after = |delta| spending.epsilon_in_total_after(plan.participation_cost(), delta);
            let found = delta.map_or(f64::INFINITY, after);
            if found > most {
                return Err(Breach::EpsilonInTotal { found, most });
            }
        }
        let spent = spending.participations(task);
        if spent >= self.participations.min(plan.privacy.participations) {
            return Err(Breach::Participations(spent));
        }
        if self.participations_in_total.is_some_and(|most| spending.in_total() >= most) {
            return Err(Breach::InTotal(spending.in_total()));
        }
        match spending.rests_until(now, self.participations_a_day) {
            Some(until) => Err(Breach::Resting { until, most: self.participations_a_day }),
            None => Ok(()),
        }
    }

    /// Whether only the base is missing for one more round of a task, and the user gave room to fetch it.
    pub fn lacks_only_the_base(
        &self,
        task: TaskId,
        plan: &Plan,
        spending: &Spending,
        now: Timestamp,
    ) -> bool {
        self.coordinator_bases_mib > 0 && self.admit(task, plan, &[plan.base], spending, now).is_ok()
    }

    fn admit_noise(&self, task: TaskId, plan: &Plan, spending: &Spending) -> Result<(), Breach> {
        let found = plan.privacy.noise_multiplier;
        if found < self.least_noise_multiplier {
            return Err(Breach::Noise { found, least: self.least_noise_multiplier });
        }
        let found = plan.privacy.delta;
        if found > self.largest_delta {
            return Err(Breach::Delta { found, most: self.largest_delta });
        }
        // A plan that cannot be computed is never admitted.
        let after = |delta| spending.epsilon_after(task, plan.participation_cost(), delta);
        let epsilon = plan.delta().map_or(f64::INFINITY, after);
        if epsilon > self.largest_epsilon {
            return Err(Breach::Epsilon { found: epsilon, most: self.largest_epsilon });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::plan::PrivacyPlan;

    use super::*;
    use crate::spending::Charge;

    const TASK: TaskId = TaskId([9; 16]);
    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn plan() -> Plan {
        Plan::example()
    }

    /// What a device has spent that took part `rounds` times in rounds like the plan's, an hour apart.
    fn spent(privacy: &PrivacyPlan, rounds: u64) -> Spending {
        let cost = Plan { privacy: privacy.clone(), ..plan() }.mechanism().unwrap().curve();
        let mut spending = Spending::new();
        for round in 0..rounds {
            let charge = Charge {
                task: TASK,
                version: 0,
                round,
                plan: Digest([2; 32]),
                cost: cost.clone(),
                delta: 1e-5,
                bytes: 1,
                examples: 1,
            };
            spending.add(&charge, Timestamp(NOW.0 - 3_600_000 * (rounds - round)));
        }
        spending
    }

    fn admit(plan: &Plan, policy: &Policy, spending: &Spending) -> Result<(), Breach> {
        policy.admit(TASK, plan, &[plan_base()], spending, NOW)
    }

    fn plan_base() -> Digest {
        plan().base
    }

    fn refused(change: impl FnOnce(&mut Plan, &mut Policy), rounds: u64) -> (String, DeclineReason) {
        let (mut plan, mut policy) = (plan(), Policy::default());
        let spending = spent(&plan.privacy, rounds);
        change(&mut plan, &mut policy);
        let breach = admit(&plan, &policy, &spending).unwrap_err();
        (breach.to_string(), breach.reason())
    }

    #[test]
    fn an_ordinary_plan_is_admitted() {
        assert_eq!(admit(&plan(), &Policy::default(), &Spending::new()), Ok(()));
    }

    #[test]
    fn every_limit_refuses_with_both_numbers_and_tells_only_the_category() {
        let (words, reason) = refused(|plan, _| plan.round.cohort = 9, 0);
        assert_eq!(words, "the plan gathers at most 9 devices, this device asks for at least 10");
        assert_eq!(reason, DeclineReason::Cohort);
        let (words, reason) = refused(|plan, _| plan.round.report_goal = 6, 0);
        assert!(words.contains("sums of 6 devices") && words.contains('7'), "{words}");
        assert_eq!(reason, DeclineReason::Cohort);
        let (words, reason) = refused(|_, policy| policy.smallest_corrupt = 2, 0);
        assert!(words.contains("withstands 1 corrupt device in a round of 12"), "{words}");
        assert_eq!(reason, DeclineReason::Cohort);
        let (words, reason) = refused(|plan, _| plan.privacy.corrupt_permille = 49, 0);
        assert!(words.contains("withstands 49 ") && words.contains("50"), "{words}");
        assert_eq!(reason, DeclineReason::Cohort);
        let (words, reason) = refused(|plan, _| plan.privacy.noise_multiplier = 0.4, 0);
        assert!(words.contains("0.4") && words.contains("0.5"), "{words}");
        assert_eq!(reason, DeclineReason::Noise);
        let (words, reason) = refused(|plan, _| plan.privacy.delta = 1e-3, 0);
        assert_eq!(words, "the plan states its ε at δ = 1e-3, this device asks for at most 1e-5");
        assert_eq!(reason, DeclineReason::Epsilon);
        let (words, reason) = refused(|_, policy| policy.tasks = vec![TaskId([8; 16])], 0);
        assert!(words.contains(&TASK.to_string()), "{words}");
        assert_eq!(reason, DeclineReason::NotAllowed);
        let (words, reason) = refused(|_, policy| policy.bases = vec![Digest([8; 32])], 0);
        assert!(words.contains(&plan_base().to_string()), "{words}");
        assert_eq!(reason, DeclineReason::NotAllowed);
        let (words, reason) = refused(|plan, _| plan.base = Digest([7; 32]), 0);
        assert!(words.contains("holds"), "{words}");
        assert_eq!(reason, DeclineReason::Base);
        let (words, reason) = refused(
            |plan, policy| {
                (plan.training.local_steps, policy.largest_tokens_a_round) = (100, 799);
            },
            0,
        );
        assert!(words.contains("800 tokens") && words.contains("at most 799; raise policy."), "{words}");
        assert_eq!(reason, DeclineReason::Work);
        for mode in [Mode::Off, Mode::Central] {
            let (words, reason) = refused(|plan, _| plan.privacy.mode = mode, 0);
            assert!(words.contains("noise of its own"), "{words}");
            assert_eq!(reason, DeclineReason::Noise);
        }
    }

    #[test]
    fn a_plan_of_just_the_tokens_that_are_allowed_is_admitted() {
        let policy =
            Policy { largest_tokens_a_round: plan().training.assignment_tokens(), ..Policy::default() };
        assert_eq!(admit(&plan(), &policy, &Spending::new()), Ok(()));
    }

    #[test]
    fn a_training_needs_the_memory_that_is_allowed_and_that_is_there() {
        let (policy, needed) = (Policy::default(), 3 * MIB + 1);
        let limited = Policy { largest_memory_mib: Some(3), ..Policy::default() };
        assert_eq!(policy.memory(needed, Some(needed)), Ok(()));
        assert_eq!(policy.memory(needed, None), Ok(()));
        assert_eq!(limited.memory(3 * MIB, Some(3 * MIB)), Ok(()));
        for (policy, free, numbers) in [
            (&policy, Some(needed - 1), ["4 MiB", "3 MiB are free; close"]),
            (&limited, Some(9 * MIB), ["4 MiB", "allows 3 MiB; raise policy.largest_memory_mib"]),
            (&limited, None, ["4 MiB", "allows 3 MiB"]),
        ] {
            let breach = policy.memory(needed, free).unwrap_err();
            assert_eq!(breach.reason(), DeclineReason::Memory);
            let words = breach.to_string();
            assert!(numbers.iter().all(|number| words.contains(number)), "{words}");
        }
    }

    #[test]
    fn a_training_needs_the_time_that_is_allowed() {
        let policy = Policy { longest_training_minutes: 2, ..Policy::default() };
        assert_eq!(policy.time(Duration::from_secs(120)), Ok(()));
        for (millis, minutes) in [(120_001, "3 minutes"), (7_200_000, "120 minutes")] {
            let breach = policy.time(Duration::from_millis(millis)).unwrap_err();
            assert_eq!(breach.reason(), DeclineReason::Work);
            let words = breach.to_string();
            assert!(words.contains(minutes) && words.contains("2 minutes at most; raise policy."), "{words}");
        }
    }

    #[test]
    fn a_version_is_kept_by_a_device_that_took_part_or_rests_and_by_no_other() {
        let (policy, spent) = (Policy::default(), spent(&plan().privacy, 1));
        let keeps = |breach: Breach, spending: &Spending| policy.keeps(TASK, &breach, spending);
        assert!(keeps(Breach::Resting { until: NOW, most: 1 }, &Spending::new()));
        assert!(keeps(Breach::Participations(1), &spent));
        assert!(keeps(Breach::Epsilon { found: 9.0, most: 8.0 }, &spent));
        assert!(!keeps(Breach::Epsilon { found: 9.0, most: 8.0 }, &Spending::new()));
        assert!(!keeps(Breach::Cohort { found: 1, least: 2 }, &spent));
        assert!(!keeps(Breach::Tokens { found: 2, most: 1 }, &spent));
    }

    #[test]
    fn what_was_spent_counts() {
        let (words, reason) = refused(|_, policy| policy.largest_epsilon = 1e9, 10);
        assert!(words.contains("10 rounds of the task"), "{words}");
        assert_eq!(reason, DeclineReason::Participations);
        let (words, _) = refused(|_, policy| policy.participations_in_total = Some(3), 3);
        assert!(words.contains("3 rounds of all tasks"), "{words}");
        let (words, reason) = refused(|_, policy| policy.largest_epsilon = 3.0, 3);
        assert!(words.contains("its limit is 3"), "{words}");
        assert_eq!(reason, DeclineReason::Epsilon);
    }

    #[test]
    fn a_task_begun_anew_does_not_begin_at_nothing_where_the_total_is_limited() {
        let policy = Policy { largest_epsilon_in_total: Some(6.0), ..Policy::default() };
        let spending = spent(&plan().privacy, 5);
        let other = TaskId([7; 16]);
        let admit = |policy: &Policy| policy.admit(other, &plan(), &[plan_base()], &spending, NOW);
        assert_eq!(admit(&Policy::default()), Ok(()));
        let breach = admit(&policy).unwrap_err();
        assert!(matches!(breach, Breach::EpsilonInTotal { most: 6.0, .. }), "{breach}");
        assert_eq!(breach.reason(), DeclineReason::Epsilon);
        assert_eq!(policy.admit(other, &plan(), &[plan_base()], &spent(&plan().privacy, 1), NOW), Ok(()));
    }

    #[test]
    fn a_plan_that_came_with_less_noise_before_is_remembered_at_its_price() {
        // Two participations at a quarter of the noise cost as much as 32 at the plan's.
        let cheap = plan();
        let dear = PrivacyPlan { noise_multiplier: 0.5, ..cheap.privacy.clone() };
        let spending = spent(&dear, 2);
        let policy = Policy { largest_epsilon: 6.0, ..Policy::default() };
        assert!(matches!(admit(&cheap, &policy, &spending), Err(Breach::Epsilon { .. })));
        assert_eq!(admit(&cheap, &policy, &spent(&cheap.privacy, 2)), Ok(()));
    }

    #[test]
    fn a_day_has_its_own_limit_and_ends() {
        let policy = Policy { participations_a_day: 2, ..Policy::default() };
        let spending = spent(&plan().privacy, 2);
        let breach = admit(&plan(), &policy, &spending).unwrap_err();
        let Breach::Resting { until, most: 2 } = breach else { panic!("{breach}") };
        assert_eq!(until, Timestamp(NOW.0 + 22 * 3_600_000));
        assert_eq!(policy.admit(TASK, &plan(), &[plan_base()], &spending, until), Ok(()));
    }
}
