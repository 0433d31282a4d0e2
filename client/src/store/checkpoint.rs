//! The checkpoint of a training that was interrupted, as it lies on the device.
//!
//! What is in it comes of the user's text before any noise: parameters, moments, losses. So it is there no longer than it
//! is of use, and never in clear. [`sealing`](super::sealing) says how it is sealed; this is where, and until when.
//!
//! Deleting a file does not overwrite it: a flash disk writes elsewhere, a journal or a snapshot may keep what was there,
//! and every checkpoint of a training replaces an earlier one. What makes a deletion real is that the *key* is deleted.
//! Therefore each training has a key of its own, made with its first checkpoint and deleted before its last: one key for
//! all, kept as long as the device's identity, would open whatever block of any night is ever found. A key of 32 bytes is
//! one block, written once, that the disk uses again soon, where checkpoints are many megabytes, written over and over; but
//! it is a file like others, and nobody can promise that its block is gone. Somebody who takes the disk *while* a training
//! is interrupted has the key and the checkpoint: against that only an encrypted disk helps. The trained numbers in memory
//! are not wiped; the bytes of the file are.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use proto::message::{Published, Rejection};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::sealing::{self, KEY_BYTES, SealError, Subject};
use crate::files::{self, Audience, FileError};
use crate::locked::Locked;
use session::Ended;
use session::policy::Breach;

/// Why a checkpoint was not kept, or gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is there.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The key is gone, or is none.
    #[error("its key is not there, or is not of 32 bytes")]
    Key,
    /// The system has no randomness, or the checkpoint is too long.
    #[error("the system gave no randomness to seal it with, or it is longer than 2^38 bytes")]
    Unsealed,
}

impl From<Unspecified> for CheckpointFileError {
    fn from(_: Unspecified) -> Self {
        Self::Unsealed
    }
}

/// Where a checkpoint and its key are; there may be none.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    file: PathBuf,
    key: PathBuf,
}

impl Checkpoint {
    /// Of the device whose state is below `folder`.
    pub fn below(folder: &Path) -> Self {
        Self { file: folder.join("training.checkpoint"), key: folder.join("keys").join("checkpoint.key") }
    }

    /// Deletes what a crash left half written, and a checkpoint of an older version, which did not seal it.
    pub(crate) fn clean_up(&self) {
        for path in [&self.key, &self.file] {
            let mut aside = path.clone().into_os_string();
            aside.push(".aside");
            remove(Path::new(&aside));
        }
        if let Some(Err(error)) = self.subject() {
            self.refuse(&error.into());
        }
    }

    /// Deletes a checkpoint of anything but `published`, which is what there is to do now.
    pub(crate) fn keep_only(&self, published: &Published) {
        match self.subject() {
            Some(Ok(subject)) if subject == Subject::of(published) => {}
            Some(Ok(_)) => self.delete("there is another version to train"),
            Some(Err(error)) => self.refuse(&error.into()),
            None => {}
        }
    }

    /// What the checkpoint of `published` holds; nothing where there is none. One that does not open is deleted, and that
    /// is said.
    pub fn open(&self, published: &Published) -> Option<Zeroizing<Vec<u8>>> {
        match self.try_open(Subject::of(published)) {
            Ok(Some(clear)) => Some(clear),
            Ok(None) => {
                // A key without a checkpoint is of a training before: the next one makes its own.
                remove(&self.key);
                None
            }
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    /// Replaces the checkpoint by what `published` has come to, under the key of its training; it is on disk when this
    /// returns. Fails when the disk does; the checkpoint is then the earlier one.
    pub fn keep(&self, published: &Published, clear: &Zeroizing<Vec<u8>>) -> Result<(), CheckpointFileError> {
        let key = self.key_of_training()?;
        let mut salt = [0; 32];
        SystemRandom::new().fill(&mut salt)?;
        let sealed = sealing::seal(&key, salt, Subject::of(published), clear)?;
        Ok(files::write(&self.file, &sealed, Audience::Owner)?)
    }

    /// Deletes the key, and then what nobody can open any more. Where that fails, it says what to delete by hand.
    pub fn delete(&self, why: &'static str) {
        // Both, whatever came of the first.
        let removed = [remove(&self.key), remove(&self.file)];
        if removed.contains(&true) {
            tracing::info!(why, "the checkpoint is deleted");
        }
    }

    /// Where it and its key are, or would be.
    pub(super) fn paths(&self) -> [PathBuf; 2] {
        [self.file.clone(), self.key.clone()]
    }

    fn refuse(&self, why: &CheckpointFileError) {
        tracing::warn!(
            "the checkpoint of a training cannot be used and is deleted: {why}; training starts over"
        );
        self.delete("it cannot be used");
    }

    fn try_open(&self, subject: Subject) -> Result<Option<Zeroizing<Vec<u8>>>, CheckpointFileError> {
        let file = match files::read(&self.file) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // First of all what it is: an old one has no key.
        Subject::read(&file)?;
        let key = self.existing_key()?.ok_or(CheckpointFileError::Key)?;
        Ok(Some(sealing::open(&key, subject, file)?))
    }

    /// What the checkpoint says that it is of; `None` where there is none.
    fn subject(&self) -> Option<Result<Subject, SealError>> {
        let mut head = Vec::new();
        match File::open(&self.file).and_then(|file| file.take(128).read_to_end(&mut head)) {
            Ok(_) => Some(Subject::read(&head)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(_) => Some(Err(SealError::Clear)),
        }
    }

    fn existing_key(&self) -> Result<Option<Locked>, CheckpointFileError> {
        match files::read_secret(&self.key).map(Zeroizing::new) {
            Ok(key) if key.len() == KEY_BYTES => Ok(Some(Locked::copy_of(&key))),
            Ok(_) => Err(CheckpointFileError::Key),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn key_of_training(&self) -> Result<Locked, CheckpointFileError> {
        if let Some(key) = self.existing_key()? {
            return Ok(key);
        }
        let mut key = Locked::zeroed(KEY_BYTES);
        SystemRandom::new().fill(&mut key)?;
        if let Some(folder) = self.key.parent() {
            files::create_folder(folder)?;
        }
        files::write(&self.key, &key, Audience::Owner)?;
        Ok(key)
    }
}

/// Whether what ended leaves nothing to go on with: this device does not train that version any more.
pub(crate) fn is_over(ended: &Ended) -> bool {
    match ended {
        // One that rests may go on with the same version after that.
        Ended::Breach(breach) => !matches!(breach, Breach::Resting { .. }),
        Ended::Plan(_) => true,
        Ended::Rejected(rejection) => match rejection {
            Rejection::NotEnrolled
            | Rejection::UnknownTask
            | Rejection::Stale { .. }
            | Rejection::ParticipationsSpent(_) => true,
            Rejection::Malformed { .. }
            | Rejection::UnknownSession
            | Rejection::UnknownArtifact
            | Rejection::NotInRoster
            | Rejection::WrongPhase { .. }
            | Rejection::Equivocation(_)
            | Rejection::LeftOut
            | Rejection::Unacceptable { .. }
            | Rejection::Unavailable(_) => false,
        },
        Ended::TooManyTasks
        | Ended::Uncounted { .. }
        | Ended::Refused(_)
        | Ended::Roster(_)
        | Ended::Log(_)
        | Ended::Listed(_)
        | Ended::NoLog
        | Ended::NotInLog
        | Ended::NotInRoundsLog
        | Ended::Contribution(_)
        | Ended::Round(_)
        | Ended::SignedBefore { .. }
        | Ended::RoundTooFar { .. }
        | Ended::Draws(_)
        | Ended::WrongArtifact(_)
        | Ended::WrongReply { .. }
        | Ended::NotTrained(_)
        | Ended::NoText(_)
        | Ended::TrainerFailed(_)
        | Ended::NotRenewed { .. }
        | Ended::TrainerRests { .. } => false,
    }
}

/// Removes a file durably; whether there was one. Where that fails, it says what to delete by hand.
fn remove(path: &Path) -> bool {
    let removed = fs::remove_file(path).map_err(FileError::io("remove", path));
    let durable = removed.and_then(|()| files::sync_folder_of(path));
    match durable {
        Ok(()) => true,
        Err(error) if error.is_absent() => false,
        Err(error) => {
            tracing::warn!("{error}; delete it by hand: it is of a training that is over");
            false
        }
    }
}

#[cfg(test)]
mod tests;
