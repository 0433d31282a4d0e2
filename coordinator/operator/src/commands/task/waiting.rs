//! Whom a task waits for, in words.

use proto::admin::{Gathering, OpenRound, TaskState, TaskStatus};
use proto::shown::shown;

use super::funnel::stalled;
use crate::output::at;

/// Looks in a row, a second apart, that see the same before a watch says whom the task waits for.
const SAME: u32 = 5;

/// Whom a task waits for; none where it is over or waits for its operator.
pub(super) fn of(task: &TaskStatus, now_unix_millis: u64) -> Option<String> {
    match task.state {
        TaskState::Active => {}
        TaskState::Complete | TaskState::BudgetSpent | TaskState::Stopped | TaskState::Paused => return None,
    }
    let waits = match &task.round {
        Some(round) => Some(open(round, &task.open_round)),
        // An older coordinator does not say.
        None if !task.open_round.is_empty() => Some(shown(&task.open_round).to_string()),
        None => Some(format!("none: {}", stalled(task, now_unix_millis))),
    };
    match &task.gathering {
        None => waits,
        Some(gathering) => waits.map(|waits| format!("{}; {waits}", sums(gathering))),
    }
}

/// How far a version of several rounds is.
fn sums(gathering: &Gathering) -> String {
    let Gathering { sums, least, most, open, devices } = *gathering;
    let wanted = if least == most { format!("{most}") } else { format!("{least} to {most}") };
    let rounds = if open == 1 { "round is" } else { "rounds are" };
    format!("{sums} of {wanted} sums are there, of {devices} devices, {open} {rounds} open")
}

fn open(round: &OpenRound, step: &str) -> String {
    let OpenRound { round, joining, done, wanted, least, closes_unix_millis } = *round;
    let what = if joining {
        format!("round {round}: {done} of {wanted} devices joined")
    } else {
        format!("round {round}, {}: {done} of {wanted} devices are done", shown(step))
    };
    let Some(closes) = closes_unix_millis else { return format!("{what}; the sum is being opened") };
    let until = at(closes / 1000);
    let waits = match wanted.saturating_sub(done) {
        0 => what,
        more => format!("{what}, waits until {until} for {more} more"),
    };
    if done < least { format!("{waits}; below {least} it is given up then") } else { waits }
}

/// The same for a table.
pub(super) fn in_short(task: &TaskStatus) -> String {
    match &task.round {
        Some(OpenRound { done, wanted, .. }) => format!("{} {done}/{wanted}", task.open_round),
        None if task.open_round.is_empty() => "-".to_owned(),
        None => task.open_round.clone(),
    }
}

/// What a watch has seen and said of whom its task waits for.
#[derive(Debug, Default)]
pub(super) struct Waits {
    seen: Option<String>,
    looks: u32,
    said: Option<String>,
}

impl Waits {
    /// Takes one look; gives what is to be said, where the task has waited for the same for a while.
    pub(super) fn looked(&mut self, task: &TaskStatus, now_unix_millis: u64) -> Option<String> {
        let now = of(task, now_unix_millis);
        self.looks = if now == self.seen { self.looks.saturating_add(1) } else { 1 };
        self.seen = now;
        if self.looks < SAME || self.seen == self.said {
            return None;
        }
        self.said.clone_from(&self.seen);
        self.said.clone()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proto::ids::{Digest, TaskId};
    use proto::plan::Mode;

    use super::*;

    pub(in crate::commands::task) fn task(round: Option<OpenRound>, open_round: &str) -> TaskStatus {
        TaskStatus {
            task: TaskId([1; 16]),
            name: "owl".to_owned(),
            state: TaskState::Active,
            version: 0,
            versions_wanted: 2,
            plan: Digest([2; 32]),
            adapter: Digest([3; 32]),
            mode: Mode::Off,
            epsilon: 0.0,
            delta: 1e-5,
            rounds_charged: 0,
            versions: Vec::new(),
            open_round: open_round.to_owned(),
            round,
            gathering: None,
            last_abort: String::new(),
            declined: Vec::new(),
            funnel: None,
            last_funnel: None,
            candidates: None,
        }
    }

    const JOINING: OpenRound = OpenRound {
        round: 3,
        joining: true,
        done: 2,
        wanted: 3,
        least: 2,
        closes_unix_millis: Some(1_700_000_000_000),
    };

    #[test]
    fn a_round_that_devices_join_says_how_many_are_there_and_until_when_it_waits() {
        let of_round = |round: OpenRound| of(&task(Some(round), "advertise keys"), 0).unwrap();
        let until = "waits until 2023-11-14T22:13:20Z";
        assert_eq!(of_round(JOINING), format!("round 3: 2 of 3 devices joined, {until} for 1 more"));
        assert_eq!(
            of_round(OpenRound { done: 1, ..JOINING }),
            format!("round 3: 1 of 3 devices joined, {until} for 2 more; below 2 it is given up then")
        );
        let later = OpenRound { joining: false, ..JOINING };
        assert_eq!(
            of(&task(Some(later), "share keys"), 0).unwrap(),
            format!("round 3, share keys: 2 of 3 devices are done, {until} for 1 more")
        );
        let opened = OpenRound { done: 3, closes_unix_millis: None, ..later };
        let opened = of(&task(Some(opened), "unmask"), 0).unwrap();
        assert!(opened.ends_with("the sum is being opened"), "{opened}");
        assert_eq!(in_short(&task(Some(JOINING), "advertise keys")), "advertise keys 2/3");
    }

    #[test]
    fn a_task_without_a_round_says_so_and_one_that_is_over_waits_for_nobody() {
        assert!(of(&task(None, ""), 0).unwrap().starts_with("none: the first device"));
        // As an older coordinator says it.
        assert_eq!(of(&task(None, "advertise keys"), 0).unwrap(), "advertise keys");
        for state in [TaskState::Complete, TaskState::BudgetSpent, TaskState::Stopped, TaskState::Paused] {
            assert_eq!(of(&TaskStatus { state, ..task(Some(JOINING), "advertise keys") }, 0), None);
        }
    }

    #[test]
    fn a_watch_says_once_whom_its_task_waits_for_and_only_where_that_lasts() {
        let mut waits = Waits::default();
        let (one, two) = (
            task(Some(OpenRound { done: 1, ..JOINING }), "advertise keys"),
            task(Some(JOINING), "advertise keys"),
        );
        let mut looks = |task: &TaskStatus| (0..10).filter_map(|_| waits.looked(task, 0)).collect::<Vec<_>>();
        assert_eq!(looks(&one).len(), 1);
        assert_eq!(looks(&two), [of(&two, 0).unwrap()]);
        let mut changing = Waits::default();
        let said = (0..20).filter_map(|look| changing.looked(if look % 2 == 0 { &one } else { &two }, 0));
        assert_eq!(said.count(), 0);
    }
}
