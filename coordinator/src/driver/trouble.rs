//! A disk that takes nothing: since when, and why.

use std::sync::{Mutex, PoisonError};

use proto::ids::Timestamp;
use proto::message::Rejection;

use super::{DriverError, now};

/// Why nothing is written now.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<(String, Timestamp)>>);

impl Trouble {
    /// Something could not be written.
    pub(super) fn begins(&self, error: &DriverError) -> Rejection {
        let mut trouble = self.lock();
        if trouble.is_none() {
            tracing::error!(%error, "nothing is written until this is mended; what is only read goes on");
        }
        let since = trouble.as_ref().map_or_else(now, |(_, since)| *since);
        *trouble = Some((error.to_string(), since));
        refusal(error)
    }

    /// Everything is written.
    pub(super) fn is_over(&self) {
        if let Some((_, since)) = self.lock().take() {
            tracing::info!(secs = now().0.saturating_sub(since.0) / 1000, "the disk takes writes again");
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.lock().is_some()
    }

    /// Why, and for how many seconds.
    pub(super) fn told(&self, now: Timestamp) -> Option<(String, u64)> {
        let trouble = self.lock();
        trouble.as_ref().map(|(why, since)| (why.clone(), now.0.saturating_sub(since.0) / 1000))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(String, Timestamp)>> {
        // A value is whole after each change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request failed that nothing else waits for.
pub(super) fn passing(error: &DriverError) -> Rejection {
    tracing::warn!(%error, "a request could not be answered");
    refusal(error)
}

/// For operators the disk is named; a device is told to wait instead.
fn refusal(error: &DriverError) -> Rejection {
    Rejection::Unavailable(error.to_string())
}
