//! Four agents, or devices whose training takes no time, and a coordinator with the man in the middle between them; each
//! can be killed and comes back, and what is durable of it is checked before it does.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use nightshift_tests::one_hot;
use proto::ids::DeviceId;

use super::books::{Books, Ledger};
use super::relay::{Relay, publishes};
use super::stage::{POLICY, Running, Stage, output, short_lines, start, text};
use super::whole;

pub(crate) const AGENTS: [&str; 4] = ["anna", "bela", "cem", "dora"];

/// What the devices of a world are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Devices {
    /// Agents, which train.
    Agents,
    /// Processes that do what a device does and train in no time, so that a sum says who is in it.
    Quick,
}

/// A federation of processes that are killed.
pub(crate) struct World {
    devices: Devices,
    pub(crate) stage: Stage,
    pub(crate) relay: Relay,
    ids: BTreeMap<String, DeviceId>,
    coordinator: Option<Running>,
    agents: BTreeMap<&'static str, Running>,
    /// As they were last read.
    books: Books,
    ledgers: BTreeMap<&'static str, Ledger>,
}

impl World {
    /// Everything runs but the agents. `waits` says how long the steps of a round wait.
    pub(crate) fn new(waits: &[&str]) -> Self {
        // Without noise and with all the participations that a test may need. An input is of more than one chunk.
        let task: [&str; 8] =
            ["--versions", "1000", "--participations", "1000", "--privacy", "off", "--rank", "8"];
        Self::with(Devices::Agents, &[&task[..], &["--local-steps", "1", "--join-secs", "4"], waits].concat())
    }

    /// The same with devices whose training takes no time. `more` says how many versions there are and how long the steps
    /// of a round wait.
    pub(crate) fn quick(more: &[&str]) -> Self {
        let many: [&str; 4] = ["--participations", "100000", "--rank", "2"];
        Self::with(Devices::Quick, &[&one_hot::TASK[..], &many, more].concat())
    }

    fn with(devices: Devices, task: &[&str]) -> Self {
        let stage = Stage::new();
        let coordinator = stage.coordinator();
        stage.create_task(task);
        for (i, agent) in AGENTS.iter().enumerate() {
            stage.enroll(agent, &short_lines(i));
        }
        let listed = stage.operator(&["device", "ls", "--format", "json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let id = |device: &serde_json::Value| {
            let label = device["label"].as_str().unwrap().to_owned();
            (label, device["device"].as_str().unwrap().parse().unwrap())
        };
        let ids = listed["devices"].as_array().unwrap().iter().map(id).collect();
        let upstream = format!("127.0.0.1:{}", stage.ports.0);
        let relay = Relay::new(&stage.path("home"), &stage.path("relay"), upstream);
        let many = "allow_without_noise = true\nparticipations = 1000\nparticipations_a_day = 1000\n";
        stage.configure(&format!("coordinator = \"{}\"\n{POLICY}{many}", relay.address));
        // The first reading is with nothing done yet.
        drop(coordinator);
        let books = Books::read(&stage.path("home"));
        let ledgers = AGENTS.iter().map(|agent| (*agent, Ledger::default())).collect();
        // The head of the audit log is kept elsewhere too, and each start looks for it in the log.
        let mut config =
            OpenOptions::new().append(true).open(stage.path("home").join("coordinator.toml")).unwrap();
        writeln!(config, "audit_head = {:?}", stage.path("audit.head").to_str().unwrap()).unwrap();
        let coordinator = Some(stage.coordinator());
        Self { devices, stage, relay, ids, coordinator, agents: BTreeMap::new(), books, ledgers }
    }

    pub(crate) fn id(&self, agent: &str) -> DeviceId {
        self.ids[agent]
    }

    pub(crate) fn start(&mut self, agent: &'static str) {
        let running = match self.devices {
            Devices::Agents => self.stage.run(agent, &[]),
            Devices::Quick => self.quick_device(agent),
        };
        self.agents.insert(agent, running);
    }

    fn quick_device(&self, agent: &str) -> Running {
        let number = AGENTS.iter().position(|other| *other == agent).unwrap().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_device-under-test"));
        command.arg(self.stage.path(agent)).arg(self.stage.path("base"));
        command.args([number, self.relay.address.to_string()]);
        Running::quiet(start(command.stdout(Stdio::null()).stderr(self.stage.log(agent))))
    }

    /// The devices in the order of their numbers.
    fn in_order(&self) -> Vec<DeviceId> {
        AGENTS.iter().map(|agent| self.ids[*agent]).collect()
    }

    /// Kills an agent, and returns its ledger once that has been checked.
    pub(crate) fn kill(&mut self, agent: &'static str) -> &Ledger {
        self.agents.remove(agent);
        let verified = output(self.stage.agent(agent).args(["ledger", "--verify", "--format", "json"]));
        let ledger = Ledger::parse(&text(&verified));
        let before = &self.ledgers[agent];
        ledger.check(before, self.ids[agent], &self.relay.seen(), &self.books);
        self.ledgers.insert(agent, ledger);
        &self.ledgers[agent]
    }

    pub(crate) fn start_coordinator(&mut self) {
        self.coordinator = Some(self.stage.coordinator());
        // It serves what was read.
        let shown = self.stage.task();
        let versions: Vec<String> = shown["versions"].as_array().unwrap().iter().map(adapter).collect();
        let known: Vec<String> = self.books.versions.iter().map(|v| v.adapter.to_string()).collect();
        assert!(versions.starts_with(&known), "{known:?} {versions:?}");
        let spent = self.stage.operator(&["privacy", "spent", "owl", "--format", "json"]);
        let spent: serde_json::Value = serde_json::from_str(&spent).unwrap();
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        let rows = spent["participations"].as_array().unwrap().iter();
        let sum: u64 = rows.map(|row| number(&row["participations"]) * number(&row["devices"])).sum();
        let known: u64 = self.books.participations.values().map(|count| u64::from(*count)).sum();
        assert!(sum >= known, "{spent} {:?}", self.books);
        assert!(number(&spent["rounds_charged"]) >= self.books.rounds_charged, "{spent} {:?}", self.books);
    }

    /// Kills the coordinator, and returns its books once they have been checked.
    pub(crate) fn kill_coordinator(&mut self) -> &Books {
        self.coordinator = None;
        self.read_books();
        &self.books
    }

    /// Starts the coordinator, and kills it as soon as `meanwhile` is over, whatever it has come to.
    pub(crate) fn kill_a_start(&mut self, meanwhile: impl FnOnce()) {
        let mut command = self.stage.nightshift();
        command.arg("up").stdout(Stdio::null()).stderr(self.stage.log("coordinator"));
        let mut child: Child = start(&mut command);
        meanwhile();
        drop(child.kill());
        child.wait().unwrap();
        self.read_books();
    }

    fn read_books(&mut self) {
        let home = self.stage.path("home");
        let books = Books::read(&home);
        books.check(&self.books, &self.relay.seen());
        whole::check_folder(&home);
        if self.devices == Devices::Quick {
            whole::check_sums(&home, &self.books, &books, &self.in_order());
        }
        self.books = books;
    }

    /// The coordinator's books as they were last read.
    pub(crate) fn books(&self) -> &Books {
        &self.books
    }

    /// Kills everything and checks everything.
    pub(crate) fn kill_all(&mut self) {
        self.kill_coordinator();
        for agent in AGENTS {
            self.kill(agent);
        }
    }

    /// Waits until a device hears that one more round was published.
    pub(crate) fn see_a_version(&self) {
        drop(self.relay.hold(publishes).come("the next version"));
    }
}

fn adapter(version: &serde_json::Value) -> String {
    version["adapter"].as_str().unwrap().to_owned()
}
