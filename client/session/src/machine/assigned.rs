//! What a device that is given work looks at first: what it spent by the coordinator's books, and what it declined.

use proto::ids::{Digest, Timestamp};
use proto::message::{Assignment, Charged};

use super::outside::{REFUSED_MILLIS, RESTING_MILLIS, read_plan};
use super::{Ended, Purpose, Session, Stage};
use crate::policy::Breach;
use crate::spending::Found;

/// Tasks of which a device keeps charges that only its coordinator knows of: a coordinator can make up as many as it likes.
pub(super) const MOST_TASKS: usize = 1024;

impl Session {
    /// Goes through the tasks in which the coordinator charged this device, one after the other, before the version is
    /// looked at.
    ///
    /// Only a device whose ledger was lost or restored knows of fewer charges than its coordinator. Whoever says so falsely
    /// makes it spend less.
    pub(super) fn assigned(self, mut assignment: Assignment, now: Timestamp) -> Self {
        while !assignment.charges.is_empty() {
            let charged = assignment.charges.remove(0);
            let known = self.spending.participations(charged.published.task);
            if charged.rounds > known {
                if known == 0 && self.spending.tasks() >= MOST_TASKS {
                    return self.end(Ended::TooManyTasks, now.plus_millis(REFUSED_MILLIS));
                }
                return self.to(Stage::Counting { charged, then: Box::new(assignment) });
            }
        }
        let Assignment { published, before, charges: _ } = assignment;
        if self.forgotten.contains(&published.task) {
            // There may be other tasks.
            let why = Breach::Forgotten(published.task);
            let until = now.plus_millis(RESTING_MILLIS);
            return self.decline(&published, why.reason(), why.into(), until);
        }
        let is_said = |(plan, until): &(Digest, Timestamp)| *plan == published.plan && *until > now;
        if self.declined.get(&published.task).is_some_and(is_said) {
            return self.wait(now.plus_millis(RESTING_MILLIS));
        }
        self.to(Stage::LoadingPlan { published, purpose: Purpose::Train { before } })
    }

    /// Records the rounds that its own ledger does not have, of no more than the plan allows anybody, and goes on. Where
    /// the plan cannot be read, nobody knows what they cost, so nothing more is spent.
    pub(super) fn count(self, charged: Charged, plan: &[u8], then: Box<Assignment>, now: Timestamp) -> Self {
        let Charged { published, rounds } = charged;
        let plan = match read_plan(&published, plan) {
            Ok(plan) => plan,
            Err(why) => return self.end(why, now.plus_millis(RESTING_MILLIS)),
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
