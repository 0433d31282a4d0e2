//! One device of a virtual world.

use std::sync::Arc;

use aggregation::log::Seen;
use proto::ids::Timestamp;
use rand_chacha::ChaCha20Rng;
use session::spending::{Charge, Found, Spending};
use session::{Device, Ended, Event, Session, Signed, Work};

/// Bytes of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent by the device.
    pub up: u64,
    /// Sent to the device.
    pub down: u64,
}

/// One device: its machine, its randomness, and what is durable of it.
#[derive(Debug)]
pub struct Node {
    pub(super) device: Arc<Device>,
    pub(super) session: Option<Session>,
    pub(super) rng: ChaCha20Rng,
    /// What its ledger holds, and since when.
    pub charges: Vec<(Timestamp, Charge)>,
    /// What its ledger holds by the coordinator's word, and since when.
    pub found: Vec<(Timestamp, Found)>,
    /// When it took part in drawing a graph.
    pub drawn: Vec<Timestamp>,
    /// What it has seen of the enrollment log.
    pub log_seen: Option<Seen>,
    /// What its ledger holds of signatures.
    pub signatures: Vec<Signed>,
    /// What its ledger holds of answers.
    pub answers: Vec<Signed>,
    /// What it installed last.
    pub installed: Option<Arc<Work>>,
    /// Bytes so far.
    pub traffic: Traffic,
    /// Where it went, if it is gone.
    pub(super) away: Option<Away>,
    /// Why attempts ended, newest last.
    pub ended: Vec<Ended>,
}

/// A device that is gone comes back with a later version, or after a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away {
    pub(super) version: u32,
    pub(super) until: Timestamp,
}

impl Node {
    pub(super) fn new(device: Arc<Device>, rng: ChaCha20Rng, now: Timestamp) -> Self {
        let mut node = Self {
            device,
            session: None,
            rng,
            charges: Vec::new(),
            found: Vec::new(),
            drawn: Vec::new(),
            log_seen: None,
            signatures: Vec::new(),
            answers: Vec::new(),
            installed: None,
            traffic: Traffic::default(),
            away: None,
            ended: Vec::new(),
        };
        node.restart(now);
        node
    }

    /// Lets the device's machine work on what it hears.
    pub(super) fn hear(&mut self, event: Event, now: Timestamp) {
        if let Some(session) = self.session.take() {
            let mut session = session.handle(event, now, &mut self.rng);
            self.ended.extend(session.take_ended());
            self.session = Some(session);
        }
    }

    /// Starts the device's machine from what is durable.
    pub(super) fn restart(&mut self, now: Timestamp) {
        let mut spending = Spending::new();
        for (at, charge) in &self.charges {
            spending.add(charge, *at);
        }
        for (at, found) in &self.found {
            spending.add_found(found, *at);
        }
        let installed = self.installed.as_ref().map(|work| work.published);
        let session = Session::new(Arc::clone(&self.device), spending, installed, now);
        let session = session.having_signed(self.signatures.iter().cloned());
        self.session = Some(session.having_drawn(self.drawn.clone()).having_seen(self.log_seen));
    }
}
