//! What the world saw: all that whoever runs one is told is counted here.

use std::collections::BTreeMap;

use proto::admin::VersionStatus;
use proto::message::Outcome;

use super::Traffic;
use super::stages::{Funnel, Stages};

/// How long after a version who was there for it counts no more for the next, in milliseconds.
const LATE_MILLIS: u64 = 3_600_000;

/// What the world has seen of one version.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The coordinator's record.
    pub status: VersionStatus,
    /// Bytes of each device since the version before, in the order of the world's nodes.
    pub traffic: Vec<Traffic>,
    /// What was counted until then.
    pub counts: Counts,
    /// How far devices came since the version before.
    pub funnel: Funnel,
}

impl Seen {
    /// Mean bytes of a device.
    pub fn mean_traffic(&self) -> Traffic {
        let sum = |of: fn(&Traffic) -> u64| self.traffic.iter().map(of).sum::<u64>();
        let devices = self.traffic.len().max(1) as u64;
        Traffic { up: sum(|t| t.up) / devices, down: sum(|t| t.down) / devices }
    }
}

/// What was counted since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Milliseconds.
    pub millis: u64,
    /// Devices that are there now.
    pub there: usize,
    /// The most devices that were there at a time since the version before.
    pub most_there: usize,
    /// How often devices asked for work, those that were not heard too.
    pub check_ins: u64,
    /// Trainings that devices began.
    pub trainings: usize,
    /// Times that a device went away: by a fault, or because it was switched off.
    pub left: u64,
    /// Rounds that ended without a version.
    pub aborted: u32,
    /// How the last of them ended.
    pub last_abort: Option<Outcome>,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) seen: Vec<Seen>,
    pub(super) counts: Counts,
    /// How many devices asked for work in each minute.
    pub(super) check_ins: BTreeMap<u64, u32>,
    pub(super) stages: Stages,
    /// The most devices that were there at a time from an hour after the last version on.
    late: Option<usize>,
}

impl Tally {
    pub(super) fn checks_in(&mut self, minute: u64) {
        self.counts.check_ins += 1;
        *self.check_ins.entry(minute).or_default() += 1;
    }

    pub(super) fn trains(&mut self) {
        self.counts.trainings += 1;
    }

    pub(super) fn comes(&mut self, index: usize, millis: u64) {
        self.changes(millis);
        self.stages.comes(index);
        self.counts.there += 1;
        self.counts.most_there = self.counts.most_there.max(self.counts.there);
        self.late = self.late.map(|late| late.max(self.counts.there));
    }

    pub(super) fn leaves(&mut self, millis: u64) {
        self.changes(millis);
        self.counts.there -= 1;
        self.counts.left += 1;
    }

    /// Before another number of devices is there.
    fn changes(&mut self, millis: u64) {
        if self.late.is_none() && millis >= self.published_millis().saturating_add(LATE_MILLIS) {
            self.late = Some(self.counts.there);
        }
    }

    /// When the last version was made.
    pub(super) fn published_millis(&self) -> u64 {
        self.seen.last().map_or(0, |seen| seen.counts.millis)
    }

    /// The most devices that were there at a time from an hour after the last version on.
    pub(super) fn most_there_late(&self) -> usize {
        self.late.unwrap_or(self.counts.there)
    }

    pub(super) fn aborts(&mut self, outcome: Outcome) {
        self.counts.aborted += 1;
        self.counts.last_abort = Some(outcome);
    }

    /// A version is there, and so are these devices.
    pub(super) fn publishes(
        &mut self,
        status: VersionStatus,
        traffic: Vec<Traffic>,
        millis: u64,
        there: impl Iterator<Item = usize>,
    ) {
        let counts = Counts { millis, ..self.counts };
        let funnel = self.stages.take(there);
        self.seen.push(Seen { status, traffic, counts, funnel });
        self.counts.most_there = self.counts.there;
        self.late = None;
    }
}
