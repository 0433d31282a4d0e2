//! How far the machine is from the temperature at which it helps itself.

use std::path::Path;

use session::conditions::Reading;

use super::files::{entries, number, word};

/// The most trips of a zone that are looked at.
const MOST_TRIPS: usize = 32;

/// The least distance of a zone below `root` to its lowest passive, hot or critical trip, in degrees Celsius.
///
/// A sensor that is asleep does not say its temperature, and its zone is left out.
pub(super) fn cool(root: &Path) -> Reading<f64> {
    let mut least: Option<f64> = None;
    let mut broken = None;
    for zone in entries(&root.join("sys/class/thermal"), "thermal_zone") {
        match margin(root, &zone) {
            Ok(Some(margin)) => least = Some(least.map_or(margin, |found| found.min(margin))),
            Ok(None) => {}
            Err(why) => broken = Some(why),
        }
    }
    match (least, broken) {
        (Some(least), _) => Reading::of(least, "/sys/class/thermal"),
        (None, Some(why)) => Reading::unknown(why),
        (None, None) => Reading::unknown("no zone with a trip in /sys/class/thermal"),
    }
}

fn margin(root: &Path, zone: &Path) -> Result<Option<f64>, String> {
    let Some(temperature) = number(root, &zone.join("temp"))? else { return Ok(None) };
    let mut lowest: Option<f64> = None;
    for trip in 0..MOST_TRIPS {
        let Some(kind) = word(&zone.join(format!("trip_point_{trip}_type"))) else { break };
        if !matches!(kind.as_str(), "passive" | "hot" | "critical") {
            continue;
        }
        let at = number(root, &zone.join(format!("trip_point_{trip}_temp")))?;
        // Firmware that does not use a trip leaves it at zero or below.
        if let Some(at) = at.filter(|at| *at > 0.0) {
            lowest = Some(lowest.map_or(at, |found| found.min(at)));
        }
    }
    Ok(lowest.map(|lowest| (lowest - temperature) / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    fn read(files: &[(&str, &str)]) -> Reading<f64> {
        let files: Vec<(String, &str)> = files
            .iter()
            .map(|(path, text)| (format!("sys/class/thermal/thermal_zone{path}"), *text))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        cool(tree(&files).path())
    }

    #[test]
    fn the_zone_nearest_to_its_trip_counts() {
        let zones = [
            ("0/temp", "40000"),
            ("0/trip_point_0_type", "active"),
            ("0/trip_point_0_temp", "45000"),
            ("0/trip_point_1_type", "passive"),
            ("0/trip_point_1_temp", "90000"),
            ("1/temp", "70000"),
            ("1/trip_point_0_type", "critical"),
            ("1/trip_point_0_temp", "100000"),
            ("1/trip_point_1_type", "hot"),
            ("1/trip_point_1_temp", "-274000"),
            ("2/temp", "95000"),
        ];
        assert_eq!(read(&zones), Reading::of(30.0, "/sys/class/thermal"));
    }

    #[test]
    fn a_machine_that_is_too_hot_is_below_zero() {
        let zones =
            [("0/temp", "97000"), ("0/trip_point_0_type", "passive"), ("0/trip_point_0_temp", "95000")];
        assert_eq!(read(&zones).value, Some(-2.0));
    }

    #[test]
    fn a_sensor_that_says_no_number_is_left_out_and_named_where_it_is_the_only_one() {
        let broken = [("0/temp", "hot"), ("0/trip_point_0_type", "hot"), ("0/trip_point_0_temp", "95000")];
        let why = "/sys/class/thermal/thermal_zone0/temp says \"hot\", which is no number";
        assert_eq!(read(&broken), Reading::unknown(why));
        assert_eq!(read(&[]), Reading::unknown("no zone with a trip in /sys/class/thermal"));
        let other = [("1/temp", "40000"), ("1/trip_point_0_type", "hot"), ("1/trip_point_0_temp", "95000")];
        assert_eq!(read(&[&broken[..], &other[..]].concat()).value, Some(55.0));
    }
}
