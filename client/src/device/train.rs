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
use session::{Event, Work};
use zeroize::Zeroizing;

use super::clock::now;
use super::live::Live;
use super::run::Running;
use crate::error::Error;
use crate::store::{Checkpoint, DeviceStoreError};
use crate::trainer::{Recorder, Trainer, TrainerError, TrainingEnd, TrainingJob};

/// Where the state keeps what seeds of trainings are made of.
const TRAINING_SECRET: &str = "training-secret";

/// Why a training was told to leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    WindowClosed,
    Stopped,
    /// The user left the task.
    Forgotten,
}

impl Running {
    /// Reads the user's text and trains on it for as long as the window is open.
    pub(super) async fn train(&mut self, work: Arc<Work>) -> Result<Event, Error> {
        if !self.may_train().await? {
            return Ok(Event::NoWindow);
        }
        let (asked, wanted) = (Arc::clone(&self.trainer), Arc::clone(&work));
        let Some(needed) = self.asked(move || needed_bytes(asked.as_ref(), &wanted)).await? else {
            return Ok(Event::NoWindow);
        };
        // By the user's limit, and by what the system has free now.
        if let Err(breach) = self.policy.memory(needed, available_bytes()) {
            return Ok(Event::CannotTrain(breach));
        }
        let published = work.published;
        let task = self.store.in_words(work.published.task);
        let what = format!("version {} of task {task}", work.published.version);
        self.live.note("trains", &what);
        // Whoever drops this future stops the training, which holds the folder until it has left.
        let leave = Leave::default();
        let (trainer, flag, held) = (Arc::clone(&self.trainer), Arc::clone(&leave.0), self.store.lock());
        let (seed, checkpoint) = (self.training_seed(&work.published)?, self.store.checkpoint());
        let (policy, live) = (self.policy.clone(), Arc::clone(&self.live));
        let mut training = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let elapsed = || begun.elapsed();
            let told = Told { checkpoint, live, of: work.plan.training.local_steps };
            let end = trainer.train(&TrainingJob::new(&work, seed, &policy, &elapsed, &told, &flag));
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
                () = self.live.asked.notified(), if left.is_none() => self.answer(),
            }
            self.meter.trained(counted.elapsed(), now());
            counted = Instant::now();
            if self.stop.is_cancelled() {
                left = Some(Left::Stopped);
            } else if self.session.at_work_on() != Some(published) {
                left = Some(Left::Forgotten);
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
            // What comes of a task that was forgotten is nobody's.
            Ok(_) if left == Some(Left::Forgotten) => {
                self.store.checkpoint().delete("its task was forgotten");
                Ok(Event::NoWindow)
            }
            Ok(Ok(TrainingEnd::NotTrained(why))) if left.is_some() => {
                self.live.note("interrupted", &format!("{what}: {why}"));
                Ok(Event::NoWindow)
            }
            Ok(Ok(TrainingEnd::NotTrained(why))) => Ok(Event::TrainerFailed(why)),
            // Text that is gone may come back; whoever runs once is told at once.
            Ok(Err(error)) if !self.when.once => Ok(Event::NoText(error.to_string())),
            Ok(Ok(end)) => {
                match &end {
                    TrainingEnd::Trained(_) => drop(self.live.note("trained", &what)),
                    TrainingEnd::Failed(fault) => {
                        self.live.problem(&format!("the trainer of {what} failed: {fault}"));
                    }
                    TrainingEnd::NotTrained(_) | TrainingEnd::Refused(_) => {}
                }
                Ok(Event::from(end))
            }
            Ok(Err(error)) => Err(TrainerError::into(error)),
            // What a panic says could be of the user's text.
            Err(_) => Ok(Event::NotTrained("the trainer stopped itself".to_owned())),
        }
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
    trainer.training_bytes(work.plan.base, trained, size(plan.batch_size), size(plan.sequence_len))
}

/// Keeps what a training has come to, and tells the user how far it is.
struct Told {
    checkpoint: Checkpoint,
    live: Arc<Live>,
    of: u32,
}

impl Recorder for Told {
    fn open(&self, published: &Published) -> Option<Zeroizing<Vec<u8>>> {
        Recorder::open(&self.checkpoint, published)
    }

    fn keep(&self, published: &Published, clear: &Zeroizing<Vec<u8>>) {
        Recorder::keep(&self.checkpoint, published, clear);
    }

    fn delete(&self, why: &'static str) {
        Recorder::delete(&self.checkpoint, why);
    }

    fn at_step(&self, step: u32) {
        self.live.trains(step, self.of);
    }
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
