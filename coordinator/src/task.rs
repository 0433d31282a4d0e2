//! One fine-tuning job, as a pure machine: its versions, who took part how often, and the open round.
//!
//! The same interface as [`Round`], one level up. The shell performs the effects in order and makes each
//! durable before it sends the next reply.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use aggregation::{Context, IdentityPublic};
use privacy::{Delta, Mechanism, PrivacyMode};
use proto::admin::{TaskState, TaskStatus, VersionStatus};
use proto::ids::{DeviceId, Digest, SessionId, TaskId, Timestamp};
use proto::message::{Outcome, Published, Rejection, Reply, Request};
use proto::plan::{Plan, PlanError, model_digest, rotation_seed, vector_to_bytes};
use rand_core::CryptoRng;

use crate::optimizer::OptimizerState;
use crate::round::{Effect, Round, RoundParams};

mod record;

pub use record::TaskRecord;

/// What a device that must wait is told, in milliseconds.
const POLL_MILLIS: u64 = 250;

/// What a device without work is told, in milliseconds.
const IDLE_MILLIS: u64 = 30_000;

/// What the shell must make durable, in this order, before it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskEffect {
    /// Only these devices' inputs may ever be opened for this round.
    FixSurvivors {
        /// The round's number.
        round: u64,
        /// Devices in the sum.
        survivors: Vec<DeviceId>,
    },
    /// These devices spent one more participation.
    Charge {
        /// The round's number.
        round: u64,
        /// Devices and how often each has now taken part.
        devices: Vec<(DeviceId, u32)>,
    },
    /// A new version, and what the server optimiser carries on.
    Commit {
        /// The version's record.
        version: VersionStatus,
        /// The trained parameters.
        adapter: Vec<u8>,
        /// The optimiser's moments.
        optimizer: Vec<u8>,
    },
    /// A round ended without a version.
    Aborted {
        /// The round's number.
        round: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// The task has ended.
    End(TaskState),
}

/// A task that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The plan cannot be followed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Not even one participation fits the budget.
    #[error(
        "one participation costs ε = {one:.3} and the budget is {budget}; raise the noise multiplier or the budget"
    )]
    BudgetBelowOneRound {
        /// ε of one participation.
        one: f64,
        /// The plan's budget.
        budget: f64,
    },
    /// The stored parameters are not of this plan.
    #[error("the stored adapter does not fit the plan: {0}")]
    Adapter(#[from] proto::adapter::AdapterError),
}

/// One fine-tuning job.
#[derive(Debug)]
pub struct Task {
    id: TaskId,
    plan: Arc<Plan>,
    plan_digest: Digest,
    mechanism: Mechanism,
    delta: Delta,
    authority: IdentityPublic,
    /// Participations of one device that neither the plan's number nor its budget forbids.
    most_participations: u32,
    record: TaskRecord,
    adapter_digest: Digest,
    seen: BTreeSet<DeviceId>,
    round: Option<Round>,
    last_abort: Option<Outcome>,
    effects: VecDeque<TaskEffect>,
}

impl Task {
    /// A new task, at version 0.
    pub fn new(id: TaskId, plan_bytes: &[u8], authority: IdentityPublic) -> Result<Self, TaskError> {
        let plan = Plan::parse(plan_bytes)?;
        let record = TaskRecord {
            state: TaskState::Active,
            versions: Vec::new(),
            participations: BTreeMap::new(),
            last_round: 0,
            rounds_charged: 0,
            adapter: plan.adapter.initial(&plan.initial_seed),
            optimizer: OptimizerState::default(),
        };
        Self::restore(id, plan_bytes, authority, record)
    }

    /// A task as it was when it was last durable. A round that was open then is gone.
    pub fn restore(
        id: TaskId,
        plan_bytes: &[u8],
        authority: IdentityPublic,
        record: TaskRecord,
    ) -> Result<Self, TaskError> {
        let plan = Plan::parse(plan_bytes)?;
        plan.adapter.check_trained(&record.adapter)?;
        let (mechanism, delta) = (plan.mechanism()?, plan.delta()?);
        let most_participations = affordable(&plan, &mechanism, delta)?;
        let adapter_digest = Digest::of(&vector_to_bytes(&record.adapter));
        Ok(Self {
            id,
            plan: Arc::new(plan),
            plan_digest: Digest::of(plan_bytes),
            mechanism,
            delta,
            authority,
            most_participations,
            adapter_digest,
            seen: record.participations.keys().copied().collect(),
            record,
            round: None,
            last_abort: None,
            effects: VecDeque::new(),
        })
    }

    /// The task's name.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What must be durable of the task.
    pub fn record(&self) -> &TaskRecord {
        &self.record
    }

    /// The trained parameters of the newest version.
    pub fn adapter(&self) -> &[f32] {
        &self.record.adapter
    }

    /// What the server optimiser carries on.
    pub fn optimizer(&self) -> &OptimizerState {
        &self.record.optimizer
    }

    /// The newest version.
    pub fn version(&self) -> u32 {
        self.record.versions.last().map_or(0, |version| version.version)
    }

    /// What is known of the newest version.
    pub fn published(&self) -> Published {
        Published {
            task: self.id,
            version: self.version(),
            plan: self.plan_digest,
            adapter: self.adapter_digest,
        }
    }

    /// Whether the task still gives work.
    pub fn is_active(&self) -> bool {
        self.record.state == TaskState::Active
    }

    /// Whether the open round, if there is one, is this session's.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.round.as_ref().is_some_and(|round| round.session() == session)
    }

    /// Whether a round is open.
    pub fn has_open_round(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.outcome().is_none())
    }

    /// Everything an operator may know.
    pub fn status(&self) -> TaskStatus {
        let open = self.round.as_ref().filter(|round| round.outcome().is_none());
        TaskStatus {
            task: self.id,
            name: self.plan.name.clone(),
            state: self.record.state,
            version: self.version(),
            versions_wanted: self.plan.round.versions,
            plan: self.plan_digest,
            adapter: self.adapter_digest,
            epsilon: self.epsilon(),
            delta: self.plan.privacy.delta,
            rounds_charged: self.record.rounds_charged,
            versions: self.record.versions.clone(),
            open_round: open.map_or_else(String::new, |round| round.phase().to_owned()),
            last_abort: self.last_abort.map_or_else(String::new, |outcome| outcome.to_string()),
        }
    }

    /// ε so far: of the device that took part most often.
    pub fn epsilon(&self) -> f64 {
        match self.record.participations.values().max() {
            None => 0.0,
            Some(most) => self.mechanism.epsilon(*most, self.delta).epsilon,
        }
    }

    /// Answers one request. A rejection changes nothing but what time alone would have changed.
    pub fn handle(
        &mut self,
        from: DeviceId,
        request: Request,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Reply, Rejection> {
        self.handle_timeout(now, rng);
        let reply = match request {
            Request::CheckIn => Ok(self.check_in(from)),
            Request::Join { version, .. } => self.join(from, version, now, rng),
            Request::Fetch { .. } => Err(Rejection::UnknownArtefact),
            request @ (Request::Advertise { .. }
            | Request::ShareKeys { .. }
            | Request::MaskedChunk { .. }
            | Request::MaskedDone { .. }
            | Request::Agree { .. }
            | Request::Unmask { .. }) => self.in_round(from, request, now),
        };
        self.perform(now, rng);
        reply
    }

    /// Closes whatever is due. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        if let Some(round) = &mut self.round {
            round.handle_timeout(now);
        }
        self.perform(now, rng);
    }

    /// When something is due to close, if anything is.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.round.as_ref().and_then(Round::poll_timeout)
    }

    /// The next thing that the shell must make durable.
    pub fn poll_effect(&mut self) -> Option<TaskEffect> {
        self.effects.pop_front()
    }

    /// Ends the task by its operator's will.
    pub fn stop(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        self.abort_round(now, rng);
        self.end(TaskState::Stopped);
    }

    /// Ends the open round, if there is one; the task goes on.
    pub fn abort_round(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        if let Some(round) = &mut self.round {
            round.abort(Outcome::Stopped);
        }
        self.perform(now, rng);
    }

    fn check_in(&mut self, from: DeviceId) -> Reply {
        self.seen.insert(from);
        let latest = Some(self.published());
        if !self.is_active() {
            return Reply::Wait { retry_millis: IDLE_MILLIS, latest, complete: true };
        }
        if self.participations(from) >= self.most_participations {
            self.end_if_spent();
            return Reply::Wait { retry_millis: IDLE_MILLIS, latest, complete: true };
        }
        Reply::Assignment(self.published())
    }

    fn join(
        &mut self,
        from: DeviceId,
        version: u32,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Reply, Rejection> {
        if !self.is_active() {
            return Err(Rejection::UnknownTask);
        }
        if version != self.version() {
            return Err(Rejection::Stale { found: version, current: self.version() });
        }
        if self.participations(from) >= self.most_participations {
            return Err(Rejection::ParticipationsSpent(self.participations(from)));
        }
        let open = self.round.take().filter(|round| round.outcome().is_none());
        let round = match open {
            Some(round) if !round.is_joinable() => {
                self.round = Some(round);
                return Ok(Reply::wait(POLL_MILLIS));
            }
            Some(round) => round,
            None => {
                self.record.last_round += 1;
                Round::new(self.round_params(rng), now)
            }
        };
        let offer = Reply::Offer { session: round.session(), round: round.number() };
        self.round = Some(round);
        Ok(offer)
    }

    fn in_round(&mut self, from: DeviceId, request: Request, now: Timestamp) -> Result<Reply, Rejection> {
        match &mut self.round {
            Some(round) if request.session() == Some(round.session()) => round.handle(from, request, now),
            Some(_) | None => Err(Rejection::UnknownSession),
        }
    }

    fn round_params(&self, rng: &mut impl CryptoRng) -> RoundParams {
        let mut session = [0; 32];
        rng.fill_bytes(&mut session);
        let plan = &self.plan.round;
        RoundParams {
            context: Context {
                session,
                task: self.id.0,
                round: self.record.last_round,
                model_hash: model_digest(&self.plan, &self.adapter_digest).0,
                plan_hash: self.plan_digest.0,
                len: self.mechanism.padded_len(),
                ring_bits: self.mechanism.ring_bits(),
                report_goal: plan.report_goal as usize,
                corrupt_fraction_permille: self.plan.privacy.corrupt_permille,
            },
            cohort: plan.cohort as usize,
            report_goal: plan.report_goal as usize,
            authority: self.authority,
            join_millis: plan.join_millis,
            step_millis: plan.step_millis,
            grace_millis: plan.grace_millis,
            poll_millis: POLL_MILLIS,
        }
    }

    /// Turns what the round wants done into what the task wants made durable.
    fn perform(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        while let Some(round) = &mut self.round {
            let (number, session) = (round.number(), round.session());
            let Some(effect) = round.poll_effect() else { return };
            match effect {
                Effect::FixSurvivors { survivors } => {
                    self.effects.push_back(TaskEffect::FixSurvivors { round: number, survivors });
                }
                Effect::Charge { devices } => self.charge(number, devices),
                Effect::Publish { sum, survivors, cohort } => {
                    self.publish(number, session, sum, (survivors, cohort), now, rng);
                }
                Effect::End(Outcome::Published) => {}
                Effect::End(outcome) => {
                    self.last_abort = Some(outcome);
                    self.effects.push_back(TaskEffect::Aborted { round: number, outcome });
                }
            }
        }
    }

    fn charge(&mut self, round: u64, devices: Vec<DeviceId>) {
        if devices.is_empty() {
            return;
        }
        self.record.rounds_charged += 1;
        let devices = devices
            .into_iter()
            .map(|device| {
                let count = self.record.participations.entry(device).or_default();
                *count += 1;
                (device, *count)
            })
            .collect();
        self.effects.push_back(TaskEffect::Charge { round, devices });
    }

    fn publish(
        &mut self,
        round: u64,
        session: SessionId,
        mut sum: Vec<u32>,
        (survivors, cohort): (usize, usize),
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) {
        if self.mechanism.params().mode == PrivacyMode::Central {
            self.mechanism.add_central_noise(&mut sum, rng);
        }
        let Ok(mean) = self.mechanism.decode(&sum, survivors, &rotation_seed(&session)) else {
            let outcome = Outcome::NotRecovered;
            self.last_abort = Some(outcome);
            self.effects.push_back(TaskEffect::Aborted { round, outcome });
            return;
        };
        self.record.optimizer.apply(self.plan.server, &mut self.record.adapter, &mean);
        let adapter = vector_to_bytes(&self.record.adapter);
        self.adapter_digest = Digest::of(&adapter);
        let version = VersionStatus {
            version: self.version() + 1,
            cohort: u32::try_from(cohort).unwrap_or(u32::MAX),
            survivors: u32::try_from(survivors).unwrap_or(u32::MAX),
            round,
            epsilon: self.epsilon(),
            adapter: self.adapter_digest,
            committed_unix_millis: now.0,
        };
        self.record.versions.push(version.clone());
        let optimizer = vector_to_bytes(&self.record.optimizer.to_vector());
        self.effects.push_back(TaskEffect::Commit { version, adapter, optimizer });
        if self.version() >= self.plan.round.versions {
            self.end(TaskState::Complete);
        }
    }

    fn participations(&self, device: DeviceId) -> u32 {
        self.record.participations.get(&device).copied().unwrap_or(0)
    }

    /// Ends the task when the devices that may still take part are too few for a round.
    fn end_if_spent(&mut self) {
        let able = self.seen.iter().filter(|d| self.participations(**d) < self.most_participations);
        let goal = self.plan.round.report_goal as usize;
        if self.seen.len() >= goal && able.count() < goal {
            self.end(TaskState::BudgetSpent);
        }
    }

    fn end(&mut self, state: TaskState) {
        if self.is_active() {
            self.record.state = state;
            self.effects.push_back(TaskEffect::End(state));
        }
    }
}

/// How often one device may take part: the plan's number, or fewer where the budget is smaller.
fn affordable(plan: &Plan, mechanism: &Mechanism, delta: Delta) -> Result<u32, TaskError> {
    let Some(budget) = plan.privacy.epsilon_budget else {
        return Ok(plan.privacy.participations);
    };
    let fits = |participations: u32| mechanism.epsilon(participations, delta).epsilon <= budget;
    let (mut low, mut high) = (0, plan.privacy.participations);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    if low == 0 {
        let one = mechanism.epsilon(1, delta).epsilon;
        return Err(TaskError::BudgetBelowOneRound { one, budget });
    }
    Ok(low)
}
