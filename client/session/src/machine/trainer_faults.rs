//! How often a trainer failed one after the other, and the rest that follows.
//!
//! A trainer that dies, hangs or answers nonsense may do so by chance: the system was short of memory, somebody ended
//! it. One that does it again and again will do it all night, on the user's battery. So each task has so many tries in a
//! row; then it is not trained for hours, while the device goes on to ask for new versions and to keep them.

use std::collections::BTreeMap;

use proto::ids::{TaskId, Timestamp};

/// So many failures in a row are one too many.
const MOST_IN_A_ROW: u32 = 3;

/// How long a task rests then: six hours.
pub(super) const REST_MILLIS: u64 = 6 * 3_600_000;

/// What is known of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tries {
    failed: u32,
    rests_until: Option<Timestamp>,
}

/// The failures of each task since it was trained to an end last. A device that starts again knows of none.
#[derive(Clone, Debug, Default)]
pub(super) struct TrainerFaults(BTreeMap<TaskId, Tries>);

/// What follows from one more failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It may be tried again.
    TryAgain,
    /// The task rests until then, after so many failures.
    Rest { failed: u32, until: Timestamp },
}

impl TrainerFaults {
    /// Counts a failure.
    pub(super) fn failed(&mut self, task: TaskId, now: Timestamp) -> Next {
        let tries = self.0.entry(task).or_default();
        tries.failed = tries.failed.saturating_add(1);
        if tries.failed < MOST_IN_A_ROW {
            return Next::TryAgain;
        }
        // After the rest there are as many tries as at first.
        let failed = std::mem::take(&mut tries.failed);
        let until = now.plus_millis(REST_MILLIS);
        tries.rests_until = Some(until);
        Next::Rest { failed, until }
    }

    /// Forgets what failed before: the task was trained to its end.
    pub(super) fn succeeded(&mut self, task: TaskId) {
        self.0.remove(&task);
    }

    /// Until when the task is not trained, if it is not.
    pub(super) fn rests_until(&self, task: TaskId, now: Timestamp) -> Option<Timestamp> {
        self.0.get(&task)?.rests_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const TASK: TaskId = TaskId([1; 16]);
    const OTHER: TaskId = TaskId([2; 16]);

    #[test]
    fn three_failures_in_a_row_rest_the_task_and_no_other() {
        let mut faults = TrainerFaults::default();
        assert_eq!(faults.failed(TASK, NOW), Next::TryAgain);
        assert_eq!(faults.failed(OTHER, NOW), Next::TryAgain);
        assert_eq!(faults.failed(TASK, NOW), Next::TryAgain);
        assert_eq!(faults.rests_until(TASK, NOW), None);
        let until = NOW.plus_millis(REST_MILLIS);
        assert_eq!(faults.failed(TASK, NOW), Next::Rest { failed: 3, until });
        assert_eq!(faults.rests_until(TASK, NOW), Some(until));
        assert_eq!(faults.rests_until(TASK, NOW.plus_millis(REST_MILLIS - 1)), Some(until));
        assert_eq!(faults.rests_until(OTHER, NOW), None);
    }

    #[test]
    fn after_its_rest_a_task_has_as_many_tries_as_at_first() {
        let mut faults = TrainerFaults::default();
        for _ in 0..3 {
            faults.failed(TASK, NOW);
        }
        let later = NOW.plus_millis(REST_MILLIS);
        assert_eq!(faults.rests_until(TASK, later), None);
        assert_eq!(faults.failed(TASK, later), Next::TryAgain);
        assert_eq!(faults.failed(TASK, later), Next::TryAgain);
        assert!(matches!(faults.failed(TASK, later), Next::Rest { failed: 3, .. }));
    }

    #[test]
    fn a_success_between_them_begins_the_count_anew() {
        let mut faults = TrainerFaults::default();
        faults.failed(TASK, NOW);
        faults.failed(TASK, NOW);
        faults.succeeded(TASK);
        assert_eq!(faults.failed(TASK, NOW), Next::TryAgain);
        assert_eq!(faults.failed(TASK, NOW), Next::TryAgain);
    }
}
