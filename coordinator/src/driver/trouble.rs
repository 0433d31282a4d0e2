//! A disk that takes nothing of a task: since when, and why.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::ids::{TaskId, Timestamp};
use proto::message::Rejection;

use super::clock::now;
use super::error::DriverError;
use crate::seldom::Seldom;

/// How soon it is looked again whether the disk takes what is to be written, in milliseconds.
pub(super) const AGAIN_MILLIS: u64 = 1_000;

/// Why nothing of a task is written now.
#[derive(Debug)]
pub(super) struct Trouble {
    task: TaskId,
    since: Mutex<Option<Since>>,
}

#[derive(Clone, Debug)]
struct Since {
    why: String,
    began: Timestamp,
    tried: Timestamp,
}

impl Trouble {
    pub(super) fn of(task: TaskId) -> Self {
        Self { task, since: Mutex::new(None) }
    }

    /// Something could not be written.
    pub(super) fn begins(&self, error: &DriverError) -> Rejection {
        let mut trouble = self.lock();
        if trouble.is_none() {
            let task = self.task;
            tracing::error!(
                %task, %error, "nothing of the task is written until this is mended; what is only read goes on"
            );
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
            let (task, secs) = (self.task, now().0.saturating_sub(since.began.0) / 1000);
            tracing::info!(%task, secs, "the disk takes writes again");
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.lock().is_some()
    }

    /// When to look again.
    pub(super) fn again(&self) -> Option<Timestamp> {
        self.lock().as_ref().map(|since| since.tried.plus_millis(AGAIN_MILLIS))
    }

    /// Since when, and why.
    pub(super) fn told(&self) -> Option<(Timestamp, String)> {
        self.lock().as_ref().map(|since| (since.began, since.why.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Since>> {
        // A value is whole after each change.
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
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
