//! Real devices and a real coordinator in virtual time, with a hand between them that can change one thing.
//!
//! Everything that passes is encoded and decoded. Whatever leaves a device is kept before the hand sees it, and must
//! not give away more than one sum of a round whatever the hand does: see [`Log`].

use std::sync::Arc;

use aggregation::log::Seen;
use aggregation::{Advertisement, Credential, Refusal};
use client::store::DeviceStore;
use prost::Message;
use proto::convert::{rejection_from_bytes, rejection_to_bytes, reply_from_wire, reply_to_wire};
use proto::ids::Timestamp;
use proto::message::{Published, Reply};
use proto::plan::Plan;
use proto::wire;
use rand_chacha::ChaCha20Rng;
use session::policy::Policy;
use session::spending::{Charge, Found, Spending};
use session::update::Update;
use session::{Action, Device, Ended, Event, Session, SessionState, Work};

use super::hand::{Answer, Coordinator, DAWN, Post};
use super::log::Log;
use super::setting::{authority, id, identity, policy, rng};

/// How long a run goes on in virtual time, whoever still waits then.
const PATIENCE_MILLIS: u64 = 600_000;

/// No run takes so many steps, unless two sides answer each other for ever.
const MOST_SWEEPS: usize = 20_000;

/// One device, and what is durable of it.
pub(crate) struct Node {
    device: Arc<Device>,
    session: Option<Session>,
    rng: ChaCha20Rng,
    charges: Vec<(Timestamp, Charge)>,
    /// What its ledger holds by the coordinator's word.
    pub(crate) found: Vec<(Timestamp, Found)>,
    /// When it took part in drawing a graph, as its disk knows.
    pub(crate) drawn: Vec<Timestamp>,
    pub(crate) log_seen: Option<Seen>,
    installed: Option<Published>,
    /// Its ledger and its state on a disk, where a test needs them.
    memory: Option<(tempfile::TempDir, DeviceStore)>,
    /// Why its attempts ended, newest last.
    pub(crate) ended: Vec<Ended>,
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
        self.rests |=
            ended.is_some() || (before != SessionState::Waiting && session.state() == SessionState::Waiting);
        self.ended.extend(ended);
        self.session = Some(session);
    }

    fn open_memory(&mut self, folder: tempfile::TempDir) {
        let memory = DeviceStore::open(folder.path()).unwrap();
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
        for (at, found) in &self.found {
            spending.add_found(found, *at);
        }
        let session = Session::new(Arc::clone(&self.device), spending, self.installed, now);
        let signed = self.memory.iter().flat_map(|(_, memory)| memory.signed());
        self.session =
            Some(session.having_signed(signed).having_drawn(self.drawn.clone()).having_seen(self.log_seen));
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
        Self::with_credentials(plan, devices, policy, |place| {
            Credential::issue(&authority(), id(place).0, identity(place).public(), u64::MAX)
        })
    }

    /// The same, with devices that are enrolled as this says.
    pub(crate) fn with_credentials(
        plan: &Plan,
        devices: usize,
        policy: &Policy,
        credential: impl Fn(usize) -> Credential,
    ) -> Self {
        let coordinator = Coordinator::new(plan);
        let node = |place: usize| {
            let (identity, authority, credential) = (identity(place), authority(), credential(place));
            let device = Arc::new(Device {
                device: id(place),
                identity,
                credential,
                authority: authority.public(),
                bases: vec![plan.base],
                policy: policy.clone(),
            });
            let mut node = Node {
                session: None,
                device,
                rng: rng(1000 + place as u64),
                charges: Vec::new(),
                found: Vec::new(),
                drawn: Vec::new(),
                log_seen: None,
                installed: None,
                memory: None,
                ended: Vec::new(),
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
            node.rests = false;
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
        let ended = self.ended(place);
        let Ended::Refused(refusal) = ended else { panic!("device {place} ended otherwise: {ended:?}") };
        *refusal
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
                self.log.add(place, node.round, &node.roster, &request);
                let mut post = Post { from: place, request, coordinator: &mut self.coordinator };
                (deliver(node, hand(&mut post)), None)
            }
            Action::Renew { .. } => (Event::Unreachable, None),
            Action::LoadPlan(published) => {
                let plan = self.coordinator.artifacts.get(&published.plan).cloned();
                (Event::PlanLoaded(plan.unwrap()), None)
            }
            Action::Load { published, .. } => {
                let adapter = self.coordinator.artifacts.get(&published.adapter).cloned().unwrap();
                (Event::Loaded { adapter, frozen: None, folded: None, before: None }, None)
            }
            Action::RecordFound(found) => {
                if let Some((_, memory)) = &mut node.memory {
                    memory.charge_found(found.clone(), now.0).unwrap();
                }
                node.found.push((now, found));
                (Event::Recorded, None)
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
            Action::RecordDraws(times) => {
                node.drawn = times;
                (Event::Recorded, None)
            }
            Action::RecordLog(seen) => {
                node.log_seen = Some(seen);
                (Event::Recorded, None)
            }
            Action::RecordSignature(signed) => {
                if let Some((_, memory)) = &mut node.memory {
                    memory.sign(signed).unwrap();
                }
                (Event::Recorded, None)
            }
            Action::RecordAnswer(answered) => {
                if let Some((_, memory)) = &mut node.memory {
                    memory.answer(answered).unwrap();
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
            if let Reply::Roster { entries, .. } = &reply {
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
