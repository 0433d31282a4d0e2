//! The rounds of the version that is being made: those that are open, beside each other, and those that are over, for their
//! members that ask again.

use std::collections::BTreeMap;

use proto::ids::{DeviceId, SessionId, Timestamp};
use proto::message::Outcome;

use crate::round::{Effect, Opened, Opening, Round};

/// How long a device that was let join a round is expected to, in milliseconds: until then nobody else has its place.
const JOINS_WITHIN_MILLIS: u64 = 10_000;

#[derive(Debug)]
struct Running {
    round: Round,
    /// Who was let join it, and when.
    offered: BTreeMap<DeviceId, Timestamp>,
    /// The devices in its sum, once they are fixed.
    survivors: Vec<DeviceId>,
    /// Whether its sum is one of the version that is being made.
    gave: bool,
}

impl Running {
    fn is_open(&self) -> bool {
        self.round.outcome().is_none()
    }

    /// How many devices are in it, or are expected in it.
    fn taken(&self, now: Timestamp) -> usize {
        let is_expected = |(device, at): (&DeviceId, &Timestamp)| {
            now.millis_since(*at) < JOINS_WITHIN_MILLIS && !self.round.has_member(*device)
        };
        self.round.joined() + self.offered.iter().filter(|offered| is_expected(*offered)).count()
    }
}

/// The rounds of the version that is being made.
#[derive(Debug, Default)]
pub(super) struct Rounds(Vec<Running>);

impl Rounds {
    /// The open ones, the oldest first.
    pub(super) fn open(&self) -> impl Iterator<Item = &Round> {
        self.0.iter().filter(|running| running.is_open()).map(|running| &running.round)
    }

    /// The one that operators are shown first: that which devices join, or else the oldest that is open.
    pub(super) fn shown(&self) -> Option<&Round> {
        self.open().find(|round| round.is_joinable()).or_else(|| self.open().next())
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.0.iter().map(|running| running.round.session())
    }

    pub(super) fn with(&mut self, session: SessionId) -> Option<&mut Round> {
        self.running(session).map(|running| &mut running.round)
    }

    fn running(&mut self, session: SessionId) -> Option<&mut Running> {
        self.0.iter_mut().find(|running| running.round.session() == session)
    }

    pub(super) fn number(&self, session: SessionId) -> Option<u64> {
        self.of(session).map(|running| running.round.number())
    }

    /// Whether a round has this device.
    pub(super) fn is_member(&self, session: SessionId, device: DeviceId) -> bool {
        self.of(session).is_some_and(|running| running.round.has_member(device))
    }

    /// Whether a device was let join a round.
    pub(super) fn was_let_join(&self, session: SessionId, device: DeviceId) -> bool {
        self.of(session).is_some_and(|running| running.offered.contains_key(&device))
    }

    fn of(&self, session: SessionId) -> Option<&Running> {
        self.0.iter().find(|running| running.round.session() == session)
    }

    /// How many open ones nobody joins any more.
    pub(super) fn under_way(&self) -> usize {
        self.open().filter(|round| !round.is_joinable()).count()
    }

    /// Whether an open round that nobody joins any more has this device.
    pub(super) fn is_busy(&self, device: DeviceId) -> bool {
        self.open().any(|round| !round.is_joinable() && round.has_member(device))
    }

    /// The round that a device may join: the one that it was let join, or else the oldest with room for so many. Where none
    /// has room, and none `may_open`, the emptiest: who was let join it may not come.
    pub(super) fn joinable(
        &self,
        device: DeviceId,
        (cohort, may_open): (usize, bool),
        now: Timestamp,
    ) -> Option<SessionId> {
        let joinable = || self.0.iter().filter(|running| running.round.is_joinable());
        let has_it = joinable().find(|running| running.offered.contains_key(&device));
        let has_room = || joinable().find(|running| running.taken(now) < cohort);
        let emptiest = || joinable().filter(|_| !may_open).min_by_key(|running| running.round.joined());
        has_it.or_else(has_room).or_else(emptiest).map(|running| running.round.session())
    }

    /// Lets a device join an open round.
    pub(super) fn offer(&mut self, session: SessionId, device: DeviceId, now: Timestamp) -> Option<&Round> {
        let running = self.running(session)?;
        running.offered.insert(device, now);
        Some(&running.round)
    }

    /// A further round is open. Of those that are over, the ones that gave no sum are forgotten.
    pub(super) fn begin(&mut self, round: Round) {
        self.0.retain(|running| running.is_open() || running.gave);
        let (offered, survivors) = (BTreeMap::new(), Vec::new());
        self.0.push(Running { round, offered, survivors, gave: false });
    }

    /// Forgets a round, whatever its members do: another one takes its place.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.0.retain(|running| running.round.session() != session);
    }

    /// The devices in the sum of a round are these.
    pub(super) fn fix(&mut self, session: SessionId, survivors: &[DeviceId]) {
        if let Some(running) = self.running(session) {
            survivors.clone_into(&mut running.survivors);
        }
    }

    /// The sum of a round is one of the version's. Gives the devices in it.
    pub(super) fn gave(&mut self, session: SessionId) -> Vec<DeviceId> {
        self.running(session).map_or_else(Vec::new, |running| {
            running.gave = true;
            std::mem::take(&mut running.survivors)
        })
    }

    /// The version is there, or given up: no round is one of it any more.
    pub(super) fn version_is_over(&mut self) {
        for running in &mut self.0 {
            running.gave = false;
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        for running in &mut self.0 {
            running.round.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.0.iter().filter_map(|running| running.round.poll_timeout()).min()
    }

    pub(super) fn take_opening(&mut self, now: Timestamp) -> Option<Opening> {
        self.0.iter_mut().find_map(|running| running.round.take_opening(now))
    }

    /// That of a round that is not known any more is dropped.
    pub(super) fn opened(&mut self, opened: Opened) {
        if let Some(round) = self.with(opened.session()) {
            round.opened(opened);
        }
    }

    /// What a round wants done, with its number and session.
    pub(super) fn poll_effect(&mut self) -> Option<(u64, SessionId, Effect)> {
        self.0.iter_mut().find_map(|Running { round, .. }| {
            let of = (round.number(), round.session());
            round.poll_effect().map(|effect| (of.0, of.1, effect))
        })
    }

    /// Ends the open ones.
    pub(super) fn abort(&mut self, outcome: Outcome) {
        for running in &mut self.0 {
            running.round.abort(outcome);
        }
    }

    /// Ends those which fewer than so many devices have joined yet.
    pub(super) fn give_up_below(&mut self, goal: usize) {
        for Running { round, .. } in &mut self.0 {
            if round.is_joinable() && round.joined() < goal {
                round.abort(Outcome::TooFewJoined);
            }
        }
    }
}
