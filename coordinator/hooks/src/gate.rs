//! How many are asked at the same time: whoever is slow keeps those waiting who need the same, and nobody else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::ids::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::failure::HookError;

/// Asked at the same time.
const AT_ONCE: usize = 8;

/// Asked, or waiting to be.
const MOST: usize = 64;

/// Lets a few through at a time, and each but once.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Arc<Semaphore>,
    inside: Arc<Mutex<BTreeSet<Digest>>>,
}

/// Somebody is inside until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    _place: Place,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Place {
    inside: Arc<Mutex<BTreeSet<Digest>>>,
    whom: Digest,
}

impl Default for Gate {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)), inside: Arc::default() }
    }
}

impl Gate {
    /// Waits for a place, but no longer than `limit`, and says how much of that is left. Fails at once where there are too many,
    /// or this one is inside already.
    pub(crate) async fn enter(&self, whom: Digest, limit: Duration) -> Result<(Pass, Duration), HookError> {
        let begun = Instant::now();
        let place = Place::take(&self.inside, whom).ok_or(HookError::Busy)?;
        let permit = timeout(limit, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or(HookError::Busy)?;
        Ok((Pass { _place: place, _permit: permit }, limit.saturating_sub(begun.elapsed())))
    }
}

impl Place {
    fn take(inside: &Arc<Mutex<BTreeSet<Digest>>>, whom: Digest) -> Option<Self> {
        // A set is whole after each change.
        let mut set = inside.lock().unwrap_or_else(PoisonError::into_inner);
        let is_let_in = set.len() < MOST && set.insert(whom);
        is_let_in.then(|| Self { inside: Arc::clone(inside), whom })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.whom);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    fn whom(at: usize) -> Digest {
        Digest::of(&at.to_be_bytes())
    }

    #[tokio::test]
    async fn a_few_are_let_in_each_once_and_whoever_leaves_makes_room() {
        let gate = Gate::default();
        let mut inside = Vec::new();
        for at in 0..AT_ONCE {
            inside.push(gate.enter(whom(at), LIMIT).await.unwrap());
        }
        // Asked already, and no place within the time.
        assert_eq!(gate.enter(whom(0), LIMIT).await.unwrap_err(), HookError::Busy);
        assert_eq!(gate.enter(whom(AT_ONCE), LIMIT).await.unwrap_err(), HookError::Busy);
        drop(inside.pop());
        drop(gate.enter(whom(AT_ONCE), LIMIT).await.unwrap());
        drop(inside);
        drop(gate.enter(whom(0), LIMIT).await.unwrap());
        assert!(gate.inside.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_refused_at_once() {
        let gate = Gate::default();
        let places: Vec<_> = (0..MOST).map(|at| Place::take(&gate.inside, whom(at)).unwrap()).collect();
        let refused = timeout(LIMIT, gate.enter(whom(MOST), Duration::from_secs(60))).await;
        assert_eq!(refused.unwrap().unwrap_err(), HookError::Busy);
        drop(places);
        drop(gate.enter(whom(MOST), LIMIT).await.unwrap());
    }
}
