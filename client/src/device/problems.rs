//! What went wrong, told to the user, and to the protocol what it has to know of it.

use std::fmt;

use proto::ids::TaskId;
use proto::shown::shown;
use session::policy::Breach;
use session::{Ended, Event};

use super::clock::now;
use super::run::Running;
use super::waits::{Heard, Tried};
use crate::error::Error;
use crate::store::{Declined, TurnedAway, is_over};
use crate::transport::TransportError;

impl Running {
    /// Tells the user why this device stopped taking part. Fails where a device that runs once has nothing left to do.
    pub(super) fn report(&mut self, ended: Ended, task: Option<TaskId>) -> Result<(), Error> {
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
        let is_said = || self.live.last_problem().is_some_and(|last| last == why);
        if ended.is_ordinary() {
            self.live.note("round", &why);
        } else if !(matches!(ended, Ended::NoText(_)) && is_said()) {
            tracing::warn!("{why}");
            self.live.problem(&why);
        }
        if let Some(turned_away) = TurnedAway::of(&ended, now().0) {
            Self::kept(self.store.is_turned_away(&turned_away));
            Self::kept(self.live.keeps(&self.store));
        }
        if is_over(&ended) {
            self.store.checkpoint().delete("this device does not train it any more");
        }
        if matches!(ended, Ended::Breach(_) | Ended::Plan(_)) {
            let declined = Declined { unix_millis: now().0, why: why.clone() };
            Self::kept(self.store.set_declined(Some(&declined)));
            Self::kept(self.live.keeps(&self.store));
        }
        if !self.when.once {
            return Ok(());
        }
        self.once.ended(ended, &why).map_or(Ok(()), Err)
    }

    /// The coordinator answers as it answers its devices.
    pub(super) fn is_taken(&self) -> Result<(), Error> {
        if self.store.is_taken()? {
            self.live.note("taken", "the coordinator takes this device again");
            self.live.keeps(&self.store)?;
        }
        Ok(())
    }

    /// A note for the user: that it cannot be kept is no reason to end.
    fn kept<T, E: fmt::Display>(kept: Result<T, E>) {
        if let Err(error) = kept {
            tracing::warn!("what is said above cannot be kept for the user: {error}");
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
