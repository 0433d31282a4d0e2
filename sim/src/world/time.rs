//! Time in a virtual world: what is due next, how long a training takes, and when the coordinator is not there.

use std::collections::BTreeMap;

use proto::ids::Timestamp;
use proto::message::Window;
use session::Action;
use task::Task;

use super::{DAWN, LONGEST_MILLIS, World, WorldError};

/// What takes time in a world, and when its devices asked for work.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How long a training takes; none where it takes no time.
    takes: Option<Window>,
    /// The trainings that have begun.
    training: BTreeMap<usize, Training>,
    /// Until when the coordinator is not there.
    away_until: Timestamp,
    trainings: usize,
    /// How many devices asked for work in each minute.
    check_ins: BTreeMap<u64, u32>,
}

/// One device's training.
#[derive(Clone, Copy, Debug)]
pub(super) struct Training {
    until: Timestamp,
    /// Whether the device goes away then.
    breaks: bool,
}

/// How far a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    UnderWay,
    Done,
    Broken,
}

impl World {
    /// The same world, in which each training takes a time of the window.
    #[must_use]
    pub fn with_training_times(mut self, window: Window) -> Self {
        self.pace.takes = Some(window);
        self
    }

    /// Trainings that devices began.
    pub fn trainings(&self) -> usize {
        self.pace.trainings
    }

    /// How many devices asked for work in each minute since the beginning, those that were not heard too.
    pub fn check_ins(&self) -> &BTreeMap<u64, u32> {
        &self.pace.check_ins
    }

    /// Minutes since the beginning.
    pub fn minutes(&self) -> u64 {
        self.clock.millis_since(DAWN) / 60_000
    }

    /// Stops the coordinator as a crash does, and starts it again so much later.
    pub fn restart_coordinator(&mut self, later_millis: u64) -> Result<(), WorldError> {
        self.pace.away_until = self.clock.plus_millis(later_millis);
        self.crash_coordinator()
    }

    /// Whether the coordinator hears anybody.
    pub(super) fn is_there(&self) -> bool {
        self.clock >= self.pace.away_until
    }

    /// A device asks for work.
    pub(super) fn count_check_in(&mut self) {
        *self.pace.check_ins.entry(self.minutes()).or_default() += 1;
    }

    /// How far the device at this place is, which is to train: its training begins when that is asked first.
    pub(super) fn progress(&mut self, index: usize) -> Progress {
        let training = self.pace.training.get(&index).copied().unwrap_or_else(|| {
            self.pace.trainings += 1;
            let takes = self.pace.takes.map_or(0, |window| window.choose(&mut self.rng));
            let breaks = self.faults.breaks(&mut self.rng);
            let training = Training { until: self.clock.plus_millis(takes), breaks };
            self.pace.training.insert(index, training);
            training
        });
        match training {
            Training { until, .. } if until > self.clock => Progress::UnderWay,
            Training { breaks: false, .. } => Progress::Done,
            Training { breaks: true, .. } => Progress::Broken,
        }
    }

    /// What it comes to was given to the device, or the device is gone.
    pub(super) fn ends_training(&mut self, index: usize) {
        self.pace.training.remove(&index);
    }

    /// Moves the clock to the next thing that is due.
    pub(super) fn pass_time(&mut self) -> Result<(), WorldError> {
        let sleeping = self.nodes.iter().filter_map(|node| match node.session.as_ref()?.action() {
            Action::Sleep(until) if !node.session.as_ref()?.is_complete() => Some(until),
            Action::Sleep(_)
            | Action::Send(_)
            | Action::Renew { .. }
            | Action::LoadPlan(_)
            | Action::Load { .. }
            | Action::RecordFound(_)
            | Action::Install(_)
            | Action::Train(_)
            | Action::Charge(_)
            | Action::RecordDraws(_)
            | Action::RecordLog(_)
            | Action::RecordSignature(_)
            | Action::RecordAnswer(_) => None,
        });
        let away = self.nodes.iter().filter_map(|node| node.away.map(|away| away.until));
        let trained = self.pace.training.values().map(|training| training.until);
        let trained = trained.filter(|until| *until > self.clock);
        let due = sleeping.chain(away).chain(trained).chain(self.task.poll_timeout()).min();
        match due {
            Some(due) if due.millis_since(DAWN) <= LONGEST_MILLIS => {
                self.clock = self.clock.max(due);
                self.task.handle_timeout(self.clock, &mut self.rng);
                self.perform_effects();
                Ok(())
            }
            Some(_) | None => {
                let last = self.nodes.iter().rev().find_map(|node| node.ended.last());
                let why = last.map_or_else(|| "no device acts".to_owned(), ToString::to_string);
                Err(WorldError::Stuck { version: self.task.version(), why })
            }
        }
    }

    /// Forgets everything of the coordinator that is not durable, and starts it again.
    pub(super) fn crash_coordinator(&mut self) -> Result<(), WorldError> {
        let (id, record) = (self.task.id(), self.record.clone());
        self.task = Task::restore(id, &self.plan_bytes, self.given.clone(), self.authority, record)?;
        self.coordinator_crashes += 1;
        Ok(())
    }
}
