//! Devices and a coordinator over a network that fails all the time: versions come, each is the sum of those that it says,
//! nobody is stuck when the network is well again, and nobody holds more than before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::ids::DeviceId;
use rustix::process::{Pid, Signal, kill_process};

use super::books::{Books, Ledger};
use super::proxy::{self, Kind, Proxy, Way};
use super::seen::Seen;
use super::stage::{output, text};
use super::*;

/// The devices; a round is of four of them.
pub(crate) const NAMES: [&str; 6] = ["anna", "bela", "cem", "dora", "emil", "fatma"];

const MIB: u64 = 1 << 20;

/// As long as a connection mostly is silent before it ends.
const SHORT: Duration = Duration::from_secs(3);

/// A run.
struct Form {
    seed: u64,
    /// How long the network is bad at least.
    bad: Duration,
    /// How long a connection that says nothing any more is open: most of them, and one in five.
    silence: [Duration; 2],
    /// Versions that must come meanwhile, or two minutes later.
    versions: u64,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    files: usize,
    memory: u64,
}

struct Federation {
    stage: Stage,
    proxy: Proxy,
    coordinator: Running,
    devices: Vec<Running>,
}

impl Federation {
    fn new(form: &Form) -> Self {
        let stage = Stage::new();
        let coordinator = stage.coordinator();
        // A tenth to a twentieth of the waits that a task has by default.
        let waits = [
            "--versions",
            "100000",
            "--join-secs",
            "3",
            "--step-secs",
            "3",
            "--grace-secs",
            "1",
            "--rank",
            "2",
        ];
        let more = ["--participations", "100000"];
        stage.create_task(&[&nightshift_tests::one_hot::TASK[..], &waits, &more].concat());
        for name in NAMES {
            stage.enroll(name, &[]);
        }
        let proxy = Proxy::new(([127, 0, 0, 1], stage.ports.0).into(), form.seed, form.silence);
        let device =
            |(number, name): (usize, &&str)| quick_device(&stage, name, number, &proxy.address.to_string());
        let devices = NAMES.iter().enumerate().map(device).collect();
        Self { stage, proxy, coordinator, devices }
    }

    fn version(&self) -> u64 {
        self.stage.task()["version"].as_u64().unwrap()
    }

    /// Waits for so many more versions.
    fn see_versions(&self, more: u64) {
        let (wanted, begun) = (self.version() + more, Instant::now());
        while self.version() < wanted {
            assert!(begun.elapsed() < Duration::from_secs(120), "no version comes");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What everybody holds: the coordinator first.
    fn held(&self) -> Vec<Held> {
        let processes = [&self.coordinator].into_iter().chain(&self.devices);
        processes
            .map(|running| Held { files: open_files(&running.0), memory: resident(&running.0) })
            .collect()
    }

    /// How often each device was charged, and the devices in the order of their numbers.
    fn charged(&self) -> (Vec<u64>, Vec<DeviceId>) {
        let listed = self.stage.operator(&["device", "ls", "--format", "json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let devices = listed["devices"].as_array().unwrap();
        let of = |name: &&str| devices.iter().find(|device| device["label"] == *name).unwrap();
        NAMES
            .iter()
            .map(|name| {
                let id = of(name)["device"].as_str().unwrap().parse::<DeviceId>().unwrap();
                (of(name)["participations"].as_u64().unwrap(), id)
            })
            .unzip()
    }

    /// Waits until every device took part in a round again.
    fn everybody_takes_part(&self) {
        let ((before, _), begun) = (self.charged(), Instant::now());
        loop {
            let (now, _) = self.charged();
            let stuck: Vec<&str> = NAMES
                .iter()
                .enumerate()
                .filter(|(number, _)| now[*number] <= before[*number])
                .map(|(_, name)| *name)
                .collect();
            if stuck.is_empty() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(150), "stuck: {stuck:?}, {before:?}, {now:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

fn federation(form: &Form) {
    let federation = Federation::new(form);
    federation.see_versions(3);
    let before = federation.held();
    let first = federation.version();
    federation.proxy.turn(true);
    let begun = Instant::now();
    let (mut half, mut most_files) = (None, 0);
    let drawn = || federation.proxy.tally().values().sum::<u64>();
    let most = form.bad + Duration::from_secs(120);
    while begun.elapsed() < form.bad || drawn() < proxy::ALL || federation.version() < first + form.versions {
        assert!(
            begun.elapsed() < most,
            "version {} after {first}, {} connections",
            federation.version(),
            drawn()
        );
        std::thread::sleep(Duration::from_millis(500));
        most_files = most_files.max(open_files(&federation.coordinator.0));
        if half.is_none() && begun.elapsed() * 2 > form.bad {
            half = Some(federation.held());
        }
    }
    let made = federation.version() - first;
    let tally = federation.proxy.tally();
    let lasted = begun.elapsed();
    federation.proxy.turn(false);
    let well = Instant::now();
    federation.everybody_takes_part();
    let recovered = well.elapsed();
    let after = federation.held();
    println!(
        "seed {}: {made} versions in {:.0?} of bad network; {tally:?}; all took part again {recovered:.1?} later; at most \
         {most_files} files",
        form.seed, lasted
    );
    println!("held before {before:?}\nhalf-way {half:?}\nafter {after:?}");

    let kinds = [
        Kind::Passes,
        Kind::Slow,
        Kind::Throttled,
        Kind::Cut,
        Kind::Reset,
        Kind::NoAnswer,
        Kind::Stops,
        Kind::Loses(Way::Up),
        Kind::Loses(Way::Down),
    ];
    for kind in kinds {
        assert!(tally.contains_key(&kind), "no connection had it: {kind:?} of {tally:?}");
    }
    // Each device has two connections at most, on either side of the proxy.
    assert!(federation.proxy.open() <= 2 * NAMES.len(), "{} connections", federation.proxy.open());
    for ((before, half), after) in before.iter().zip(half.unwrap()).zip(&after) {
        assert!(after.files <= before.files + 2 * NAMES.len(), "{before:?} {after:?}");
        // What an allocator holds on to comes in the first half.
        assert!(after.memory <= half.memory.max(before.memory) + 24 * MIB, "{before:?} {half:?} {after:?}");
    }
    end(federation);
}

/// Stops everything, and reads what is durable of it.
fn end(federation: Federation) {
    let (_, ids) = federation.charged();
    let Federation { stage, proxy, mut coordinator, devices } = federation;
    kill_process(Pid::from_child(&coordinator.0), Signal::TERM).unwrap();
    let status = coordinator.0.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    drop((coordinator, proxy, devices));
    let home = stage.path("home");
    let books = Books::read(&home);
    whole::check_folder(&home);
    let none = Books { versions: Vec::new(), participations: BTreeMap::new(), ..books.clone() };
    whole::check_sums(&home, &none, &books, &ids);
    books.check(&none, &Seen::default());
    for (name, id) in NAMES.iter().zip(ids) {
        let verified = output(stage.agent(name).args(["ledger", "--verify", "--format", "json"]));
        let ledger = Ledger::parse(&text(&verified));
        ledger.check(&Ledger::default(), id, &Seen::default(), &books);
    }
    println!(
        "{} versions of {} rounds, {} charged",
        books.versions.len(),
        books.last_round,
        books.rounds_charged
    );
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn over_a_network_that_fails_versions_come_and_nobody_is_stuck() {
    let seed = number("NIGHTSHIFT_FAULTS_SEED", 1);
    let (bad, silence) = (Duration::from_secs(15), [SHORT; 2]);
    federation(&Form { seed, bad, silence, versions: 1 });
}

/// The same, and a version a minute, for as long as an hour is with the waits of a usual task, which are ten times as long.
/// One in five of the connections that say nothing any more stays so until somebody gives up, which takes a device up to a
/// minute. `CONTRIBUTING.md` has the command.
#[test]
#[ignore = "ten minutes"]
fn over_a_network_that_fails_for_an_hour_versions_come_and_nobody_is_stuck() {
    let seed = number("NIGHTSHIFT_FAULTS_SEED", 1);
    let bad = Duration::from_secs(number("NIGHTSHIFT_FAULTS_SECS", 360));
    federation(&Form { seed, bad, silence: [SHORT, Duration::from_secs(600)], versions: bad.as_secs() / 60 });
}
