//! What a device that is given work looks at first: what it spent by the coordinator's books, and what it declined.

use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::{Assignment, Charged, DeclineReason};

use super::outside::{REFUSED_MILLIS, RESTING_MILLIS, read_plan};
use super::{Ended, Purpose, Session, Stage, Withheld};
use crate::policy::Breach;
use crate::spending::Found;

/// Tasks of which a device keeps charges that only its coordinator knows of: a coordinator can make up as many as it likes.
pub(super) const MOST_TASKS: usize = 1024;

/// Charges of a task that cannot be counted, because nobody gives the plan that says what they cost.
///
/// They are not written down as of unbounded cost: what is in the ledger stays, a coordinator that has lost a file would
/// take all that a user allows, and one whose file comes back could not give it back. What they may change waits instead,
/// and the plan is asked for again: the task itself, and, where the user limits all tasks together, everything, since
/// nobody can say what is left of that. Other tasks go on, because each has limits of its own. The limit on one day's
/// rounds is of work and not of what is shown, and nobody knows on which day these were.
#[derive(Debug)]
pub(super) struct Uncounted {
    /// When the plan is asked for again.
    until: Timestamp,
    /// Why there is none, in words.
    why: String,
}

impl Session {
    /// Goes through the tasks in which the coordinator charged this device, one after the other, before the version is
    /// looked at.
    ///
    /// Only a device whose ledger was lost or restored knows of fewer charges than its coordinator. Whoever says so falsely
    /// makes it spend less.
    pub(super) fn assigned(self, mut assignment: Assignment, now: Timestamp) -> Self {
        let mut uncounted: Option<(TaskId, String)> = None;
        while !assignment.charges.is_empty() {
            let charged = assignment.charges.remove(0);
            let task = charged.published.task;
            let known = self.spending.participations(task);
            if charged.rounds <= known {
                continue;
            }
            if let Some(found) = self.uncounted.get(&task).filter(|found| found.until > now) {
                if uncounted.is_none() || task == assignment.published.task {
                    uncounted = Some((task, found.why.clone()));
                }
                continue;
            }
            if known == 0 && self.spending.tasks() + self.uncounted.len() >= MOST_TASKS {
                return self.end(Ended::TooManyTasks, now.plus_millis(REFUSED_MILLIS));
            }
            return self.to(Stage::Counting { charged, then: Box::new(assignment) });
        }
        let later = now.plus_millis(RESTING_MILLIS);
        if let Some((task, why)) = &uncounted
            && self.device.policy.limits_all_tasks()
        {
            let (task, why, withheld) = (*task, why.clone(), Withheld::Everything);
            return self.end(Ended::Uncounted { task, why, withheld }, later);
        }
        let Assignment { published, before, charges: _ } = assignment;
        if self.forgotten.contains(&published.task) {
            // There may be other tasks.
            let why = Breach::Forgotten(published.task);
            return self.decline(&published, why.reason(), why.into(), later);
        }
        let is_said = |(plan, until): &(Digest, Timestamp)| *plan == published.plan && *until > now;
        if self.declined.get(&published.task).is_some_and(is_said) {
            return self.wait(later);
        }
        if let Some((task, why)) = uncounted.filter(|(task, _)| *task == published.task) {
            let why = Ended::Uncounted { task, why, withheld: Withheld::Task };
            return self.decline(&published, DeclineReason::Plan, why, later);
        }
        self.to(Stage::LoadingPlan { published, purpose: Purpose::Train { before } })
    }

    /// Goes on without counting what the coordinator charged in this task, for a while.
    pub(super) fn cannot_count(mut self, task: TaskId, why: &str, now: Timestamp) -> Self {
        let (until, why) = (now.plus_millis(RESTING_MILLIS), why.to_owned());
        self.uncounted.retain(|_, uncounted| uncounted.until > now);
        self.uncounted.insert(task, Uncounted { until, why: why.clone() });
        self.ended = Some(Ended::Uncounted { task, why, withheld: Withheld::Nothing });
        self
    }

    /// The same, and weighs what that means for what was given to train from.
    pub(super) fn uncounted(
        self,
        charged: Charged,
        mut then: Box<Assignment>,
        why: &str,
        now: Timestamp,
    ) -> Self {
        let session = self.cannot_count(charged.published.task, why, now);
        then.charges.insert(0, charged);
        session.assigned(*then, now)
    }

    /// Records the rounds that its own ledger does not have, of no more than the plan allows anybody, and goes on.
    pub(super) fn count(self, charged: Charged, plan: &[u8], then: Box<Assignment>, now: Timestamp) -> Self {
        let Charged { published, rounds } = charged;
        let plan = match read_plan(&published, plan) {
            Ok(plan) => plan,
            Err(why) => {
                return self.uncounted(charged, then, &why.to_string(), now);
            }
        };
        let rounds = rounds.min(plan.privacy.participations);
        let times = rounds.saturating_sub(self.spending.participations(published.task));
        if times == 0 {
            return self.assigned(*then, now);
        }
        let found = Found {
            task: published.task,
            times,
            plan: published.plan,
            cost: plan.participation_cost(),
            delta: plan.privacy.delta,
        };
        self.to(Stage::RecordingFound { found, then })
    }
}
