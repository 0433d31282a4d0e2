//! A disk that takes nothing: since when, and why.

use std::sync::{Mutex, PoisonError};

use proto::ids::Timestamp;
use proto::message::Rejection;

use super::{AGAIN_MILLIS, DriverError, now};
use crate::seldom::Seldom;

/// Why nothing is written now.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<Since>>);

#[derive(Clone, Debug)]
struct Since {
    why: String,
    began: Timestamp,
    tried: Timestamp,
}

impl Trouble {
    /// Something could not be written.
    pub(super) fn begins(&self, error: &DriverError) -> Rejection {
        let mut trouble = self.lock();
        if trouble.is_none() {
            tracing::error!(%error, "nothing is written until this is mended; what is only read goes on");
        }
        let (now, why) = (now(), error.to_string());
        let began = trouble.as_ref().map_or(now, |since| since.began);
        *trouble = Some(Since { why, began, tried: now });
        refusal(error)
    }

    /// Refuses, with the reason of the last time, while it is too soon to look again whether the disk takes something:
    /// it is looked once a second, whoever asks.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Rejection> {
        let mut trouble = self.lock();
        let Some(since) = trouble.as_mut() else { return Ok(()) };
        if now.0.saturating_sub(since.tried.0) < AGAIN_MILLIS {
            return Err(Rejection::Unavailable(since.why.clone()));
        }
        since.tried = now;
        Ok(())
    }

    /// Everything is written.
    pub(super) fn is_over(&self) {
        if let Some(since) = self.lock().take() {
            tracing::info!(
                secs = now().0.saturating_sub(since.began.0) / 1000,
                "the disk takes writes again"
            );
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.lock().is_some()
    }

    /// Why, and for how many seconds.
    pub(super) fn told(&self, now: Timestamp) -> Option<(String, u64)> {
        let trouble = self.lock();
        trouble.as_ref().map(|since| (since.why.clone(), now.0.saturating_sub(since.began.0) / 1000))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Since>> {
        // A value is whole after each change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request failed that nothing else waits for.
pub(super) fn passing(error: &DriverError) -> Rejection {
    static SAID: Seldom = Seldom::new();
    if SAID.may_say(now()) {
        tracing::warn!(%error, "a request could not be answered");
    }
    refusal(error)
}

/// For operators the disk is named; a device is told to wait instead.
fn refusal(error: &DriverError) -> Rejection {
    Rejection::Unavailable(error.to_string())
}
