//! The coordinator's shell in a world: what is made durable, what is noticed, and what a crash leaves.

use session::Event;
use task::held::Phases;
use task::{Task, TaskEffect};

use super::node::Doing;
use super::wire::News;
use super::{Traffic, World, WorldError};

impl World {
    /// Stops the coordinator as a crash does, and starts it again so much later.
    pub fn restart_coordinator(&mut self, later_millis: u64) -> Result<(), WorldError> {
        self.back_at = self.agenda.now().plus_millis(later_millis);
        self.crash_coordinator()?;
        self.deliver()
    }

    /// Whether the coordinator hears anybody.
    pub(super) fn is_there(&self) -> bool {
        self.agenda.now() >= self.back_at
    }

    /// Forgets everything of the coordinator that is not durable, and starts it again. Whose questions it held hears nothing
    /// any more.
    pub(super) fn crash_coordinator(&mut self) -> Result<(), WorldError> {
        let (id, record) = (self.task.id(), self.record.clone());
        let authority = &self.common.authority;
        let task = Task::restore(id, &self.plan_bytes, self.given.clone(), authority.public(), record)?;
        self.task = authority.of_task(task);
        self.coordinator_crashes += 1;
        self.counted = None;
        for index in std::mem::take(&mut self.held).into_values().flatten() {
            self.nodes[index].doing = Doing::Asleep;
            self.tell(index, self.agenda.now(), News::Event(Event::Unreachable));
        }
        self.phases = Phases::of(&self.task);
        Ok(())
    }

    /// The shell's part: everything here is durable before the reply leaves.
    pub(super) fn perform_effects(&mut self) {
        self.task.open_in_place(self.agenda.now(), &mut self.task_rng);
        while let Some(effect) = self.task.poll_effect() {
            match effect {
                TaskEffect::FixSurvivors { round, survivors } => {
                    self.record.last_round = self.record.last_round.max(round);
                    self.fixed.insert(round, survivors);
                }
                TaskEffect::Excluded { .. } => {}
                TaskEffect::Paused { .. } => self.record.state = self.task.record().state,
                TaskEffect::Aborted { round, outcome } => {
                    self.record.last_round = self.record.last_round.max(round);
                    self.observer.aborts(outcome);
                }
                TaskEffect::Charge { round, devices } => {
                    self.record.last_round = self.record.last_round.max(round);
                    self.record.rounds_charged += 1;
                    self.record.participations.extend(devices);
                }
                TaskEffect::Gathered { round } => {
                    self.record.last_round = self.record.last_round.max(round);
                    self.record.gathered = self.task.gathered().cloned();
                    self.gathering.push(round);
                }
                TaskEffect::Commit { completed_by, version, adapter, folded, .. } => {
                    self.gathering.extend(completed_by);
                    self.rounds.push(std::mem::take(&mut self.gathering));
                    self.record.gathered = self.task.gathered().cloned();
                    self.artifacts.insert(version.adapter, adapter);
                    self.artifacts.extend(version.folded.zip(folded));
                    self.record.folded.clone_from(&self.task.record().folded);
                    self.record.adapter = self.task.adapter().to_vec();
                    self.record.optimizer = self.task.optimizer().clone();
                    self.record.before.clone_from(&self.task.record().before);
                    self.record.devices = self.task.record().devices;
                    self.record.versions.push((*version).clone());
                    let traffic = self.new_traffic();
                    let there = self.nodes.iter().enumerate().filter(|(_, node)| node.is_live());
                    let (there, millis) = (there.map(|(index, _)| index), self.millis());
                    self.observer.publishes(*version, traffic, millis, there);
                    self.come_back();
                }
                TaskEffect::End(state) => {
                    self.record.state = state;
                    self.record.gathered = None;
                    self.come_back();
                }
            }
        }
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
        if now == self.phases {
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
