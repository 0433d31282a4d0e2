//! One action of the machine, performed: what came of it is the next event.

use std::pin::pin;
use std::time::Duration;

use proto::message::Request;
use session::{Action, Event};

use super::clock::now;
use super::run::{DRAWN, Running};
use crate::error::Error;

/// How often it is told what the device waits for while a question is out.
const HELD_EACH: Duration = Duration::from_secs(2);

impl Running {
    /// Does what the machine wants done. `None` where it is to be looked at again what there is to do.
    pub(super) async fn perform(&mut self, action: Action) -> Result<Option<Event>, Error> {
        Ok(Some(match action {
            Action::Sleep(until) => match self.sleep(until).await {
                Some(event) => event,
                None => return Ok(None),
            },
            Action::Send(request) => match self.send(request).await? {
                Some(event) => event,
                None => return Ok(None),
            },
            Action::Renew { has_certificate } => {
                let (stop, in_vain) = (self.stop.clone(), self.asks());
                let renewed = tokio::select! {
                    renewed = self.renew(has_certificate) => Some(renewed?),
                    () = in_vain => None,
                    () = stop.cancelled() => return Ok(None),
                };
                renewed.unwrap_or_else(|| self.failure(self.silent()))
            }
            Action::LoadPlan(published) => {
                self.store.checkpoint().keep_only(&published);
                self.load_plan(&published).await.unwrap_or_else(|error| self.failure(error))
            }
            // Nothing is held of a version while there is no window to train it in.
            Action::Load { trains: true, .. } if !self.may_train().await? => Event::NoWindow,
            Action::Load { published, frozen, plan, trains, before } => {
                match self.fits(plan, trains).await? {
                    Ok(()) => {
                        let loaded = self.load(published, frozen, before).await;
                        loaded.unwrap_or_else(|error| self.failure(error))
                    }
                    Err(breach) => Event::CannotTrain(breach),
                }
            }
            Action::RecordFound(found) => {
                tracing::warn!(
                    task = %self.store.in_words(found.task),
                    times = found.times,
                    "the coordinator charged this device for more rounds than its ledger knows: the folder was \
                     restored from a backup, or the coordinator errs; they are written to the ledger and count"
                );
                self.store.charge_found(found, now().0)?;
                self.live.keeps(&self.store)?;
                Event::Recorded
            }
            Action::Install(work) => {
                let stop = self.stop.clone();
                tokio::select! {
                    installed = self.install(&work) => installed?,
                    () = stop.cancelled() => return Ok(None),
                }
            }
            Action::Train(work) => {
                self.store.set_declined(None)?;
                self.train(work).await?
            }
            Action::Charge(charge) => {
                let (task, version) = (charge.task, charge.version);
                self.store.charge(charge, now().0)?;
                self.contributed = Some((task, version));
                let what = format!("version {version} of task {}", self.store.in_words(task));
                self.live.note("contributes", &what);
                self.store.set_declined(None)?;
                self.live.keeps(&self.store)?;
                Event::Recorded
            }
            Action::RecordDraws(times) => {
                self.store.put(DRAWN, &times)?;
                Event::Recorded
            }
            Action::RecordLog(seen) => {
                self.store.put_seen_log(Some(seen))?;
                Event::Recorded
            }
            Action::RecordSignature(signed) => {
                self.store.sign(signed)?;
                Event::Recorded
            }
            Action::RecordAnswer(answered) => {
                self.store.answer(answered)?;
                Event::Recorded
            }
        }))
    }

    /// Asks the coordinator. It holds a question that waits for others, which is told meanwhile; where the user wants
    /// something, or the network may not be used any more, the question is dropped, to be asked again.
    async fn send(&mut self, request: Request) -> Result<Option<Event>, Error> {
        let mut transport = self.transport.clone();
        let (mut sending, mut in_vain) = (pin!(transport.send(&request)), pin!(self.asks()));
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent,
                () = &mut in_vain => break Err(self.silent()),
                () = tokio::time::sleep(HELD_EACH) => self.is_held(),
                () = self.stop.cancelled() => return Ok(None),
                () = self.watching.no_transfer() => return Ok(None),
                () = self.live.asked.notified() => return Ok(None),
            }
        };
        Ok(Some(match sent {
            Ok(reply) => {
                tracing::debug!(request = request.name(), reply = reply.name(), "answered");
                self.is_taken()?;
                Event::Replied(reply)
            }
            Err(error) => self.failure(error),
        }))
    }
}
