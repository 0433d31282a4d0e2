//! Services on a bus: mocks of them by python3-dbusmock, on a bus of the test's own.
//!
//! Without dbus-daemon or python3-dbusmock these are skipped, each by its name, unless `NIGHTSHIFT_REQUIRE_DBUSMOCK` is
//! 1: then they fail.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]
#![expect(clippy::disallowed_methods, reason = "mocks are processes beside the test, and take their time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::DeviceMonitor;
use nightshift_agent::monitor::{BusAddress, Sources, ThisMachine};
use serde::Serialize;
use session::conditions::{Power, Reading, Snapshot};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use zbus::{Connection, DynamicType, ObjectPath, Variant, connection};

/// The longest that anything here may take to happen.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest until a change is noticed.
const AT_ONCE: Duration = Duration::from_secs(1);

const UPOWER: &str = "org.freedesktop.UPower";
const LOGIND: &str = "org.freedesktop.login1";
const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
const NETWORK_MANAGER_OBJECT: &str = "/org/freedesktop/NetworkManager";
const PROFILES: &str = "net.hadess.PowerProfiles";
const PROFILES_OBJECT: &str = "/net/hadess/PowerProfiles";
const MOCK: &str = "org.freedesktop.DBus.Mock";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A private bus and the mocks on it; all end with it.
struct Bus {
    folder: tempfile::TempDir,
    python: &'static str,
    daemon: Child,
    mocks: Vec<Child>,
    runtime: Runtime,
    connection: Connection,
}

impl Bus {
    /// `None` where there is nothing to mock with.
    fn start(test: &str) -> Option<Self> {
        let python = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
            let mut command = Command::new(python);
            command.args(["-c", "import dbusmock"]).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        });
        let daemon = Command::new("dbus-daemon").arg("--version").stdout(Stdio::null()).status().is_ok();
        let found = match (python, daemon) {
            (Some(python), true) => Ok(python),
            (None, _) => Err("python3-dbusmock"),
            (_, false) => Err("dbus-daemon"),
        };
        if let Err(missing) = found {
            let required = std::env::var("NIGHTSHIFT_REQUIRE_DBUSMOCK").is_ok_and(|value| value == "1");
            assert!(!required, "{missing} is not installed");
            eprintln!("skipped: {missing} is not installed, {test}");
        }
        let python = found.ok()?;
        let folder = tempfile::tempdir().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let address = address(folder.path());
        let daemon = daemon_at(&address);
        let connection = runtime.block_on(connect(&address));
        Some(Self { python, daemon, mocks: Vec::new(), runtime, connection, folder })
    }

    fn address(&self) -> String {
        address(self.folder.path())
    }

    /// A machine with no files, on this bus.
    fn machine(&self) -> ThisMachine {
        ThisMachine::start(self.sources())
    }

    fn sources(&self) -> Sources {
        let root = self.folder.path().join("root");
        Sources { root, bus: BusAddress::At(self.address()), retry: Duration::from_millis(100) }
    }

    /// Starts a service by its template, and waits until it has its name.
    fn mock(&mut self, template: &str, name: &str) {
        let mock = Command::new(self.python)
            .args(["-m", "dbusmock", "--template", template])
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .env("DBUS_SESSION_BUS_ADDRESS", self.address())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.mocks.push(mock);
        let began = Instant::now();
        // A template is loaded after the name is taken.
        let path = match template {
            "networkmanager" => NETWORK_MANAGER_OBJECT.to_owned(),
            _ => format!("/{}", name.replace('.', "/")),
        };
        let loaded = || self.call(name, &path, PROPERTIES, "GetAll", &name_of_manager(name)).is_ok();
        while !loaded() {
            assert!(began.elapsed() < PATIENCE, "{template} does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn call<B: Serialize + DynamicType>(
        &self,
        name: &str,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> zbus::Result<()> {
        let call = self.connection.call_method(Some(name), path, Some(interface), method, body);
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, call).await.expect("the mock answers in time").map(drop)
        })
    }

    /// Sets a property of a mocked object, which signals it.
    fn set(
        &self,
        name: &str,
        path: &str,
        interface: &str,
        property: &str,
        value: impl Into<Variant<'static>>,
    ) {
        self.call(name, path, PROPERTIES, "Set", &(interface, property, value.into())).unwrap();
    }

    fn add(
        &self,
        name: &str,
        path: &str,
        interface: &str,
        property: &str,
        value: impl Into<Variant<'static>>,
    ) {
        self.call(name, path, MOCK, "AddProperty", &(interface, property, value.into())).unwrap();
    }

    /// Ends the bus, and with it the mocks.
    fn end(&mut self) {
        for child in self.mocks.iter_mut().chain([&mut self.daemon]) {
            drop(child.kill());
            drop(child.wait());
        }
        self.mocks.clear();
        drop(std::fs::remove_file(self.folder.path().join("bus")));
    }

    /// Starts the bus again, at the same address.
    fn again(&mut self) {
        let address = self.address();
        self.daemon = daemon_at(&address);
        self.connection = self.runtime.block_on(connect(&address));
    }

    /// Looks until it sees what is expected; after the first look only when something changed.
    fn see(&self, machine: &ThisMachine, within: Duration, expected: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let changes = machine.changes().unwrap();
        let began = Instant::now();
        loop {
            let seen = machine.look();
            if expected(&seen) {
                return seen;
            }
            let left = within.saturating_sub(began.elapsed());
            let changed =
                self.runtime.block_on(async { tokio::time::timeout(left, changes.notified()).await });
            assert!(changed.is_ok(), "not seen within {within:?}: {seen:#?}");
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.end();
    }
}

fn address(folder: &Path) -> String {
    format!("unix:path={}", folder.join("bus").display())
}

fn daemon_at(address: &str) -> Child {
    let mut daemon = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
        .arg(format!("--address={address}"))
        .stdout(Stdio::piped())
        // It would raise its limit of files, and says that it may not.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It says its address when it listens.
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("unix:"), "{line}");
    daemon
}

async fn connect(address: &str) -> Connection {
    connection::Builder::address(address).build().await.unwrap()
}

fn name_of_manager(name: &str) -> String {
    if name == LOGIND { format!("{LOGIND}.Manager") } else { name.to_owned() }
}

fn power(external: bool, battery_percent: Option<f64>) -> Power {
    Power { external, battery_percent }
}

#[test]
fn upower_tells_power_and_batteries_and_a_mouse_is_none() {
    let Some(mut bus) = Bus::start("upower_tells_power_and_batteries_and_a_mouse_is_none") else { return };
    bus.mock("upower", UPOWER);
    let machine = bus.machine();
    let unknown = bus.see(&machine, PATIENCE, |seen| seen.power.source.contains("UPower"));
    let why = "UPower knows no line power and no battery, no supply in /sys/class/power_supply";
    assert_eq!(unknown.power, Reading::unknown(why));

    let device = format!("{UPOWER}.Device");
    bus.call(UPOWER, "/org/freedesktop/UPower", MOCK, "AddAC", &("mock_ac", "charger")).unwrap();
    let by_upower = |power: Power| Reading::of(power, "UPower OnBattery");
    bus.see(&machine, AT_ONCE, |seen| seen.power == by_upower(power(true, None)));

    let add = |name: &str, percent: f64| {
        let battery = (name, "battery", percent, 1200_i64);
        bus.call(UPOWER, "/org/freedesktop/UPower", MOCK, "AddDischargingBattery", &battery).unwrap();
        format!("/org/freedesktop/UPower/devices/{name}")
    };
    let mouse = add("mock_mouse", 3.0);
    bus.set(UPOWER, &mouse, &device, "PowerSupply", false);
    let battery = add("mock_battery", 64.0);
    add("mock_second", 80.0);
    bus.set(UPOWER, "/org/freedesktop/UPower", UPOWER, "OnBattery", true);
    bus.see(&machine, AT_ONCE, |seen| seen.power == by_upower(power(false, Some(64.0))));
    bus.set(UPOWER, &battery, &device, "Percentage", 300.0);
    bus.see(&machine, AT_ONCE, |seen| seen.power == by_upower(power(false, Some(80.0))));
    bus.set(UPOWER, &battery, &device, "Percentage", -1.0);
    bus.see(&machine, AT_ONCE, |seen| seen.power == by_upower(power(false, Some(-1.0))));

    bus.set(UPOWER, "/org/freedesktop/UPower", UPOWER, "OnBattery", "yes");
    let wrong = bus.see(&machine, AT_ONCE, |seen| seen.power.value.is_none());
    assert!(wrong.power.source.contains("OnBattery of type \"s\""), "{}", wrong.power.source);
}

#[test]
fn logind_tells_who_uses_the_machine() {
    let Some(mut bus) = Bus::start("logind_tells_who_uses_the_machine") else { return };
    bus.mock("logind", LOGIND);
    let machine = bus.machine();
    let nobody = bus.see(&machine, PATIENCE, |seen| seen.idle.value.is_some());
    assert_eq!(nobody.idle.source, "logind IdleHint");

    let manager = "/org/freedesktop/login1";
    let add = |id: &str| {
        bus.call(LOGIND, manager, MOCK, "AddSession", &(id, "seat0", 1000_u32, "user", true)).unwrap();
        let path = format!("/org/freedesktop/login1/session/{id}");
        let object = ObjectPath::try_from(path.as_str()).unwrap();
        let said = [Variant::new(id), Variant::new(object)];
        let signal = (format!("{LOGIND}.Manager"), "SessionNew", "so", said.as_slice());
        bus.call(LOGIND, manager, MOCK, "EmitSignal", &signal).unwrap();
        path
    };
    let session = format!("{LOGIND}.Session");
    let first = add("c1");
    let used = |seen: &Snapshot| seen.idle.value == Some(Duration::ZERO);
    bus.see(&machine, AT_ONCE, used);

    let ago = |secs: u64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(now.saturating_sub(Duration::from_secs(secs)).as_micros()).unwrap()
    };
    let about = |secs: u64| {
        move |seen: &Snapshot| seen.idle.value.is_some_and(|idle| (secs..secs + 20).contains(&idle.as_secs()))
    };
    bus.set(LOGIND, &first, &session, "IdleSinceHint", ago(600));
    bus.set(LOGIND, &first, &session, "IdleHint", true);
    bus.see(&machine, AT_ONCE, about(600));

    // A second one, from afar.
    let second = add("c2");
    bus.set(LOGIND, &second, &session, "Remote", true);
    bus.see(&machine, AT_ONCE, used);
    bus.set(LOGIND, &second, &session, "IdleSinceHint", ago(100));
    bus.set(LOGIND, &second, &session, "IdleHint", true);
    bus.see(&machine, AT_ONCE, about(100));
    bus.set(LOGIND, &second, &session, "State", "closing");
    bus.see(&machine, AT_ONCE, about(600));
    bus.set(LOGIND, &second, &session, "State", "online");
    bus.set(LOGIND, &second, &session, "Class", "greeter");
    bus.see(&machine, AT_ONCE, about(600));

    // The user is back, and locks the screen.
    bus.set(LOGIND, &first, &session, "IdleHint", false);
    bus.see(&machine, AT_ONCE, used);
    bus.set(LOGIND, &first, &session, "LockedHint", true);
    bus.see(&machine, AT_ONCE, |seen| seen.idle.value.is_some());
    bus.set(LOGIND, &first, &session, "LockedHint", 1_u32);
    let wrong = bus.see(&machine, AT_ONCE, |seen| seen.idle.value.is_none());
    let why = "logind says a LockedHint of type \"u\"; it should be a boolean";
    assert_eq!(wrong.idle, Reading::unknown(why));
}

#[test]
fn network_manager_tells_whether_volume_costs_and_its_guess_counts() {
    let Some(mut bus) = Bus::start("network_manager_tells_whether_volume_costs_and_its_guess_counts") else {
        return;
    };
    bus.mock("networkmanager", NETWORK_MANAGER);
    let machine = bus.machine();
    let silent = bus.see(&machine, PATIENCE, |seen| seen.metered.source.contains("Metered"));
    assert_eq!(silent.metered, Reading::unknown("NetworkManager says no Metered"));

    bus.add(NETWORK_MANAGER, NETWORK_MANAGER_OBJECT, NETWORK_MANAGER, "Metered", 0_u32);
    let set = |value: u32| {
        bus.set(NETWORK_MANAGER, NETWORK_MANAGER_OBJECT, NETWORK_MANAGER, "Metered", value);
    };
    for (value, metered) in [(3, Some(true)), (4, Some(false)), (1, Some(true)), (2, Some(false)), (0, None)]
    {
        set(value);
        bus.see(&machine, AT_ONCE, |seen| seen.metered.value == metered);
    }
    set(77);
    let wrong = bus.see(&machine, AT_ONCE, |seen| seen.metered.source.contains("77"));
    assert_eq!(wrong.metered.value, None);
    bus.set(NETWORK_MANAGER, NETWORK_MANAGER_OBJECT, NETWORK_MANAGER, "Metered", "no");
    bus.see(&machine, AT_ONCE, |seen| seen.metered.source.contains("Metered of type \"s\""));
}

#[test]
fn a_service_that_comes_later_is_seen_and_one_that_leaves_is_missed() {
    let Some(mut bus) = Bus::start("a_service_that_comes_later_is_seen_and_one_that_leaves_is_missed") else {
        return;
    };
    let machine = bus.machine();
    bus.see(&machine, PATIENCE, |seen| seen.metered == Reading::unknown("no NetworkManager on the bus"));
    assert_eq!(machine.look().power_saver, Reading::of(false, "no power profiles"));

    bus.mock("power_profiles_daemon", PROFILES);
    let source = "power-profiles-daemon ActiveProfile";
    bus.see(&machine, AT_ONCE, |seen| seen.power_saver == Reading::of(false, source));
    bus.set(PROFILES, PROFILES_OBJECT, PROFILES, "ActiveProfile", "power-saver");
    bus.see(&machine, AT_ONCE, |seen| seen.power_saver == Reading::of(true, source));
    bus.set(PROFILES, PROFILES_OBJECT, PROFILES, "ActiveProfile", "turbo");
    let wrong = bus.see(&machine, AT_ONCE, |seen| seen.power_saver.value.is_none());
    assert!(wrong.power_saver.source.contains("\"turbo\""), "{}", wrong.power_saver.source);

    let mut daemon = bus.mocks.pop().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    bus.see(&machine, AT_ONCE, |seen| seen.power_saver == Reading::of(false, "no power profiles"));
}

#[test]
fn a_bus_that_dies_makes_what_it_told_unknown_until_it_is_back() {
    let Some(mut bus) = Bus::start("a_bus_that_dies_makes_what_it_told_unknown_until_it_is_back") else {
        return;
    };
    bus.mock("logind", LOGIND);
    // Inside a runtime this time.
    let sources = bus.sources();
    let host = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let machine = host.block_on(async { ThisMachine::start(sources) });
    bus.see(&machine, PATIENCE, |seen| seen.idle.value.is_some());
    bus.end();
    let dead = bus.see(&machine, AT_ONCE, |seen| seen.idle.value.is_none());
    assert!(dead.idle.source.contains("bus"), "{}", dead.idle.source);
    bus.again();
    bus.mock("logind", LOGIND);
    bus.see(&machine, PATIENCE, |seen| seen.idle.value.is_some());
    // Whoever followed the bus is gone with the runtime.
    host.shutdown_background();
    let over = bus.see(&machine, PATIENCE, |seen| seen.idle.value.is_none());
    assert_eq!(over.idle, Reading::unknown("the bus is no longer followed"));
}

#[test]
fn a_service_that_hangs_is_unknown_and_holds_up_no_other() {
    let Some(mut bus) = Bus::start("a_service_that_hangs_is_unknown_and_holds_up_no_other") else { return };
    bus.mock("upower", UPOWER);
    bus.mock("power_profiles_daemon", PROFILES);
    let stopped = Command::new("kill").args(["-STOP", &bus.mocks[0].id().to_string()]).status().unwrap();
    assert!(stopped.success());
    let machine = bus.machine();
    let began = Instant::now();
    bus.see(&machine, AT_ONCE, |seen| seen.power_saver.source.contains("ActiveProfile"));
    let hangs = bus.see(&machine, PATIENCE, |seen| seen.power.source.contains("UPower"));
    assert!(
        hangs.power.source.starts_with("UPower does not answer GetAll within 2 s, "),
        "{}",
        hangs.power.source
    );
    assert!(began.elapsed() < Duration::from_secs(4));
}

/// Waits for a reason, without a bus to drive.
fn reason(machine: &ThisMachine, within: Duration, part: &str) -> Duration {
    let changes: Arc<Notify> = machine.changes().unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    loop {
        let source = machine.look().metered.source;
        if source.contains(part) {
            return began.elapsed();
        }
        let left = within.saturating_sub(began.elapsed());
        let changed = runtime.block_on(async { tokio::time::timeout(left, changes.notified()).await });
        assert!(changed.is_ok(), "{source}");
    }
}

fn without_mocks(folder: &Path) -> ThisMachine {
    let bus = BusAddress::At(address(folder));
    ThisMachine::start(Sources { root: folder.join("root"), bus, retry: Duration::from_millis(100) })
}

#[test]
fn a_bus_that_is_not_there_is_unknown_at_once() {
    let folder = tempfile::tempdir().unwrap();
    reason(&without_mocks(folder.path()), PATIENCE, "no bus: failed to connect");
}

#[test]
fn an_address_that_is_none_is_said() {
    let bus = BusAddress::At("nonsense".to_owned());
    let root = std::path::PathBuf::from("/nonexistent");
    let machine = ThisMachine::start(Sources { root, bus, retry: Duration::from_millis(100) });
    reason(&machine, PATIENCE, "no bus: ");
}

#[test]
fn a_bus_that_hangs_is_given_up_after_two_seconds_and_no_look_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let _silent = UnixListener::bind(folder.path().join("bus")).unwrap();
    let machine = without_mocks(folder.path());
    let began = Instant::now();
    machine.look();
    machine.look();
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    let given_up = reason(&machine, PATIENCE, "the bus does not answer within 2 s");
    assert!(given_up < Duration::from_secs(4), "{given_up:?}");
}

#[test]
fn a_bus_that_talks_nonsense_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("bus")).unwrap();
    std::thread::spawn(move || {
        for caller in listener.incoming() {
            let Ok(mut caller) = caller else { return };
            let mut some = [0; 16];
            drop(caller.read(&mut some));
            drop(caller.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    reason(&without_mocks(folder.path()), PATIENCE, "no bus: ");
}
