//! A virtual world: the production machines of both sides, virtual time, the production wire code, and faults.
//!
//! Every message is encoded to protobuf bytes and decoded on the other side. The order in which devices act,
//! lost requests, lost replies, repeats, devices that vanish and a coordinator that crashes all follow from one
//! seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aggregation::{Credential, IdentityKey, IdentityPublic};
use proto::adapter::{AdapterError, State};
use proto::admin::TaskStatus;
use proto::convert::WireError;
use proto::ids::{DeviceId, Digest, TaskId, Timestamp};
use proto::plan::{Plan, vector_from_bytes, vector_to_bytes};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use session::policy::Policy;
use session::update::Update;
use session::{Action, Device, Event, Session, Work};
use task::{RollBackError, Task, TaskEffect, TaskError, TaskRecord};

use crate::faults::Faults;

mod node;
mod seen;
mod time;
mod wire;

use node::Away;
pub use node::{Node, Traffic};
pub use seen::Seen;
use time::{Pace, Progress};

/// Virtual time at which the world begins; credentials are valid then.
const DAWN: Timestamp = Timestamp(1_700_000_000_000);

/// Virtual hours after which a world that does not come to an end is stuck.
const LONGEST_MILLIS: u64 = 1000 * 3_600_000;

/// How long a device that vanished stays away when no version comes.
const AWAY_MILLIS: u64 = 600_000;

/// Trains the given devices, each from its work; one result for each, in order.
pub trait Trainer {
    /// Trains.
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>>;

    /// Whether it was told to stop: then the world does not go on.
    fn stops(&self) -> bool {
        false
    }
}

/// A world that did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The task cannot be started.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Nothing happens any more.
    #[error("the federation is stuck at version {version}: {why}")]
    Stuck {
        /// The newest version.
        version: u32,
        /// Why, as far as it is known.
        why: String,
    },
    /// Our own bytes could not be read back.
    #[error("the wire does not carry its own messages: {0}")]
    Wire(#[from] WireError),
    /// Our own bytes could not be read back.
    #[error("the wire does not carry its own messages: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// A coordinator, its devices, and what is durable of them.
#[derive(Debug)]
pub struct World {
    task: Task,
    plan_bytes: Vec<u8>,
    authority: IdentityPublic,
    artifacts: BTreeMap<Digest, Vec<u8>>,
    given: Option<Vec<f32>>,
    record: TaskRecord,
    /// The devices.
    pub nodes: Vec<Node>,
    /// What each is to hear next.
    news: Vec<Option<Event>>,
    faults: Faults,
    clock: Timestamp,
    rng: ChaCha20Rng,
    traffic_before: Vec<Traffic>,
    seen: Vec<Seen>,
    fixed: BTreeMap<u64, Vec<DeviceId>>,
    coordinator_crashes: u32,
    pace: Pace,
}

impl World {
    /// A world in which nothing has happened. `given` are the factors that the plan names by hash, if it does.
    pub fn new(
        plan: &Plan,
        given: Option<&[f32]>,
        policy: &Policy,
        devices: usize,
        faults: Faults,
        seed: [u8; 32],
    ) -> Result<Self, WorldError> {
        Self::with_policies(plan, given, &vec![policy.clone(); devices], faults, seed)
    }

    /// The same, of as many devices as there are policies, each with its own limits.
    pub fn with_policies(
        plan: &Plan,
        given: Option<&[f32]>,
        policies: &[Policy],
        faults: Faults,
        seed: [u8; 32],
    ) -> Result<Self, WorldError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let plan_bytes = plan.to_bytes().map_err(TaskError::from)?;
        let authority_key = IdentityKey::from_seed(&draw(&mut rng));
        let authority = authority_key.public();
        let task = Task::new(TaskId(draw(&mut rng)), &plan_bytes, given.map(<[f32]>::to_vec), authority)?;
        let record = task.record().clone();
        let mut artifacts = BTreeMap::new();
        for bytes in
            [Some(plan_bytes.clone()), Some(vector_to_bytes(task.adapter())), given.map(vector_to_bytes)]
                .into_iter()
                .flatten()
        {
            artifacts.insert(Digest::of(&bytes), bytes);
        }
        let nodes = policies
            .iter()
            .map(|policy| {
                let id = DeviceId(draw(&mut rng));
                let identity = IdentityKey::from_seed(&draw(&mut rng));
                let expires = DAWN.as_secs() + LONGEST_MILLIS / 1000;
                let credential = Credential::issue(&authority_key, id.0, identity.public(), expires);
                let (bases, policy) = (vec![plan.base], policy.clone());
                let device = Arc::new(Device { device: id, identity, credential, authority, bases, policy });
                Node::new(device, ChaCha20Rng::from_seed(draw(&mut rng)), DAWN)
            })
            .collect();
        Ok(Self {
            task,
            plan_bytes,
            authority,
            artifacts,
            given: given.map(<[f32]>::to_vec),
            record,
            nodes,
            news: policies.iter().map(|_| None).collect(),
            faults,
            clock: DAWN,
            rng,
            traffic_before: vec![Traffic::default(); policies.len()],
            seen: Vec::new(),
            fixed: BTreeMap::new(),
            coordinator_crashes: 0,
            pace: Pace::default(),
        })
    }

    /// What an operator would see.
    pub fn status(&self) -> TaskStatus {
        self.task.status()
    }

    /// The trained parameters of the newest version.
    pub fn adapter(&self) -> &[f32] {
        self.task.adapter()
    }

    /// The adapter at the newest version.
    pub fn state(&self) -> Result<State, AdapterError> {
        let (plan, version, folded) = (self.task.plan(), self.task.version(), self.record.folded.as_deref());
        plan.state_at(version, self.given.as_deref(), folded, self.task.adapter())
    }

    /// The versions so far.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Places in [`World::nodes`] of the devices whose inputs are in a round's sum.
    pub fn survivors(&self, round: u64) -> Vec<usize> {
        let survivors = self.fixed.get(&round).map_or(&[][..], Vec::as_slice);
        let place = |id: &DeviceId| self.nodes.iter().position(|node| node.device.device == *id);
        survivors.iter().filter_map(place).collect()
    }

    /// How often the coordinator says that the device at this place took part.
    pub fn participations(&self, index: usize) -> u32 {
        self.record.participations.get(&self.nodes[index].device.device).copied().unwrap_or(0)
    }

    /// Ends the task before its last version, as an operator may; what was published stays, and the devices fetch it.
    pub fn stop(&mut self) {
        self.task.finish(self.clock, &mut self.rng);
        self.perform_effects();
    }

    /// How often the coordinator crashed.
    pub fn coordinator_crashes(&self) -> u32 {
        self.coordinator_crashes
    }

    /// Lets the world run until the next version is published, or until the task is over and every device that
    /// is there holds its last version, or until the trainer was told to stop. Returns whether there is more to come.
    pub fn run_to_next_version(&mut self, trainer: &mut impl Trainer) -> Result<bool, WorldError> {
        let before = self.task.version();
        loop {
            if self.task.version() > before {
                return Ok(true);
            }
            if trainer.stops() {
                return Ok(false);
            }
            let acted = self.act(trainer)?;
            // Nobody lets it go on here.
            let is_over = !self.task.is_active() && self.everybody_is_done();
            if is_over || self.task.is_paused() {
                return Ok(self.task.version() > before);
            }
            if !acted {
                self.pass_time()?;
            }
        }
    }

    /// Lets a task go on that paused itself, as its operator would. Returns whether it had.
    pub fn resume(&mut self) -> bool {
        let was = self.task.resume();
        self.record.state = self.task.record().state;
        was
    }

    /// Gives the next version the parameters of an earlier one that came out of a round, as an operator would.
    pub fn roll_back(&mut self, version: u32) -> Result<(), RollBackError> {
        let unknown = RollBackError::Unknown { version, newest: self.task.version() };
        let Some(known) = self.record.versions.iter().find(|known| known.version == version) else {
            return Err(unknown);
        };
        let vector = |digest: &Digest| self.artifacts.get(digest).and_then(|bytes| vector_from_bytes(bytes));
        let Some(adapter) = vector(&known.adapter) else { return Err(unknown) };
        let folded = known.folded.as_ref().and_then(vector);
        self.task.roll_back((version, adapter, folded), self.clock, &mut self.rng)?;
        self.perform_effects();
        Ok(())
    }

    /// What became of versions that their devices found worse than the ones before.
    pub fn verdicts(&self) -> Vec<String> {
        let restored = self.record.versions.iter().filter_map(|version| {
            let (worse, of) = (version.version.checked_sub(1)?, version.restores?);
            Some(format!(
                "version {worse} was worse than the one before, as its devices measured it on text that they hold out: \
                 version {} has the parameters of version {of} again",
                version.version
            ))
        });
        let paused = self.task.is_paused().then(|| {
            "that was so twice in a row, so the task waits for its operator: no further version was made"
                .to_owned()
        });
        restored.chain(paused).collect()
    }

    /// Whether every device that is there has heard that the task is over and holds its last version.
    fn everybody_is_done(&self) -> bool {
        self.nodes.iter().all(|node| node.session.as_ref().is_some_and(Session::is_complete))
    }

    /// Lets every device do what it can do now, in a random order. Returns whether any could.
    fn act(&mut self, trainer: &mut impl Trainer) -> Result<bool, WorldError> {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, below(&mut self.rng, last + 1));
        }
        let (mut acted, mut told) = (false, Vec::new());
        let mut batch = Vec::new();
        for index in order {
            self.wake(index);
            let Some(session) = &self.nodes[index].session else { continue };
            if session.is_complete() {
                continue;
            }
            let action = session.action();
            if self.vanishes(index) {
                acted = true;
                continue;
            }
            match action {
                Action::Sleep(until) if until > self.clock => {}
                Action::Sleep(_) => self.tell(index, Event::Woke),
                Action::Train(work) => {
                    match self.progress(index) {
                        Progress::UnderWay => {}
                        Progress::Done => batch.push((index, work)),
                        Progress::Broken => {
                            self.goes_away(index);
                            acted = true;
                        }
                    }
                    continue;
                }
                Action::Send(request) => self.send(index, &request)?,
                // No certificate of these devices ends.
                Action::Renew { .. } => self.tell(index, Event::Unreachable),
                Action::LoadPlan(published) => self.load_plan(index, &published),
                Action::Load { published, frozen, before, .. } => {
                    self.load(index, &published, frozen, before);
                }
                Action::RecordFound(found) => {
                    self.nodes[index].found.push((self.clock, found));
                    self.tell(index, Event::Recorded);
                }
                Action::Install(work) => {
                    self.nodes[index].installed = Some(work);
                    self.tell(index, Event::Recorded);
                }
                Action::Charge(charge) => {
                    self.nodes[index].charges.push((self.clock, charge));
                    self.tell(index, Event::Recorded);
                }
                Action::RecordDraws(times) => {
                    self.nodes[index].drawn = times;
                    self.tell(index, Event::Recorded);
                }
                Action::RecordLog(seen) => {
                    self.nodes[index].log_seen = Some(seen);
                    self.tell(index, Event::Recorded);
                }
                Action::RecordSignature(signed) => {
                    self.nodes[index].signatures.push(signed);
                    self.tell(index, Event::Recorded);
                }
                Action::RecordAnswer(answered) => {
                    self.nodes[index].answers.push(answered);
                    self.tell(index, Event::Recorded);
                }
            }
            told.push(index);
        }
        self.deliver();
        acted |= told.into_iter().any(|index| {
            let session = self.nodes[index].session.as_ref();
            !session
                .is_some_and(|session| matches!(session.action(), Action::Sleep(until) if until > self.clock))
        });
        batch.sort_by_key(|(index, _)| *index);
        if !acted && !batch.is_empty() {
            let results = trainer.train(&batch);
            for ((index, _), result) in batch.into_iter().zip(results) {
                self.ends_training(index);
                let event = result.map_or_else(Event::NotTrained, Event::Trained);
                self.tell(index, event);
            }
            self.deliver();
            acted = true;
        }
        Ok(acted)
    }

    /// Brings a device back that was away until now.
    fn wake(&mut self, index: usize) {
        let (version, clock, active) = (self.task.version(), self.clock, self.task.is_active());
        let node = &mut self.nodes[index];
        if node.away.is_some_and(|away| version > away.version || clock >= away.until || !active) {
            node.away = None;
            node.restart(clock);
        }
    }

    /// Whether a planned fault takes the device away before its next action; it then loses all that is not
    /// durable.
    fn vanishes(&mut self, index: usize) -> bool {
        let Some(session) = &self.nodes[index].session else { return true };
        if self.task.is_active() && self.faults.vanishes(self.task.version(), index, session.state()) {
            self.goes_away(index);
            return true;
        }
        false
    }

    fn goes_away(&mut self, index: usize) {
        self.nodes[index].session = None;
        self.ends_training(index);
        let until = self.clock.plus_millis(AWAY_MILLIS);
        self.nodes[index].away = Some(Away { version: self.task.version(), until });
    }

    /// What a device is to hear. It hears it when every device has acted: until then it would do nothing with it.
    fn tell(&mut self, index: usize, event: Event) {
        self.news[index] = Some(event);
    }

    /// Lets all devices that have news work on it, at the same time: what one makes of its own touches nothing else.
    fn deliver(&mut self) {
        let clock = self.clock;
        self.nodes.par_iter_mut().zip(&mut self.news).for_each(|(node, news)| {
            if let Some(event) = news.take() {
                node.hear(event, clock);
            }
        });
    }

    /// The shell's part: everything here is durable before the reply leaves.
    fn perform_effects(&mut self) {
        self.task.open_in_place(self.clock, &mut self.rng);
        while let Some(effect) = self.task.poll_effect() {
            match effect {
                TaskEffect::FixSurvivors { round, survivors } => {
                    self.record.last_round = self.record.last_round.max(round);
                    self.fixed.insert(round, survivors);
                }
                TaskEffect::Excluded { .. } => {}
                TaskEffect::Paused { .. } => self.record.state = self.task.record().state,
                TaskEffect::Aborted { round, .. } => {
                    self.record.last_round = self.record.last_round.max(round);
                }
                TaskEffect::Charge { round, devices } => {
                    self.record.last_round = self.record.last_round.max(round);
                    self.record.rounds_charged += 1;
                    self.record.participations.extend(devices);
                }
                TaskEffect::Commit { version, adapter, folded, .. } => {
                    self.artifacts.insert(version.adapter, adapter);
                    self.artifacts.extend(version.folded.zip(folded));
                    self.record.folded.clone_from(&self.task.record().folded);
                    self.record.adapter = self.task.adapter().to_vec();
                    self.record.optimizer = self.task.optimizer().clone();
                    self.record.before.clone_from(&self.task.record().before);
                    self.record.devices = self.task.record().devices;
                    self.record.versions.push((*version).clone());
                    let traffic = self.new_traffic();
                    self.seen.push(Seen { status: *version, traffic });
                }
                TaskEffect::End(state) => self.record.state = state,
            }
        }
    }

    /// Bytes of each device since the last version.
    fn new_traffic(&mut self) -> Vec<Traffic> {
        let now: Vec<Traffic> = self.nodes.iter().map(|node| node.traffic).collect();
        let before = std::mem::replace(&mut self.traffic_before, now.clone());
        let since = |(now, before): (Traffic, Traffic)| Traffic {
            up: now.up - before.up,
            down: now.down - before.down,
        };
        now.into_iter().zip(before).map(since).collect()
    }

    /// Devices that hold the newest version.
    pub fn up_to_date(&self) -> usize {
        let newest = self.task.published();
        let holds = |node: &&Node| {
            node.installed
                .as_ref()
                .is_some_and(|work| work.published == newest && work.adapter == self.task.adapter())
        };
        self.nodes.iter().filter(holds).count()
    }

    /// Rounds that a device signed, or answered in, more than once; there must be none.
    pub fn signed_twice(&self) -> usize {
        let repeated = |node: &Node| {
            let signed: BTreeSet<u64> = node.signatures.iter().map(|signed| signed.round).collect();
            let answered: BTreeSet<u64> = node.answers.iter().map(|answered| answered.round).collect();
            node.signatures.len() + node.answers.len() - signed.len() - answered.len()
        };
        self.nodes.iter().map(repeated).sum()
    }
}

/// A number below `bound`, close enough to uniform for an order of events.
fn below(rng: &mut impl Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound as u64).unwrap_or(0)
}

fn draw<const N: usize>(rng: &mut impl Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}
