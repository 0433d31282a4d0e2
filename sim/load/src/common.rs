//! What the devices of a process share: what they are to do, what is known, what is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use proto::ids::Digest;
use session::policy::Policy;
use shell::proxy::Proxy;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::report::Load;
use crate::tally::Tally;

/// What devices share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) load: Load,
    pub(crate) proxy: Proxy,
    pub(crate) stop: CancellationToken,
    /// As many as there are processors: devices that compute at the same time.
    pub(crate) cores: Semaphore,
    /// Bases that tasks were about: no device has one, and each says that it has all of these.
    bases: Mutex<BTreeSet<Digest>>,
    /// What some device holds: many devices hold the same bytes.
    artifacts: Mutex<BTreeMap<Digest, Weak<Vec<u8>>>>,
    tally: Mutex<Tally>,
}

impl Common {
    pub(crate) fn new(load: Load, bases: BTreeSet<Digest>, cores: usize, stop: CancellationToken) -> Self {
        Self {
            load,
            proxy: Proxy::from_env(),
            stop,
            cores: Semaphore::new(cores),
            bases: Mutex::new(bases),
            artifacts: Mutex::default(),
            tally: Mutex::default(),
        }
    }

    /// What was counted so far, to be looked at or added to. Each sum is whole after each change.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question was answered at `at`, that was to be sent at `due`.
    pub(crate) fn answered(&self, request: &str, answer: &str, (due, at): (Instant, Instant)) {
        let took = at.saturating_duration_since(due);
        self.tally().answered((request, answer), took, now().as_secs());
    }

    /// A question got no answer.
    pub(crate) fn failed(&self, request: &str, why: &str, example: &str) {
        self.tally().failed((request, why), example, now().as_secs());
    }

    /// A question left at `sent` that was to be sent at `due`.
    pub(crate) fn left(&self, due: Instant, sent: Instant) {
        let late: Duration = sent.saturating_duration_since(due);
        self.tally().late.record(late);
    }

    pub(crate) fn bases(&self) -> BTreeSet<Digest> {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on devices say that they have this base too.
    pub(crate) fn learns(&self, base: Digest) {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).insert(base);
    }

    /// The same bytes as whoever holds them already.
    pub(crate) fn share(&self, digest: Digest, bytes: Vec<u8>) -> Arc<Vec<u8>> {
        let mut artifacts = self.artifacts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = artifacts.get(&digest).and_then(Weak::upgrade) {
            return known;
        }
        artifacts.retain(|_, held| held.strong_count() > 0);
        let bytes = Arc::new(bytes);
        artifacts.insert(digest, Arc::downgrade(&bytes));
        bytes
    }

    /// The limits of a device that takes part in everything: there is nobody whose privacy it would keep.
    pub(crate) fn policy() -> Policy {
        Policy {
            smallest_cohort: 1,
            smallest_report_goal: 1,
            smallest_corrupt_permille: 0,
            smallest_corrupt: 0,
            least_noise_multiplier: 0.0,
            largest_epsilon: f64::INFINITY,
            largest_delta: 1.0,
            participations: u32::MAX,
            participations_a_day: u32::MAX,
            largest_tokens_a_round: u64::MAX,
            allow_without_noise: true,
            ..Policy::default()
        }
    }
}
