//! What a user can do about conditions that the machine cannot tell.

use session::conditions::{Condition, Judgment};

/// What to set where conditions block because no source tells them, as on a server or in a container; `None` where every
/// condition is known or assumed. The line names what is assumed already, too, so that it can replace the one that is
/// there.
pub fn advice(judged: &[Judgment]) -> Option<String> {
    let unknown = untold(judged);
    if !unknown.iter().any(|row| row.blocking) {
        return None;
    }
    let name = |row: &&Judgment| row.condition.as_str();
    let list: Vec<String> = unknown.iter().map(|row| format!("\"{}\"", name(row))).collect();
    let blocking = unknown.iter().filter(|row| row.blocking);
    let reasons: Vec<String> = blocking.map(|row| format!("\n  {}: {}", name(row), row.source)).collect();
    let reasons = reasons.concat();
    Some(format!(
        "This machine cannot tell every condition:{reasons}\nUntil it can, or you say that they always hold here, it does \
         not train. Where they do, put this line under [conditions] of the configuration:\n  assume = [{}]",
        list.join(", ")
    ))
}

/// The conditions that the machine should tell and cannot, each once, assumed or not.
pub fn untold(judged: &[Judgment]) -> Vec<&Judgment> {
    let mut rows: Vec<&Judgment> = Vec::new();
    for row in judged.iter().filter(|row| row.unknown) {
        let of_device = matches!(row.condition, Condition::Disk | Condition::Budget | Condition::Resumed);
        if !of_device && !rows.iter().any(|other| other.condition == row.condition) {
            rows.push(row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use session::conditions::{Conditions, Purpose, Reading, Snapshot, Usage, judge};

    use super::*;

    fn told(snapshot: &Snapshot, assumed: &[Condition]) -> Option<String> {
        let limits = Conditions { assume: BTreeSet::from_iter(assumed.to_vec()), ..Conditions::default() };
        let judged =
            [judge(snapshot, &limits, Purpose::Start), judge(snapshot, &limits, Purpose::Transfer)].concat();
        advice(&judged)
    }

    #[test]
    fn a_server_is_told_the_line_that_it_needs() {
        let usage = Usage { free_disk_mib: Some(10_000), ..Usage::default() };
        let snapshot = Snapshot {
            busy_percent: Reading::of(3.0, "/proc/stat"),
            power_saver: Reading::of(false, "no power profiles"),
            power: Reading::unknown("no UPower on the bus, no supply in /sys/class/power_supply"),
            usage,
            ..Snapshot::default()
        };
        let advice = told(&snapshot, &[Condition::Idle]).unwrap();
        assert!(
            advice.ends_with("  assume = [\"mains\", \"idle\", \"cool\", \"unmetered\"]"),
            "what was assumed stays: {advice}"
        );
        assert!(advice.contains("mains: no UPower on the bus, no supply in /sys/class/power_supply"));
        assert!(!advice.contains("idle: "), "what is assumed needs no reason: {advice}");
    }

    #[test]
    fn nothing_is_advised_where_everything_unknown_is_assumed() {
        let all = Condition::ALL;
        assert_eq!(told(&Snapshot::default(), &all), None);
        // The disk is not the machine's to tell, and no assumption helps it.
        let disk = told(&Snapshot::default(), &all[..6]);
        assert_eq!(disk, None);
    }
}
