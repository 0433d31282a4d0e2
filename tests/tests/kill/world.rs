//! Four agents and a coordinator with the man in the middle between them; each can be killed and comes back, and
//! what is durable of it is checked before it does.

use std::collections::BTreeMap;

use proto::ids::DeviceId;

use super::books::{Books, Ledger};
use super::relay::{Relay, publishes};
use super::stage::{POLICY, Running, Stage, output, short_lines, text};

pub(crate) const AGENTS: [&str; 4] = ["anna", "bela", "cem", "dora"];

/// A federation of processes that are killed.
pub(crate) struct World {
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
        let stage = Stage::new();
        let coordinator = stage.coordinator();
        // Without noise and with all the participations that a test may need. An input is of more than one chunk.
        let task: [&str; 8] =
            ["--versions", "1000", "--participations", "1000", "--privacy", "off", "--rank", "8"];
        stage.create_task(&[&task[..], &["--local-steps", "1", "--join-secs", "4"], waits].concat());
        for (i, agent) in AGENTS.iter().enumerate() {
            stage.enroll(agent, &short_lines(i));
        }
        let devices = stage.operator(&["device", "ls", "--format", "json"]);
        let devices: serde_json::Value = serde_json::from_str(&devices).unwrap();
        let id = |device: &serde_json::Value| {
            let label = device["label"].as_str().unwrap().to_owned();
            (label, device["device"].as_str().unwrap().parse().unwrap())
        };
        let ids = devices["devices"].as_array().unwrap().iter().map(id).collect();
        let upstream = format!("127.0.0.1:{}", stage.ports.0);
        let relay = Relay::new(&stage.path("home"), &stage.path("relay"), upstream);
        let many = "allow_without_noise = true\nparticipations = 1000\nparticipations_a_day = 1000\n";
        stage.configure(&format!("coordinator = \"{}\"\n{POLICY}{many}", relay.address));
        // The first reading is with nothing done yet.
        drop(coordinator);
        let books = Books::read(&stage.path("home"));
        let ledgers = AGENTS.iter().map(|agent| (*agent, Ledger::default())).collect();
        let coordinator = Some(stage.coordinator());
        Self { stage, relay, ids, coordinator, agents: BTreeMap::new(), books, ledgers }
    }

    pub(crate) fn id(&self, agent: &str) -> DeviceId {
        self.ids[agent]
    }

    pub(crate) fn start(&mut self, agent: &'static str) {
        self.agents.insert(agent, self.stage.run(agent, &[]));
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
        let books = Books::read(&self.stage.path("home"));
        books.check(&self.books, &self.relay.seen());
        self.books = books;
        &self.books
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
