//! What the tools of macOS print: `pmset`, `ioreg` and `ps`.

use std::collections::BTreeSet;
use std::time::Duration;

use session::conditions::Power;

/// Of `pmset -g batt`: what power is drawn from, and the charge of the emptiest battery of the machine.
pub(super) fn power(text: &str) -> Option<Power> {
    let first = text.lines().next()?;
    let drawn_from = first.strip_prefix("Now drawing from '")?.split('\'').next()?;
    let external = match drawn_from {
        "AC Power" => true,
        "Battery Power" | "UPS Power" => false,
        _ => return None,
    };
    let batteries = text.lines().skip(1).filter(|line| line.contains("InternalBattery"));
    let percent = batteries.filter_map(|line| {
        let (before, _) = line.split_once('%')?;
        before.split_whitespace().next_back()?.parse::<f64>().ok()
    });
    Some(Power { external, battery_percent: percent.min_by(f64::total_cmp) })
}

/// Of `pmset -g`: whether the mode of low power is on; off where the machine has none.
pub(super) fn low_power(text: &str) -> bool {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("lowpowermode"));
    value.is_some_and(|value| value.trim() == "1")
}

/// Of `ioreg -c IOHIDSystem -d 4`: how long no key and no pointer was moved.
pub(super) fn idle(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.split_once("\"HIDIdleTime\" ="))?;
    Some(Duration::from_nanos(line.1.trim().parse().ok()?))
}

/// Of `ps -A -o pid=,ppid=,pcpu=`: what share of so many processors others use, in percent; `own` is this process, and
/// what is below it is its.
pub(super) fn busy_percent(text: &str, own: u32, processors: usize) -> Option<f64> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let [process, parent, percent] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        let percent: f64 = percent.replace(',', ".").parse().ok()?;
        rows.push((process.parse::<u32>().ok()?, parent.parse::<u32>().ok()?, percent));
    }
    let mut family = BTreeSet::from([own]);
    loop {
        let below = |row: &&(u32, u32, f64)| family.contains(&row.1) && !family.contains(&row.0);
        let Some(child) = rows.iter().find(below).map(|row| row.0) else { break };
        family.insert(child);
    }
    let others = rows.iter().filter(|row| !family.contains(&row.0));
    let sum: f64 = others.map(|row| row.2).sum();
    (!rows.is_empty() && processors > 0).then(|| (sum / processors as f64).min(100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_macbook_on_its_charger_and_off_it() {
        let on = "Now drawing from 'AC Power'\n -InternalBattery-0 (id=4325475)\t95%; charging; 0:20 remaining \
                  present: true\n";
        assert_eq!(power(on), Some(Power { external: true, battery_percent: Some(95.0) }));
        let off = on.replace("AC Power", "Battery Power").replace("95%", "7%");
        assert_eq!(power(&off), Some(Power { external: false, battery_percent: Some(7.0) }));
        let desktop = "Now drawing from 'AC Power'\n";
        assert_eq!(power(desktop), Some(Power { external: true, battery_percent: None }));
        assert_eq!(power("pmset: command not found"), None);
    }

    #[test]
    fn low_power_is_on_or_off_or_not_there() {
        assert!(low_power("Battery Power:\n lowpowermode         1\n womp 0\n"));
        assert!(!low_power(" lowpowermode         0\n"));
        assert!(!low_power(" sleep 1\n"));
    }

    #[test]
    fn idle_time_is_in_nanoseconds() {
        let text = "  | |   \"HIDParameters\" = {\"a\"=1}\n  | |   \"HIDIdleTime\" = 2500000000\n";
        assert_eq!(idle(text), Some(Duration::from_millis(2500)));
        assert_eq!(idle("\"HIDIdleTime\" = many"), None);
        assert_eq!(idle(""), None);
    }

    #[test]
    fn what_this_process_and_those_below_it_use_is_not_others() {
        let text =
            "    1     0   4.0\n   50     1  90,0\n   51    50 100.0\n   52    51   6.0\n   60     1  36.0\n";
        assert_eq!(busy_percent(text, 50, 4), Some(10.0));
        assert_eq!(busy_percent("1 0\n", 50, 4), None);
        assert_eq!(busy_percent("", 50, 4), None);
    }
}
