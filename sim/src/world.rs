//! A virtual world: the production machines of both sides, virtual time, the production wire code, and faults.
//!
//! A coordinator and its devices live in one process, on one virtual clock. The world is a queue of events
//! (`world/agenda.rs`): a device that sleeps, trains, is away or waits for others costs nothing until its turn, and a night
//! passes in no time. Every message is encoded to protobuf bytes and decoded on the other side. What a device can only wait
//! for is held as the server holds it (`world/wire.rs`), and answered by the event that changes it. Everything that is random
//! follows from one seed, on one thread as on many: a failure comes back by its seed.
//!
//! # What can go wrong in it
//!
//! Each kind of failure is made at a seam. A seam that nobody sets does nothing.
//!
//! | seam | what it makes |
//! | --- | --- |
//! | [`Network`] | requests and answers that are lost, late or there twice; copies that arrive behind later requests, or instead of a lost one; and whoever sits on it and changes what passes: to devices a coordinator that shows each something else, to the coordinator a device that says two things |
//! | [`Disk`] | a machine that dies before a write is durable, or after that and before it says so; a disk that is full for a while; a disk that lies |
//! | [`Clock`] | clocks that are set ahead or back, of devices and of the coordinator, while they wait for something |
//! | [`Habits`] | devices that come and go, and how long they train |
//! | [`Faults`] | devices that vanish in a state of one's choice or while they train, and a coordinator that crashes after an answer |
//!
//! What dies starts again from what is durable of it and from nothing else. A device has its ledger, what it signed, the version
//! that it holds, and what it saw of the enrollment log; a coordinator has what it wrote in one transaction before it answered.
//! An [`Observer`] sees all that leaves a device, all that reaches one and all that becomes durable, with the world as it is at
//! that moment: what must never happen is looked for there, and so are attacks. What is counted of it all is counted in one place
//! (`world/seen.rs`).
//!
//! # What it cannot show
//!
//! - **The shells.** There is no socket, no TLS, no database and no thread here. How a shell makes things durable and in which
//!   order is written a second time, in `world/coordinator.rs` and `world/node.rs`, after `coordinator/src/driver` and
//!   `client/src/device`; whether those do it is shown by processes that are killed (`tests/tests/kill.rs`, `tests/tests/year.rs`).
//! - **Half a write.** What is written together is durable together or not at all. That a torn record is noticed is
//!   the store's matter (`proto/shell`).
//! - **Work that overlaps.** A coordinator does one thing at a time and opens a sum where it stands; the server opens it beside
//!   other work. A device's answer to what it hears takes no time of its own, but for training.
//! - **Chance that was not drawn.** A run shows that nothing happened by the seeds that were played. That nothing can happen in
//!   small rounds, whatever is lost and said, is the model checker's matter (`aggregation/tests/model.rs`).
//! - **Cryptography.** Whoever sits on the network changes, repeats and withholds what it has seen; it breaks no cipher.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aggregation::IdentityKey;
use proto::adapter::{AdapterError, State};
use proto::admin::TaskStatus;
use proto::ids::{DeviceId, Digest, TaskId, Timestamp};
use proto::plan::{Plan, vector_from_bytes, vector_to_bytes};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use session::Work;
use session::policy::Policy;
use session::update::Update;
use task::held::{Awaits, Phases};
use task::{RollBackError, Spending, Task, TaskEffect, TaskError, TaskRecord};

use crate::faults::Faults;

mod agenda;
mod clock;
mod coordinator;
mod copies;
mod disk;
mod enrolling;
mod error;
mod habits;
mod instant;
mod network;
mod node;
mod observer;
mod seen;
mod stages;
mod time;
mod wire;

use agenda::Agenda;
pub use clock::Clock;
use clock::Right;
use coordinator::Header;
use copies::Copies;
use disk::Sound;
pub use disk::{Disk, Fate, Record};
use enrolling::Authority;
pub use error::WorldError;
use habits::AlwaysThere;
pub use habits::{Habits, Stay};
pub use network::{Carriage, Leg, Network};
use node::Common;
pub use node::{Node, Traffic};
pub use observer::Observer;
use seen::Tally;
pub use seen::{Counts, Seen};
pub use stages::Funnel;
use wire::News;

/// Virtual time at which the world begins; credentials are valid then.
const DAWN: Timestamp = Timestamp(1_700_000_000_000);

/// Virtual hours after which a world that does not come to an end is stuck.
const LONGEST_MILLIS: u64 = 1000 * 3_600_000;

/// Trains the given devices, each from its work; one result for each, in order.
pub trait Trainer {
    /// Trains.
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>>;

    /// Whether it was told to stop: then the world does not go on.
    fn stops(&self) -> bool {
        false
    }
}

/// One of those who take part in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// The coordinator.
    Coordinator,
    /// The device at this place.
    Device(usize),
}

/// A coordinator, its devices, and what is durable of them.
#[derive(Debug)]
pub struct World {
    task: Task,
    plan_bytes: Vec<u8>,
    artifacts: BTreeMap<Digest, Vec<u8>>,
    given: Option<Vec<f32>>,
    record: TaskRecord,
    /// The coordinator's randomness: what it draws does not depend on the order of events.
    task_rng: ChaCha20Rng,
    /// Who is enrolled, and for what it was counted last who may still take part.
    enrolled: Vec<DeviceId>,
    counted: Option<Spending>,
    /// What the coordinator's machine has decided and its disk has not taken yet, and how often it wrote.
    unsaved: Vec<TaskEffect>,
    /// As it was last made durable.
    header: Header,
    writes: u32,
    /// Until when its disk is full.
    full_until: Timestamp,
    /// It died and has not started again.
    is_dead: bool,
    /// Until when the coordinator is not there.
    back_at: Timestamp,
    /// What questions wait for, as it is now, and whose questions are held for it.
    phases: Phases,
    held: BTreeMap<Awaits, BTreeSet<usize>>,
    /// The devices.
    pub nodes: Vec<Node>,
    common: Common,
    places: BTreeMap<DeviceId, usize>,
    /// Devices that did not hear yet that the task is over, or do not hold its last version.
    unfinished: usize,
    /// Devices that went away by a fault.
    gone: BTreeSet<usize>,
    /// What devices are to hear, and when; each at most one thing.
    news: Vec<(usize, Timestamp, News)>,
    /// Devices whose training is at its end.
    trained: Vec<(usize, Arc<Work>)>,
    agenda: Agenda,
    /// The world's own randomness: orders, faults, times.
    rng: ChaCha20Rng,
    faults: Faults,
    network: Box<dyn Network>,
    copies: Copies,
    disk: Box<dyn Disk>,
    clock: Box<dyn Clock>,
    observer: Option<Box<dyn Observer>>,
    habits: Box<dyn Habits>,
    /// The longest time between two versions, where somebody limits it.
    patience_millis: Option<u64>,
    traffic_before: Vec<Traffic>,
    tally: Tally,
    fixed: BTreeMap<u64, Vec<DeviceId>>,
    /// The rounds whose sums are in the version that is being made, and those of each version.
    gathering: Vec<u64>,
    rounds: Vec<Vec<u64>>,
    coordinator_crashes: u32,
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
        let policies = std::iter::repeat_n(Arc::new(policy.clone()), devices);
        Self::of(plan, given, policies, faults, seed)
    }

    /// The same, of as many devices as there are policies, each with its own limits.
    pub fn with_policies(
        plan: &Plan,
        given: Option<&[f32]>,
        policies: &[Policy],
        faults: Faults,
        seed: [u8; 32],
    ) -> Result<Self, WorldError> {
        Self::of(plan, given, policies.iter().cloned().map(Arc::new), faults, seed)
    }

    fn of(
        plan: &Plan,
        given: Option<&[f32]>,
        policies: impl Iterator<Item = Arc<Policy>>,
        mut faults: Faults,
        seed: [u8; 32],
    ) -> Result<Self, WorldError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let plan_bytes = plan.to_bytes().map_err(TaskError::from)?;
        let key = IdentityKey::from_seed(&draw(&mut rng));
        let public = key.public();
        let task = Task::new(TaskId(draw(&mut rng)), &plan_bytes, given.map(<[f32]>::to_vec), public)?;
        let record = task.record().clone();
        let mut artifacts = BTreeMap::new();
        for bytes in
            [Some(plan_bytes.clone()), Some(vector_to_bytes(task.adapter())), given.map(vector_to_bytes)]
                .into_iter()
                .flatten()
        {
            artifacts.insert(Digest::of(&bytes), bytes);
        }
        let mut nodes: Vec<Node> = policies
            .zip(0..)
            .map(|(policy, place)| {
                Node::new((place, DeviceId(draw(&mut rng))), draw(&mut rng), draw(&mut rng), policy)
            })
            .collect();
        for vanish in std::mem::take(&mut faults.vanish) {
            if let Some(node) = nodes.get_mut(vanish.device) {
                node.vanish.push(vanish);
            }
        }
        let enrolled: Vec<DeviceId> = nodes.iter().map(|node| node.id).collect();
        let expires = DAWN.as_secs() + LONGEST_MILLIS / 1000;
        let devices = nodes.iter().map(|node| (node.id, node.identity()));
        let authority = Authority::of(key, devices, (DAWN, expires));
        let mut world = Self {
            phases: Phases::of(&task),
            task: authority.of_task(task),
            plan_bytes,
            artifacts,
            given: given.map(<[f32]>::to_vec),
            header: Header::of(&record),
            record,
            task_rng: ChaCha20Rng::from_seed(draw(&mut rng)),
            places: enrolled.iter().copied().zip(0..).collect(),
            enrolled,
            counted: None,
            unsaved: Vec::new(),
            writes: 0,
            full_until: DAWN,
            is_dead: false,
            back_at: DAWN,
            held: BTreeMap::new(),
            unfinished: nodes.len(),
            traffic_before: vec![Traffic::default(); nodes.len()],
            common: Common { authority, base: plan.base },
            gone: BTreeSet::new(),
            news: Vec::new(),
            trained: Vec::new(),
            agenda: Agenda::new(DAWN),
            rng,
            network: Box::new(faults.clone()),
            copies: Copies::default(),
            disk: Box::new(Sound),
            clock: Box::new(Right),
            observer: None,
            faults,
            habits: Box::new(AlwaysThere::default()),
            patience_millis: None,
            tally: Tally::default(),
            nodes,
            fixed: BTreeMap::new(),
            gathering: Vec::new(),
            rounds: Vec::new(),
            coordinator_crashes: 0,
        };
        (0..world.nodes.len()).for_each(|index| world.enter(index, DAWN));
        Ok(world)
    }

    /// Shows the world to whoever watches it.
    fn watch(&mut self, show: impl FnOnce(&mut dyn Observer, &Self)) {
        if let Some(mut observer) = self.observer.take() {
            show(observer.as_mut(), self);
            self.observer = Some(observer);
        }
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
        &self.tally.seen
    }

    /// The coordinator's machine.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        Counts { millis: self.millis(), ..self.tally.counts }
    }

    /// Places in [`World::nodes`] of the devices whose inputs are in a round's sum.
    pub fn survivors(&self, round: u64) -> Vec<usize> {
        let survivors = self.fixed.get(&round).map_or(&[][..], Vec::as_slice);
        survivors.iter().filter_map(|id| self.places.get(id).copied()).collect()
    }

    /// Where in [`World::nodes`] this device is.
    pub fn place(&self, device: &DeviceId) -> Option<usize> {
        self.places.get(device).copied()
    }

    /// The rounds of the newest version, in the order of their sums.
    pub fn rounds(&self) -> &[u64] {
        self.rounds.last().map_or(&[], Vec::as_slice)
    }

    /// How often the coordinator says that the device at this place took part.
    pub fn participations(&self, index: usize) -> u32 {
        self.record.participations.get(&self.nodes[index].id).copied().unwrap_or(0)
    }

    /// Ends the task before its last version, as an operator may; what was published stays, and the devices fetch it.
    pub fn stop(&mut self) {
        self.task.finish(self.coordinator_now(), &mut self.task_rng);
        self.perform_effects();
    }

    /// How often the coordinator crashed.
    pub fn coordinator_crashes(&self) -> u32 {
        self.coordinator_crashes
    }

    /// Lets the world run until the next version is published, or until the task is over and every device that
    /// is there holds its last version, or until the trainer was told to stop. Returns whether there is more to come.
    pub fn run_to_next_version(&mut self, trainer: &mut impl Trainer) -> Result<bool, WorldError> {
        self.rise()?;
        let before = self.task.version();
        loop {
            if self.task.version() > before {
                return Ok(true);
            }
            if trainer.stops() {
                return Ok(false);
            }
            // Nobody lets it go on here.
            let is_over = !self.task.is_active() && self.unfinished == 0;
            if is_over || self.task.is_paused() {
                return Ok(false);
            }
            self.run_one_step(trainer)?;
        }
    }

    /// What happens next: all that is due now, or else time passes until something is.
    pub fn run_one_step(&mut self, trainer: &mut impl Trainer) -> Result<(), WorldError> {
        if !self.act(trainer)? {
            self.pass_time()?;
        }
        self.rise()
    }

    /// Lets a task go on that paused itself, as its operator would. Returns whether it had.
    pub fn resume(&mut self) -> bool {
        let was = self.task.resume();
        self.record.state = self.task.record().state;
        self.notice();
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
        self.task.roll_back((version, adapter, folded), self.coordinator_now(), &mut self.task_rng)?;
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

    /// The version that the device at this place holds.
    pub fn holds(&self, index: usize) -> Option<u32> {
        self.nodes[index].installed().map(|(published, _)| published.version)
    }

    /// Devices that hold the newest version.
    pub fn up_to_date(&self) -> usize {
        let newest = self.task.published();
        let held = Some((newest, Digest::of(&vector_to_bytes(self.task.adapter()))));
        self.nodes.iter().filter(|node| node.installed() == held).count()
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
