//! External power and batteries: what UPower says, else `/sys/class/power_supply`.

use std::path::Path;

use session::conditions::{Power, Reading};

use super::files::{entries, number, word};
use super::told::Told;

/// What UPower says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UPower {
    pub(super) on_battery: bool,
    pub(super) devices: Vec<PowerDevice>,
}

/// A device of UPower's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PowerDevice {
    pub(super) kind: PowerKind,
    /// Whether it powers the machine: a mouse's battery does not.
    pub(super) supplies: bool,
    /// Whether a battery is in its place.
    pub(super) present: bool,
    pub(super) percent: f64,
}

/// What a device of UPower's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PowerKind {
    Line,
    /// A battery, or an uninterruptible supply.
    Battery,
    Other,
}

impl UPower {
    /// `None` where it knows neither a line nor a battery, and its "not on battery" means nothing.
    fn power(&self) -> Option<Power> {
        let supplying = self.devices.iter().filter(|device| device.supplies);
        let has_line = supplying.clone().any(|device| device.kind == PowerKind::Line);
        let batteries = supplying.filter(|device| device.kind == PowerKind::Battery && device.present);
        let battery_percent = batteries.map(|battery| battery.percent).min_by(f64::total_cmp);
        let told = has_line || battery_percent.is_some();
        told.then_some(Power { external: !self.on_battery, battery_percent })
    }
}

/// What UPower says, or else the supplies' files.
pub(super) fn power(told: &Told<UPower>, supplies: impl FnOnce() -> Reading<Power>) -> Reading<Power> {
    let why = match told {
        Told::Value(upower) => match upower.power() {
            Some(power) => return Reading::of(power, "UPower OnBattery"),
            None => "UPower knows no line power and no battery",
        },
        Told::Absent(why) | Told::Trouble(why) => why,
    };
    let supplies = supplies();
    if supplies.value.is_some() {
        return supplies;
    }
    Reading::unknown(format!("{why}, {}", supplies.source))
}

const FOLDER: &str = "/sys/class/power_supply";

/// What the supplies' files say, below `root`.
pub(super) fn supplies(root: &Path) -> Reading<Power> {
    match Supplies::read(root).power() {
        Ok(power) => Reading::of(power, FOLDER),
        Err(why) => Reading::unknown(why),
    }
}

/// The supplies of the machine, without those of its devices.
#[derive(Debug, Default)]
struct Supplies {
    /// Whether each is online.
    lines: Vec<Result<bool, String>>,
    /// The same of those at a USB port: a desktop has such ports too, and they say nothing of its power.
    ports: Vec<Result<bool, String>>,
    batteries: Vec<Battery>,
}

#[derive(Debug)]
struct Battery {
    percent: Result<f64, String>,
    /// Whether it loses charge, if it says so.
    discharging: Option<bool>,
}

impl Supplies {
    fn read(root: &Path) -> Self {
        let mut found = Self::default();
        for folder in entries(&root.join("sys/class/power_supply"), "") {
            if word(&folder.join("scope")).as_deref() == Some("Device") {
                continue;
            }
            let kind = word(&folder.join("type")).unwrap_or_default();
            match kind.as_str() {
                "Battery" if word(&folder.join("present")).as_deref() == Some("0") => {}
                "Battery" => found.batteries.push(battery(root, &folder)),
                "UPS" if word(&folder.join("online")).is_none() => {}
                "Mains" | "UPS" => found.lines.push(online(root, &folder)),
                port if port.starts_with("USB") || port == "Wireless" => {
                    found.ports.push(online(root, &folder));
                }
                _ => {}
            }
        }
        found
    }

    fn power(&self) -> Result<Power, String> {
        let external = self.external()?;
        let mut least: Option<f64> = None;
        for battery in &self.batteries {
            match &battery.percent {
                Ok(percent) => least = Some(least.map_or(*percent, |least| least.min(*percent))),
                // Off is off, whatever a battery says; but on is not enough without it.
                Err(why) if external => return Err(why.clone()),
                Err(_) => {}
            }
        }
        Ok(Power { external, battery_percent: least })
    }

    fn external(&self) -> Result<bool, String> {
        if self.lines.iter().chain(&self.ports).any(|online| *online == Ok(true)) {
            return Ok(true);
        }
        let ports = if self.batteries.is_empty() { &[] } else { self.ports.as_slice() };
        let mut says_off = false;
        for online in self.lines.iter().chain(ports) {
            online.clone()?;
            says_off = true;
        }
        if says_off {
            return Ok(false);
        }
        if self.batteries.is_empty() {
            return Err(format!("no supply in {FOLDER}"));
        }
        let told: Vec<bool> = self.batteries.iter().filter_map(|battery| battery.discharging).collect();
        if told.is_empty() {
            return Err(format!(
                "no supply and no battery in {FOLDER} says whether power comes from outside"
            ));
        }
        Ok(!told.contains(&true))
    }
}

fn online(root: &Path, folder: &Path) -> Result<bool, String> {
    let file = folder.join("online");
    let online = number(root, &file)?;
    online.map(|online| online > 0.0).ok_or_else(|| {
        format!(
            "{FOLDER}/{} does not say whether it is online",
            folder.file_name().unwrap_or_default().display()
        )
    })
}

/// The charge in percent, or what is in it of what it holds.
fn battery(root: &Path, folder: &Path) -> Battery {
    let percent = number(root, &folder.join("capacity")).and_then(|percent| {
        let share = |what: &str| -> Result<Option<f64>, String> {
            let now = number(root, &folder.join(format!("{what}_now")))?;
            let full = number(root, &folder.join(format!("{what}_full")))?;
            Ok(now.zip(full).map(|(now, full)| 100.0 * now / full).filter(|percent| percent.is_finite()))
        };
        if let Some(percent) = percent {
            return Ok(percent);
        }
        if let Some(percent) = share("energy")? {
            return Ok(percent);
        }
        share("charge")?.ok_or_else(|| {
            format!(
                "{FOLDER}/{} does not say how full it is",
                folder.file_name().unwrap_or_default().display()
            )
        })
    });
    let discharging = match word(&folder.join("status")).as_deref() {
        Some("Discharging") => Some(true),
        Some("Charging" | "Full" | "Not charging") => Some(false),
        Some(_) | None => None,
    };
    Battery { percent, discharging }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    /// Each a supply and what its files say, as `type=Mains online=1`.
    fn read(supplies_there: &[(&str, &str)]) -> Reading<Power> {
        let mut files = Vec::new();
        for (supply, says) in supplies_there {
            for pair in says.split_whitespace() {
                let (file, text) = pair.split_once('=').unwrap();
                files
                    .push((format!("sys/class/power_supply/{supply}/{file}"), text.replace('_', " ") + "\n"));
            }
        }
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        supplies(tree(&files).path())
    }

    fn on(battery: impl Into<Option<f64>>) -> Reading<Power> {
        Reading::of(Power { external: true, battery_percent: battery.into() }, FOLDER)
    }

    fn off(battery: impl Into<Option<f64>>) -> Reading<Power> {
        Reading::of(Power { external: false, battery_percent: battery.into() }, FOLDER)
    }

    #[test]
    fn a_laptop_on_the_charger_is_on_power_and_its_emptiest_battery_counts() {
        let mouse = ("hid-mouse", "type=Battery scope=Device capacity=5");
        let batteries = [("BAT0", "type=Battery capacity=83"), ("BAT1", "type=Battery capacity=61")];
        assert_eq!(read(&[("AC", "type=Mains online=1"), batteries[0], batteries[1], mouse]), on(61.0));
        assert_eq!(read(&[("AC", "type=Mains online=0"), batteries[0], mouse]), off(83.0));
    }

    #[test]
    fn a_usb_charger_is_external_power_and_an_empty_port_is_not() {
        let battery = ("BAT0", "type=Battery capacity=70 status=Charging");
        assert_eq!(
            read(&[("port0", "type=USB online=0"), ("port1", "type=USB_PD online=1"), battery]),
            on(70.0)
        );
        assert_eq!(read(&[("port0", "type=USB online=0"), battery]), off(70.0));
    }

    #[test]
    fn a_desktop_whose_usb_ports_are_empty_does_not_say_how_it_is_powered() {
        let nothing = Reading::unknown("no supply in /sys/class/power_supply");
        assert_eq!(read(&[("port0", "type=USB online=0")]), nothing);
        assert_eq!(read(&[]), nothing);
        // Nor does one with a mouse.
        assert_eq!(read(&[("mouse", "type=Battery scope=Device capacity=90")]), nothing);
    }

    #[test]
    fn a_battery_without_a_charger_s_file_tells_by_its_own_state() {
        assert_eq!(read(&[("BAT0", "type=Battery capacity=70 status=Discharging")]), off(70.0));
        assert_eq!(read(&[("BAT0", "type=Battery capacity=70 status=Not_charging")]), on(70.0));
        let silent = read(&[("BAT0", "type=Battery capacity=70 status=Unknown")]);
        assert_eq!((silent.value, silent.source.contains("comes from outside")), (None, true));
    }

    #[test]
    fn a_charge_that_no_battery_has_is_passed_on() {
        for percent in ["0", "300", "-5"] {
            let battery = format!("type=Battery capacity={percent}");
            let expected = percent.parse::<f64>().unwrap();
            assert_eq!(read(&[("AC", "type=Mains online=1"), ("BAT0", &battery)]), on(expected));
        }
    }

    #[test]
    fn a_file_that_is_no_number_makes_power_unknown_and_is_named() {
        let broken = read(&[("AC", "type=Mains online=1"), ("BAT0", "type=Battery capacity=full")]);
        let why = "/sys/class/power_supply/BAT0/capacity says \"full\", which is no number";
        assert_eq!(broken, Reading::unknown(why));
        let broken = read(&[("AC", "type=Mains online=yes"), ("BAT0", "type=Battery capacity=90")]);
        assert_eq!((broken.value, broken.source.contains("AC/online")), (None, true));
        // What is off stays off: nobody can assume it away.
        assert_eq!(read(&[("AC", "type=Mains online=0"), ("BAT0", "type=Battery capacity=full")]), off(None));
    }

    #[test]
    fn a_battery_that_counts_energy_has_a_percentage() {
        let line = ("AC", "type=Mains online=1");
        assert_eq!(read(&[line, ("BAT0", "type=Battery energy_now=30 energy_full=40")]), on(75.0));
        assert_eq!(read(&[line, ("BAT0", "type=Battery charge_now=1 charge_full=4")]), on(25.0));
        let empty = read(&[line, ("BAT0", "type=Battery energy_now=0 energy_full=0")]);
        assert_eq!((empty.value, empty.source.contains("how full")), (None, true));
        assert_eq!(read(&[line, ("BAT0", "type=Battery present=0")]), on(None));
    }

    #[test]
    fn upower_goes_before_the_files_if_it_knows_a_supply() {
        let battery =
            |percent| PowerDevice { kind: PowerKind::Battery, supplies: true, present: true, percent };
        let mouse = PowerDevice { supplies: false, ..battery(3.0) };
        let absent = PowerDevice { present: false, ..battery(0.0) };
        let line = PowerDevice { kind: PowerKind::Line, ..battery(0.0) };
        let upower = |on_battery, devices: &[&PowerDevice]| {
            Told::Value(UPower {
                on_battery,
                devices: devices.iter().map(|device| (*device).clone()).collect(),
            })
        };
        let said = |told: &Told<UPower>| power(told, || off(None));
        let by_upower =
            |external, battery_percent| Reading::of(Power { external, battery_percent }, "UPower OnBattery");
        let two = upower(true, &[&battery(64.5), &battery(50.0), &mouse, &absent]);
        assert_eq!(said(&two), by_upower(false, Some(50.0)));
        assert_eq!(said(&upower(false, &[&line, &mouse])), by_upower(true, None));
        assert_eq!(said(&upower(false, &[&mouse, &absent])), off(None), "it knows no supply");
        let nothing = || Reading::unknown("no supply in /sys/class/power_supply");
        let unknown = power(&Told::Absent("no UPower on the bus".into()), nothing);
        assert_eq!(unknown.source, "no UPower on the bus, no supply in /sys/class/power_supply");
    }
}
