//! What operators see of a task's devices; nothing here decides anything.

use std::collections::BTreeMap;

use proto::admin::{Candidates, DeclineCount, Funnel};
use proto::ids::{DeviceId, Timestamp};
use proto::message::DeclineReason;

use super::Task;
use super::funnel::Counted;
use crate::round::{Progress, Round};

impl Task {
    /// The same task, whose devices are counted from now on.
    #[must_use]
    pub fn counting_from(mut self, now: Timestamp, counted: Counted) -> Self {
        self.funnels.begin(now, counted);
        self
    }

    /// How far each of the open rounds is, the oldest first.
    pub fn progress(&self) -> Vec<Progress> {
        self.rounds.open().filter_map(Round::progress).collect()
    }

    /// How far devices came with the newest version, and with the one before, where they were counted.
    pub(super) fn funnel(&self) -> (Funnel, Option<Funnel>) {
        (self.funnels.counts(), self.funnels.last())
    }

    /// How many devices do not take part, by their reasons.
    pub(super) fn decline_counts(&self) -> Vec<DeclineCount> {
        let mut counts = BTreeMap::<DeclineReason, u32>::new();
        for reason in self.declined.values() {
            *counts.entry(*reason).or_default() += 1;
        }
        let count = |(reason, devices)| {
            let (first, last) = self.funnels.given(reason);
            DeclineCount { reason, devices, first_unix_millis: first.0, last_unix_millis: last.0 }
        };
        counts.into_iter().map(count).collect()
    }

    /// Why a device does not take part, if it said so and did not come back since.
    pub fn declined_by(&self, device: DeviceId) -> Option<DeclineReason> {
        self.declined.get(&device).copied()
    }

    /// Whether a device is shut out of the task's rounds.
    pub fn excludes(&self, device: DeviceId) -> bool {
        self.excluded.contains(&device)
    }

    /// Who of the enrolled devices may take part once more; what the shell knows besides is left for it to say.
    pub fn candidates(&self, enrolled: &[DeviceId]) -> Candidates {
        let count = |devices: usize| u32::try_from(devices).unwrap_or(u32::MAX);
        let able: Vec<&DeviceId> = enrolled.iter().filter(|device| self.may_take_part(**device)).collect();
        let declined = able.iter().filter(|device| self.declined.contains_key(device)).count();
        Candidates {
            enrolled: count(enrolled.len()),
            able: count(able.len()),
            declined: count(declined),
            least: self.plan.round.least_devices(),
            ..Candidates::default()
        }
    }
}
