//! Which devices are given the version to train from, and which get into a round.

use aggregation::log::EnrollmentLog;
use proto::adapter::Class;
use proto::admin::TaskState;
use proto::ids::{DeviceId, SessionId, Timestamp};
use proto::message::{Assignment, Rejection, Reply};
use rand_core::CryptoRng;

use super::selection::Verdict;
use super::{POLL_MILLIS, Task};
use crate::pacing;

impl Task {
    pub(super) fn check_in(&mut self, from: DeviceId, only_keeps: bool, now: Timestamp) -> Reply {
        // What its operator stopped, nobody is given any more.
        let latest =
            if self.record.state == TaskState::Stopped { Vec::new() } else { vec![self.published()] };
        let retry = pacing::idle(self.devices());
        if !self.is_active() {
            let complete = self.record.state.is_over();
            return Reply::Wait { retry, latest, complete };
        }
        if self.participations(from) >= self.most_participations {
            // The version of which it is a part is still to come.
            let complete = !(self.has_given(from) || self.rounds.is_busy(from));
            return Reply::Wait { retry, latest, complete };
        }
        if only_keeps {
            self.selection.release(from, now);
            self.funnels.gave_up(from);
        }
        if only_keeps || self.excluded.contains(&from) {
            return Reply::Wait { retry, latest, complete: false };
        }
        if self.has_given(from) {
            // There is nothing for it until the version is there.
            let retry = pacing::window_for(self.devices(), self.selection.places());
            return Reply::Wait { retry, latest, complete: false };
        }
        let verdict = if !self.was_declined_by(from) {
            self.selection.ask(from, self.participations(from), now)
        } else if self.selection.has_to_spare(now) {
            // It may have changed its mind, and is not counted on.
            Verdict::Place
        } else {
            Verdict::Wait(retry)
        };
        match verdict {
            Verdict::Wait(retry) => Reply::Wait { retry, latest, complete: false },
            Verdict::Place => Reply::Assignment(Assignment {
                published: self.published(),
                before: self.record.before.as_ref().map(|earlier| earlier.before),
                charges: self.charged(from).into_iter().collect(),
            }),
        }
    }

    /// Whether so few devices are enrolled that no version of several rounds can come of them: then nobody is given work. The first
    /// rounds would be full and charge their devices, and a version would never come of it.
    pub fn is_short_of_devices(&self, enrolled: usize) -> bool {
        let round = &self.plan.round;
        round.min_rounds > 1 && enrolled < round.least_devices() as usize
    }

    /// Whether a device is in a sum of the version that is being made.
    fn has_given(&self, device: DeviceId) -> bool {
        self.record.gathered.as_ref().is_some_and(|gathered| gathered.has(device))
    }

    /// How many devices take part, as far as is known.
    pub(super) fn devices(&self) -> usize {
        self.selection.devices().max(self.record.participations.len())
    }

    /// Fails unless a device may be in a further round of the version that is being made.
    fn check_may_join(&self, from: DeviceId) -> Result<(), Rejection> {
        if self.participations(from) >= self.most_participations {
            return Err(Rejection::ParticipationsSpent(self.participations(from)));
        }
        let refuse = |why: &str| Err(Rejection::Unacceptable { request: "join".into(), why: why.to_owned() });
        if self.excluded.contains(&from) {
            return refuse("what this device shared in an earlier round did not open its sum");
        }
        if self.has_given(from) {
            return refuse("the device is in a sum of the version that is being made");
        }
        Ok(())
    }

    /// Fails unless a device that advertises may be in this round: it was let join it, and may still. A session is no secret of
    /// those to whom it was offered.
    pub(super) fn check_advertises(&self, from: DeviceId, session: SessionId) -> Result<(), Rejection> {
        if self.rounds.is_member(session, from) {
            return Ok(());
        }
        self.check_may_join(from)?;
        if !self.rounds.was_let_join(session, from) || self.rounds.is_busy(from) {
            return Err(Rejection::UnknownSession);
        }
        Ok(())
    }

    pub(super) fn join(
        &mut self,
        from: DeviceId,
        (version, class, log_seen): (u32, Option<Class>, u64),
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Reply, Rejection> {
        if !self.is_active() {
            return Err(Rejection::UnknownTask);
        }
        if version != self.version() {
            return Err(Rejection::Stale { found: version, current: self.version() });
        }
        self.check_may_join(from)?;
        if let Some(class) = class {
            let refuse = |why| Rejection::Unacceptable { request: "join".into(), why };
            if self.plan.classes.is_none() {
                return Err(refuse("the plan asks each device to train all of the adapter".to_owned()));
            }
            class.check(&self.plan.adapter).map_err(|error| refuse(error.to_string()))?;
        }
        self.declined.remove(&from);
        self.selection.came(from, now);
        if self.rounds.is_busy(from) {
            return Ok(Reply::wait(POLL_MILLIS));
        }
        let may_open = self.may_open();
        let open = self.rounds.joinable(from, (self.plan.round.cohort as usize, may_open), now);
        let outgrown = open.and_then(|session| self.outgrown(session, now));
        let session = match (open, outgrown) {
            (Some(session), None) => session,
            (None, None) if !may_open => return Ok(Reply::wait(POLL_MILLIS)),
            (_, until) => self.open_round(until, now, rng)?,
        };
        if let (Some(outgrown), Some(_)) = (open, outgrown) {
            // Whoever is in it hears that it is unknown, and joins the other with what it trained.
            self.rounds.forget(outgrown);
        }
        let Some(round) = self.rounds.offer(session, from, now) else { return Err(Rejection::UnknownTask) };
        let offer = Reply::Offer { session, round: round.number(), log: round.log_offer(log_seen) };
        match class {
            Some(class) => self.classes.insert(from, class),
            None => self.classes.remove(&from),
        };
        Ok(offer)
    }

    /// Until when a round is to wait that takes the place of this one, where the log has outgrown it.
    fn outgrown(&mut self, session: SessionId, now: Timestamp) -> Option<Timestamp> {
        let leaves = self.log.as_ref().and_then(EnrollmentLog::published).map_or(0, |head| head.head().size);
        self.rounds.with(session).filter(|_| !self.is_draining)?.outgrown_by(leaves, now)
    }
}
