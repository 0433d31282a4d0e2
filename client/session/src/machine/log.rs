//! The log of the enrollment authority: what a device demands of it before it advertises, and of the roster in it.

use aggregation::log::{Head, HeadRefusal, ListedError, Seen, SignedHead};
use aggregation::{Advertisement, TreeHash};
use proto::ids::Timestamp;
use proto::message::{LogOffer, Window};
use rand_core::CryptoRng;

use super::inside::RoundName;
use super::outside::REFUSED_MILLIS;
use super::renewal::Then;
use super::{Ended, Session, Stage, Trained};

/// How soon a device asks again for a place that is for now in no round about a log in which it could be.
const NOT_YET_MILLIS: u64 = 10_000;

/// The same where the log's head is too old, or from a time to come.
pub(super) const OTHER_HEAD_MILLIS: u64 = 10 * 60_000;

/// The same where it is not signed by as many witnesses as the device demands: mostly they are asked at this moment.
pub(super) const WITNESSES_MILLIS: u64 = 2 * 60_000;

impl Session {
    /// What a round is about, and what the device has seen of the log once it knows this. None where the device's authority
    /// keeps no log and the round is about none.
    pub(super) fn look_at_log(
        &self,
        offered: Option<LogOffer>,
        now: Timestamp,
    ) -> Result<Option<(Head, Seen)>, Ended> {
        match (offered, self.credential.logged) {
            (None, None) if self.seen.is_none() => Ok(None),
            (None, _) => Err(Ended::NoLog),
            (Some(_), None) => Err(Ended::NotInLog),
            (Some(LogOffer { head, consistency }), Some(logged)) => {
                let signed = SignedHead::parse(&head, &self.device.authority).map_err(HeadRefusal::from)?;
                let watch = self.device.policy.log.watch();
                let seen = watch.accept(self.seen.as_ref(), &signed, &consistency, now.as_secs())?;
                if logged.place >= signed.head().size {
                    return Err(Ended::NotInRoundsLog);
                }
                Ok(Some((*signed.head(), seen)))
            }
        }
    }

    /// Leaves a round for what its log is. What was trained is kept where a later round may take it; a device whose credential
    /// has no place in the log asks for one that has, and joins then.
    pub(super) fn without_log(
        mut self,
        trained: Trained,
        why: Ended,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let is_of_time = matches!(why, Ended::Log(HeadRefusal::Old { .. } | HeadRefusal::Ahead { .. }));
        let again = if matches!(why, Ended::NotInLog) {
            if let Some(has_certificate) = self.renewal_for_log(now) {
                self.ended = Some(why);
                return self.to(Stage::Renewing { has_certificate, then: Then::Join(trained) });
            }
            OTHER_HEAD_MILLIS
        } else if matches!(why, Ended::NotInRoundsLog) {
            NOT_YET_MILLIS
        } else if is_of_time {
            OTHER_HEAD_MILLIS
        } else if matches!(why, Ended::Log(HeadRefusal::Witnesses { .. })) {
            WITNESSES_MILLIS
        } else {
            // Another round has the same log: nothing is trained for it.
            return self.end(why, now.plus_millis(REFUSED_MILLIS));
        };
        self.ended = Some(why);
        self.again(Stage::Joining { trained }, now, Window::around(again), rng)
    }

    /// Fails unless all of a roster is in the log that the round is about, and not more of it fresh than may be corrupt.
    pub(super) fn check_listed(
        &self,
        trained: &Trained,
        round: RoundName,
        (entries, listed): (&[Advertisement], &[TreeHash]),
        now: Timestamp,
    ) -> Result<(), ListedError> {
        let Some(head) = round.log() else { return Ok(()) };
        let most_young = trained.work.plan.corrupt_devices();
        self.device.policy.log.watch().check_listed(&head, entries, listed, most_young, now.as_secs())
    }
}
