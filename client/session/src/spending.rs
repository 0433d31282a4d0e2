//! What this device has spent, by its own ledger and nobody else's word.

use std::collections::BTreeMap;

use privacy::Delta;
use privacy::accountant::{Accountant, RdpCurve};
use proto::ids::{Digest, TaskId, Timestamp};
use serde::{Deserialize, Serialize};

/// A day, for the limit on participations a day.
const DAY_MILLIS: u64 = 24 * 3_600_000;

/// What a charge in the device's ledger says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Charge {
    /// The task.
    pub task: TaskId,
    /// The version trained from.
    pub version: u32,
    /// The round.
    pub round: u64,
    /// The plan's hash.
    pub plan: Digest,
    /// The Rényi divergence that the participation costs.
    pub cost: RdpCurve,
    /// The δ at which the plan states ε.
    pub delta: f64,
    /// Bytes of the masked input.
    pub bytes: u64,
    /// Sequences that it was trained on.
    pub examples: u32,
}

/// Charges that the coordinator knows of and this device's ledger does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The task.
    pub task: TaskId,
    /// How many participations.
    pub times: u32,
    /// The plan's hash.
    pub plan: Digest,
    /// The Rényi divergence that each of them is taken to have cost: that of the plan.
    pub cost: RdpCurve,
    /// The δ at which the plan states ε.
    pub delta: f64,
}

/// The sum of all charges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spending {
    tasks: BTreeMap<TaskId, (u32, Accountant)>,
    /// How many charges were written at each moment: who finds many at once says so in one number.
    times: BTreeMap<Timestamp, u32>,
    in_total: u32,
}

impl Spending {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a charge that was written at `at`.
    pub fn add(&mut self, charge: &Charge, at: Timestamp) {
        let (participations, cost) = self.tasks.entry(charge.task).or_default();
        *participations += 1;
        cost.add(charge.cost.clone(), 1);
        self.count(1, at);
    }

    /// Adds charges that were found at the coordinator at `at`; nobody here knows when they were made.
    pub fn add_found(&mut self, found: &Found, at: Timestamp) {
        let (participations, cost) = self.tasks.entry(found.task).or_default();
        *participations = participations.saturating_add(found.times);
        cost.add(found.cost.clone(), found.times);
        self.count(found.times, at);
    }

    fn count(&mut self, charges: u32, at: Timestamp) {
        let then = self.times.entry(at).or_default();
        *then = then.saturating_add(charges);
        self.in_total = self.in_total.saturating_add(charges);
    }

    /// Tasks in which it was charged.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Charged rounds of a task.
    pub fn participations(&self, task: TaskId) -> u32 {
        self.tasks.get(&task).map_or(0, |(participations, _)| *participations)
    }

    /// Charged rounds of all tasks.
    pub fn in_total(&self) -> u32 {
        self.in_total
    }

    /// The first moment from `now` on at which one more charge would not be more than `most` within a day; `None`
    /// where that is now.
    pub fn rests_until(&self, now: Timestamp, most: u32) -> Option<Timestamp> {
        let today = || self.times.iter().filter(|(at, _)| at.plus_millis(DAY_MILLIS) > now);
        let charges: u64 = today().map(|(_, charges)| u64::from(*charges)).sum();
        let surplus = (charges + 1).checked_sub(u64::from(most)).filter(|surplus| *surplus > 0)?;
        let mut freed = 0;
        let frees = today().find(|(_, charges)| {
            freed += u64::from(**charges);
            freed >= surplus
        });
        let frees = frees.or(today().next_back()).map_or(now, |(at, _)| *at);
        Some(frees.plus_millis(DAY_MILLIS))
    }

    /// ε of a task so far.
    pub fn epsilon(&self, task: TaskId, delta: Delta) -> f64 {
        self.tasks.get(&task).map_or(0.0, |(_, cost)| cost.epsilon(delta).epsilon)
    }

    /// ε of all tasks together after one more participation at `cost`.
    pub fn epsilon_in_total_after(&self, cost: RdpCurve, delta: Delta) -> f64 {
        let mut after = self.total();
        after.add(cost, 1);
        after.epsilon(delta).epsilon
    }

    /// ε of all tasks together so far.
    pub fn epsilon_in_total(&self, delta: Delta) -> f64 {
        self.total().epsilon(delta).epsilon
    }

    fn total(&self) -> Accountant {
        let mut total = Accountant::new();
        for (_, cost) in self.tasks.values() {
            total.add_all(cost);
        }
        total
    }

    /// ε of a task after one more participation at `cost`.
    pub fn epsilon_after(&self, task: TaskId, cost: RdpCurve, delta: Delta) -> f64 {
        let mut after = self.tasks.get(&task).map_or_else(Accountant::new, |(_, cost)| cost.clone());
        after.add(cost, 1);
        after.epsilon(delta).epsilon
    }
}

#[cfg(test)]
mod tests {
    use privacy::NoiseMultiplier;

    use super::*;

    const TASK: TaskId = TaskId([1; 16]);

    fn charge(task: TaskId, z: f64) -> Charge {
        let cost = RdpCurve::Gaussian { noise_multiplier: NoiseMultiplier::new(z).unwrap() };
        Charge {
            task,
            version: 0,
            round: 1,
            plan: Digest([2; 32]),
            cost,
            delta: 1e-5,
            bytes: 10,
            examples: 4,
        }
    }

    fn delta() -> Delta {
        Delta::new(1e-5).unwrap()
    }

    #[test]
    fn charges_of_different_plans_add_up_as_they_were_written() {
        let mut spending = Spending::new();
        spending.add(&charge(TASK, 1.0), Timestamp(0));
        spending.add(&charge(TASK, 4.0), Timestamp(1));
        spending.add(&charge(TaskId([9; 16]), 1.0), Timestamp(2));
        assert_eq!((spending.participations(TASK), spending.in_total()), (2, 3));
        let rho = 0.5 + 0.5 / 16.0;
        let expected = privacy::accountant::zcdp_epsilon(rho, delta()).epsilon;
        assert!((spending.epsilon(TASK, delta()) - expected).abs() < 1e-9);
        let more = spending.epsilon_after(TASK, charge(TASK, 2.0).cost, delta());
        let expected = privacy::accountant::zcdp_epsilon(rho + 0.125, delta()).epsilon;
        assert!((more - expected).abs() < 1e-9);
        assert!(spending.epsilon(TaskId([5; 16]), delta()).abs() < f64::EPSILON);
    }

    #[test]
    fn charges_that_were_found_at_the_coordinator_cost_what_others_cost() {
        let (mut made, mut found) = (Spending::new(), Spending::new());
        let charge = charge(TASK, 1.0);
        for _ in 0..3 {
            made.add(&charge, Timestamp(7));
        }
        found.add(&charge, Timestamp(7));
        let Charge { task, plan, cost, delta, .. } = charge;
        found.add_found(&Found { task, times: 2, plan, cost, delta }, Timestamp(7));
        assert_eq!(found, made);
    }

    #[test]
    fn a_day_is_the_last_twenty_four_hours() {
        let mut spending = Spending::new();
        let hour = |hour: u64| Timestamp(hour * 3_600_000);
        assert_eq!(spending.rests_until(hour(0), 1), None);
        spending.add(&charge(TASK, 1.0), hour(0));
        spending.add(&charge(TASK, 1.0), hour(10));
        assert_eq!(spending.rests_until(hour(11), 3), None);
        assert_eq!(spending.rests_until(hour(11), 2), Some(hour(24)));
        assert_eq!(spending.rests_until(hour(11), 1), Some(hour(34)));
        assert_eq!(spending.rests_until(hour(24), 2), None);
        // None at all: never, and looked at again when the last one is a day old.
        assert_eq!(spending.rests_until(hour(11), 0), Some(hour(34)));
    }

    #[test]
    fn a_charge_comes_back_from_its_record() {
        let cost = RdpCurve::Skellam {
            delta1: 0.1 + 0.2,
            delta2: 1.0 / 3.0,
            variance: 1e9 / 7.0,
            sampler: privacy::accountant::SamplerError { log_ratio: 1e-25, distance: 1e-30 },
        };
        let charge = Charge { cost, ..charge(TASK, 1.0) };
        let text = serde_json::to_string(&charge).unwrap();
        assert_eq!(serde_json::from_str::<Charge>(&text).unwrap(), charge);
    }
}
