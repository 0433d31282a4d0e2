//! One fine-tuning job, as a pure machine: its versions, who took part how often, and the open round.
//!
//! The same interface as [`Round`], one level up. The shell performs the effects in order and makes each
//! durable before it sends the next reply, and runs what goes out by [`Task::take_opening`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use aggregation::log::EnrollmentLog;
use aggregation::{Context, IdentityPublic};
use privacy::{Delta, Mechanism};
use proto::adapter::{AdapterError, Class};
use proto::admin::{TaskState, TaskStatus};
use proto::ids::{DeviceId, Digest, SessionId, TaskId, Timestamp};
use proto::message::{CheckIn, DeclineReason, Outcome, Published, Rejection, Reply, Request};
use proto::plan::{Plan, PlanError, model_digest, vector_to_bytes};
use rand_core::CryptoRng;

use crate::enrollment_log::RoundLog;
use crate::optimizer::OptimizerState;
use crate::round::{Effect, Opened, Opening, PhaseName, Round, RoundParams};
use crate::spool::{InMemory, Spooler};

mod accounting;
mod admission;
mod classes;
mod earlier;
mod effect;
mod funnel;
mod next;
mod over;
mod publish;
mod record;
mod refusal;
mod roll_back;
mod selection;
mod shown;

pub use accounting::Spending;
pub use earlier::Earlier;
pub use effect::TaskEffect;
pub use funnel::Counted;
use funnel::{Funnels, Step};
pub use record::TaskRecord;
pub use refusal::RollBackError;
use selection::Selection;

/// What a device that must wait is told, in milliseconds.
const POLL_MILLIS: u64 = 250;

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
    Adapter(#[from] AdapterError),
}

/// One fine-tuning job.
#[derive(Debug)]
pub struct Task {
    id: TaskId,
    plan: Arc<Plan>,
    plan_digest: Digest,
    /// The factors that an operator made, where they are needed to end an epoch.
    given: Option<Vec<f32>>,
    /// For updates from the newest version, at its clip norm.
    mechanism: Mechanism,
    /// What a participation costs at most, whichever version it is for.
    costs: Mechanism,
    delta: Delta,
    authority: IdentityPublic,
    /// What rounds are about beside the task, where the authority keeps a log.
    log: Option<EnrollmentLog>,
    /// Participations of one device that neither the plan's number nor its budget forbids.
    most_participations: u32,
    record: TaskRecord,
    adapter_digest: Digest,
    folded_digest: Option<Digest>,
    declined: BTreeMap<DeviceId, DeclineReason>,
    /// Who has a place in the version that is being made.
    selection: Selection,
    funnels: Funnels,
    /// How much of the adapter a device trained from the newest version, where it said that this is not all.
    classes: BTreeMap<DeviceId, Class>,
    /// The devices in the open round's sum.
    survivors: Vec<DeviceId>,
    excluded: BTreeSet<DeviceId>,
    spooler: Arc<dyn Spooler>,
    round: Option<Round>,
    last_abort: Option<Outcome>,
    effects: VecDeque<TaskEffect>,
}

impl Task {
    /// A new task, at version 0. `given` are the factors that the plan names by their hash, if it does.
    pub fn new(
        id: TaskId,
        plan_bytes: &[u8],
        given: Option<Vec<f32>>,
        authority: IdentityPublic,
    ) -> Result<Self, TaskError> {
        let plan = Plan::parse(plan_bytes)?;
        if let Some(given) = &given {
            plan.adapter.check_given(given)?;
        }
        let record = TaskRecord {
            state: TaskState::Active,
            versions: Vec::new(),
            participations: BTreeMap::new(),
            last_round: 0,
            rounds_charged: 0,
            adapter: plan.adapter.initial(&plan.initial_seed, given.as_deref()),
            folded: None,
            optimizer: OptimizerState::default(),
            before: None,
            devices: 0,
        };
        Self::restore(id, plan_bytes, given, authority, record)
    }

    /// A task as it was when it was last durable. A round that was open then is gone. `given` is as for
    /// [`Task::new`], and needed only where the plan draws factors anew.
    pub fn restore(
        id: TaskId,
        plan_bytes: &[u8],
        given: Option<Vec<f32>>,
        authority: IdentityPublic,
        record: TaskRecord,
    ) -> Result<Self, TaskError> {
        let plan = Plan::parse(plan_bytes)?;
        plan.adapter.check_trained(&record.adapter)?;
        let last = record.versions.last();
        let version = last.map_or(0, |version| version.version);
        plan.folded_at(version, record.folded.as_deref())?;
        let given = given.filter(|_| plan.refresh.is_some());
        if plan.refresh.is_some() && plan.given_factors().is_some() && given.is_none() {
            return Err(AdapterError::NoFactors.into());
        }
        let clip_norm = last.map_or(plan.privacy.clip_norm, |version| version.clip_norm);
        let (mechanism, delta) = (plan.mechanism_at(version, clip_norm)?, plan.delta()?);
        let costs = plan.mechanism()?;
        let most_participations = accounting::affordable(&plan, &costs, delta)?;
        let adapter_digest = Digest::of(&vector_to_bytes(&record.adapter));
        let round = &plan.round;
        let selection = Selection::new(round.cohort as usize, round.join_millis, record.devices as usize);
        let folded_digest = record.folded.as_deref().map(|folded| Digest::of(&vector_to_bytes(folded)));
        Ok(Self {
            given,
            costs,
            folded_digest,
            id,
            plan: Arc::new(plan),
            plan_digest: Digest::of(plan_bytes),
            mechanism,
            delta,
            authority,
            log: None,
            most_participations,
            adapter_digest,
            declined: BTreeMap::new(),
            selection,
            funnels: Funnels::new(version),
            classes: BTreeMap::new(),
            survivors: Vec::new(),
            excluded: BTreeSet::new(),
            spooler: Arc::new(InMemory),
            record,
            round: None,
            last_abort: None,
            effects: VecDeque::new(),
        })
    }

    /// The same task, whose rounds are about this log: all their devices must be in it.
    #[must_use]
    pub fn with_log(mut self, log: EnrollmentLog) -> Self {
        self.log = Some(log);
        self
    }

    /// The same task, whose rounds spool unfinished inputs elsewhere than in memory.
    #[must_use]
    pub fn with_spooler(mut self, spooler: Arc<dyn Spooler>) -> Self {
        self.spooler = spooler;
        self
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

    /// The trained parameters of the newest version; none where the task [let them go](Task::let_go).
    pub fn adapter(&self) -> &[f32] {
        &self.record.adapter
    }

    /// What the server optimiser carries on, as [`Task::adapter`].
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
            folded: self.folded_digest,
            clip_norm: self.mechanism.params().clip_norm.get(),
        }
    }

    /// Whether the task still gives work.
    pub fn is_active(&self) -> bool {
        self.record.state == TaskState::Active
    }

    /// Whether a device said that it does not take part, and did not come back since.
    pub fn was_declined_by(&self, device: DeviceId) -> bool {
        self.declined.contains_key(&device)
    }

    /// Something changed by which a device that waits may have a place now; alike only where nothing did.
    pub fn openings_of_places(&self) -> u64 {
        self.selection.openings()
    }

    /// Whether it waits for its operator.
    pub fn is_paused(&self) -> bool {
        self.record.state == TaskState::Paused
    }

    /// Whether the open round, if there is one, is this session's.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.round.as_ref().is_some_and(|round| round.session() == session)
    }

    /// The open round, if there is one, and the step that it is in.
    pub fn open_round(&self) -> Option<(SessionId, PhaseName)> {
        let open = self.round.as_ref().filter(|round| round.outcome().is_none());
        open.map(|round| (round.session(), round.phase()))
    }

    /// Everything an operator may know.
    pub fn status(&self) -> TaskStatus {
        let open = self.round.as_ref().filter(|round| round.outcome().is_none());
        let (funnel, last_funnel) = self.funnel();
        TaskStatus {
            task: self.id,
            name: self.plan.name.clone(),
            state: self.record.state,
            version: self.version(),
            versions_wanted: self.plan.round.versions,
            plan: self.plan_digest,
            adapter: self.adapter_digest,
            mode: self.plan.privacy.mode,
            epsilon: self.epsilon(),
            delta: self.plan.privacy.delta,
            rounds_charged: self.record.rounds_charged,
            versions: self.record.versions.clone(),
            open_round: open.map_or_else(String::new, |round| round.phase().to_string()),
            round: open.and_then(Round::standing),
            last_abort: self.last_abort.map_or_else(String::new, |outcome| outcome.to_string()),
            declined: self.decline_counts(),
            funnel: Some(funnel),
            last_funnel,
            candidates: None,
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
        let step = Step::of(&request).filter(|_| !self.record.state.is_over());
        let reply = match request {
            Request::CheckIn(CheckIn { only_keeps, declined: _ }) => Ok(self.check_in(from, only_keeps, now)),
            Request::Join { version, class, log_seen, .. } => {
                self.join(from, (version, class, log_seen), now, rng)
            }
            Request::Decline { reason, .. } => {
                self.declined.insert(from, reason);
                self.selection.release(from, now);
                self.funnels.declined(from, reason, now);
                Ok(Reply::Received)
            }
            Request::Fetch { .. } => Err(Rejection::UnknownArtifact),
            request @ (Request::Advertise { .. }
            | Request::Draw { .. }
            | Request::ShareKeys { .. }
            | Request::MaskedChunk { .. }
            | Request::MaskedDone { .. }
            | Request::Agree { .. }
            | Request::Unmask { .. }) => self.in_round(from, request, now),
        };
        if let (Some(step), Ok(reply)) = (step, &reply) {
            self.funnels.saw(from, step, reply, self.record.last_round, now);
        }
        self.perform(now, rng);
        reply
    }

    /// Closes whatever is due. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        if let Some(round) = &mut self.round {
            round.handle_timeout(now);
        }
        self.selection.pass_time(now);
        self.perform(now, rng);
    }

    /// When something is due to close, if anything is.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let closes = self.round.as_ref().and_then(Round::poll_timeout);
        let frees = self.selection.poll_timeout().filter(|_| self.is_active());
        closes.into_iter().chain(frees).min()
    }

    /// The next thing that the shell must make durable.
    pub fn poll_effect(&mut self) -> Option<TaskEffect> {
        self.effects.pop_front()
    }

    /// The sum of the open round, if it is due to be opened: to be asked after each of the calls above, and
    /// to be run apart from the task. The round waits for [`Task::opened`].
    pub fn take_opening(&mut self, now: Timestamp) -> Option<Opening> {
        self.round.as_mut().and_then(|round| round.take_opening(now))
    }

    /// Takes what came of an opening. That of a round that is over is dropped.
    pub fn opened(&mut self, opened: Opened, now: Timestamp, rng: &mut impl CryptoRng) {
        if let Some(round) = &mut self.round {
            round.opened(opened);
        }
        self.perform(now, rng);
    }

    /// Opens the sum here and now if that is due: for simulations and tests, in which nobody else waits.
    pub fn open_in_place(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        if let Some(round) = &mut self.round {
            round.open_in_place(now);
        }
        self.perform(now, rng);
    }

    /// Ends the task by its operator's will: no device is given any of its versions any more.
    pub fn stop(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        self.abort_round(now, rng);
        self.end(TaskState::Stopped);
    }

    /// Ends the task with the versions that there are, which devices keep.
    pub fn finish(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        self.abort_round(now, rng);
        self.end(TaskState::Complete);
    }

    /// Lets a task go on that paused itself. Returns whether it had.
    pub fn resume(&mut self) -> bool {
        let was = self.is_paused();
        if was {
            self.record.state = TaskState::Active;
        }
        was
    }

    /// Ends the open round, if there is one; the task goes on.
    pub fn abort_round(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        if let Some(round) = &mut self.round {
            round.abort(Outcome::Stopped);
        }
        self.perform(now, rng);
    }

    fn in_round(&mut self, from: DeviceId, request: Request, now: Timestamp) -> Result<Reply, Rejection> {
        match &mut self.round {
            Some(round) if request.session() == Some(round.session()) => round.handle(from, request, now),
            Some(_) | None => Err(Rejection::UnknownSession),
        }
    }

    /// What the newest version is known by in a round.
    fn model_digest(&self) -> Digest {
        let before = self.record.before.as_ref().map(|earlier| &earlier.before);
        model_digest(&self.plan, &self.published(), before)
    }

    fn round_params(&self, session: SessionId, log: Option<RoundLog>) -> RoundParams {
        let plan = &self.plan.round;
        RoundParams {
            context: Context {
                session: aggregation::SessionId(session.0),
                task: aggregation::TaskId(self.id.0),
                round: self.record.last_round,
                model_digest: aggregation::ModelDigest(self.model_digest().0),
                plan_digest: aggregation::PlanDigest(self.plan_digest.0),
                len: self.mechanism.contribution_len(),
                ring_bits: self.mechanism.ring_bits(),
                report_goal: plan.report_goal as usize,
                cohort: plan.cohort as usize,
                corrupt: self.plan.corrupt_devices(),
                missing_fraction_permille: plan.missing_permille,
                log: log.as_ref().map(|log| *log.head().head()),
            },
            log,
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
                    self.survivors.clone_from(&survivors);
                    self.effects.push_back(TaskEffect::FixSurvivors { round: number, survivors });
                }
                Effect::Charge { devices } => self.charge(number, devices),
                Effect::Exclude { device, why } => {
                    self.excluded.insert(device);
                    self.effects.push_back(TaskEffect::Excluded { round: number, device, why });
                }
                Effect::Publish { sum, survivors, cohort, roster } => {
                    self.publish((number, session), sum, (survivors, cohort, roster), now, rng);
                }
                Effect::End(Outcome::Published) => {}
                Effect::End(outcome) => {
                    self.selection.aborted(now);
                    self.funnels.aborted(number, outcome);
                    self.last_abort = Some(outcome);
                    self.effects.push_back(TaskEffect::Aborted { round: number, outcome });
                }
            }
        }
    }

    fn end(&mut self, state: TaskState) {
        if !self.record.state.is_over() {
            self.record.state = state;
            self.effects.push_back(TaskEffect::End(state));
        }
    }
}
