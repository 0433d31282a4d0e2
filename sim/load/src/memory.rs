//! What a device remembers from one run to the next, as a device of a user does in its ledger and its state: what it was
//! charged, what it signed, what it saw of the enrollment log, which versions it holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::store::SeenLog;
use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::Published;
use serde::{Deserialize, Serialize};
use session::spending::{Charge, Found, Spending};
use session::{Device, Lifetime, Session, Signed};

/// What a device remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Memory {
    /// Participations, by task and plan: a ledger has each by itself, and its sum is the same.
    spent: Vec<Found>,
    /// The last that it signed of each task.
    signed: Vec<Signed>,
    drawn: Vec<Timestamp>,
    seen: Option<SeenLog>,
    installed: Vec<Published>,
    /// What it would have kept on its disk, as long as the process lasts: it is not fetched again.
    #[serde(skip)]
    held: BTreeMap<Digest, Arc<Vec<u8>>>,
}

impl Memory {
    /// The device's machine, as one that starts.
    pub(crate) fn session(&self, device: Arc<Device>, lifetime: Lifetime, now: Timestamp) -> Session {
        let mut spending = Spending::new();
        for found in &self.spent {
            spending.add_found(found, now);
        }
        Session::new(device, spending, self.installed.iter().copied(), now)
            .renewing(lifetime)
            .having_signed(self.signed.iter().cloned())
            .having_drawn(self.drawn.clone())
            .having_seen(self.seen.map(Into::into))
    }

    pub(crate) fn charge(&mut self, charge: &Charge) {
        let Charge { task, plan, cost, delta, .. } = charge.clone();
        self.found(Found { task, times: 1, plan, cost, delta });
    }

    pub(crate) fn found(&mut self, found: Found) {
        let same = |known: &&mut Found| (known.task, known.plan) == (found.task, found.plan);
        match self.spent.iter_mut().find(same) {
            Some(known) => known.times = known.times.saturating_add(found.times),
            None => self.spent.push(found),
        }
    }

    pub(crate) fn sign(&mut self, signed: Signed) {
        self.signed.retain(|known| known.task != signed.task);
        self.signed.push(signed);
    }

    pub(crate) fn draw(&mut self, times: Vec<Timestamp>) {
        self.drawn = times;
    }

    pub(crate) fn see(&mut self, seen: aggregation::log::Seen) {
        self.seen = Some(seen.into());
    }

    /// A version, which the device holds from now on; what it held of the one before is let go.
    pub(crate) fn install(&mut self, published: Published, adapter: Arc<Vec<u8>>) {
        let before = self.installed_of(published.task).map(|before| before.adapter);
        if let Some(before) = before.filter(|before| *before != published.adapter) {
            self.held.remove(&before);
        }
        self.installed.retain(|known| known.task != published.task);
        self.installed.push(published);
        self.held.insert(published.adapter, adapter);
    }

    fn installed_of(&self, task: TaskId) -> Option<&Published> {
        self.installed.iter().find(|known| known.task == task)
    }

    /// What it holds of this hash.
    pub(crate) fn holds(&self, digest: Digest) -> Option<Arc<Vec<u8>>> {
        self.held.get(&digest).cloned()
    }

    /// It keeps what it fetched.
    pub(crate) fn keep(&mut self, digest: Digest, bytes: Arc<Vec<u8>>) {
        self.held.insert(digest, bytes);
    }
}
