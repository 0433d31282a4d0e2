//! Where a training's checkpoints go, and who hears how it goes.

use engine::Step;
use proto::message::Published;
use proto::shown::shown;
use text::{Notes, Reading};
use zeroize::Zeroizing;

use crate::store::Checkpoint;

/// Keeps what a training has come to, and hears how it goes.
///
/// [`Checkpoint`] keeps it sealed on the disk. A trainer in a process of its own holds no key: its recorder sends what
/// is to be kept to the process that started it. What is not about checkpoints needs no answer, so it is provided.
pub trait Recorder: Send + Sync {
    /// What an interrupted training of `published` had come to, in clear; nothing where there is none.
    fn open(&self, published: &Published) -> Option<Zeroizing<Vec<u8>>>;

    /// Replaces what was kept by `clear`, to be opened in another run. Where that fails, it says so itself: the training
    /// goes on.
    fn keep(&self, published: &Published, clear: &Zeroizing<Vec<u8>>);

    /// Deletes what is kept, because of this.
    fn delete(&self, why: &'static str);

    /// The text was read, and became tokens.
    fn has_read(&self, reading: &Reading, notes: &Notes) {
        report(reading, notes);
    }

    /// The training is alive: called before each file and each document, and after each micro-batch.
    fn goes_on(&self) {}

    /// The training is in this step, the first of which is 1; for who tells the user.
    fn at_step(&self, _step: u32) {}

    /// A micro-batch is done, and `clear` gives what could be kept now.
    fn did_micro_batch(&self, _step: Step, _clear: &dyn Fn() -> Option<Zeroizing<Vec<u8>>>) {}
}

impl Recorder for Checkpoint {
    fn open(&self, published: &Published) -> Option<Zeroizing<Vec<u8>>> {
        Self::open(self, published)
    }

    fn keep(&self, published: &Published, clear: &Zeroizing<Vec<u8>>) {
        if let Err(error) = Self::keep(self, published, clear) {
            tracing::warn!("no checkpoint was kept: {error}; an interruption would cost this training");
        }
    }

    fn delete(&self, why: &'static str) {
        Self::delete(self, why);
    }
}

/// Says how much was read, by numbers only; which files were left out is for developers.
fn report(reading: &Reading, notes: &Notes) {
    tracing::info!(
        files = reading.files,
        documents = reading.documents,
        with_roles = reading.with_roles,
        duplicates = reading.duplicates,
        surplus = reading.surplus,
        secret_looking = reading.secret_looking(),
        skipped_lines = reading.skipped_lines(),
        unread_files = reading.unread_files(),
        "read the user's text"
    );
    for (kind, count) in &reading.secrets {
        tracing::info!(?kind, count, "left out what looks like a secret");
    }
    for (reason, conversations) in &notes.left_out {
        tracing::warn!(conversations, %reason, "conversations are left out");
    }
    if notes.as_letters() > 0 {
        tracing::warn!(documents = notes.as_letters(), "control tokens in the text are read as letters");
    }
    if notes.without_thoughts > 0 {
        let conversations = notes.without_thoughts;
        tracing::info!(conversations, "the chat template leaves out the thoughts of earlier turns");
    }
    for skipped in &reading.skipped {
        tracing::debug!(file = %shown(&skipped.file.to_string_lossy()), reason = %skipped.reason, lines = skipped.count, "skipped");
    }
    for (reason, unread) in &reading.unread {
        for file in &unread.named {
            tracing::debug!(file = %shown(&file.to_string_lossy()), %reason, "not read");
        }
    }
}
