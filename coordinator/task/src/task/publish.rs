//! From an opened sum to a version.

use privacy::{ClipNorm, PrivacyMode};
use proto::adapter::Class;
use proto::admin::{MeanMetric, TaskState, VersionStatus};
use proto::ids::{Digest, SessionId, Timestamp};
use proto::message::Outcome;
use proto::metrics::MetricName;
use proto::plan::{rotation_seed, vector_to_bytes};
use rand_core::CryptoRng;

use super::earlier::Earlier;
use super::next::NextState;
use super::{Task, TaskEffect, classes};
use crate::gain::{Measured, content};

impl Task {
    /// Decodes a sum into the next version; where that cannot be done the round is aborted.
    pub(super) fn publish(
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
        let decoded = self.mechanism.decode(&sum, survivors, &rotation_seed(&session)).ok();
        let next = decoded.and_then(|mut decoded| {
            if let Some(plan) = self.plan.classes {
                let (spec, whole) = (&self.plan.adapter, Class::whole(&self.plan.adapter));
                let class = |device| self.classes.get(device).copied().unwrap_or(whole);
                let classes: Vec<Class> = self.survivors.iter().map(class).collect();
                classes::divide(&mut decoded.mean, spec, &classes, plan.least_trainers);
            }
            let metrics = self.mean_metrics(&decoded.metrics, survivors);
            // The version that they trained from is judged by them; nothing is built upon one that is worse than the one
            // before.
            let worse = self.record.before.as_ref().filter(|_| is_worse(&metrics, survivors));
            let next = match worse {
                Some(earlier) => self.restored(earlier).ok()?,
                None => self.next_state(&decoded.mean).ok()?,
            };
            Some((next, metrics, worse.map(|earlier| earlier.before.version)))
        });
        let Some((NextState { adapter, folded, optimizer }, metrics, restored)) = next else {
            let outcome = Outcome::NotRecovered;
            self.selection.aborted(now);
            self.funnels.aborted(round, outcome);
            self.last_abort = Some(outcome);
            self.effects.push_back(TaskEffect::Aborted { round, outcome });
            return;
        };
        let from = self.version();
        self.record.devices = u32::try_from(self.selection.devices()).unwrap_or(u32::MAX);
        self.selection.published();
        let restores = restored.map(|version| content(&self.record.versions, version));
        let is_second = restores.is_some() && self.record.versions.iter().rev().nth(1).is_some_and(was_worse);
        let old = std::mem::replace(&mut self.record.adapter, adapter);
        let is_measured = self.plan.privacy.metrics.iter().any(|metric| metric.name == MetricName::Gain);
        self.record.before =
            (is_measured && restores.is_none()).then(|| Earlier::new(from, old, self.record.folded.clone()));
        self.record.optimizer = optimizer;
        self.classes.clear();
        let adapter = vector_to_bytes(&self.record.adapter);
        self.adapter_digest = Digest::of(&adapter);
        let folded = folded.map(|folded| {
            let bytes = vector_to_bytes(&folded);
            self.folded_digest = Some(Digest::of(&bytes));
            self.record.folded = Some(folded);
            bytes
        });
        let made = self.version() + 1;
        self.prepare_mechanism(made, &metrics);
        let version = VersionStatus {
            version: made,
            cohort: u32::try_from(cohort).unwrap_or(u32::MAX),
            survivors: u32::try_from(survivors).unwrap_or(u32::MAX),
            round,
            epsilon: self.epsilon(),
            adapter: self.adapter_digest,
            folded: self.folded_digest,
            committed_unix_millis: now.0,
            clip_norm: self.mechanism.params().clip_norm.get(),
            metrics,
            restores,
            rolled_back: false,
        };
        self.funnels.published(round, &self.survivors, made, now);
        self.record.versions.push(version.clone());
        let optimizer = vector_to_bytes(&self.record.optimizer.to_vector());
        self.effects.push_back(TaskEffect::Commit {
            version: Box::new(version),
            adapter,
            folded,
            optimizer,
            roster: Some(roster),
        });
        if self.version() >= self.plan.round.versions {
            self.end(TaskState::Complete);
        } else if is_second {
            self.record.state = TaskState::Paused;
            self.effects.push_back(TaskEffect::Paused { worse: [from.saturating_sub(2), from] });
        }
    }

    /// What the sum says of the plan's metrics, in their own units.
    fn mean_metrics(&self, shares: &[f64], survivors: usize) -> Vec<MeanMetric> {
        let deviation = self.mechanism.metric_deviation(survivors);
        let mean = |(metric, share): (&proto::metrics::Metric, &f64)| MeanMetric {
            name: metric.name,
            mean: metric.value(*share),
            standard_deviation: deviation * metric.range(),
            range: metric.range(),
        };
        self.plan.privacy.metrics.iter().zip(shares).map(mean).collect()
    }

    /// The mechanism for updates from `version`, at a clip norm that moves where the plan lets it adapt.
    pub(super) fn prepare_mechanism(&mut self, version: u32, metrics: &[MeanMetric]) {
        let clipped = metrics.iter().find(|metric| metric.name == MetricName::Clipped);
        let now = self.mechanism.params().clip_norm;
        let next: ClipNorm = match (&self.plan.privacy.adaptive_clip, clipped) {
            (Some(adaptive), Some(clipped)) => {
                adaptive.rule().map_or(now, |rule| rule.next(now, clipped.mean))
            }
            (Some(_), None) | (None, _) => now,
        };
        // A plan that was checked has a rule, and a mechanism for every version and everywhere in its range.
        if let Ok(mechanism) = self.plan.mechanism_at(version, next.get()) {
            self.mechanism = mechanism;
        }
    }
}

/// Whether a version is there because the one before it was worse than its own.
fn was_worse(made: &VersionStatus) -> bool {
    made.restores.is_some() && !made.rolled_back
}

/// Whether so many devices found the version that they trained from worse than the one before.
fn is_worse(metrics: &[MeanMetric], survivors: usize) -> bool {
    let devices = u32::try_from(survivors).unwrap_or(u32::MAX);
    Measured::of(metrics, devices).is_some_and(|measured| measured.is_worse())
}
