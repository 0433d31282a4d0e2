//! What a device that runs waits for before it does the next thing: a time, a window, the network.

use std::sync::Arc;
use std::time::Duration;

use proto::ids::Timestamp;
use session::conditions::in_words;
use session::{Event, SessionState};

use super::clock::now;
use super::run::Running;
use crate::error::Error;

/// The longest sleep without a look at the clock: one that was set, or a machine that slept, is noticed.
const LONGEST_NAP: Duration = Duration::from_secs(30);

impl Running {
    /// Sleeps until then, but not on when it is told to stop, asked for something, or needed: `None` where it is to be
    /// looked at again what there is to do.
    pub(super) async fn sleep(&mut self, until: Timestamp) -> Option<Event> {
        let left = until.millis_since(now());
        if left == 0 {
            return Some(Event::Woke);
        }
        let awaits = self.session.state() == SessionState::AwaitingWindow;
        let (stop, live, opens) = (self.stop.clone(), Arc::clone(&self.live), self.watching.open());
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(left).min(LONGEST_NAP)) => None,
            () = stop.cancelled() => None,
            () = live.asked.notified() => None,
            () = opens, if awaits => Some(Event::WindowOpened),
            () = self.bases.news() => None,
        }
    }

    /// Whether a window is open; a device that runs once says why there is none, or waits for the dwell.
    pub(super) async fn may_train(&mut self) -> Result<bool, Error> {
        loop {
            let seen = tokio::select! {
                seen = self.watching.first() => seen,
                () = self.stop.cancelled() => return Ok(false),
            };
            if seen.may_train || !self.when.once {
                return Ok(seen.may_train);
            }
            let blocking = seen.blocking();
            if !blocking.is_empty() {
                return Err(Error::Conditions(blocking));
            }
            tokio::select! {
                () = self.watching.next() => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Whether the network may be used; waits for the next look where it may not.
    pub(super) async fn may_transfer(&mut self) -> Result<bool, Error> {
        let seen = tokio::select! {
            seen = self.watching.first() => seen,
            () = self.stop.cancelled() => return Ok(false),
        };
        if seen.may_transfer {
            return Ok(true);
        }
        let blocking = in_words(&seen.transfer);
        if self.when.once {
            return Err(Error::Conditions(blocking));
        }
        tracing::debug!(blocking, "waiting to use the network");
        let is_paused = self.live.paused().borrow().is_some_and(|until| until > now());
        let does = if is_paused { "paused by its user" } else { "waiting for the network" };
        self.live.does(does, self.session.at_work_on(), None);
        tokio::select! {
            () = self.watching.next() => {}
            () = self.live.asked.notified() => {}
            () = self.stop.cancelled() => {}
        }
        Ok(false)
    }
}
