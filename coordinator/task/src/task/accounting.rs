//! Who has spent what: charges, what they add up to, and when a task has to end by itself.

use std::collections::BTreeMap;

use privacy::accountant::most_participations;
use privacy::{Delta, Mechanism};
use proto::admin::{ParticipationCount, PrivacySpent, TaskState};
use proto::ids::DeviceId;
use proto::message::Charged;
use proto::plan::Plan;

use super::{Gathered, Task, TaskEffect, TaskError};

impl Task {
    /// ε so far: of the device that took part most often.
    pub fn epsilon(&self) -> f64 {
        match self.record.participations.values().max() {
            None => 0.0,
            Some(most) => self.costs.epsilon(*most, self.delta).epsilon,
        }
    }

    /// What the devices have spent, by how often they took part.
    pub fn spent(&self) -> PrivacySpent {
        let mut counts = BTreeMap::<u32, u32>::new();
        for participations in self.record.participations.values() {
            *counts.entry(*participations).or_default() += 1;
        }
        let count = |(participations, devices): (u32, u32)| ParticipationCount {
            participations,
            devices,
            epsilon: self.costs.epsilon(participations, self.delta).epsilon,
        };
        PrivacySpent {
            task: self.id,
            name: self.plan.name.clone(),
            state: self.record.state,
            mode: self.plan.privacy.mode,
            epsilon: self.epsilon(),
            delta: self.plan.privacy.delta,
            epsilon_budget: self.plan.privacy.epsilon_budget,
            rounds_charged: self.record.rounds_charged,
            participations_allowed: self.most_participations,
            participations: counts.into_iter().map(count).collect(),
        }
    }

    pub(super) fn charge(&mut self, round: u64, devices: Vec<DeviceId>) {
        if devices.is_empty() {
            return;
        }
        self.record.rounds_charged += 1;
        let devices = devices
            .into_iter()
            .map(|device| {
                let count = self.record.participations.entry(device).or_default();
                *count += 1;
                (device, *count)
            })
            .collect();
        self.effects.push_back(TaskEffect::Charge { round, devices });
    }

    pub(super) fn participations(&self, device: DeviceId) -> u32 {
        self.record.participations.get(&device).copied().unwrap_or(0)
    }

    /// How often the device was charged, and what for; `None` where it never was.
    pub fn charged(&self, device: DeviceId) -> Option<Charged> {
        let rounds = self.participations(device);
        (rounds > 0).then(|| Charged { published: self.published(), rounds })
    }

    /// Rounds charged so far, aborted ones too.
    pub fn rounds_charged(&self) -> u64 {
        self.record.rounds_charged
    }

    /// What has happened that changes who may still take part; alike only where nothing has.
    pub fn spending(&self) -> Spending {
        let rounds_charged = self.record.rounds_charged;
        Spending { rounds_charged, excluded: self.excluded.len(), under_way: self.rounds.under_way() }
    }

    /// Whether a device may take part once more.
    pub(super) fn may_take_part(&self, device: DeviceId) -> bool {
        self.participations(device) < self.most_participations && !self.excluded.contains(&device)
    }

    /// What a device has spent: how often it was charged, how often it may be, and the ε of it.
    pub fn spent_by(&self, device: DeviceId) -> (u32, u32, f64) {
        let participations = self.participations(device);
        let epsilon =
            if participations == 0 { 0.0 } else { self.costs.epsilon(participations, self.delta).epsilon };
        (participations, self.most_participations, epsilon)
    }

    /// Ends the task when those of the `enrolled` devices that may still take part are too few for a version. Where
    /// too few are enrolled for any version, the task waits for more. While a round is under way it may still give its sum, of
    /// devices that are charged for it already: it is looked at again when that has ended.
    pub fn end_if_spent(&mut self, enrolled: &[DeviceId]) {
        if self.rounds.under_way() > 0 {
            return;
        }
        let (plan, gathered) = (&self.plan.round, self.record.gathered.as_ref());
        let is_in_it = |device: &DeviceId| gathered.is_some_and(|gathered| gathered.has(*device));
        let able = enrolled.iter().filter(|device| self.may_take_part(**device) && !is_in_it(device));
        let missing = plan.min_rounds.saturating_sub(gathered.map_or(0, Gathered::rounds));
        let needed = plan.report_goal as usize * missing as usize;
        if enrolled.len() >= plan.least_devices() as usize && able.count() < needed {
            self.end(TaskState::BudgetSpent);
        }
    }
}

/// How far the devices of a task have spent what they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spending {
    rounds_charged: u64,
    excluded: usize,
    /// Rounds that may still give their sums.
    under_way: usize,
}

/// How often one device may take part: the plan's number, or fewer where the budget is smaller.
pub(super) fn affordable(plan: &Plan, mechanism: &Mechanism, delta: Delta) -> Result<u32, TaskError> {
    let Some(budget) = plan.privacy.epsilon_budget else {
        return Ok(plan.privacy.participations);
    };
    let affordable = most_participations(&mechanism.curve(), budget, delta);
    if affordable == 0 {
        let one = mechanism.epsilon(1, delta).epsilon;
        return Err(TaskError::BudgetBelowOneRound { one, budget });
    }
    Ok(affordable.min(plan.privacy.participations))
}
