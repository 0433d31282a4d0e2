//! Time in a virtual world: whose turn is when, and who comes and goes.

use std::collections::BTreeMap;

use proto::ids::Timestamp;
use proto::message::Window;

use super::habits::AlwaysThere;
use super::node::Doing;
use super::{DAWN, Habits, LONGEST_MILLIS, Network, World, WorldError};

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

    /// The same world, which ends with the reason where a version takes longer than this.
    #[must_use]
    pub fn with_patience(mut self, millis: u64) -> Self {
        self.patience_millis = Some(millis);
        self
    }

    /// Trainings that devices began.
    pub fn trainings(&self) -> usize {
        self.observer.counts.trainings
    }

    /// How many devices asked for work in each minute since the beginning, those that were not heard too.
    pub fn check_ins(&self) -> &BTreeMap<u64, u32> {
        &self.observer.check_ins
    }

    /// Trainings by how many versions had come, when they ended, since the one from which they began.
    pub fn behind(&self) -> &BTreeMap<u32, usize> {
        &self.observer.stages.behind
    }

    /// Minutes since the beginning.
    pub fn minutes(&self) -> u64 {
        self.millis() / 60_000
    }

    /// Milliseconds since the beginning.
    pub(super) fn millis(&self) -> u64 {
        self.agenda.now().millis_since(DAWN)
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
        self.nodes[index].start(&self.common, now);
        let millis = self.millis();
        self.observer.comes(index, millis);
        self.enter(index, now);
    }

    /// A fault takes the device away: it loses all that is not durable.
    pub(super) fn goes_away(&mut self, index: usize) {
        self.leaves(index, Doing::Gone);
        self.gone.insert(index);
        self.enter(index, self.agenda.now().plus_millis(AWAY_MILLIS));
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
            self.observer.leaves(millis);
        }
        self.unfinished += usize::from(was_done);
    }

    /// Moves the clock to the next thing that is due.
    pub(super) fn pass_time(&mut self) -> Result<(), WorldError> {
        let closes = self.task.poll_timeout().map(|due| due.max(self.back_at));
        let due = self.agenda.next().into_iter().chain(closes).min();
        self.check_patience(due)?;
        match due {
            Some(due) if due.millis_since(DAWN) <= LONGEST_MILLIS => {
                self.agenda.advance(due);
                if self.is_there() {
                    self.task.handle_timeout(self.agenda.now(), &mut self.task_rng);
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
        let since = self.observer.published_millis();
        let next = due.map_or(u64::MAX, |due| due.millis_since(DAWN));
        if next.saturating_sub(since) <= patience {
            return Ok(());
        }
        let aborted = self.observer.counts.last_abort;
        Err(WorldError::Waited {
            version: self.task.version() + 1,
            hours: patience / 3_600_000,
            wanted: self.task.plan().round.least_devices(),
            most_there: self.observer.most_there_late(),
            why: aborted.map_or_else(String::new, |outcome| format!(", and the last round ended: {outcome}")),
        })
    }
}
