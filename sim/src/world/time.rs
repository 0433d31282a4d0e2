//! Time in a virtual world: whose turn is when, and who comes and goes.

use std::collections::BTreeMap;

use proto::ids::Timestamp;
use proto::message::Window;

use super::habits::AlwaysThere;
use super::node::Doing;
use super::{Clock, DAWN, Disk, Habits, LONGEST_MILLIS, Network, Observer, Party, World, WorldError};

/// How long a device that vanished stays away when no version comes.
const AWAY_MILLIS: u64 = 600_000;

impl World {
    /// The same world, in which each training takes a time of the window.
    #[must_use]
    pub fn with_training_times(self, window: Window) -> Self {
        self.with_habits(Box::new(AlwaysThere { trains: Some(window) }))
    }

    /// The same world, whose devices have these habits: before anything has happened.
    #[must_use]
    pub fn with_habits(mut self, habits: Box<dyn Habits>) -> Self {
        self.habits = habits;
        self
    }

    /// The same world, in which this becomes of bytes on their way; which requests are lost and repeated is its matter then.
    #[must_use]
    pub fn with_network(mut self, network: Box<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// The same world, whose disks do this to what is written.
    #[must_use]
    pub fn with_disk(mut self, disk: Box<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// The same world, whose clocks say this.
    #[must_use]
    pub fn with_clock(mut self, clock: Box<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same world, which is watched.
    #[must_use]
    pub fn with_observer(mut self, observer: Box<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The same world, which ends with the reason where a version takes longer than this.
    #[must_use]
    pub fn with_patience(mut self, millis: u64) -> Self {
        self.patience_millis = Some(millis);
        self
    }

    /// Trainings that devices began.
    pub fn trainings(&self) -> usize {
        self.tally.counts.trainings
    }

    /// How many devices asked for work in each minute since the beginning, those that were not heard too.
    pub fn check_ins(&self) -> &BTreeMap<u64, u32> {
        &self.tally.check_ins
    }

    /// Trainings by how many versions had come, when they ended, since the one from which they began.
    pub fn behind(&self) -> &BTreeMap<u32, usize> {
        &self.tally.stages.behind
    }

    /// Minutes since the beginning.
    pub fn minutes(&self) -> u64 {
        self.millis() / 60_000
    }

    /// Milliseconds since the beginning.
    pub(super) fn millis(&self) -> u64 {
        self.agenda.now().millis_since(DAWN)
    }

    /// What the coordinator's clock says.
    pub(super) fn coordinator_now(&self) -> Timestamp {
        self.clock.reads(Party::Coordinator, self.agenda.now())
    }

    /// When the coordinator's clock says this, as far as it is known now: it is looked again when it is set.
    fn closes(&self, due: Timestamp) -> Timestamp {
        let then = self.agenda.now().plus_millis(due.millis_since(self.coordinator_now()));
        self.until_set(Party::Coordinator, then)
    }

    /// That moment, or when the party's clock is set, if that is before.
    pub(super) fn until_set(&self, who: Party, then: Timestamp) -> Timestamp {
        let set = self.clock.set_next(who, self.millis()).map(|millis| DAWN.plus_millis(millis));
        set.map_or(then, |set| set.min(then))
    }

    /// It is the device's turn then, or when it is switched off, if that is before.
    pub(super) fn enter(&mut self, index: usize, at: Timestamp) {
        let node = &mut self.nodes[index];
        let is_there = !matches!(node.doing, Doing::Off);
        let at = if is_there { at.min(node.off_at) } else { at };
        node.ticket = self.agenda.enter(index, at);
    }

    /// A device that is switched off comes now, or is told when it comes next.
    pub(super) fn comes_or_waits(&mut self, index: usize) {
        let now = self.millis();
        match self.habits.stays(index, now) {
            Some(stay) if stay.from_millis <= now => {
                self.nodes[index].off_at = DAWN.plus_millis(stay.until_millis);
                self.starts(index);
            }
            Some(stay) => self.enter(index, DAWN.plus_millis(stay.from_millis)),
            // It comes no more.
            None => {}
        }
    }

    /// A device starts from what is durable of it.
    pub(super) fn starts(&mut self, index: usize) {
        let now = self.agenda.now();
        self.gone.remove(&index);
        let ahead = self.clock.ahead_millis(Party::Device(index), self.millis());
        self.nodes[index].start(&self.common, self.clock.reads(Party::Device(index), now), ahead);
        self.watch(|observer, world| observer.starts(world, index));
        let millis = self.millis();
        self.tally.comes(index, millis);
        self.enter(index, now);
    }

    /// A fault takes the device away until the next version: it loses all that is not durable.
    pub(super) fn goes_away(&mut self, index: usize) {
        self.dies(index, AWAY_MILLIS);
        self.gone.insert(index);
    }

    /// The device dies and is back so much later: it loses all that is not durable.
    pub(super) fn dies(&mut self, index: usize, millis: u64) {
        self.leaves(index, Doing::Gone);
        self.enter(index, self.agenda.now().plus_millis(millis));
    }

    /// The device is switched off.
    pub(super) fn switches_off(&mut self, index: usize) {
        self.leaves(index, Doing::Off);
        self.comes_or_waits(index);
    }

    fn leaves(&mut self, index: usize, doing: Doing) {
        let node = &mut self.nodes[index];
        let (was_there, was_done) = (node.is_live(), node.is_done());
        if let Doing::Held(held) = &node.doing
            && let Some(others) = self.held.get_mut(&held.question.awaits)
        {
            others.remove(&index);
        }
        node.stop(doing);
        self.gone.remove(&index);
        if was_there {
            let millis = self.millis();
            self.tally.leaves(millis);
        }
        self.unfinished += usize::from(was_done);
    }

    /// Moves the clock to the next thing that is due.
    pub(super) fn pass_time(&mut self) -> Result<(), WorldError> {
        let closes = self.task.poll_timeout().map(|due| self.closes(due).max(self.back_at));
        let saves = (self.full_until > self.agenda.now()).then_some(self.full_until.max(self.back_at));
        let due = [self.agenda.next(), closes, saves, self.copies.next()].into_iter().flatten().min();
        self.check_patience(due)?;
        match due {
            Some(due) if due.millis_since(DAWN) <= LONGEST_MILLIS => {
                self.agenda.advance(due);
                if self.is_there() {
                    self.task.handle_timeout(self.coordinator_now(), &mut self.task_rng);
                    self.perform_effects();
                    self.notice();
                }
                Ok(())
            }
            Some(_) | None => {
                let last = self.nodes.iter().rev().find_map(|node| node.ended.last());
                let why = last.map_or_else(|| "no device acts".to_owned(), ToString::to_string);
                Err(WorldError::Stuck { version: self.task.version(), why })
            }
        }
    }

    /// Fails where the next version has taken longer than somebody wants to wait, or never comes.
    fn check_patience(&self, due: Option<Timestamp>) -> Result<(), WorldError> {
        let Some(patience) = self.patience_millis.filter(|_| self.task.is_active()) else { return Ok(()) };
        let since = self.tally.published_millis();
        let next = due.map_or(u64::MAX, |due| due.millis_since(DAWN));
        if next.saturating_sub(since) <= patience {
            return Ok(());
        }
        let aborted = self.tally.counts.last_abort;
        Err(WorldError::Waited {
            version: self.task.version() + 1,
            hours: patience / 3_600_000,
            wanted: self.task.plan().round.least_devices(),
            most_there: self.tally.most_there_late(),
            why: aborted.map_or_else(String::new, |outcome| format!(", and the last round ended: {outcome}")),
        })
    }
}
