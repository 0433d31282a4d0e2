//! One fine-tuning job, as a pure machine: its versions, who took part how often, and the open rounds.
//!
//! The same interface as [`Round`], one level up. The shell performs the effects in order and makes each
//! durable before it sends the next reply, and runs what goes out by [`Task::take_opening`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use aggregation::IdentityPublic;
use aggregation::log::EnrollmentLog;
use privacy::{Delta, Mechanism};
use proto::adapter::{AdapterError, Class};
use proto::admin::{TaskState, TaskStatus};
use proto::ids::{DeviceId, Digest, SessionId, TaskId, Timestamp};
use proto::message::{CheckIn, DeclineReason, Outcome, Published, Rejection, Reply, Request};
use proto::plan::{Plan, PlanError, vector_to_bytes};
use rand_core::CryptoRng;

use crate::optimizer::OptimizerState;
use crate::round::{Effect, Opened, Opening, Round, Steps};
use crate::spool::{InMemory, Spooler};

mod accounting;
mod admission;
mod begin;
mod classes;
mod earlier;
mod effect;
mod funnel;
mod gather;
mod gathered;
mod next;
mod over;
mod publish;
mod record;
mod refusal;
mod roll_back;
mod rounds;
mod selection;
mod shown;

pub use accounting::Spending;
pub use earlier::Earlier;
pub use effect::TaskEffect;
pub use funnel::Counted;
use funnel::{Funnels, Step};
pub use gathered::Gathered;
pub use record::TaskRecord;
pub use refusal::RollBackError;
use rounds::Rounds;
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
    excluded: BTreeSet<DeviceId>,
    spooler: Arc<dyn Spooler>,
    rounds: Rounds,
    /// Since when there are enough sums for a version, while further ones are waited for.
    enough_since: Option<Timestamp>,
    /// Whether no further round is opened: its process ends soon.
    is_draining: bool,
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
            gathered: None,
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
        mut record: TaskRecord,
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
        let selection =
            Selection::new(round.most_devices() as usize, round.join_millis, record.devices as usize);
        let (len, metrics) = (mechanism.params().coordinates, plan.privacy.metrics.len());
        record.gathered = record.gathered.filter(|gathered| gathered.fits(version, len, metrics));
        // Enough sums make a version: there were further rounds to wait for, which are gone.
        let enough_since = record
            .gathered
            .as_ref()
            .filter(|gathered| gathered.rounds() >= round.min_rounds)
            .map(|_| Timestamp(0));
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
            excluded: BTreeSet::new(),
            spooler: Arc::new(InMemory),
            record,
            rounds: Rounds::default(),
            enough_since,
            is_draining: false,
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

    /// Whether one of the rounds that are known, open or over, is this session's.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.rounds.sessions().any(|known| known == session)
    }

    /// The sessions of the rounds that are known, open or over.
    pub fn sessions(&self) -> BTreeSet<SessionId> {
        self.rounds.sessions().collect()
    }

    /// The open rounds, and the step that each is in.
    pub fn open_rounds(&self) -> Steps {
        self.rounds.open().map(|round| (round.session(), round.phase())).collect()
    }

    /// What there is of the version that is being made, where some of its rounds gave their sums.
    pub fn gathered(&self) -> Option<&Gathered> {
        self.record.gathered.as_ref()
    }

    /// Opens no further round: the process ends soon.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Everything an operator may know.
    pub fn status(&self) -> TaskStatus {
        let open = self.rounds.shown();
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
            gathering: self.gathering(),
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
        let session = request.session();
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
            let round = session.and_then(|session| self.rounds.number(session));
            self.funnels.saw(from, step, reply, round.unwrap_or(self.record.last_round), now);
        }
        self.perform(now, rng);
        reply
    }

    /// Closes whatever is due. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        self.rounds.handle_timeout(now);
        self.selection.pass_time(now);
        self.perform(now, rng);
        self.stop_waiting(now, rng);
    }

    /// When something is due to close, if anything is.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let frees = self.selection.poll_timeout().filter(|_| self.is_active());
        let ready = self.waits_until().filter(|_| self.is_active());
        self.rounds.poll_timeout().into_iter().chain(frees).chain(ready).min()
    }

    /// The next thing that the shell must make durable.
    pub fn poll_effect(&mut self) -> Option<TaskEffect> {
        self.effects.pop_front()
    }

    /// A sum of an open round that is due to be opened: to be asked after each of the calls above until there is none,
    /// and to be run apart from the task. Its round waits for [`Task::opened`].
    pub fn take_opening(&mut self, now: Timestamp) -> Option<Opening> {
        self.rounds.take_opening(now)
    }

    /// Takes what came of an opening. That of a round that is over is dropped.
    pub fn opened(&mut self, opened: Opened, now: Timestamp, rng: &mut impl CryptoRng) {
        self.rounds.opened(opened);
        self.perform(now, rng);
    }

    /// Opens the sums here and now that are due: for simulations and tests, in which nobody else waits.
    pub fn open_in_place(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        while let Some(opening) = self.rounds.take_opening(now) {
            // One after another: a version is not made while another round is still to give its sum.
            self.opened(opening.run(), now, rng);
        }
        self.perform(now, rng);
    }

    /// Ends the task by its operator's will: no device is given any of its versions any more.
    pub fn stop(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        self.version_is_over();
        self.abort_rounds(now, rng);
        self.end(TaskState::Stopped);
    }

    /// Ends the task with the versions that there are, which devices keep.
    pub fn finish(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        self.abort_rounds(now, rng);
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

    /// Ends the open rounds; the task goes on.
    pub fn abort_rounds(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        self.rounds.abort(Outcome::Stopped);
        self.perform(now, rng);
    }

    fn in_round(&mut self, from: DeviceId, request: Request, now: Timestamp) -> Result<Reply, Rejection> {
        if let Request::Advertise { session, .. } = &request {
            self.check_advertises(from, *session)?;
        }
        let round = request.session().and_then(|session| self.rounds.with(session));
        round.ok_or(Rejection::UnknownSession)?.handle(from, request, now)
    }

    /// Turns what the rounds want done into what the task wants made durable.
    fn perform(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        while let Some((round, session, effect)) = self.rounds.poll_effect() {
            match effect {
                Effect::FixSurvivors { survivors } => {
                    self.rounds.fix(session, &survivors);
                    self.effects.push_back(TaskEffect::FixSurvivors { round, survivors });
                }
                Effect::Charge { devices } => self.charge(round, devices),
                Effect::Exclude { device, why } => {
                    self.excluded.insert(device);
                    self.effects.push_back(TaskEffect::Excluded { round, device, why });
                }
                Effect::Publish { sum, survivors, cohort, roster } => {
                    self.gather((round, session), sum, (survivors, cohort, roster), now, rng);
                }
                Effect::End(Outcome::Published) => {}
                Effect::End(outcome) => {
                    self.aborted(round, outcome, now);
                    self.publish_if_due(None, now);
                }
            }
        }
    }

    /// A round came to nothing.
    fn aborted(&mut self, round: u64, outcome: Outcome, now: Timestamp) {
        // Those who are in no other round, nor in a sum.
        let in_rounds: BTreeSet<DeviceId> = self.rounds.open().flat_map(Round::members).collect();
        let gathered = self.record.gathered.as_ref();
        let is_elsewhere =
            |device| in_rounds.contains(&device) || gathered.is_some_and(|gathered| gathered.has(device));
        self.selection.aborted(is_elsewhere, now);
        self.funnels.aborted(round, outcome);
        self.last_abort = Some(outcome);
        self.effects.push_back(TaskEffect::Aborted { round, outcome });
    }

    fn end(&mut self, state: TaskState) {
        if !self.record.state.is_over() {
            self.record.state = state;
            self.version_is_over();
            self.effects.push_back(TaskEffect::End(state));
        }
    }
}
