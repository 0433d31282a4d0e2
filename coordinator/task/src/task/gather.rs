//! From the opened sum of a round to one of the sums of a version, and when there are enough of them.

use std::collections::BTreeMap;

use privacy::PrivacyMode;
use proto::adapter::Class;
use proto::admin::Gathering;
use proto::ids::{Digest, SessionId, Timestamp};
use proto::message::Outcome;
use proto::plan::rotation_seed;
use rand_core::CryptoRng;

use super::gathered::{Gathered, Sum};
use super::{Task, TaskEffect};

impl Task {
    /// Takes the sum of a round into the version that is being made, and publishes that where nothing more is waited for; a
    /// round whose sum cannot be decoded came to nothing.
    pub(super) fn gather(
        &mut self,
        (round, session): (u64, SessionId),
        mut sum: Vec<u32>,
        (survivors, cohort, roster): (usize, usize, Digest),
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) {
        if self.mechanism.params().mode == PrivacyMode::Central {
            self.mechanism.add_central_noise(&mut sum, rng);
        }
        let Ok(decoded) = self.mechanism.decode(&sum, survivors, &rotation_seed(&session)) else {
            self.aborted(round, Outcome::NotRecovered, now);
            self.publish_if_due(None, now);
            return;
        };
        let devices = self.rounds.gave(session);
        let mut classes = BTreeMap::<Class, u32>::new();
        if self.plan.classes.is_some() {
            let whole = Class::whole(&self.plan.adapter);
            for device in &devices {
                *classes.entry(self.classes.remove(device).unwrap_or(whole)).or_default() += 1;
            }
        }
        self.funnels.gathered(round, &devices);
        let metric_deviation = self.mechanism.metric_deviation(survivors);
        let (mean, metrics) = (decoded.mean, decoded.metrics);
        let sum = Sum { round, roster, cohort, mean, metrics, metric_deviation, devices, classes };
        let from = self.version();
        let gathered = match self.record.gathered.take() {
            Some(mut gathered) => {
                gathered.add(sum);
                gathered
            }
            None => Gathered::new(from, sum),
        };
        if gathered.rounds() >= self.plan.round.min_rounds {
            self.enough_since.get_or_insert(now);
        }
        self.record.gathered = Some(gathered);
        if !self.publish_if_due(Some(round), now) {
            self.effects.push_back(TaskEffect::Gathered { round });
        }
    }

    /// Makes the version where there are sums enough and no round is open that may give a further one; `by` is the round that
    /// gave the last. Returns whether it is due.
    pub(super) fn publish_if_due(&mut self, by: Option<u64>, now: Timestamp) -> bool {
        let is_due = self.record.gathered.as_ref().is_some_and(|gathered| {
            gathered.rounds() >= self.plan.round.min_rounds && self.rounds.open().next().is_none()
        });
        let is_wanted = !self.record.state.is_over();
        if let Some(gathered) = self.record.gathered.take_if(|_| is_due && is_wanted) {
            self.publish(&gathered, by, now);
        }
        is_due
    }

    /// Whether a further round may be opened beside those that are open.
    pub(super) fn may_open(&self) -> bool {
        let gathered = self.record.gathered.as_ref().map_or(0, Gathered::rounds);
        let open = u32::try_from(self.rounds.open().count()).unwrap_or(u32::MAX);
        let plan = &self.plan.round;
        gathered < plan.min_rounds && gathered.saturating_add(open) < plan.rounds
    }

    /// Until when rounds that too few devices have joined are waited for, where there are sums enough without them.
    pub(super) fn waits_until(&self) -> Option<Timestamp> {
        let until = self.enough_since?.plus_millis(self.plan.round.grace_millis);
        let goal = self.plan.round.report_goal as usize;
        let waits = self.rounds.open().any(|round| round.is_joinable() && round.joined() < goal);
        (waits || self.rounds.open().next().is_none()).then_some(until)
    }

    /// Waits no longer for those.
    pub(super) fn stop_waiting(&mut self, now: Timestamp, rng: &mut impl CryptoRng) {
        if self.waits_until().is_some_and(|until| until <= now) && self.is_active() {
            self.rounds.give_up_below(self.plan.round.report_goal as usize);
            self.perform(now, rng);
            // After a restart no round is open that would end.
            self.publish_if_due(None, now);
        }
    }

    /// The version that is being made is there, or given up.
    pub(super) fn version_is_over(&mut self) {
        self.record.gathered = None;
        self.enough_since = None;
        self.rounds.version_is_over();
    }

    /// What there is of the version that is being made, where it is of more than one round.
    pub(super) fn gathering(&self) -> Option<Gathering> {
        let plan = &self.plan.round;
        let gathered = self.record.gathered.as_ref();
        (plan.rounds > 1 && !self.record.state.is_over()).then(|| Gathering {
            sums: gathered.map_or(0, Gathered::rounds),
            least: plan.min_rounds,
            most: plan.rounds,
            open: u32::try_from(self.rounds.open().count()).unwrap_or(u32::MAX),
            devices: gathered.map_or(0, Gathered::survivors),
        })
    }
}
