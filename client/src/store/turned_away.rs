//! That the coordinator does not take this device any more: since when it is known, and why.

use proto::message::Rejection;
use serde::{Deserialize, Serialize};
use session::Ended;

use super::device_store::DeviceStore;
use super::error::DeviceStoreError;

const TURNED_AWAY: &str = "turned-away";

/// That the coordinator does not take this device any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedAway {
    /// Since when this device knows it, in milliseconds since 1970.
    pub unix_millis: u64,
    /// Why, in words.
    pub why: String,
}

impl TurnedAway {
    /// What the end of an attempt says of it, if it does: only its operator can help such a device.
    pub(crate) fn of(ended: &Ended, unix_millis: u64) -> Option<Self> {
        let why = match ended {
            Ended::Rejected(Rejection::NotEnrolled)
            | Ended::NotRenewed { rejection: Rejection::NotEnrolled, .. } => {
                "it was revoked, or the coordinator has no record of it".to_owned()
            }
            Ended::NotRenewed { rejection, is_over: true } => rejection.reason(),
            Ended::Breach(_)
            | Ended::Refused(_)
            | Ended::Roster(_)
            | Ended::Log(_)
            | Ended::Listed(_)
            | Ended::NoLog
            | Ended::NotInLog
            | Ended::NotInRoundsLog
            | Ended::Contribution(_)
            | Ended::Rejected(_)
            | Ended::NotRenewed { .. }
            | Ended::Round(_)
            | Ended::SignedBefore { .. }
            | Ended::RoundTooFar { .. }
            | Ended::Draws(_)
            | Ended::TooManyTasks
            | Ended::Uncounted { .. }
            | Ended::Plan(_)
            | Ended::WrongArtifact(_)
            | Ended::WrongReply { .. }
            | Ended::NotTrained(_)
            | Ended::NoText(_)
            | Ended::TrainerFailed(_)
            | Ended::TrainerRests { .. } => return None,
        };
        Some(Self { unix_millis, why })
    }
}

impl DeviceStore {
    /// Since when and why the coordinator does not take this device, where it does not.
    pub fn turned_away(&self) -> Result<Option<TurnedAway>, DeviceStoreError> {
        Ok(self.get::<Option<TurnedAway>>(TURNED_AWAY)?.flatten())
    }

    /// Remembers that the coordinator does not take this device, since it was first heard. Returns whether that is new.
    pub(crate) fn is_turned_away(&self, turned_away: &TurnedAway) -> Result<bool, DeviceStoreError> {
        if self.turned_away()?.is_some() {
            return Ok(false);
        }
        self.put(TURNED_AWAY, &Some(turned_away))?;
        Ok(true)
    }

    /// The coordinator takes this device. Returns whether that is new.
    pub(crate) fn is_taken(&self) -> Result<bool, DeviceStoreError> {
        if self.turned_away()?.is_none() {
            return Ok(false);
        }
        self.put(TURNED_AWAY, &None::<TurnedAway>)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_since_it_was_first_heard_until_the_coordinator_takes_the_device_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = DeviceStore::open(folder.path()).unwrap();
        let heard = |at| TurnedAway::of(&Ended::Rejected(Rejection::NotEnrolled), at).unwrap();
        assert!(!store.is_taken().unwrap());
        assert!(store.is_turned_away(&heard(5)).unwrap());
        assert!(!store.is_turned_away(&heard(9)).unwrap());
        assert_eq!(store.turned_away().unwrap(), Some(heard(5)));
        assert!(store.is_taken().unwrap());
        assert_eq!(store.turned_away().unwrap(), None);
        let busy = Ended::Rejected(Rejection::Unavailable("it is stopping".to_owned()));
        assert_eq!(TurnedAway::of(&busy, 1), None);
        // A certificate that is still good is none that ended.
        let why = Rejection::Unacceptable { request: "renew".into(), why: "it ended 9 days ago".to_owned() };
        let not_renewed = |is_over| Ended::NotRenewed { rejection: why.clone(), is_over };
        assert_eq!(TurnedAway::of(&not_renewed(false), 1), None);
        let told = TurnedAway::of(&not_renewed(true), 1).map(|told| told.why);
        assert_eq!(told.as_deref(), Some("it ended 9 days ago"));
    }
}
