//! A task and a few devices, moved one operation at a time by the bytes of an input.
//!
//! Both machines are the production ones. Between them lie the production wire, which an input may change, and
//! the books, which hold both sides to their invariants.

use std::collections::BTreeMap;

use aggregation::{IdentityKey, IdentityPublic};
use prost::Message;
use proto::admin::{PrivacySpent, TaskStatus};
use proto::convert::{reply_from_wire, reply_to_wire, request_from_wire, request_to_wire};
use proto::ids::{DeviceId, Digest, SessionId, TaskId, Timestamp};
use proto::message::{Rejection, Reply, Request};
use proto::plan::{Mode, Plan, RoundPlan, vector_to_bytes};
use proto::wire;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use session::update::Update;
use session::{Action, Event, Signed};
use task::{Task, TaskEffect, TaskRecord};

use super::node::{Node, update};
use crate::books::TaskBook;

/// When a world begins.
const DAWN: Timestamp = Timestamp(1_700_000_000_000);

/// When a world has no more to come.
const DUSK: Timestamp = Timestamp(DAWN.0 + 1000 * 3_600_000);

/// Actions of devices after which an input has had its time.
const FUEL: u32 = 400;

/// What happens to one request of a device and to its answer.
pub(super) enum Carriage<'a> {
    /// Both arrive.
    Whole,
    /// The request is lost.
    RequestLost,
    /// The answer is lost.
    ReplyLost,
    /// The coordinator dies before it has made anything durable.
    Crash,
    /// The answer is another one.
    Changed(&'a dyn Fn(&mut Vec<u8>)),
}

/// A task and a few devices.
pub(super) struct World {
    task: Task,
    /// As it was last made durable.
    durable: TaskRecord,
    plan: Plan,
    plan_bytes: Vec<u8>,
    authority: IdentityPublic,
    artifacts: BTreeMap<Digest, Vec<u8>>,
    nodes: Vec<Node>,
    book: TaskBook,
    /// All that was sent, by whom, and all that was answered.
    requests: Vec<(usize, Vec<u8>)>,
    replies: Vec<Vec<u8>>,
    now: Timestamp,
    rng: ChaCha20Rng,
    fuel: u32,
}

impl World {
    /// A world in which nothing has happened; `shape` says how many devices it has and how many a round wants.
    pub(super) fn new(shape: u8) -> Self {
        let devices = 3 + shape % 3;
        let plan = plan(devices, shape / 3 % 2, 1 + shape / 6 % 2);
        let plan_bytes = plan.to_bytes().unwrap();
        let key = IdentityKey::from_seed(&[0xfe; 32]);
        let task = Task::new(TaskId([0xaa; 16]), &plan_bytes, None, key.public()).unwrap();
        let artifacts = [plan_bytes.clone(), vector_to_bytes(task.adapter())];
        Self {
            durable: task.record().clone(),
            artifacts: artifacts.into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect(),
            nodes: (0..devices).map(|index| Node::new(index, &plan, &key, (DAWN, DUSK))).collect(),
            authority: key.public(),
            task,
            plan,
            plan_bytes,
            book: TaskBook::default(),
            requests: Vec::new(),
            replies: Vec::new(),
            now: DAWN,
            rng: ChaCha20Rng::from_seed([0xbb; 32]),
            fuel: FUEL,
        }
    }

    /// Whether the input still has time.
    pub(super) fn goes_on(&self) -> bool {
        self.fuel > 0
    }

    pub(super) fn devices(&self) -> usize {
        self.nodes.len()
    }

    /// Requests sent so far.
    pub(super) fn requests(&self) -> &[(usize, Vec<u8>)] {
        &self.requests
    }

    /// Replies so far.
    pub(super) fn replies(&self) -> &[Vec<u8>] {
        &self.replies
    }

    pub(super) fn plan_bytes(&self) -> &[u8] {
        &self.plan_bytes
    }

    pub(super) fn status(&self) -> TaskStatus {
        self.task.status()
    }

    pub(super) fn spent(&self) -> PrivacySpent {
        self.task.spent()
    }

    pub(super) fn adapter(&self) -> &[f32] {
        self.task.adapter()
    }

    /// What a device would send now.
    pub(super) fn request_of(&self, index: usize) -> Option<Request> {
        if let Action::Send(request) = self.nodes.get(index)?.session.action() { Some(request) } else { None }
    }

    /// The session that a device is in, or the last one that anybody was in.
    pub(super) fn session(&self) -> Option<SessionId> {
        let sessions = (0..self.nodes.len()).filter_map(|index| self.request_of(index)?.session());
        sessions.last()
    }

    /// Lets every device act `rounds` times; time passes when none can.
    pub(super) fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let mut acted = false;
            for index in 0..self.nodes.len() {
                acted |= self.step(index, &Carriage::Whole);
            }
            if !acted {
                self.wait_until_due();
            }
        }
    }

    /// Moves the clock to the next thing that is due, or by a minute.
    pub(super) fn wait_until_due(&mut self) {
        let sleeping = self.nodes.iter().filter_map(|node| {
            if let Action::Sleep(until) = node.session.action() { Some(until) } else { None }
        });
        let later = |due: &Timestamp| *due > self.now && *due < DUSK;
        let due = sleeping.chain(self.task.poll_timeout()).filter(later).min();
        self.pass(due.map_or(60_000, |due| due.millis_since(self.now)));
    }

    /// Moves the clock.
    pub(super) fn pass(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis).min(DUSK);
        self.task.handle_timeout(self.now, &mut self.rng);
        self.persist();
    }

    /// Lets one device do what it would do now. Returns whether it could.
    pub(super) fn step(&mut self, index: usize, carriage: &Carriage<'_>) -> bool {
        if self.fuel == 0 {
            return false;
        }
        let action = self.nodes[index].session.action();
        if matches!(action, Action::Sleep(until) if until > self.now) {
            return false;
        }
        self.fuel -= 1;
        match action {
            Action::Sleep(_) => self.tell(index, Event::Woke),
            Action::Send(request) => self.send(index, request, carriage),
            Action::Renew { .. } => self.tell(index, Event::Unreachable),
            Action::LoadPlan(published) => {
                let plan = self.artifacts.get(&published.plan).cloned();
                let unknown = Event::Rejected(Rejection::UnknownArtifact);
                self.tell(index, plan.map_or(unknown, Event::PlanLoaded));
            }
            Action::Load { published, .. } => {
                let event = match self.artifacts.get(&published.adapter).cloned() {
                    Some(adapter) => Event::Loaded { adapter, frozen: None, folded: None, before: None },
                    None => Event::Rejected(Rejection::UnknownArtifact),
                };
                self.tell(index, event);
            }
            Action::RecordFound(found) => {
                self.nodes[index].found.push((self.now, found));
                self.tell(index, Event::Recorded);
            }
            Action::Install(work) => {
                self.nodes[index].installed = Some(work);
                self.tell(index, Event::Recorded);
            }
            Action::Train(work) => {
                let update = update(index, work.published.version, work.adapter.len());
                let after: Vec<f32> = work.adapter.iter().zip(&update).map(|(x, y)| x + y).collect();
                let update = Update::between(&work.adapter, &after, 1.0, 1);
                self.nodes[index].trained = true;
                self.tell(index, update.map_or(Event::NotTrained(String::new()), Event::Trained));
            }
            Action::Charge(charge) => {
                let node = &mut self.nodes[index];
                node.charges.push((self.now, charge));
                node.book.charged();
                self.tell(index, Event::Recorded);
            }
            Action::RecordDraws(_) | Action::RecordLog(_) => self.tell(index, Event::Recorded),
            Action::RecordSignature(signed) => self.record(index, signed),
            Action::RecordAnswer(answered) => {
                let node = &mut self.nodes[index];
                let same_round =
                    |earlier: &Signed| earlier.task == answered.task && earlier.round == answered.round;
                assert!(
                    !node.answers.iter().any(same_round),
                    "a device answers twice in round {}",
                    answered.round
                );
                node.answers.push(answered);
                self.tell(index, Event::Recorded);
            }
        }
        true
    }

    /// The ledger takes one signature a round, and the machine knows it.
    fn record(&mut self, index: usize, signed: Signed) {
        let node = &mut self.nodes[index];
        let same_round = |earlier: &Signed| earlier.task == signed.task && earlier.round == signed.round;
        assert!(!node.signatures.iter().any(same_round), "a device signs round {} twice", signed.round);
        node.book.signed(&signed);
        node.signatures.push(signed);
        self.tell(index, Event::Recorded);
    }

    fn send(&mut self, index: usize, request: Request, carriage: &Carriage<'_>) {
        let bytes = request_to_wire(&request).encode_to_vec();
        self.requests.push((index, bytes.clone()));
        if matches!(carriage, Carriage::RequestLost) {
            return self.tell(index, Event::Unreachable);
        }
        if matches!(carriage, Carriage::Crash) {
            let id = self.nodes[index].device.device;
            drop(self.task.handle(id, request, self.now, &mut self.rng));
            self.crash();
            return self.tell(index, Event::Unreachable);
        }
        let request = request_from_wire(wire::Request::decode(bytes.as_slice()).unwrap()).unwrap();
        let answer = self.serve(index, request, true);
        if matches!(carriage, Carriage::ReplyLost) {
            return self.tell(index, Event::Unreachable);
        }
        let reply = match answer {
            Ok(reply) => reply_to_wire(reply).encode_to_vec(),
            Err(rejection) => return self.tell(index, Event::Rejected(rejection)),
        };
        let mut carried = reply.clone();
        if let Carriage::Changed(change) = carriage {
            change(&mut carried);
        }
        let event = match wire::Reply::decode(carried.as_slice()).map(reply_from_wire) {
            Ok(Ok(reply)) => Event::Replied(reply),
            Ok(Err(_)) | Err(_) => Event::Unreachable,
        };
        let changed = carried != reply;
        self.replies.push(reply);
        if changed {
            self.lie(index, event);
        } else {
            let node = &mut self.nodes[index];
            node.honest |= node.trained && matches!(event, Event::Replied(Reply::Offer { .. }));
            self.tell(index, event);
        }
    }

    /// The coordinator's side of a request that decodes from these bytes, in a device's name. Returns whether it
    /// was taken.
    pub(super) fn forge(&mut self, from: usize, bytes: &[u8]) -> bool {
        self.fuel = self.fuel.saturating_sub(1);
        let Ok(message) = wire::Request::decode(bytes) else { return false };
        let Ok(request) = request_from_wire(message) else { return false };
        self.serve(from, request, false).is_ok()
    }

    /// Answers one request. A rejection changes nothing that can be observed.
    fn serve(&mut self, from: usize, request: Request, honest: bool) -> Result<Reply, Rejection> {
        // What time alone changes comes first.
        self.task.handle_timeout(self.now, &mut self.rng);
        self.persist();
        let before = if honest { String::new() } else { format!("{:?}", self.task) };
        let status = self.task.status();
        let input = matches!(request, Request::MaskedChunk { .. });
        let id = self.nodes.get(from).map_or(DeviceId([0xee; 16]), |node| node.device.device);
        let name = request.name();
        let answer = self.task.handle(id, request, self.now, &mut self.rng);
        if let Ok(reply) = &answer {
            self.book.answered(reply);
            if input
                && !honest
                && let Some(node) = self.nodes.get_mut(from)
            {
                node.honest = false;
            }
            if matches!(reply, Reply::Wait { complete: true, .. }) {
                let enrolled: Vec<_> = self.nodes.iter().map(|node| node.device.device).collect();
                self.task.end_if_spent(&enrolled);
            }
            self.persist();
        } else {
            assert_eq!(self.task.poll_effect(), None, "a rejected `{name}` has an effect");
            assert_eq!(self.task.status(), status, "a rejected `{name}` shows in the status");
            if !honest {
                assert_eq!(format!("{:?}", self.task), before, "a rejected `{name}` changed the task");
            }
        }
        answer
    }

    /// The coordinator's shell: everything is durable before the answer leaves.
    fn persist(&mut self) {
        self.task.open_in_place(self.now, &mut self.rng);
        let effects: Vec<TaskEffect> = std::iter::from_fn(|| self.task.poll_effect()).collect();
        self.book.made_durable(&effects);
        for effect in effects {
            if let TaskEffect::Commit { version, adapter, .. } = effect {
                self.check_sum(version.round, version.version);
                self.artifacts.insert(version.adapter, adapter);
            }
        }
        self.durable = self.task.record().clone();
    }

    /// A version is the one before and the mean of its survivors' updates, where all of them are honest.
    fn check_sum(&self, round: u64, version: u32) {
        let place = |id: &DeviceId| self.nodes.iter().position(|node| node.device.device == *id);
        let survivors: Vec<usize> = self.book.survivors(round).iter().filter_map(place).collect();
        if !survivors.iter().all(|index| self.nodes[*index].honest) {
            return;
        }
        let (before, after) = (&self.durable.adapter, self.task.adapter());
        let updates: Vec<_> =
            survivors.iter().map(|index| update(*index, version - 1, before.len())).collect();
        for (i, (after, before)) in after.iter().zip(before).enumerate() {
            let mean = updates.iter().map(|update| update[i]).sum::<f32>() / updates.len() as f32;
            let found = after - before;
            assert!(
                (found - mean).abs() < 1e-3,
                "coordinate {i} of version {version}: {found} is not {mean}"
            );
        }
    }

    /// The coordinator forgets everything that is not durable, and starts again.
    pub(super) fn crash(&mut self) {
        let (id, record) = (self.task.id(), self.durable.clone());
        self.task = Task::restore(id, &self.plan_bytes, None, self.authority, record).unwrap();
    }

    /// The operator ends the open round.
    pub(super) fn abort(&mut self) {
        self.task.abort_rounds(self.now, &mut self.rng);
        self.persist();
    }

    /// A device forgets everything that is not durable, and starts again.
    pub(super) fn restart_device(&mut self, index: usize) {
        self.nodes[index].restart(self.now);
    }

    /// Tells a device something that is not so. Its own disk does not lie: what it waits for is recorded first.
    pub(super) fn lie(&mut self, index: usize, event: Event) {
        let writes = matches!(
            self.nodes[index].session.action(),
            Action::Charge(_) | Action::RecordFound(_) | Action::RecordSignature(_) | Action::RecordAnswer(_)
        );
        if writes && matches!(event, Event::Recorded) {
            self.step(index, &Carriage::Whole);
            return;
        }
        let node = &mut self.nodes[index];
        (node.trained, node.honest) = (false, false);
        self.tell(index, event);
    }

    fn tell(&mut self, index: usize, event: Event) {
        self.nodes[index].hears(event, self.now);
    }

    /// Whatever came before: devices that are left alone publish a version, as long as the task lasts.
    pub(super) fn comes_to_a_version(&mut self) {
        let before = self.task.version();
        // The open round comes to its end, with whomever it still has.
        for _ in 0..6 {
            self.pass(self.plan.round.step_millis);
        }
        for index in 0..self.nodes.len() {
            self.restart_device(index);
        }
        self.fuel = FUEL;
        while self.fuel > 0 && self.now < DUSK && self.task.is_active() && self.task.version() == before {
            self.run(1);
        }
        if self.now == DUSK {
            return;
        }
        let (active, version) = (self.task.is_active(), self.task.version());
        let plan = &self.plan.round;
        assert!(!active || version > before, "no version after {version} of {}", plan.versions);
    }
}

/// A plan without noise, so that a sum is exact.
fn plan(devices: u8, spare: u8, versions: u8) -> Plan {
    let mut plan = Plan::example();
    plan.privacy.mode = Mode::Off;
    plan.privacy.clip_norm = 4.0;
    plan.privacy.noise_multiplier = 0.0;
    plan.privacy.participations = 100;
    plan.round.cohort = devices.into();
    let quorum = aggregation::quorum(devices.into(), plan.corrupt_devices());
    let goal = usize::from(devices - spare).max(quorum).max(2);
    plan.round = RoundPlan {
        versions: versions.into(),
        cohort: devices.into(),
        report_goal: u32::try_from(goal).unwrap(),
        join_millis: 20_000,
        step_millis: 20_000,
        grace_millis: 2_000,
        rounds: 1,
        min_rounds: 1,
        missing_permille: 300,
    };
    plan.with_recommended_scale().unwrap()
}
