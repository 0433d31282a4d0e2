//! Reads the machine: power supplies, thermal zones, processor time. Linux; elsewhere everything is unknown.
#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: two looks at the processor with a pause between them"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::DeviceMonitor;
use session::conditions::{Power, Reading, Snapshot};

/// Between the two looks that tell how busy the processor is.
const PAUSE: Duration = Duration::from_millis(500);

/// The machine that this program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl DeviceMonitor for ThisMachine {
    /// Takes half a second to see how busy it is.
    fn look(&self) -> Snapshot {
        let root = Path::new("/");
        let before = ticks(root);
        std::thread::sleep(PAUSE);
        let busy_percent = match (before, ticks(root)) {
            (Some(before), Some(after)) => busy_percent(before, after),
            (None, _) | (_, None) => None,
        };
        Snapshot { busy_percent: Reading { value: busy_percent, source: "/proc/stat".into() }, ..read(root) }
    }
}

/// Processor time since the machine started, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    total: u64,
    idle: u64,
    own: u64,
}

/// Reads everything but processor time, below `root` (`/` on a real machine).
pub fn read(root: &Path) -> Snapshot {
    let (external, battery_percent) = power(&root.join("sys/class/power_supply"));
    let power = external.map(|external| Power { external, battery_percent });
    let cool_celsius = cool(&root.join("sys/class/thermal"));
    Snapshot {
        power: Reading { value: power, source: "/sys/class/power_supply".into() },
        cool_celsius: Reading { value: cool_celsius, source: "/sys/class/thermal".into() },
        ..Snapshot::default()
    }
}

/// Reads processor time below `root`.
pub fn ticks(root: &Path) -> Option<Ticks> {
    let stat = fs::read_to_string(root.join("proc/stat")).ok()?;
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user time already.
    let total = fields.iter().take(8).sum();
    let idle = fields.get(3)? + fields.get(4)?;
    let own = fs::read_to_string(root.join("proc/self/stat")).ok()?;
    // The name in brackets may hold spaces: count from behind it. utime and stime are fields 14 and 15.
    let own: Vec<&str> = own.rsplit(')').next()?.split_whitespace().collect();
    let own = own.get(11)?.parse::<u64>().ok()? + own.get(12)?.parse::<u64>().ok()?;
    Some(Ticks { total, idle, own })
}

/// Processor time of others between two looks, in percent of the machine.
pub fn busy_percent(before: Ticks, after: Ticks) -> Option<f64> {
    let total = after.total.checked_sub(before.total).filter(|total| *total > 0)?;
    let idle = after.idle.saturating_sub(before.idle);
    let own = after.own.saturating_sub(before.own);
    Some(100.0 * total.saturating_sub(idle).saturating_sub(own) as f64 / total as f64)
}

fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = list
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    paths.sort();
    paths
}

fn word(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A supply of a device (a mouse) says nothing about the machine.
fn power(folder: &Path) -> (Option<bool>, Option<f64>) {
    let (mut online, mut battery) = (None, None);
    for supply in entries(folder, "") {
        if word(&supply.join("scope")).as_deref() == Some("Device") {
            continue;
        }
        match word(&supply.join("type")).as_deref() {
            Some("Battery") => {
                let charge = word(&supply.join("capacity")).and_then(|text| text.parse::<f64>().ok());
                // A battery that does not say how full it is counts as empty.
                let charge = charge.unwrap_or(0.0);
                battery = Some(battery.map_or(charge, |least: f64| least.min(charge)));
            }
            Some("Mains" | "USB" | "UPS") => {
                let on = match word(&supply.join("online")).as_deref() {
                    Some("0") => Some(false),
                    Some("1" | "2") => Some(true),
                    Some(_) | None => None,
                };
                online = match (online, on) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), None) | (_, Some(false)) => Some(false),
                    (None, None) => None,
                };
            }
            Some(_) | None => {}
        }
    }
    (online, battery)
}

/// The least distance of a zone to its lowest passive, hot or critical trip.
fn cool(folder: &Path) -> Option<f64> {
    let millis = |path: PathBuf| word(&path).and_then(|text| text.parse::<f64>().ok());
    let mut least: Option<f64> = None;
    for zone in entries(folder, "thermal_zone") {
        let Some(temperature) = millis(zone.join("temp")) else { continue };
        let trips = (0..16).filter_map(|trip| {
            let kind = word(&zone.join(format!("trip_point_{trip}_type")))?;
            let counts = matches!(kind.as_str(), "passive" | "hot" | "critical");
            millis(zone.join(format!("trip_point_{trip}_temp"))).filter(|trip| counts && *trip > 0.0)
        });
        if let Some(trip) = trips.min_by(f64::total_cmp) {
            let margin = (trip - temperature) / 1000.0;
            least = Some(least.map_or(margin, |found| found.min(margin)));
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const PS: &str = "sys/class/power_supply";

    #[test]
    fn a_laptop_on_the_charger_is_on_power() {
        let root = tree(&[
            (&format!("{PS}/AC/type"), "Mains\n"),
            (&format!("{PS}/AC/online"), "1\n"),
            (&format!("{PS}/BAT0/type"), "Battery\n"),
            (&format!("{PS}/BAT0/capacity"), "83\n"),
            (&format!("{PS}/BAT1/type"), "Battery\n"),
            (&format!("{PS}/BAT1/capacity"), "61\n"),
            (&format!("{PS}/mouse/type"), "Battery\n"),
            (&format!("{PS}/mouse/scope"), "Device\n"),
            (&format!("{PS}/mouse/capacity"), "5\n"),
        ]);
        let snapshot = read(root.path());
        assert_eq!(snapshot.power.value, Some(Power { external: true, battery_percent: Some(61.0) }));
    }

    #[test]
    fn a_discharging_laptop_is_not() {
        let root = tree(&[
            (&format!("{PS}/AC/type"), "Mains"),
            (&format!("{PS}/AC/online"), "0"),
            (&format!("{PS}/BAT0/type"), "Battery"),
            (&format!("{PS}/BAT0/capacity"), "full"),
        ]);
        let snapshot = read(root.path());
        assert_eq!(snapshot.power.value, Some(Power { external: false, battery_percent: Some(0.0) }));
    }

    #[test]
    fn a_machine_without_sources_knows_nothing() {
        let root = tree(&[]);
        assert_eq!(read(root.path()).power.value, None);
        assert_eq!(ticks(root.path()), None);
    }

    #[test]
    fn the_hottest_zone_counts() {
        let zone = |n: u8, file: &str| format!("sys/class/thermal/thermal_zone{n}/{file}");
        let root = tree(&[
            (&zone(0, "temp"), "40000"),
            (&zone(0, "trip_point_0_type"), "active"),
            (&zone(0, "trip_point_0_temp"), "45000"),
            (&zone(0, "trip_point_1_type"), "passive"),
            (&zone(0, "trip_point_1_temp"), "90000"),
            (&zone(1, "temp"), "70000"),
            (&zone(1, "trip_point_0_type"), "critical"),
            (&zone(1, "trip_point_0_temp"), "100000"),
            (&zone(2, "temp"), "broken"),
        ]);
        assert_eq!(read(root.path()).cool_celsius.value, Some(30.0));
    }

    #[test]
    fn our_own_time_is_not_others() {
        let files = |user: u32, own: u32| {
            let stat = format!("cpu  {user} 0 0 1000 0 0 0 0 0 0\n");
            let own = format!("1 (a b) c) R 1 1 1 0 -1 0 0 0 0 0 {own} 0 0 0 20 0");
            tree(&[("proc/stat", stat.as_str()), ("proc/self/stat", own.as_str())])
        };
        let (before, after) = (files(100, 50), files(300, 200));
        let (before, after) = (ticks(before.path()).unwrap(), ticks(after.path()).unwrap());
        assert_eq!(busy_percent(before, after), Some(25.0));
    }
}
