//! Which devices are given the version to train from, and which get into a round.

use aggregation::log::EnrollmentLog;
use proto::adapter::Class;
use proto::admin::TaskState;
use proto::ids::{DeviceId, SessionId, Timestamp};
use proto::message::{Assignment, Rejection, Reply};
use rand_core::CryptoRng;

use super::selection::Verdict;
use super::{POLL_MILLIS, Task};
use crate::enrollment_log::RoundLog;
use crate::pacing;
use crate::round::Round;

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
            return Reply::Wait { retry, latest, complete: true };
        }
        if only_keeps {
            self.selection.release(from, now);
            self.funnels.gave_up(from);
        }
        if only_keeps || self.excluded.contains(&from) {
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

    /// How many devices take part, as far as is known.
    pub(super) fn devices(&self) -> usize {
        self.selection.devices().max(self.record.participations.len())
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
        if self.participations(from) >= self.most_participations {
            return Err(Rejection::ParticipationsSpent(self.participations(from)));
        }
        if self.excluded.contains(&from) {
            let why = "what this device shared in an earlier round did not open its sum";
            return Err(Rejection::Unacceptable { request: "join".into(), why: why.to_owned() });
        }
        if let Some(class) = class {
            let refuse = |why| Rejection::Unacceptable { request: "join".into(), why };
            if self.plan.classes.is_none() {
                return Err(refuse("the plan asks each device to train all of the adapter".to_owned()));
            }
            class.check(&self.plan.adapter).map_err(|error| refuse(error.to_string()))?;
        }
        self.declined.remove(&from);
        self.selection.came(from, now);
        let open = self.round.as_ref().filter(|round| round.outcome().is_none());
        if open.is_some_and(|round| !round.is_joinable()) {
            return Ok(Reply::wait(POLL_MILLIS));
        }
        let leaves = self.log.as_ref().and_then(EnrollmentLog::published).map_or(0, |head| head.head().size);
        let outgrown = open.and_then(|round| round.outgrown_by(leaves, now));
        if open.is_none() || outgrown.is_some() {
            let log = match &self.log {
                None => None,
                Some(log) => Some(RoundLog::now(log).ok_or_else(|| {
                    Rejection::Unavailable(
                        "the enrollment authority signed no head of its log yet".to_owned(),
                    )
                })?),
            };
            let mut session = SessionId([0; 32]);
            rng.fill_bytes(&mut session.0);
            let spool = self.spooler.open(session).map_err(|error| {
                Rejection::Unavailable(format!("no place for the inputs of a round: {error}"))
            })?;
            self.record.last_round += 1;
            let params = self.round_params(session, log);
            // Whoever is in one that is outgrown hears that it is unknown, and joins this one with what it trained.
            let deadline = outgrown.unwrap_or_else(|| now.plus_millis(params.join_millis));
            self.round = Some(Round::until(params, spool, (now, deadline)));
        }
        let Some(round) = &self.round else { return Err(Rejection::UnknownTask) };
        match class {
            Some(class) => self.classes.insert(from, class),
            None => self.classes.remove(&from),
        };
        let log = round.log_offer(log_seen);
        Ok(Reply::Offer { session: round.session(), round: round.number(), log })
    }
}
