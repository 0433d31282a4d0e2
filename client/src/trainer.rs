//! Who trains: the engine in this process, or something that stands in its place, such as the daemon's child process.

mod fault;
mod in_process;
mod measured;
mod recorder;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::ids::Digest;
use session::policy::{Breach, Policy};
use session::update::Update;
use session::{Event, Work};

pub use fault::TrainerFault;
pub use in_process::{InProcess, LocalEnd, NoData};
pub use recorder::Recorder;

/// Trains a version on the text of this device's user.
///
/// The device calls it on a thread that no request waits for, and one training at a time. What the user wrote never
/// leaves the trainer but as an [`Update`], of which only `session::contribution` makes something that is sent.
pub trait Trainer: Send + Sync + 'static {
    /// The hashes of the bases that it trains on; the device takes part in tasks of these only.
    fn bases(&self) -> Vec<Digest>;

    /// The names of all layers that an adapter of one of its bases can change, as a plan names them.
    fn layers(&self, base: Digest) -> Vec<String>;

    /// Bytes of memory that a training on one of its bases takes beside the base: of `trained` parameters, in batches of
    /// `batch` sequences of `length` tokens.
    fn training_bytes(&self, base: Digest, trained: usize, batch: usize, length: usize) -> u64;

    /// Trains the version on the base that its plan names, as the plan says, until it is done or [`TrainingJob::must_leave`].
    ///
    /// Fails where there is no text that can be used; what the device is to do then is a matter of its user.
    fn train(&self, job: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError>;
}

/// What is to be trained, and what holds it back.
#[derive(Clone, Copy)]
pub struct TrainingJob<'a> {
    /// The version, its plan, and the adapter as it is trained from there on.
    pub work: &'a Work,
    /// Seed for sampling the version's batches: the same after a restart, and secret from the coordinator.
    pub seed: [u8; 32],
    /// The user's limits. The trainer keeps that of time: the device tells it to leave when a condition fails or the
    /// device stops, and does not measure how long it takes.
    pub policy: &'a Policy,
    /// The time since the training was begun.
    pub elapsed: &'a dyn Fn() -> Duration,
    /// Where what an interrupted training has come to is kept, and who hears how it goes.
    pub recorder: &'a dyn Recorder,
    leave: &'a AtomicBool,
}

impl<'a> TrainingJob<'a> {
    /// A training of `work` that goes on until `leave` is set.
    pub fn new(
        work: &'a Work,
        seed: [u8; 32],
        policy: &'a Policy,
        elapsed: &'a dyn Fn() -> Duration,
        recorder: &'a dyn Recorder,
        leave: &'a AtomicBool,
    ) -> Self {
        Self { work, seed, policy, elapsed, recorder, leave }
    }

    /// Whether the trainer must keep what it has and return: a condition does not hold any more, or the device stops.
    pub fn must_leave(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for TrainingJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrainingJob(version {})", self.work.published.version)
    }
}

/// How a training ended.
#[derive(Clone, Debug)]
pub enum TrainingEnd {
    /// All steps are done.
    Trained(Update),
    /// Nothing came of it, for this reason; it may be tried again.
    NotTrained(String),
    /// The user's limits forbid it.
    Refused(Breach),
    /// What trains broke.
    Failed(TrainerFault),
}

impl From<TrainingEnd> for Event {
    fn from(end: TrainingEnd) -> Self {
        match end {
            TrainingEnd::Trained(update) => Self::Trained(update),
            TrainingEnd::NotTrained(why) => Self::NotTrained(why),
            TrainingEnd::Refused(breach) => Self::CannotTrain(breach),
            TrainingEnd::Failed(fault) => Self::TrainerFailed(fault.to_string()),
        }
    }
}

/// Why a trainer cannot train at all: the user's text cannot be read, or there is none.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TrainerError(Box<dyn std::error::Error + Send + Sync>);

impl TrainerError {
    /// What went wrong, to be shown to the user.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}
