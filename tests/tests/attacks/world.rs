//! Real devices and a real coordinator in virtual time, with a hand between them that can change one thing.
//!
//! Everything that passes is encoded and decoded. Whatever leaves a device is kept before the hand sees it, and must
//! not give away more than one sum of a round whatever the hand does: see [`Log`].

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregation::{
    Advertisement, Context, Credential, IdentityKey, IndexSet, Refusal, Signature, UnmaskShares,
};
use client::agent::memory::{Memory, MemoryError};
use client::policy::Policy;
use client::session::{Action, Device, Ended, Event, Session, Work};
use client::spending::{Charge, Spending};
use client::update::Update;
use coordinator::optimizer::OptimizerState;
use coordinator::task::{Task, TaskEffect, TaskRecord};
use prost::Message;
use proto::adapter::Module;
use proto::admin::TaskState;
use proto::convert::{
    rejection_from_bytes, rejection_to_bytes, reply_from_wire, reply_to_wire, request_from_wire,
    request_to_wire,
};
use proto::ids::{DeviceId, Digest, SessionId, TaskId, Timestamp};
use proto::message::{Outcome, Published, Rejection, Reply, Request};
use proto::plan::{Mode, Plan, RoundPlan, model_digest, vector_to_bytes};
use proto::wire;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const DAWN: Timestamp = Timestamp(1_700_000_000_000);
const TASK: TaskId = TaskId([7; 16]);

/// How long a run goes on in virtual time, whoever still waits then.
const PATIENCE_MILLIS: u64 = 600_000;

/// No run takes so many steps, unless two sides answer each other for ever.
const MOST_SWEEPS: usize = 20_000;

/// The coordinates of an update; with fewer devices, each has one of its own.
const COORDINATES: u32 = 16;

/// What comes back to a device: nothing where the request or its answer is lost.
pub(crate) type Answer = Option<Result<Reply, Rejection>>;

/// A plan without noise, so that a sum can be seen to be exact.
pub(crate) fn plan(cohort: usize, report_goal: usize) -> Plan {
    let mut plan = Plan::example();
    plan.adapter.modules = vec![Module { name: "m".into(), inputs: 3, outputs: COORDINATES }];
    plan.privacy.mode = Mode::Off;
    plan.privacy.clip_norm = 4.0;
    plan.privacy.noise_multiplier = 0.0;
    plan.privacy.participations = 100;
    plan.round = RoundPlan {
        versions: 100,
        cohort: u32::try_from(cohort).unwrap(),
        report_goal: u32::try_from(report_goal).unwrap(),
        join_millis: 20_000,
        step_millis: 20_000,
        grace_millis: 2_000,
    };
    plan.with_recommended_scale().unwrap()
}

/// Limits that a plan of [`plan`] keeps to.
pub(crate) fn policy() -> Policy {
    Policy {
        allow_without_noise: true,
        least_noise_multiplier: 0.0,
        largest_epsilon: f64::INFINITY,
        participations_a_day: 1000,
        smallest_cohort: 3,
        smallest_report_goal: 3,
        ..Policy::default()
    }
}

/// The name of the device in this place of the roster, where all join.
pub(crate) fn id(place: usize) -> DeviceId {
    DeviceId([u8::try_from(place).unwrap() + 1; 16])
}

/// Its identity key: a dishonest device gives it to the hand.
pub(crate) fn identity(place: usize) -> IdentityKey {
    IdentityKey::from_seed(&[u8::try_from(place).unwrap() + 101; 32])
}

/// The enrolment authority's key.
pub(crate) fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[100; 32])
}

/// These places of a roster of `places`.
pub(crate) fn set(places: usize, members: &[u16]) -> IndexSet {
    let mut set = IndexSet::new(places);
    for member in members {
        set.insert(*member).unwrap();
    }
    set
}

/// A generator for what the hand makes.
pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// The same advertisement as another one would be, signed by this identity for this context.
pub(crate) fn signed(mut entry: Advertisement, context: &Context, identity: &IdentityKey) -> Advertisement {
    let digest = context.digest();
    let parts: [&[u8]; 6] = [
        &digest,
        &entry.credential.device,
        &entry.masking_key,
        &entry.sealing_key,
        &entry.key_commitment,
        &entry.self_commitment,
    ];
    entry.signature = identity.sign("advertisement", &parts);
    entry
}

/// What the coordinator has durable, and its machine.
pub(crate) struct Coordinator {
    pub(crate) task: Task,
    pub(crate) record: TaskRecord,
    /// What was made durable, oldest first.
    pub(crate) effects: Vec<TaskEffect>,
    /// What can be fetched; the hand may put other bytes under a hash.
    pub(crate) artefacts: BTreeMap<Digest, Vec<u8>>,
    pub(crate) clock: Timestamp,
    plan_bytes: Vec<u8>,
    rng: ChaCha20Rng,
}

impl Coordinator {
    fn new(plan: &Plan) -> Self {
        let plan_bytes = plan.to_bytes().unwrap();
        let task = Task::new(TASK, &plan_bytes, authority().public()).unwrap();
        let adapter = vector_to_bytes(task.adapter());
        let record = TaskRecord {
            state: TaskState::Active,
            versions: Vec::new(),
            participations: BTreeMap::new(),
            last_round: 0,
            rounds_charged: 0,
            adapter: task.adapter().to_vec(),
            optimizer: OptimizerState::default(),
        };
        let artefacts =
            [plan_bytes.clone(), adapter].into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect();
        Self { task, record, effects: Vec::new(), artefacts, clock: DAWN, plan_bytes, rng: rng(1) }
    }

    /// The machine's answer to what comes in the name of this device.
    pub(crate) fn serve(&mut self, from: usize, request: &Request) -> Result<Reply, Rejection> {
        let bytes = request_to_wire(request).encode_to_vec();
        let request = request_from_wire(wire::Request::decode(bytes.as_slice()).unwrap())?;
        let answer = self.task.handle(id(from), request, self.clock, &mut self.rng);
        self.perform();
        answer
    }

    /// Loses everything that is not durable.
    pub(crate) fn crash(&mut self) {
        self.restore(self.record.clone());
    }

    /// Goes on from this record: from an old one, it is a coordinator that forgets.
    pub(crate) fn restore(&mut self, record: TaskRecord) {
        self.task = Task::restore(TASK, &self.plan_bytes, authority().public(), record.clone()).unwrap();
        self.record = record;
    }

    /// Every set of survivors that was ever fixed for a round, as places.
    pub(crate) fn fixed(&self, of: u64) -> Vec<Vec<usize>> {
        let place = |device: &DeviceId| usize::from(device.0[0]) - 1;
        let of_round = |effect: &TaskEffect| match effect {
            TaskEffect::FixSurvivors { round, survivors } if *round == of => {
                Some(survivors.iter().map(place).collect())
            }
            TaskEffect::FixSurvivors { .. }
            | TaskEffect::Charge { .. }
            | TaskEffect::Commit { .. }
            | TaskEffect::Aborted { .. }
            | TaskEffect::End(_) => None,
        };
        self.effects.iter().filter_map(of_round).collect()
    }

    /// How the rounds ended that gave no version.
    pub(crate) fn aborted(&self) -> Vec<Outcome> {
        let outcome = |effect: &TaskEffect| match effect {
            TaskEffect::Aborted { outcome, .. } => Some(*outcome),
            TaskEffect::FixSurvivors { .. }
            | TaskEffect::Charge { .. }
            | TaskEffect::Commit { .. }
            | TaskEffect::End(_) => None,
        };
        self.effects.iter().filter_map(outcome).collect()
    }

    fn pass_time(&mut self, to: Timestamp) {
        self.clock = self.clock.max(to);
        self.task.handle_timeout(self.clock, &mut self.rng);
        self.perform();
    }

    /// The shell's part.
    fn perform(&mut self) {
        while let Some(effect) = self.task.poll_effect() {
            match &effect {
                TaskEffect::FixSurvivors { round, .. } | TaskEffect::Aborted { round, .. } => {
                    self.record.last_round = self.record.last_round.max(*round);
                }
                TaskEffect::Charge { round, devices } => {
                    self.record.last_round = self.record.last_round.max(*round);
                    self.record.rounds_charged += 1;
                    self.record.participations.extend(devices.iter().copied());
                }
                TaskEffect::Commit { version, adapter, .. } => {
                    self.artefacts.insert(version.adapter, adapter.clone());
                    self.record.adapter = self.task.adapter().to_vec();
                    self.record.optimizer = self.task.optimizer().clone();
                    self.record.versions.push(version.clone());
                }
                TaskEffect::End(state) => self.record.state = *state,
            }
            self.effects.push(effect);
        }
    }
}

/// A request on its way, in the hand between a device and the coordinator.
pub(crate) struct Post<'a> {
    pub(crate) from: usize,
    pub(crate) request: Request,
    pub(crate) coordinator: &'a mut Coordinator,
}

impl Post<'_> {
    /// Hands the request on as it now is.
    pub(crate) fn pass(&mut self) -> Answer {
        Some(self.coordinator.serve(self.from, &self.request))
    }

    /// Whether it is the request of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.request.name() == name
    }
}

/// The answer of a hand that changes nothing.
pub(crate) fn honest(post: &mut Post<'_>) -> Answer {
    post.pass()
}

/// Nothing new: the device asks again.
pub(crate) fn wait() -> Answer {
    Some(Ok(Reply::wait(250)))
}

/// Something that left a device.
struct Left {
    device: usize,
    /// The round's number, as the device was told.
    round: Option<u64>,
    name: &'static str,
    bytes: Vec<u8>,
}

/// One of the two shares that a device holds of another's seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    SelfMask,
    Key,
}

/// What left the devices. It panics the moment a device signs or answers twice in a round, and the moment both kinds
/// of share of one device have left any devices.
#[derive(Default)]
pub(crate) struct Log {
    left: Vec<Left>,
    /// What was revealed of a device, by its commitment for the round.
    revealed: BTreeMap<[u8; 32], Kind>,
}

impl Log {
    fn add(&mut self, device: usize, node: &Node, request: &Request) {
        let bytes = request_to_wire(request).encode_to_vec();
        let (round, name) = (node.round, request.name());
        if matches!(request, Request::Agree { .. } | Request::Unmask { .. }) {
            let other = |left: &&Left| (left.device, left.round, left.name) == (device, round, name);
            for earlier in self.left.iter().filter(other) {
                assert!(earlier.bytes == bytes, "device {device} sent two `{name}` in round {round:?}");
            }
        }
        if let Request::Unmask { shares, .. } = request {
            for (owner, kind) in owners(shares) {
                let seed = node.roster[usize::from(owner)].key_commitment;
                let earlier = *self.revealed.entry(seed).or_insert(kind);
                assert_eq!(earlier, kind, "both kinds of share of place {owner} have left, in {round:?}");
            }
        }
        self.left.push(Left { device, round, name, bytes });
    }

    /// How many different requests of this name left a device.
    pub(crate) fn left(&self, device: usize, name: &str) -> usize {
        let mut bytes: Vec<&[u8]> = self
            .left
            .iter()
            .filter(|left| left.device == device && left.name == name)
            .map(|left| left.bytes.as_slice())
            .collect();
        bytes.sort_unstable();
        bytes.dedup();
        bytes.len()
    }

    /// Whether some device revealed its share of the own mask of the device with this commitment.
    pub(crate) fn opens(&self, entry: &Advertisement) -> bool {
        self.revealed.get(&entry.key_commitment) == Some(&Kind::SelfMask)
    }
}

fn owners(shares: &UnmaskShares) -> impl Iterator<Item = (u16, Kind)> {
    let alive = shares.self_mask.iter().map(|(owner, _)| (*owner, Kind::SelfMask));
    alive.chain(shares.key.iter().map(|(owner, _)| (*owner, Kind::Key)))
}

/// One device, and what is durable of it.
pub(crate) struct Node {
    device: Arc<Device>,
    session: Option<Session>,
    rng: ChaCha20Rng,
    charges: Vec<(Timestamp, Charge)>,
    installed: Option<Published>,
    /// Its ledger and its state on a disk, where a test needs them.
    memory: Option<(tempfile::TempDir, Memory)>,
    /// Why its attempts ended, newest last.
    pub(crate) ended: Vec<Ended>,
    /// Its shell gave up.
    pub(crate) stopped: Option<MemoryError>,
    /// The last roster that it was given.
    pub(crate) roster: Vec<Advertisement>,
    round: Option<u64>,
    /// It has made its attempt in this run.
    rests: bool,
}

impl Node {
    fn tell(&mut self, event: Event, now: Timestamp, installed: Option<Published>) {
        let Some(session) = self.session.take() else { return };
        let before = session.state();
        let mut session = session.handle(event, now, &mut self.rng);
        self.installed = installed.or(self.installed);
        let ended = session.take_ended();
        // One attempt in a run: a refusal, an end of the round, or a version.
        self.rests |= ended.is_some() || (before != "waiting" && session.state() == "waiting");
        self.ended.extend(ended);
        self.session = Some(session);
    }

    fn open_memory(&mut self, folder: tempfile::TempDir) {
        let memory = Memory::open(folder.path()).unwrap();
        self.memory = Some((folder, memory));
    }

    /// Starts its machine again from what is durable.
    fn restart(&mut self, now: Timestamp) {
        if let Some((folder, memory)) = self.memory.take() {
            drop(memory);
            self.open_memory(folder);
        }
        let mut spending = Spending::new();
        for (at, charge) in &self.charges {
            spending.add(charge, *at);
        }
        self.session = Some(Session::new(Arc::clone(&self.device), spending, self.installed, now));
    }

    fn action(&self) -> Option<Action> {
        self.session.as_ref().filter(|_| !self.rests).map(Session::action)
    }
}

/// A federation.
pub(crate) struct World {
    pub(crate) coordinator: Coordinator,
    pub(crate) nodes: Vec<Node>,
    pub(crate) log: Log,
    /// The adapter before the last run.
    before: Vec<f32>,
}

impl World {
    /// `devices` devices that may take part, and a coordinator.
    pub(crate) fn new(plan: &Plan, devices: usize) -> Self {
        Self::with_policy(plan, devices, &policy())
    }

    /// As [`World::new`], with limits of the devices' own.
    pub(crate) fn with_policy(plan: &Plan, devices: usize, policy: &Policy) -> Self {
        let coordinator = Coordinator::new(plan);
        let node = |place: usize| {
            let (identity, authority) = (identity(place), authority());
            let credential = Credential::issue(&authority, id(place).0, identity.public(), u64::MAX);
            let device = Arc::new(Device {
                device: id(place),
                identity,
                credential,
                authority: authority.public(),
                base: plan.base,
                policy: policy.clone(),
            });
            let mut node = Node {
                session: None,
                device,
                rng: rng(1000 + place as u64),
                charges: Vec::new(),
                installed: None,
                memory: None,
                ended: Vec::new(),
                stopped: None,
                roster: Vec::new(),
                round: None,
                rests: false,
            };
            node.restart(DAWN);
            node
        };
        let nodes = (0..devices).map(node).collect();
        let before = coordinator.task.adapter().to_vec();
        Self { coordinator, nodes, log: Log::default(), before }
    }

    /// Gives every device a ledger on a disk.
    pub(crate) fn on_disk(mut self) -> Self {
        for node in &mut self.nodes {
            node.open_memory(tempfile::tempdir().unwrap());
        }
        self
    }

    /// Lets every device make one attempt to take part in a round, with this hand between them and the coordinator.
    pub(crate) fn run(&mut self, mut hand: impl FnMut(&mut Post<'_>) -> Answer) {
        self.before = self.coordinator.task.adapter().to_vec();
        for node in &mut self.nodes {
            node.rests = node.stopped.is_some();
        }
        let end = self.coordinator.clock.plus_millis(PATIENCE_MILLIS);
        for _ in 0..MOST_SWEEPS {
            let mut acted = false;
            for place in 0..self.nodes.len() {
                acted |= self.act(place, &mut hand);
            }
            if acted {
                continue;
            }
            match self.due() {
                Some(due) if due <= end => self.coordinator.pass_time(due),
                Some(_) | None => return,
            }
        }
        panic!("the run does not come to an end");
    }

    /// Starts a device's machine again; what was not durable is lost.
    pub(crate) fn restart(&mut self, place: usize) {
        self.nodes[place].restart(self.coordinator.clock);
    }

    /// Why a device's last attempt ended.
    pub(crate) fn ended(&self, place: usize) -> &Ended {
        self.nodes[place].ended.last().unwrap_or_else(|| panic!("device {place} did not end"))
    }

    /// The refusal that a device's last attempt ended with.
    pub(crate) fn refusal(&self, place: usize) -> Refusal {
        match self.ended(place) {
            Ended::Refused(refusal) => *refusal,
            other => panic!("device {place} ended otherwise: {other:?}"),
        }
    }

    /// Panics unless no share of a seed ever left any of these devices in an answer.
    pub(crate) fn assert_silent(&self, places: impl IntoIterator<Item = usize>) {
        for place in places {
            assert_eq!(self.log.left(place, "unmask"), 0, "device {place} revealed its shares");
        }
    }

    /// Panics unless the last run published the mean of exactly these devices' updates.
    pub(crate) fn assert_sum_of(&self, places: &[usize]) {
        let adapter = self.coordinator.task.adapter();
        let last = self.coordinator.record.versions.last().expect("a version");
        assert_eq!(last.survivors as usize, places.len());
        for (i, (after, before)) in adapter.iter().zip(&self.before).enumerate() {
            let expected = if places.contains(&i) { 1.0 / places.len() as f64 } else { 0.0 };
            let found = f64::from(after - before);
            assert!((found - expected).abs() < 1e-3, "coordinate {i}: {found} is not {expected}");
        }
    }

    /// Panics unless nothing was ever published.
    pub(crate) fn assert_nothing_published(&self) {
        assert!(self.coordinator.record.versions.is_empty(), "{:?}", self.coordinator.record.versions);
    }

    fn due(&self) -> Option<Timestamp> {
        let sleeping = |node: &Node| match node.action() {
            Some(Action::Sleep(until)) => Some(until),
            Some(_) | None => None,
        };
        self.nodes.iter().filter_map(sleeping).chain(self.coordinator.task.poll_timeout()).min()
    }

    /// Lets a device do one thing. Returns whether there was one to do.
    fn act(&mut self, place: usize, hand: &mut impl FnMut(&mut Post<'_>) -> Answer) -> bool {
        let now = self.coordinator.clock;
        let node = &mut self.nodes[place];
        let Some(action) = node.action() else { return false };
        let (event, installed) = match action {
            Action::Sleep(until) if until > now => return false,
            Action::Sleep(_) => (Event::Woke, None),
            Action::Send(request) => {
                self.log.add(place, node, &request);
                let mut post = Post { from: place, request, coordinator: &mut self.coordinator };
                (deliver(node, hand(&mut post)), None)
            }
            Action::Load(published) => {
                let get = |digest: &Digest| self.coordinator.artefacts.get(digest).cloned();
                let (plan, adapter) = (get(&published.plan).unwrap(), get(&published.adapter).unwrap());
                (Event::Loaded { plan, adapter, frozen: None }, None)
            }
            Action::Install(work) => (Event::Recorded, Some(work.published)),
            Action::Train(work) => (Event::Trained(known_update(place, &work)), None),
            Action::Charge(charge) => {
                if let Some((_, memory)) = &mut node.memory {
                    memory.charge(charge.clone(), now.0).unwrap();
                }
                node.charges.push((now, charge));
                (Event::Recorded, None)
            }
            Action::RecordSignature(signed) => {
                if let Some((_, memory)) = &mut node.memory
                    && let Err(error) = memory.sign(signed)
                {
                    node.stopped = Some(error);
                    node.rests = true;
                    return true;
                }
                (Event::Recorded, None)
            }
        };
        node.tell(event, now, installed);
        true
    }
}

/// What a device makes of an answer that comes as bytes.
fn deliver(node: &mut Node, answer: Answer) -> Event {
    match answer {
        None => Event::Unreachable,
        Some(Ok(reply)) => {
            let bytes = reply_to_wire(reply).encode_to_vec();
            let reply = reply_from_wire(wire::Reply::decode(bytes.as_slice()).unwrap()).unwrap();
            if let Reply::Offer { round, .. } = &reply {
                node.round = Some(*round);
            }
            if let Reply::Roster(entries) = &reply {
                node.roster.clone_from(entries);
            }
            Event::Replied(reply)
        }
        Some(Err(rejection)) => {
            Event::Rejected(rejection_from_bytes(&rejection_to_bytes(&rejection)).unwrap())
        }
    }
}

/// A device's update: a one in its own coordinate.
fn known_update(place: usize, work: &Work) -> Update {
    let mut after = work.adapter.clone();
    after[place] += 1.0;
    Update::between(&work.adapter, &after, 1.0, 1).unwrap()
}

/// What a coordinator keeps that answers the devices by itself.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) entries: BTreeMap<usize, Advertisement>,
    pub(crate) signatures: BTreeMap<usize, Signature>,
}

impl Gathered {
    /// Keeps what a request tells.
    pub(crate) fn keep(&mut self, post: &Post<'_>) {
        match &post.request {
            Request::Advertise { advertisement, .. } => {
                self.entries.insert(post.from, (**advertisement).clone());
            }
            Request::Agree { signature, .. } => {
                self.signatures.insert(post.from, *signature);
            }
            Request::CheckIn
            | Request::Fetch { .. }
            | Request::Join { .. }
            | Request::Decline { .. }
            | Request::ShareKeys { .. }
            | Request::MaskedChunk { .. }
            | Request::MaskedDone { .. }
            | Request::Unmask { .. } => {}
        }
    }

    /// The advertisements in roster order.
    pub(crate) fn roster(&self) -> Vec<Advertisement> {
        self.entries.values().cloned().collect()
    }

    /// The signatures of these devices.
    pub(crate) fn quorum(&self, of: &[usize]) -> Reply {
        let signature = |place: &usize| (u16::try_from(*place).unwrap(), self.signatures[place]);
        Reply::Quorum(of.iter().map(signature).collect())
    }
}

/// The context of a round of this plan at this version.
pub(crate) fn context(plan: &Plan, published: &Published, session: SessionId, round: u64) -> Context {
    let mechanism = plan.mechanism().unwrap();
    Context {
        session: session.0,
        task: TASK.0,
        round,
        model_hash: model_digest(plan, published).0,
        plan_hash: published.plan.0,
        len: mechanism.contribution_len(),
        ring_bits: mechanism.ring_bits(),
        report_goal: plan.round.report_goal as usize,
        corrupt_fraction_permille: plan.privacy.corrupt_permille,
    }
}
