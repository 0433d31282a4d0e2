//! How far devices came with a task's versions, and why no round opens, in words.

use proto::admin::{Candidates, DeclineCount, Funnel, TaskStatus};
use proto::counted::counted;
use proto::shown::shown;

use crate::output::{at, table};

/// Of many devices some calls in every second, and one that may not train now each half hour: silence that lasts longer than
/// this is told, in milliseconds.
const QUIET_MILLIS: u64 = 40 * 60 * 1000;

/// Why no round of a task that goes on is open; by what the coordinator said, and its clock or this machine's.
pub(super) fn stalled(task: &TaskStatus, now_unix_millis: u64) -> String {
    let first = "the first device that has trained this version opens one";
    let (Some(candidates), Some(funnel)) = (&task.candidates, &task.funnel) else { return first.to_owned() };
    let Candidates { enrolled, able, declined, last_call_unix_secs, trouble, least } = candidates;
    if !trouble.is_empty() {
        return format!("the coordinator writes nothing until its disk is mended: {}", shown(trouble));
    }
    if enrolled < least {
        return format!(
            "{} enrolled and a round needs {least}; `nightshift device token` makes a token for another one",
            counted(*enrolled, "device is", "devices are")
        );
    }
    if able < least {
        return format!(
            "{able} of {} may take part once more and a round needs {least}; the others spent what the plan allows, or were \
             shut out",
            counted(*enrolled, "enrolled device", "enrolled devices")
        );
    }
    if able.saturating_sub(*declined) < *least {
        return format!(
            "{declined} of the {} that may take part {}, and a round needs {least}; the reasons are below",
            counted(*able, "device", "devices"),
            if *declined == 1 { "declines" } else { "decline" }
        );
    }
    let is_quiet = |since: u64| now_unix_millis.saturating_sub(since) > QUIET_MILLIS;
    let called = last_call_unix_secs.saturating_mul(1000);
    if called == 0 && is_quiet(funnel.since_unix_millis) {
        return format!("no device has called, at least since {}", at(funnel.since_unix_millis / 1000));
    }
    if called > 0 && is_quiet(called) {
        return format!(
            "no device has called since {}; they do while they are up, are free to train, and reach the coordinator",
            at(*last_call_unix_secs)
        );
    }
    let offered = funnel.last_offered_unix_millis.max(funnel.since_unix_millis);
    if is_quiet(offered) {
        return format!(
            "devices call, but none was offered this task since {}; another task may come before it",
            at(offered / 1000)
        );
    }
    match (funnel.assigned.saturating_sub(funnel.trained), funnel.trained) {
        (0, 0) => format!("no device has the version yet; {first}"),
        (training, 0) => format!(
            "{} the version and {} not trained it yet; {first}",
            counted(training, "device has", "devices have"),
            if training == 1 { "has" } else { "have" }
        ),
        (_, trained) => format!(
            "{} trained this version; the next that asks opens one",
            counted(trained, "device has", "devices have")
        ),
    }
}

/// The steps of the newest version and of the one before, a line each.
pub(super) fn steps(task: &TaskStatus) -> Option<String> {
    let now = task.funnel.as_ref()?;
    let last = task.last_funnel.as_ref();
    let mut head = vec!["DEVICES".to_owned(), format!("VERSION {}", now.version)];
    head.extend(last.map(|last| format!("VERSION {}", last.version)));
    let rows = |of: &dyn Fn(&Funnel) -> u32, name: &str| {
        let count = |funnel: &Funnel| {
            let more = if funnel.overflowed { " or more" } else { "" };
            format!("{}{more}", of(funnel))
        };
        let mut row = vec![name.to_owned(), count(now)];
        row.extend(last.map(count));
        row
    };
    let rows = [
        rows(&|funnel| funnel.offered, "offered"),
        rows(&|funnel| funnel.assigned, "assigned"),
        rows(&|funnel| funnel.trained, "trained"),
        rows(&|funnel| funnel.joined, "joined"),
        rows(&|funnel| funnel.submitted, "submitted"),
        rows(&|funnel| funnel.counted, "in the sum"),
        rows(&|funnel| funnel.missing, "missing"),
    ];
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let since = |funnel: &Funnel| {
        let (since, why) =
            (at(funnel.since_unix_millis / 1000), if funnel.whole { "" } else { ", when it started" });
        format!("version {} is trained from is counted since {since}{why}", funnel.version)
    };
    let mut lines = vec![table(&head, &rows)];
    lines.push(format!("who {}", since(now)));
    lines.extend(last.map(|last| format!("who {}", since(last))));
    Some(lines.join("\n"))
}

/// How many devices do not take part, by their reasons, and since when.
pub(super) fn declines(task: &TaskStatus) -> Vec<String> {
    let line = |count: &DeclineCount| {
        let DeclineCount { reason, devices, first_unix_millis, last_unix_millis } = *count;
        let when = match (first_unix_millis, last_unix_millis) {
            // An older coordinator does not say.
            (0, _) => String::new(),
            (first, last) if first / 1000 == last / 1000 => format!(" (said at {})", at(first / 1000)),
            (first, last) => format!(" (said first at {}, last at {})", at(first / 1000), at(last / 1000)),
        };
        format!("{devices}: {reason}{when}")
    };
    task.declined.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use proto::message::DeclineReason;

    use super::super::waiting::tests::task;
    use super::*;

    const START: u64 = 1_700_000_000_000;
    const NOW: u64 = START + 3_600_000;

    fn funnel() -> Funnel {
        Funnel {
            version: 2,
            since_unix_millis: START,
            whole: false,
            offered: 6,
            assigned: 5,
            trained: 0,
            joined: 0,
            submitted: 0,
            counted: 0,
            missing: 0,
            overflowed: false,
            last_offered_unix_millis: NOW - 1000,
        }
    }

    fn candidates() -> Candidates {
        Candidates {
            enrolled: 9,
            able: 8,
            declined: 2,
            last_call_unix_secs: NOW / 1000 - 1,
            trouble: String::new(),
            least: 5,
        }
    }

    fn why(candidates: Candidates, funnel: Funnel) -> String {
        let task = TaskStatus { candidates: Some(candidates), funnel: Some(funnel), ..task(None, "") };
        stalled(&task, NOW)
    }

    #[test]
    fn each_reason_why_no_round_opens_is_told_by_its_numbers() {
        let with = |change: &dyn Fn(&mut Candidates)| {
            let mut candidates = candidates();
            change(&mut candidates);
            why(candidates, funnel())
        };
        assert!(with(&|_| {}).starts_with("5 devices have the version and have not trained it yet"));
        assert!(with(&|c| c.trouble = "no room".into()).ends_with("its disk is mended: no room"));
        assert!(with(&|c| c.enrolled = 4).starts_with("4 devices are enrolled and a round needs 5"));
        assert!(with(&|c| c.able = 4).starts_with("4 of 9 enrolled devices may take part once more"));
        assert!(with(&|c| c.declined = 4).starts_with("4 of the 8 devices that may take part decline"));
        let silent = with(&|c| c.last_call_unix_secs = START / 1000);
        assert!(silent.starts_with("no device has called since 2023-11-14T22:13:20Z"), "{silent}");
        let never = with(&|c| c.last_call_unix_secs = 0);
        assert!(never.starts_with("no device has called, at least since 2023"), "{never}");
        let passed_over = why(candidates(), Funnel { last_offered_unix_millis: 0, ..funnel() });
        assert!(
            passed_over.starts_with("devices call, but none was offered this task since"),
            "{passed_over}"
        );
        let trained = why(candidates(), Funnel { trained: 3, ..funnel() });
        assert!(trained.starts_with("3 devices have trained this version"), "{trained}");
        let one = why(candidates(), Funnel { assigned: 1, ..funnel() });
        assert!(one.starts_with("1 device has the version and has not trained it yet"), "{one}");
        let new = why(candidates(), Funnel { assigned: 0, ..funnel() });
        assert!(new.starts_with("no device has the version yet"), "{new}");
    }

    #[test]
    fn both_versions_stand_beside_each_other_and_say_since_when_they_are_counted() {
        let last = Funnel { version: 1, whole: true, missing: 3, overflowed: true, ..funnel() };
        let both = TaskStatus { funnel: Some(funnel()), last_funnel: Some(last), ..task(None, "") };
        let steps = steps(&both).unwrap();
        let lines: Vec<&str> = steps.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "DEVICES     VERSION 2  VERSION 1");
        assert_eq!(lines[1], "offered     6          6 or more");
        assert_eq!(lines[7], "missing     0          3 or more");
        assert!(lines[8].ends_with("counted since 2023-11-14T22:13:20Z, when it started"), "{}", lines[8]);
        assert!(lines[9].ends_with("2023-11-14T22:13:20Z"), "{}", lines[9]);
        assert_eq!(super::steps(&task(None, "")), None, "an older coordinator counts nothing");
    }

    #[test]
    fn a_reason_says_since_when_it_is_given() {
        let count = |first, last| DeclineCount {
            reason: DeclineReason::Noise,
            devices: 3,
            first_unix_millis: first,
            last_unix_millis: last,
        };
        let line = |count| declines(&TaskStatus { declined: vec![count], ..task(None, "") }).remove(0);
        let reason = DeclineReason::Noise;
        assert_eq!(line(count(0, 0)), format!("3: {reason}"));
        assert_eq!(line(count(START, START + 1)), format!("3: {reason} (said at 2023-11-14T22:13:20Z)"));
        let two = line(count(START, NOW));
        assert!(two.ends_with("(said first at 2023-11-14T22:13:20Z, last at 2023-11-14T23:13:20Z)"), "{two}");
    }
}
