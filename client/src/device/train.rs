//! A training of a version: it begins in a window, on a thread that no request waits for, and leaves when the window
//! closes.
#![expect(clippy::disallowed_methods, reason = "IO shell: how long a training takes")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::process::available_bytes;
use proto::ids::Digest;
use proto::message::Published;
use rand::rngs::SysRng;
use rand_core::{Rng, UnwrapErr};
use session::policy::Breach;
use session::{Event, Work};

use super::clock::now;
use super::run::Running;
use crate::error::Error;
use crate::store::DeviceStoreError;
use crate::trainer::{Trainer, TrainerError, TrainingEnd, TrainingJob};

/// Where the state keeps what seeds of trainings are made of.
const TRAINING_SECRET: &str = "training-secret";

/// Why a training was told to leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    WindowClosed,
    Stopped,
}

impl Running {
    /// Reads the user's text and trains on it for as long as the window is open.
    pub(super) async fn train(&mut self, work: Arc<Work>) -> Result<Event, Error> {
        if !self.may_train().await? {
            return Ok(Event::NoWindow);
        }
        if let Err(breach) = self.has_memory(&work) {
            return Ok(Event::CannotTrain(breach));
        }
        let what = format!("version {} of task {}", work.published.version, work.published.task);
        self.live.note("trains", &what);
        // Whoever drops this future stops the training, which holds the folder until it has left.
        let leave = Leave::default();
        let (trainer, flag, held) = (Arc::clone(&self.trainer), Arc::clone(&leave.0), self.store.lock());
        let (seed, checkpoint) = (self.training_seed(&work.published)?, self.store.checkpoint());
        let policy = self.policy.clone();
        let mut training = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let elapsed = || begun.elapsed();
            let end = trainer.train(&TrainingJob::new(&work, seed, &policy, &elapsed, &checkpoint, &flag));
            drop(held);
            end
        });
        let mut counted = Instant::now();
        let mut left = None;
        let end = loop {
            tokio::select! {
                end = &mut training => break end,
                () = self.watching.next(), if left.is_none() => {}
                () = self.stop.cancelled(), if left.is_none() => {}
            }
            self.meter.trained(counted.elapsed(), now());
            counted = Instant::now();
            if self.stop.is_cancelled() {
                left = Some(Left::Stopped);
            } else if !self.watching.seen().may_train {
                left = Some(Left::WindowClosed);
            }
            if left.is_some() {
                leave.tell();
            }
        };
        self.meter.trained(counted.elapsed(), now());
        self.meter.keep();
        match end {
            Ok(Ok(TrainingEnd::NotTrained(why))) if left.is_some() => {
                self.live.note("interrupted", &format!("{what}: {why}"));
                Ok(Event::NoWindow)
            }
            Ok(Ok(end)) => {
                if matches!(end, TrainingEnd::Trained(_)) {
                    self.live.note("trained", &what);
                }
                Ok(Event::from(end))
            }
            Ok(Err(error)) => Err(TrainerError::into(error)),
            // What a panic says could be of the user's text.
            Err(_) => Ok(Event::NotTrained("the trainer stopped itself".to_owned())),
        }
    }

    /// Whether there is the memory for a training, by the user's limit and by what the system has free now.
    fn has_memory(&self, work: &Work) -> Result<(), Breach> {
        self.policy.memory(needed_bytes(self.trainer.as_ref(), work), available_bytes())
    }

    /// What the batches of a version are drawn by: alike when its training begins again, and nobody else's to know.
    fn training_seed(&self, published: &Published) -> Result<[u8; 32], DeviceStoreError> {
        let secret = if let Some(secret) = self.store.get::<Digest>(TRAINING_SECRET)? {
            secret
        } else {
            let mut secret = Digest([0; 32]);
            UnwrapErr(SysRng).fill_bytes(&mut secret.0);
            self.store.put(TRAINING_SECRET, &secret)?;
            secret
        };
        let mut material = b"nightshift training seed v1".to_vec();
        material.extend(secret.0);
        material.extend(published.task.0);
        material.extend(published.version.to_le_bytes());
        Ok(Digest::of(&material).0)
    }
}

/// Bytes that the training of a version needs beside the base.
fn needed_bytes(trainer: &dyn Trainer, work: &Work) -> u64 {
    let size = |tokens: u32| usize::try_from(tokens).unwrap_or(usize::MAX);
    let plan = &work.plan.training;
    // A part that does not fit the adapter is refused when it is trained.
    let trained = work.training().map_or(work.state.trained.len(), |state| state.trained.len());
    trainer.training_bytes(trained, size(plan.batch_size), size(plan.sequence_len))
}

/// Tells a training to leave, at the latest when it is dropped.
#[derive(Debug, Default)]
struct Leave(Arc<AtomicBool>);

impl Leave {
    fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.tell();
    }
}
