//! What a device does while its state cannot be written, as on a full disk: it begins nothing, and looks whether it can be
//! written again.

use std::sync::Arc;

use session::{Event, SessionState};

use super::clock::{self, now, uptime};
use super::run::{Running, generator};
use crate::error::Error;

impl Running {
    /// Waits until what is durable can be written again, and finds out what was. Nothing that was done is lost by it: what
    /// could not be written is written then. Fails with `why` where that is something else, or cannot pass, or somebody
    /// waits.
    pub(super) async fn until_written(mut self, why: Error) -> Result<Self, Error> {
        if self.when.once || !why.may_pass() {
            return Err(why);
        }
        let (mut said, mut because) = (None, why.to_string());
        let mut wait = self.outage.begin(uptime());
        loop {
            if !wait.is_zero() {
                if said.is_none() {
                    let what = format!("waiting until its state can be written: {because}");
                    self.trouble(&format!(
                        "{what}; nothing is trained or charged before, and nothing that was is lost"
                    ));
                    said = Some(what);
                }
                self = self.without_round()?;
                self.live.does(said.as_deref().unwrap_or_default(), self.session.at_work_on(), None);
                let live = Arc::clone(&self.live);
                tokio::select! {
                    () = clock::wait(wait) => {}
                    () = live.asked.notified() => {
                        // It is told that it cannot be done now.
                        self.answer();
                        continue;
                    }
                    () = self.stop.cancelled() => return Ok(self),
                }
            }
            match self.store.recover() {
                Ok(()) => break,
                Err(error) if !error.may_pass() => return Err(error.into()),
                Err(error) => {
                    // It knows the disk's own words.
                    because = error.to_string();
                    tracing::debug!("its state cannot be written yet: {because}");
                    wait = self.outage.next();
                }
            }
        }
        self.outage.end(uptime());
        if said.is_some() {
            self.live.note("written", "its state can be written again");
        } else {
            tracing::warn!("a write failed, and was possible a moment later: {why}");
        }
        Ok(self)
    }

    /// A round does not wait: the others go on without this device, and what was trained is contributed to another one.
    fn without_round(mut self) -> Result<Self, Error> {
        if is_in_round(self.session.state()) {
            self.session = self.session.handle(Event::LeavesRound, now(), &mut generator());
            tracing::info!("it leaves the round, whose steps it cannot write down");
            if let Some(ended) = self.session.take_ended() {
                let task = self.session.take_ended_task();
                self.report(ended, task)?;
            }
        }
        Ok(self)
    }
}

/// Whether others of a round wait for this device.
fn is_in_round(state: SessionState) -> bool {
    match state {
        SessionState::RecordingLog
        | SessionState::Advertising
        | SessionState::RecordingDraw
        | SessionState::Drawing
        | SessionState::Sharing
        | SessionState::Charging
        | SessionState::Submitting
        | SessionState::RecordingSignature
        | SessionState::Ending
        | SessionState::Agreeing
        | SessionState::RecordingAnswer
        | SessionState::Unmasking => true,
        SessionState::Waiting
        | SessionState::AwaitingWindow
        | SessionState::CheckingIn
        | SessionState::Renewing
        | SessionState::LoadingPlan
        | SessionState::RecordingFound
        | SessionState::Loading
        | SessionState::Installing
        | SessionState::Training
        | SessionState::Declining
        | SessionState::Joining => false,
    }
}
