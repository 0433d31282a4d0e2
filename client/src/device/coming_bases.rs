//! The bases that are coming from the coordinator, each fetched by a task of its own.
#![expect(clippy::disallowed_methods, reason = "IO shell: a base is fetched beside whatever the device does")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::ids::{Digest, TaskId};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::base_fetch::{BaseFetch, Fetched};
use crate::transport::Transport;

/// Bases that come at the same time.
const MOST: usize = 4;

/// One that is coming.
struct Coming {
    task: TaskId,
    stop: CancellationToken,
    is_forgotten: Arc<AtomicBool>,
    fetching: JoinHandle<()>,
}

/// The bases that are coming.
pub(super) struct ComingBases {
    coming: Mutex<BTreeMap<Digest, Coming>>,
    ended: Arc<Mutex<Vec<(Digest, Fetched)>>>,
    news: Arc<Notify>,
    transport: watch::Sender<Transport>,
}

impl ComingBases {
    /// None, so far.
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            coming: Mutex::default(),
            ended: Arc::default(),
            news: Arc::default(),
            transport: watch::Sender::new(transport),
        }
    }

    /// How the coordinator is reached from now on.
    pub(super) fn connect_by(&self, transport: Transport) {
        self.transport.send_replace(transport);
    }

    /// How the coordinator is reached, now and later.
    pub(super) fn transport(&self) -> watch::Receiver<Transport> {
        self.transport.subscribe()
    }

    /// Whether another one may be begun.
    pub(super) fn may_begin(&self, base: Digest) -> bool {
        let coming = lock(&self.coming);
        coming.len() < MOST && !coming.contains_key(&base)
    }

    /// Whether any is coming.
    pub(super) fn are_any(&self) -> bool {
        !lock(&self.coming).is_empty()
    }

    /// Those that are coming.
    pub(super) fn all(&self) -> Vec<Digest> {
        lock(&self.coming).keys().copied().collect()
    }

    /// Fetches a base from now on. What `held` is it holds until it is over.
    pub(super) fn begin(&self, fetch: BaseFetch, held: impl Send + 'static) {
        let (base, task) = (fetch.of.base, fetch.of.task);
        let (stop, is_forgotten) = (fetch.stop.clone(), Arc::clone(&fetch.is_forgotten));
        let (ended, news) = (Arc::clone(&self.ended), Arc::clone(&self.news));
        let fetching = tokio::spawn(async move {
            let fetched = fetch.run().await;
            drop(held);
            lock(&ended).push((base, fetched));
            news.notify_one();
        });
        lock(&self.coming).insert(base, Coming { task, stop, is_forgotten, fetching });
    }

    /// Waits until one has ended.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Those that have ended since the last call.
    pub(super) fn take_ended(&self) -> Vec<(Digest, Fetched)> {
        let ended = std::mem::take(&mut *lock(&self.ended));
        let mut coming = lock(&self.coming);
        for (base, _) in &ended {
            coming.remove(base);
        }
        ended
    }

    /// The user left a task: what was coming for it stops and is deleted.
    pub(super) fn forget(&self, task: TaskId) {
        for coming in lock(&self.coming).values().filter(|coming| coming.task == task) {
            coming.is_forgotten.store(true, Ordering::Relaxed);
            coming.stop.cancel();
        }
    }

    /// Stops them all; when this returns, nothing of them holds the device's folder any more. What came is gone on with.
    pub(super) async fn end(&self) {
        let coming = std::mem::take(&mut *lock(&self.coming));
        for coming in coming.values() {
            coming.stop.cancel();
        }
        for coming in coming.into_values() {
            drop(coming.fetching.await);
        }
    }
}

impl Drop for ComingBases {
    fn drop(&mut self) {
        for coming in lock(&self.coming).values() {
            coming.stop.cancel();
        }
    }
}

/// What is in it is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
