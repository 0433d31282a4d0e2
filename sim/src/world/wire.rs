//! What goes between a device and the coordinator: bytes, some of which are lost or come twice; and the questions that the
//! coordinator holds.

use prost::Message;
use proto::convert::{
    rejection_from_bytes, rejection_to_bytes, reply_from_wire, reply_to_wire, request_from_wire,
    request_to_wire,
};
use proto::ids::Digest;
use proto::message::{Before, Published, Rejection, Reply, Request};
use proto::wire;
use session::{Event, LoadedBefore};
use task::held::{Awaits, LONGEST_HELD_MILLIS};

use super::node::{Doing, Held, Question};
use super::stages::Asks;
use super::{Carriage, Leg, World, WorldError};

/// What a device hears.
#[derive(Debug)]
pub(super) enum News {
    /// Of its own.
    Event(Event),
    /// The bytes of an answer.
    Reply(Vec<u8>),
    /// The bytes of a rejection.
    Rejected(Vec<u8>),
}

impl News {
    pub(super) fn event(self) -> Result<Event, WorldError> {
        Ok(match (self.heard()?, self) {
            (None, Self::Event(event)) => event,
            (Some(Ok(reply)), _) => Event::Replied(reply),
            (Some(Err(rejection)), _) => Event::Rejected(rejection),
            (None, Self::Reply(_) | Self::Rejected(_)) => Event::Unreachable,
        })
    }

    /// What the coordinator says, if it says anything.
    fn heard(&self) -> Result<Option<Result<Reply, Rejection>>, WorldError> {
        Ok(match self {
            Self::Event(_) => None,
            Self::Reply(bytes) => Some(Ok(reply_from_wire(wire::Reply::decode(bytes.as_slice())?)?)),
            Self::Rejected(bytes) => Some(Err(rejection_from_bytes(bytes)?)),
        })
    }
}

/// The request that these bytes are, if they are one.
pub(super) fn request_of(bytes: &[u8]) -> Option<Request> {
    request_from_wire(wire::Request::decode(bytes).ok()?).ok()
}

impl World {
    /// A request leaves its device.
    pub(super) fn send(&mut self, index: usize, request: &Request) -> Result<(), WorldError> {
        if matches!(request, Request::CheckIn(_)) {
            let minute = self.minutes();
            self.tally.checks_in(minute);
        }
        self.watch(|observer, world| observer.asks(world, index, request));
        let mut bytes = request_to_wire(request).encode_to_vec();
        if let Some(later_millis) = self.network.copies(index, &mut self.rng) {
            self.copies.add(index, self.agenda.now().plus_millis(later_millis), bytes.clone());
        }
        if !self.is_there() {
            self.is_not_heard(index);
            return Ok(());
        }
        match self.network.carry(index, Leg::Request, bytes.len(), &mut self.rng) {
            Carriage::Lost => {
                self.is_not_heard(index);
                Ok(())
            }
            Carriage::Arrives { later_millis, twice } => {
                self.nodes[index].traffic.up += bytes.len() as u64;
                self.network.touches(index, Leg::Request, &mut bytes, &mut self.rng);
                if later_millis == 0 {
                    return self.arrives(index, &bytes, twice);
                }
                self.nodes[index].doing = Doing::Sending { bytes, twice };
                self.enter(index, self.agenda.now().plus_millis(later_millis));
                Ok(())
            }
        }
    }

    /// A request is at the coordinator, or is there twice.
    pub(super) fn arrives(&mut self, index: usize, bytes: &[u8], twice: bool) -> Result<(), WorldError> {
        if !self.is_there() {
            self.is_not_heard(index);
            return Ok(());
        }
        // Only a touched one does not decode.
        let Some(request) = request_of(bytes) else {
            self.is_not_heard(index);
            return Ok(());
        };
        if twice {
            // Nobody hears what comes of the first.
            drop(self.ask_task(index, request.clone()));
            self.notice();
        }
        let awaits = Awaits::of(&request);
        let crashes = self.faults.crashes_coordinator(&mut self.rng);
        if awaits == Awaits::Nothing {
            let answer = self.ask_task(index, request);
            self.answer(index, answer);
            self.notice();
        } else {
            let until = self.agenda.now().plus_millis(LONGEST_HELD_MILLIS);
            self.asks(index, Question { request, awaits, until });
        }
        if crashes { self.crash_coordinator() } else { Ok(()) }
    }

    /// A question is asked of the task, and held where it can only wait for others.
    pub(super) fn asks(&mut self, index: usize, question: Question) {
        let answer = self.ask_task(index, question.request.clone());
        match answer {
            Some(Ok(answer))
                if question.awaits.is_only_to_wait(&answer) && self.agenda.now() < question.until =>
            {
                let until = question.until;
                self.held.entry(question.awaits).or_default().insert(index);
                self.nodes[index].doing = Doing::Held(Box::new(Held { question, answer }));
                self.enter(index, until);
            }
            answer => self.answer(index, answer),
        }
        // What came by this very question too.
        self.notice();
    }

    /// The task's answer; what it brings about is durable then. Where it cannot be made durable, the coordinator says so, and
    /// where it dies of that it says nothing.
    pub(super) fn ask_task(&mut self, index: usize, request: Request) -> Option<Result<Reply, Rejection>> {
        let unwritten = || Some(Err(Rejection::Unavailable("its disk is full".to_owned())));
        if !self.is_there() {
            return None;
        }
        if self.agenda.now() < self.full_until {
            return unwritten();
        }
        let (from, now) = (self.nodes[index].id, self.coordinator_now());
        let check_in = if let Request::CheckIn(asks) = &request { Some(asks.clone()) } else { None };
        let was_active = self.task.is_active();
        self.common.authority.signs(self.agenda.now());
        let asks_for = Asks::of(&request);
        let mut answer = self.task.handle(from, request, now, &mut self.task_rng);
        self.tally.stages.is_answered(index, asks_for, &answer);
        self.perform_effects();
        if let Some(asks) = check_in.filter(|_| was_active && !self.is_dead)
            && matches!(answer, Ok(Reply::Wait { .. }))
        {
            self.end_if_spent();
            // It may be over for the device too now.
            if !self.task.is_active() {
                answer = self.task.handle(from, Request::CheckIn(asks), now, &mut self.task_rng);
            }
        }
        match (self.is_dead, self.is_saved()) {
            (true, _) => None,
            (false, true) => Some(answer),
            (false, false) => unwritten(),
        }
    }

    /// An answer leaves the coordinator, where it lives to give one.
    pub(super) fn answer(&mut self, index: usize, answer: Option<Result<Reply, Rejection>>) {
        let Some(answer) = answer else { return self.is_not_heard(index) };
        let (is_reply, mut bytes) = match answer {
            Ok(reply) => (true, reply_to_wire(reply).encode_to_vec()),
            Err(rejection) => (false, rejection_to_bytes(&rejection)),
        };
        let len = bytes.len();
        match self.network.carry(index, Leg::Reply, len, &mut self.rng) {
            Carriage::Lost => self.is_not_heard(index),
            Carriage::Arrives { later_millis, .. } => {
                self.nodes[index].traffic.down += len as u64;
                let is_touched =
                    is_reply && self.network.touches(index, Leg::Reply, &mut bytes, &mut self.rng);
                let news = if is_reply { News::Reply(bytes) } else { News::Rejected(bytes) };
                if is_touched && news.heard().is_err() {
                    return self.is_not_heard(index);
                }
                if self.observer.is_some()
                    && let Ok(Some(heard)) = news.heard()
                {
                    self.watch(|observer, world| observer.answers(world, index, &heard));
                }
                self.tell(index, self.agenda.now().plus_millis(later_millis), news);
            }
        }
    }

    fn is_not_heard(&mut self, index: usize) {
        self.tell(index, self.agenda.now(), News::Event(Event::Unreachable));
    }

    /// So many bytes of a plan or a version are fetched; then this is there.
    fn fetched(&mut self, index: usize, bytes: usize, event: Event) {
        match self.network.carry(index, Leg::Artifact, bytes, &mut self.rng) {
            Carriage::Lost => self.is_not_heard(index),
            Carriage::Arrives { later_millis, .. } => {
                self.nodes[index].traffic.down += bytes as u64;
                self.tell(index, self.agenda.now().plus_millis(later_millis), News::Event(event));
            }
        }
    }

    /// The plan is fetched once and kept.
    pub(super) fn load_plan(&mut self, index: usize, published: &Published) {
        let is_held = self.nodes[index].installed().is_some();
        match self.artifacts.get(&published.plan) {
            Some(plan) => {
                let (bytes, plan) = (if is_held { 0 } else { plan.len() }, plan.clone());
                self.fetched(index, bytes, Event::PlanLoaded(plan));
            }
            None => self.fetched(index, 0, Event::Rejected(Rejection::UnknownArtifact)),
        }
    }

    pub(super) fn load(
        &mut self,
        index: usize,
        published: &Published,
        frozen: Option<Digest>,
        before: Option<Before>,
    ) {
        let held = self.nodes[index].installed().map(|(held, _)| held);
        let get = |digest: &Digest| self.artifacts.get(digest).cloned();
        let frozen = frozen.as_ref().and_then(get);
        let folded = published.folded.as_ref().and_then(get);
        // What the device installed before is what it has of it.
        let loaded = before.and_then(|before| {
            let adapter = get(&before.adapter)?;
            let folded = before.folded.map(|folded| get(&folded).ok_or(())).transpose().ok()?;
            let is_held = held.is_some_and(|held| held.adapter == before.adapter);
            Some((LoadedBefore { adapter, folded }, is_held))
        });
        let Some(adapter) = get(&published.adapter) else {
            return self.fetched(index, 0, Event::Rejected(Rejection::UnknownArtifact));
        };
        // The frozen factors are fetched once and kept, as is what an epoch left.
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let once = if held.is_some() { 0 } else { len(&frozen) };
        let has_folded = held.is_some_and(|held| held.folded == published.folded);
        let each_epoch = if has_folded { 0 } else { len(&folded) };
        let earlier = loaded.as_ref().filter(|(_, is_held)| !is_held);
        let earlier = earlier.map_or(0, |(before, _)| before.adapter.len());
        let bytes = adapter.len() + once + each_epoch + earlier;
        let before = loaded.map(|(before, _)| before);
        self.fetched(index, bytes, Event::Loaded { adapter, frozen, folded, before });
    }
}
