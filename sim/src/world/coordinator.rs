//! The coordinator's shell in a world: what is made durable, what is noticed, and what a crash leaves.

use proto::admin::TaskState;
use session::Event;
use task::held::Phases;
use task::{Task, TaskEffect, TaskRecord};

use super::disk::{Fate, Record};
use super::node::Doing;
use super::wire::News;
use super::{Party, Traffic, World, WorldError};

/// What the server keeps of a task in one record, beside its versions and who took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    state: TaskState,
    last_round: u64,
    rounds_charged: u64,
    devices: u32,
}

impl Header {
    pub(super) fn of(record: &TaskRecord) -> Self {
        let TaskRecord { state, last_round, rounds_charged, devices, .. } = *record;
        Self { state, last_round, rounds_charged, devices }
    }
}

impl World {
    /// Stops the coordinator as a crash does, and starts it again so much later.
    pub fn restart_coordinator(&mut self, later_millis: u64) -> Result<(), WorldError> {
        self.back_at = self.agenda.now().plus_millis(later_millis);
        self.crash_coordinator()?;
        self.deliver()
    }

    /// Where the coordinator died while it wrote, its machine begins again from what is durable, and is there when its time has
    /// come.
    pub(super) fn rise(&mut self) -> Result<(), WorldError> {
        if self.is_dead {
            self.crash_coordinator()?;
            self.deliver()?;
        }
        Ok(())
    }

    /// Whether the coordinator hears anybody.
    pub(super) fn is_there(&self) -> bool {
        !self.is_dead && self.agenda.now() >= self.back_at
    }

    /// Forgets everything of the coordinator that is not durable, and starts it again. Whose questions it held hears nothing
    /// any more.
    pub(super) fn crash_coordinator(&mut self) -> Result<(), WorldError> {
        let (id, record) = (self.task.id(), self.record.clone());
        let authority = &self.common.authority;
        let task = Task::restore(id, &self.plan_bytes, self.given.clone(), authority.public(), record)?;
        self.task = authority.of_task(task);
        self.coordinator_crashes += 1;
        self.unsaved.clear();
        self.header = Header::of(&self.record);
        (self.is_dead, self.full_until) = (false, self.agenda.now());
        self.counted = None;
        for index in std::mem::take(&mut self.held).into_values().flatten() {
            self.nodes[index].doing = Doing::Asleep;
            self.tell(index, self.agenda.now(), News::Event(Event::Unreachable));
        }
        self.phases = Phases::of(&self.task);
        Ok(())
    }

    /// The shell's part: what the machine has decided is written in one transaction before an answer leaves. Where the disk
    /// does not take it, it is kept in memory, and nobody is answered by it.
    pub(super) fn perform_effects(&mut self) {
        let now = self.coordinator_now();
        self.task.open_in_place(now, &mut self.task_rng);
        self.unsaved.extend(std::iter::from_fn(|| self.task.poll_effect()));
        if self.is_saved() || self.is_dead || self.agenda.now() < self.full_until {
            return;
        }
        self.writes += 1;
        match self.disk.writes(Party::Coordinator, Record::Decisions, self.writes) {
            Fate::Kept => self.keep(),
            Fate::Full { millis } => self.full_until = self.agenda.now().plus_millis(millis),
            Fate::Lies => {
                self.header = Header::of(self.task.record());
                let effects = std::mem::take(&mut self.unsaved);
                self.watch(|observer, world| observer.decides(world, &effects));
            }
            Fate::Dies { kept, millis } => {
                if kept {
                    self.keep();
                }
                self.unsaved.clear();
                self.is_dead = true;
                self.back_at = self.agenda.now().plus_millis(millis);
            }
        }
    }

    /// Whether everything that was decided is durable.
    pub(super) fn is_saved(&self) -> bool {
        self.unsaved.is_empty() && Header::of(self.task.record()) == self.header
    }

    /// Makes durable what was decided.
    fn keep(&mut self) {
        let effects = std::mem::take(&mut self.unsaved);
        self.header = Header::of(self.task.record());
        let Header { state, last_round, rounds_charged, devices } = self.header;
        (self.record.state, self.record.last_round) = (state, last_round);
        (self.record.rounds_charged, self.record.devices) = (rounds_charged, devices);
        let mut gathers = false;
        for effect in &effects {
            match effect {
                TaskEffect::FixSurvivors { round, survivors } => {
                    self.fixed.insert(*round, survivors.clone());
                }
                TaskEffect::Excluded { .. } | TaskEffect::Paused { .. } => {}
                TaskEffect::Aborted { outcome, .. } => self.tally.aborts(*outcome),
                TaskEffect::Charge { devices, .. } => {
                    self.record.participations.extend(devices.iter().copied());
                }
                TaskEffect::Gathered { round } => {
                    gathers = true;
                    self.gathering.push(*round);
                }
                TaskEffect::Commit { completed_by, version, adapter, folded, .. } => {
                    self.gathering.extend(completed_by);
                    self.rounds.push(std::mem::take(&mut self.gathering));
                    self.artifacts.insert(version.adapter, adapter.clone());
                    self.artifacts.extend(version.folded.zip(folded.clone()));
                    self.record.folded.clone_from(&self.task.record().folded);
                    self.record.adapter = self.task.adapter().to_vec();
                    self.record.optimizer = self.task.optimizer().clone();
                    self.record.before.clone_from(&self.task.record().before);
                    self.record.versions.push((**version).clone());
                    let traffic = self.new_traffic();
                    let there = self.nodes.iter().enumerate().filter(|(_, node)| node.is_live());
                    let (there, millis) = (there.map(|(index, _)| index), self.millis());
                    self.tally.publishes((**version).clone(), traffic, millis, there);
                    self.come_back();
                }
                TaskEffect::End(_) => self.come_back(),
            }
        }
        // What is kept of the sums is what there is now, with all that came since.
        match self.task.gathered() {
            Some(gathered) if gathers => self.record.gathered = Some(gathered.clone()),
            Some(_) => {}
            None => self.record.gathered = None,
        }
        self.watch(|observer, world| observer.decides(world, &effects));
    }

    /// Ends a task for which too few devices are left, as the server does: who may take part is counted again only when
    /// something has changed that counts.
    pub(super) fn end_if_spent(&mut self) {
        let spending = self.task.spending();
        if self.counted != Some(spending) {
            self.counted = Some(spending);
            self.task.end_if_spent(&self.enrolled);
            self.perform_effects();
        }
    }

    /// Asks again what was held for something that came.
    pub(super) fn notice(&mut self) {
        let now = Phases::of(&self.task);
        if now == self.phases || self.is_dead {
            return;
        }
        let before = std::mem::replace(&mut self.phases, now);
        let came: Vec<_> =
            self.held.keys().copied().filter(|awaits| awaits.came(&before, &self.phases)).collect();
        let woken: Vec<usize> =
            came.into_iter().filter_map(|awaits| self.held.remove(&awaits)).flatten().collect();
        for index in woken {
            if let Doing::Held(held) = std::mem::replace(&mut self.nodes[index].doing, Doing::Asleep) {
                self.nodes[index].doing = Doing::Asking(Box::new(held.question));
                self.enter(index, self.agenda.now());
            }
        }
    }

    /// Devices that went away by a fault come back at the next version, and at the end.
    fn come_back(&mut self) {
        for index in std::mem::take(&mut self.gone) {
            self.enter(index, self.agenda.now());
        }
    }

    /// Bytes of each device since the last version.
    fn new_traffic(&mut self) -> Vec<Traffic> {
        let now: Vec<Traffic> = self.nodes.iter().map(|node| node.traffic).collect();
        let before = std::mem::replace(&mut self.traffic_before, now.clone());
        let since = |(now, before): (Traffic, Traffic)| Traffic {
            up: now.up - before.up,
            down: now.down - before.down,
        };
        now.into_iter().zip(before).map(since).collect()
    }
}
