//! What a population can never do is refused before anything runs, with the numbers.

use aggregation::MAX_COHORT;
use engine::process::available_bytes;
use planning::PlanningError;
use proto::counted::counted;
use proto::plan::Plan;

use super::learner::Text;
use super::people::People;
use super::presence::Presence;
use super::scenario::Scenario;
use crate::table::bytes;

/// Hours of a diurnal presence that are looked at: one day is like another.
const LOOKED_AT_HOURS: u64 = 72;

/// Bytes of a device that is there: its machine, its ledger and its place in the log of enrollments.
const BYTES_A_DEVICE: u64 = 4096;

/// Copies of an update that a device of a round has at the same time: what it trained, what it encoded, its masked chunks.
const COPIES: u64 = 4;

/// What a population needs at least, about: what is measured is more.
fn needed_bytes(devices: usize, plan: &Plan) -> u64 {
    let each = 4 * plan.adapter.update_len(0).max(plan.adapter.update_len(1)) as u64;
    let round = u64::from(plan.round.most_devices()).saturating_mul(COPIES.saturating_mul(each));
    (devices as u64).saturating_mul(BYTES_A_DEVICE).saturating_add(round)
}

/// A population that can never make its versions.
#[derive(Debug, thiserror::Error)]
pub enum Impossible {
    /// More devices are wanted of a round than it has.
    #[error(
        "task.report_goal is {goal} and task.cohort is {cohort}: no sum of a round has more devices than the round; lower the goal or raise the cohort"
    )]
    GoalAboveCohort {
        /// The fewest devices of a version.
        goal: u32,
        /// The most devices of a round.
        cohort: u32,
    },
    /// No round has so many devices.
    #[error(
        "task.cohort is {0}, a round has at most {MAX_COHORT} devices: divide them among several rounds of a version (task.rounds)"
    )]
    Cohort(u32),
    /// More devices are named than the trace has.
    #[error("population.devices is {wanted} and the trace has {}; leave it out, or name at most so many", counted(*traced, "device", "devices"))]
    FewTraced {
        /// How many are asked for.
        wanted: usize,
        /// How many there are.
        traced: usize,
    },
    /// More devices are named than have text.
    #[error("population.devices is {devices} and model.data has {} with usable text; leave it out, or name at most so many", counted(*users, "user", "users"))]
    FewUsers {
        /// How many are asked for.
        devices: usize,
        /// How many have text.
        users: usize,
    },
    /// This machine cannot hold it.
    #[error(
        "{} and rounds of {cohort} with {coordinates} numbers each need about {}, and {} are free: lower population.devices, \
         task.cohort or the length of an update", counted(*devices, "device", "devices"), bytes(*needed), bytes(*available)
    )]
    Memory {
        /// Enrolled ones.
        devices: usize,
        /// The most devices of a round.
        cohort: u32,
        /// Numbers of an update.
        coordinates: usize,
        /// Bytes, as far as that is known beforehand.
        needed: u64,
        /// Bytes that the system can give.
        available: u64,
    },
    /// There are fewer devices than a version needs.
    #[error(
        "a version needs {goal} devices and there are {devices}: raise population.devices, or lower task.report_goal, task.cohort or \
         task.min_rounds"
    )]
    FewDevices {
        /// The fewest devices of a version.
        goal: u32,
        /// Enrolled ones.
        devices: usize,
    },
    /// Devices may not take part as often as all versions need.
    #[error(
        "{versions} versions of at least {goal} devices need {} participations, and {} may take part {participations} times each: \
         raise privacy.participations or population.devices, or lower task.versions or task.report_goal",
        u64::from(*versions) * u64::from(*goal), counted(*devices, "device", "devices")
    )]
    FewParticipations {
        /// Versions to make.
        versions: u32,
        /// The fewest devices of a version.
        goal: u32,
        /// Enrolled ones.
        devices: usize,
        /// How often each may take part.
        participations: u32,
    },
    /// Too few are ever there together.
    #[error(
        "a sum needs {goal} devices at a time and at most {most} of {devices} are ever there together ({:.1} hours after the \
         beginning): lower task.report_goal or task.cohort, or change [presence]",
        *at_millis as f64 / 3_600_000.0
    )]
    NeverEnough {
        /// The fewest devices of a sum.
        goal: u32,
        /// The most that are there at a time.
        most: usize,
        /// Enrolled ones.
        devices: usize,
        /// When that is, in milliseconds.
        at_millis: u64,
    },
    /// No plan can be made of it.
    #[error(transparent)]
    Plan(#[from] PlanningError),
}

/// The plan of the task, if the people can make its versions and this machine can hold them.
pub(super) fn plan(scenario: &Scenario, people: &People, text: Option<&Text>) -> Result<Plan, Impossible> {
    let (task, devices) = (&scenario.task, people.devices());
    if task.cohort as usize > MAX_COHORT {
        return Err(Impossible::Cohort(task.cohort));
    }
    if let Some(goal) = task.report_goal.filter(|goal| *goal > task.cohort) {
        return Err(Impossible::GoalAboveCohort { goal, cohort: task.cohort });
    }
    if let Presence::Trace(trace) = people.presence()
        && devices > trace.devices()
    {
        return Err(Impossible::FewTraced { wanted: devices, traced: trace.devices() });
    }
    if let Some(users) = text.map(|text| text.users.len()).filter(|users| *users < devices) {
        return Err(Impossible::FewUsers { devices, users });
    }
    let plan = scenario.plan(text.map(|text| &*text.base))?;
    let goal = plan.round.least_devices();
    if devices < goal as usize {
        return Err(Impossible::FewDevices { goal, devices });
    }
    let (versions, participations) = (task.versions, plan.privacy.participations);
    if (devices as u64).saturating_mul(participations.into()) < u64::from(versions) * u64::from(goal) {
        return Err(Impossible::FewParticipations { versions, goal, devices, participations });
    }
    let needed = needed_bytes(devices, &plan);
    if let Some(available) = available_bytes().filter(|available| *available < needed) {
        let (cohort, coordinates) = (plan.round.cohort, plan.adapter.update_len(0));
        return Err(Impossible::Memory { devices, cohort, coordinates, needed, available });
    }
    let horizon = match people.presence() {
        Presence::Always { .. } => return Ok(plan),
        Presence::Diurnal { .. } => LOOKED_AT_HOURS * 3_600_000,
        Presence::Trace(_) => u64::MAX,
    };
    // The rounds of a version may be at different times, and each needs its own together.
    let goal = plan.round.report_goal;
    let (most, at_millis) = people.presence().most_there(devices, horizon);
    if most < goal as usize {
        return Err(Impossible::NeverEnough { goal, most, devices, at_millis });
    }
    Ok(plan)
}
