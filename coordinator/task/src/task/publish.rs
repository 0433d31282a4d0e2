//! From the sums of a version to the version.

use privacy::ClipNorm;
use proto::admin::{MeanMetric, TaskState, VersionStatus};
use proto::ids::{Digest, Timestamp};
use proto::message::Outcome;
use proto::metrics::MetricName;
use proto::plan::vector_to_bytes;

use super::earlier::Earlier;
use super::next::NextState;
use super::{Gathered, Task, TaskEffect, classes};
use crate::gain::{Measured, content};

impl Task {
    /// Makes the next version of the sums of its rounds, where a round gave the last; where that cannot be done they came to
    /// nothing.
    pub(super) fn publish(&mut self, gathered: &Gathered, completed_by: Option<u64>, now: Timestamp) {
        let round = gathered.last_round();
        let survivors = gathered.survivors();
        let mut mean = gathered.mean().to_vec();
        if let Some(plan) = self.plan.classes {
            classes::divide(&mut mean, &self.plan.adapter, &gathered.classes(), plan.least_trainers);
        }
        let metrics = self.mean_metrics(gathered);
        // The version that they trained from is judged by them; nothing is built upon one that is worse than the one
        // before.
        let worse = self.record.before.as_ref().filter(|_| is_worse(&metrics, survivors));
        let restored = worse.map(|earlier| earlier.before.version);
        let next = match worse {
            Some(earlier) => self.restored(earlier),
            None => self.next_state(&mean),
        };
        self.version_is_over();
        let Ok(NextState { adapter, folded, optimizer }) = next else {
            let outcome = Outcome::NotRecovered;
            self.aborted(round, outcome, now);
            return;
        };
        let from = self.version();
        self.record.devices = u32::try_from(self.selection.devices()).unwrap_or(u32::MAX);
        self.selection.published((gathered.rounds(), self.plan.round.rounds));
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
            cohort: gathered.cohort(),
            survivors,
            round,
            rounds: gathered.rounds(),
            epsilon: self.epsilon(),
            adapter: self.adapter_digest,
            folded: self.folded_digest,
            committed_unix_millis: now.0,
            clip_norm: self.mechanism.params().clip_norm.get(),
            metrics,
            restores,
            rolled_back: false,
        };
        self.funnels.next(made, now);
        self.record.versions.push(version.clone());
        let optimizer = vector_to_bytes(&self.record.optimizer.to_vector());
        self.effects.push_back(TaskEffect::Commit {
            completed_by,
            version: Box::new(version),
            adapter,
            folded,
            optimizer,
            roster: Some(gathered.roster()),
        });
        if self.version() >= self.plan.round.versions {
            self.end(TaskState::Complete);
        } else if is_second {
            self.record.state = TaskState::Paused;
            self.effects.push_back(TaskEffect::Paused { worse: [from.saturating_sub(2), from] });
        }
    }

    /// What the sums say of the plan's metrics, in their own units.
    fn mean_metrics(&self, gathered: &Gathered) -> Vec<MeanMetric> {
        let deviation = gathered.metric_deviation();
        let mean = |(metric, share): (&proto::metrics::Metric, f64)| MeanMetric {
            name: metric.name,
            mean: metric.value(share),
            standard_deviation: deviation * metric.range(),
            range: metric.range(),
        };
        self.plan.privacy.metrics.iter().zip(gathered.metrics()).map(mean).collect()
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
fn is_worse(metrics: &[MeanMetric], survivors: u32) -> bool {
    Measured::of(metrics, survivors).is_some_and(|measured| measured.is_worse())
}
