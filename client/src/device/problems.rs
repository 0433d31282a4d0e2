//! What went wrong, told to the user, and to the protocol what it has to know of it.

use proto::ids::TaskId;
use proto::message::Rejection;
use proto::shown::shown;
use session::policy::Breach;
use session::{Ended, Event};

use super::clock::now;
use super::run::Running;
use super::waits::{Heard, Tried};
use crate::error::Error;
use crate::store::{Declined, is_over};
use crate::transport::TransportError;

impl Running {
    /// Tells the user why this device stopped taking part. Fails where a device that runs once has nothing left to do.
    pub(super) fn report(&self, ended: Ended, task: Option<TaskId>) -> Result<(), Error> {
        let why = shown(&ended.to_string()).to_string();
        // It comes, and then the device takes part.
        if matches!(ended, Ended::Breach(Breach::Base { .. })) && self.bases.are_any() {
            tracing::info!("{why}; it is fetched");
            return Ok(());
        }
        let why = match task {
            Some(task) => format!("task {}: {why}", self.store.in_words(task)),
            None => why,
        };
        // Text is looked for again and again; that there is none yet is said once.
        if !(matches!(ended, Ended::NoText(_)) && self.live.last_problem().is_some_and(|last| last == why)) {
            tracing::warn!("{why}");
            self.live.problem(&why);
        }
        if is_over(&ended) {
            self.store.checkpoint().delete("this device does not train it any more");
        }
        if matches!(ended, Ended::Breach(_) | Ended::Plan(_)) {
            let declined = Declined { unix_millis: now().0, why: why.clone() };
            // A note for the user: that it cannot be kept is no reason to end.
            if let Err(error) = self.store.set_declined(Some(&declined)) {
                tracing::warn!("what is said above cannot be kept for the user: {error}");
            }
            self.live.keeps(&self.store)?;
        }
        if !self.when.once {
            return Ok(());
        }
        match ended {
            Ended::Breach(breach) => Err(Error::Breach(breach)),
            Ended::Rejected(rejection @ Rejection::NotEnrolled)
            | Ended::NotRenewed { rejection, is_over: true } => Err(Error::NotEnrolled(rejection)),
            // Whoever runs once does not wait for hours.
            rests @ Ended::TrainerRests { .. } => Err(Error::TrainerRests(rests.to_string())),
            Ended::Plan(_) | Ended::Draws(_) | Ended::Rejected(Rejection::ParticipationsSpent(_)) => {
                Err(Error::Coordinator(why))
            }
            Ended::Rejected(_)
            | Ended::Refused(_)
            | Ended::Roster(_)
            | Ended::Contribution(_)
            | Ended::Round(_)
            | Ended::SignedBefore { .. }
            | Ended::RoundTooFar { .. }
            | Ended::WrongArtifact(_)
            | Ended::WrongReply { .. }
            | Ended::NotTrained(_)
            | Ended::NoText(_)
            | Ended::NotRenewed { is_over: false, .. }
            | Ended::TrainerFailed(_) => Ok(()),
        }
    }

    /// Says what went wrong, to the log and to whoever asks.
    pub(super) fn trouble(&self, why: &str) {
        let why = shown(why).to_string();
        tracing::warn!("{why}");
        self.live.problem(&why);
    }

    /// Why a device that runs once tries no longer to reach its coordinator.
    pub(super) fn unanswered(&self, heard: &Heard, tried: Tried) -> Error {
        let why = match heard {
            Heard::NoAnswer(Some(why)) => Some(shown(why).to_string()),
            Heard::NoAnswer(None) => self.live.last_problem(),
            Heard::Wait | Heard::NoText(_) | Heard::Answer | Heard::Nothing => None,
        };
        let why = why.unwrap_or_else(|| "the coordinator does not answer".to_owned());
        Error::Coordinator(format!("{why}; {tried}"))
    }

    /// What the protocol is told of a call that gave no answer.
    pub(super) fn failure(&self, error: TransportError) -> Event {
        match error {
            TransportError::Rejected(rejection) => Event::Rejected(rejection),
            ended @ TransportError::CertificateEnded { .. } => {
                self.trouble(&ended.to_string());
                Event::CertificateEnded
            }
            other @ (TransportError::Unreachable { .. }
            | TransportError::Answer(_)
            | TransportError::Setup { .. }
            | TransportError::Artifact { .. }) => {
                self.trouble(&other.to_string());
                Event::Unreachable
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DeviceStore;

    #[test]
    fn a_note_that_is_longer_than_anybody_reads_is_cut_and_has_a_place_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = DeviceStore::open(folder.path()).unwrap();
        let quoted = format!("unknown field `{}`", "ä".repeat(100_000));
        let why = shown(&quoted).to_string();
        assert!(why.starts_with("unknown field `ää") && why.ends_with('…'), "{}", why.len());
        store.set_declined(Some(&Declined { unix_millis: 1, why: why.clone() })).unwrap();
        assert_eq!(store.declined().unwrap().map(|declined| declined.why), Some(why));
    }
}
