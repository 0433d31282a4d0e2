//! One device of a virtual world.

use std::sync::Arc;

use aggregation::IdentityKey;
use aggregation::log::Seen;
use proto::ids::{DeviceId, Digest, Timestamp};
use proto::message::{Published, Reply};
use proto::plan::vector_to_bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use session::policy::Policy;
use session::spending::{Charge, Found, Spending};
use session::{Action, Device, Ended, Event, Session, SessionState, Signed, Work};
use task::held::Awaits;

use super::Party;
use super::agenda::Ticket;
use super::clock::STEP_MILLIS;
use super::disk::{Disk, Fate, Record};
use super::enrolling::Authority;
use crate::faults::Vanish;

/// How many of the reasons why attempts ended a device's node keeps.
const KEPT_ENDS: usize = 16;

/// Bytes of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent by the device.
    pub up: u64,
    /// Sent to the device.
    pub down: u64,
}

/// One device: what is durable of it, and, while it is there, its machine. One that is away is some hundred bytes and its
/// ledger.
#[derive(Debug)]
pub struct Node {
    pub(super) id: DeviceId,
    /// The place of its credential in the log.
    place: u64,
    /// Of its identity key.
    identity: [u8; 32],
    /// Of its randomness, and how many words of it were used.
    randomness: ([u8; 32], u128),
    policy: Arc<Policy>,
    live: Option<Box<Live>>,
    /// What its ledger holds, and since when.
    pub charges: Vec<(Timestamp, Charge)>,
    /// What its ledger holds by the coordinator's word, and since when.
    pub found: Vec<(Timestamp, Found)>,
    /// When it took part in drawing a graph.
    pub drawn: Vec<Timestamp>,
    /// What it has seen of the enrollment log.
    pub log_seen: Option<Box<Seen>>,
    /// What its ledger holds of signatures.
    pub signatures: Vec<Signed>,
    /// What its ledger holds of answers.
    pub answers: Vec<Signed>,
    installed: Option<Box<Installed>>,
    /// Bytes so far.
    pub traffic: Traffic,
    /// Why the last attempts ended, newest last.
    pub ended: Vec<Ended>,
    pub(super) vanish: Vec<Vanish>,
    pub(super) doing: Doing,
    /// How often it wrote anything.
    writes: u32,
    /// By how much its clock was ahead when it was looked at last.
    ahead_millis: i64,
    /// The entry of the agenda that counts.
    pub(super) ticket: Ticket,
    /// When it is switched off.
    pub(super) off_at: Timestamp,
}

/// What a device has in memory.
#[derive(Debug)]
struct Live {
    session: Session,
    rng: ChaCha20Rng,
}

/// The version that a device holds.
#[derive(Debug)]
struct Installed {
    published: Published,
    /// Of the parameters that it holds.
    adapter: Digest,
}

/// What a device does until its turn.
#[derive(Debug)]
pub(super) enum Doing {
    /// It sleeps.
    Asleep,
    /// It is about to do this.
    About(Box<Action>),
    /// Its question is on its way, and comes twice where that is said.
    Sending { bytes: Vec<u8>, twice: bool },
    /// Its question is at the coordinator, and asked of the task when it is its turn.
    Asking(Box<Question>),
    /// Its question is held until something comes, or until its turn, when it is answered so.
    Held(Box<Held>),
    /// It trains, and goes away at the end where that is said.
    Training { work: Arc<Work>, breaks: bool },
    /// It went away by a fault, and comes back.
    Gone,
    /// It is switched off.
    Off,
}

/// A question that is held, and what it is answered when nothing came.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) question: Question,
    pub(super) answer: Reply,
}

/// A question that the coordinator heard.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) request: proto::message::Request,
    pub(super) awaits: Awaits,
    /// Until when it may be held.
    pub(super) until: Timestamp,
}

/// What all devices of a world have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) authority: Authority,
    pub(super) base: Digest,
}

impl Common {
    /// The device as it begins, the same each time.
    fn device(&self, node: &Node) -> Device {
        let identity = IdentityKey::from_seed(&node.identity);
        let credential = self.authority.credential(node.place, node.id, identity.public());
        Device {
            device: node.id,
            identity,
            credential,
            authority: self.authority.public(),
            bases: vec![self.base],
            policy: Policy::clone(&node.policy),
        }
    }
}

impl Node {
    /// A device that is switched off.
    pub(super) fn new(
        (place, id): (u64, DeviceId),
        identity: [u8; 32],
        randomness: [u8; 32],
        policy: Arc<Policy>,
    ) -> Self {
        Self {
            id,
            place,
            identity,
            randomness: (randomness, 0),
            policy,
            live: None,
            charges: Vec::new(),
            found: Vec::new(),
            drawn: Vec::new(),
            log_seen: None,
            signatures: Vec::new(),
            answers: Vec::new(),
            installed: None,
            traffic: Traffic::default(),
            ended: Vec::new(),
            vanish: Vec::new(),
            doing: Doing::Off,
            writes: 0,
            ahead_millis: 0,
            ticket: Ticket::default(),
            off_at: Timestamp(0),
        }
    }

    /// The seed of its identity key.
    pub(super) const fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// By how many milliseconds its clock was ahead of the world's time when it was looked at last.
    pub const fn ahead_millis(&self) -> i64 {
        self.ahead_millis
    }

    /// What it holds, and the hash of the parameters that it holds.
    pub(super) fn installed(&self) -> Option<(Published, Digest)> {
        self.installed.as_ref().map(|installed| (installed.published, installed.adapter))
    }

    /// Whether its machine runs.
    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Whether it has heard that the task is over and holds its last version.
    pub(super) fn is_done(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.session.is_complete())
    }

    /// Starts the device's machine from what is durable.
    pub(super) fn start(&mut self, common: &Common, now: Timestamp, ahead_millis: i64) {
        self.ahead_millis = ahead_millis;
        let mut spending = Spending::new();
        for (at, charge) in &self.charges {
            spending.add(charge, *at);
        }
        for (at, found) in &self.found {
            spending.add_found(found, *at);
        }
        let installed = self.installed.as_ref().map(|installed| installed.published);
        let session = Session::new(Arc::new(common.device(self)), spending, installed, now)
            .having_signed(self.signatures.iter().cloned())
            .having_drawn(self.drawn.clone())
            .having_seen(self.log_seen.as_deref().copied());
        let mut rng = ChaCha20Rng::from_seed(self.randomness.0);
        rng.set_word_pos(self.randomness.1);
        self.live = Some(Box::new(Live { session, rng }));
        self.doing = Doing::Asleep;
    }

    /// Loses all that is not durable.
    pub(super) fn stop(&mut self, doing: Doing) {
        if let Some(live) = self.live.take() {
            self.randomness.1 = live.rng.get_word_pos();
        }
        self.doing = doing;
    }

    /// Lets the device's machine work on what it hears, and writes down what it wants written. Returns what comes next.
    pub(super) fn works_on(&mut self, mut event: Event, at: &Moment<'_>) -> Next {
        let dies = |millis| Next::Dies { millis };
        loop {
            let Some((action, state)) = self.handles(event, at.now) else { return dies(0) };
            let hit = |v: &Vanish| Some(v.version) == at.open && v.state == state;
            if let Some(found) = self.vanish.iter().position(hit) {
                self.vanish.remove(found);
                return Next::Vanishes;
            }
            let Some(record) = record(&action) else {
                let is_set = at.ahead_millis.abs_diff(self.ahead_millis) > STEP_MILLIS;
                self.ahead_millis = at.ahead_millis;
                if is_set {
                    // What was waited for by the old time has no meaning.
                    event = Event::ClockStepped;
                    continue;
                }
                return Next::Does(action);
            };
            self.writes += 1;
            let who = Party::Device(usize::try_from(self.place).unwrap_or(usize::MAX));
            match at.disk.writes(who, record, self.writes) {
                Fate::Kept => self.keeps(action, at.now),
                Fate::Lies => {}
                Fate::Dies { kept, millis } => {
                    if kept {
                        self.keeps(action, at.now);
                    }
                    return dies(millis);
                }
                Fate::Full { millis } => {
                    let Some((action, _)) = self.handles(Event::LeavesRound, at.now) else { return dies(0) };
                    return Next::Later { action, millis };
                }
            }
            event = Event::Recorded;
        }
    }

    /// The machine's next step: what it wants then, and its state. Nothing where there is no machine.
    fn handles(&mut self, event: Event, now: Timestamp) -> Option<(Action, SessionState)> {
        let mut live = self.live.take()?;
        let mut session = live.session.handle(event, now, &mut live.rng);
        self.ended.extend(session.take_ended());
        if self.ended.len() > KEPT_ENDS {
            self.ended.remove(0);
        }
        let next = (session.action(), session.state());
        live.session = session;
        self.live = Some(live);
        Some(next)
    }

    /// Makes durable what the action wants durable.
    fn keeps(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::RecordFound(found) => self.found.push((now, found)),
            Action::Install(work) => {
                let adapter = Digest::of(&vector_to_bytes(&work.adapter));
                self.installed = Some(Box::new(Installed { published: work.published, adapter }));
            }
            Action::Charge(charge) => self.charges.push((now, charge)),
            Action::RecordDraws(times) => self.drawn = times,
            Action::RecordLog(seen) => self.log_seen = Some(Box::new(seen)),
            Action::RecordSignature(signed) => self.signatures.push(signed),
            Action::RecordAnswer(answered) => self.answers.push(answered),
            Action::Sleep(_)
            | Action::Send(_)
            | Action::Renew { .. }
            | Action::LoadPlan(_)
            | Action::Load { .. }
            | Action::Train(_) => {}
        }
    }
}

/// What the action wants durable, if it wants that.
fn record(action: &Action) -> Option<Record> {
    match action {
        Action::RecordFound(_) => Some(Record::Found),
        Action::Install(_) => Some(Record::Version),
        Action::Charge(_) => Some(Record::Charge),
        Action::RecordDraws(_) => Some(Record::Draws),
        Action::RecordLog(_) => Some(Record::Log),
        Action::RecordSignature(_) => Some(Record::Signature),
        Action::RecordAnswer(_) => Some(Record::Answer),
        Action::Sleep(_)
        | Action::Send(_)
        | Action::Renew { .. }
        | Action::LoadPlan(_)
        | Action::Load { .. }
        | Action::Train(_) => None,
    }
}

/// Around a device when it hears something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    /// By its own clock.
    pub(super) now: Timestamp,
    /// By how much that is ahead.
    pub(super) ahead_millis: i64,
    /// The version that is trained from.
    pub(super) open: Option<u32>,
    pub(super) disk: &'a dyn Disk,
}

/// What comes of what a device heard.
#[derive(Debug)]
pub(super) enum Next {
    /// It is about to do this.
    Does(Action),
    /// Its disk is full: it is about to do this so much later.
    Later { action: Action, millis: u64 },
    /// It died while it wrote, and is back so much later.
    Dies { millis: u64 },
    /// A planned fault takes it away.
    Vanishes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_away_is_some_hundred_bytes() {
        assert!(size_of::<Node>() <= 512, "{}", size_of::<Node>());
    }
}
