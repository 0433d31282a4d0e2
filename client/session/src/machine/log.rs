//! The log of the enrollment authority: what a device demands of it before it advertises, and of the roster in it.

use aggregation::log::{Head, HeadRefusal, ListedError, Seen, SignedHead};
use aggregation::{Advertisement, TreeHash};
use proto::ids::Timestamp;
use proto::message::LogOffer;

use super::inside::RoundName;
use super::outside::FAILED_MILLIS;
use super::renewal::Then;
use super::{Ended, Session, Stage, Trained};

impl Session {
    /// What a round is about, and what the device has seen of the log once it knows this. None where the device's authority
    /// keeps no log and the round is about none.
    pub(super) fn look_at_log(
        &self,
        offered: Option<LogOffer>,
        now: Timestamp,
    ) -> Result<Option<(Head, Seen)>, Ended> {
        match (offered, self.credential.logged.is_some()) {
            (None, false) => Ok(None),
            (None, true) => Err(Ended::NoLog),
            (Some(_), false) => Err(Ended::NotInLog),
            (Some(LogOffer { head, consistency }), true) => {
                let signed = SignedHead::parse(&head, &self.device.authority).map_err(HeadRefusal::from)?;
                let watch = self.device.policy.log.watch();
                let seen = watch.accept(self.seen.as_ref(), &signed, &consistency, now.as_secs())?;
                Ok(Some((*signed.head(), seen)))
            }
        }
    }

    /// Leaves a round for what its log is. A device whose credential has no place in the log asks for one that has, and
    /// joins then with what it trained.
    pub(super) fn without_log(mut self, trained: Trained, why: Ended, now: Timestamp) -> Self {
        match self.renewal_for_log(now) {
            Some(has_certificate) if matches!(why, Ended::NotInLog) => {
                self.ended = Some(why);
                self.to(Stage::Renewing { has_certificate, then: Then::Join(trained) })
            }
            Some(_) | None => self.end(why, now.plus_millis(FAILED_MILLIS)),
        }
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
