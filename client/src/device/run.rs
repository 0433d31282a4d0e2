//! The device's shell: performs what its machine decides. It reads the clock, draws randomness, talks, trains and
//! keeps; it decides nothing but when a condition is looked at again.
#![expect(clippy::disallowed_methods, reason = "IO shell: the device's clock")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chacha20::ChaCha20Rng;
use engine::process::available_bytes;
use proto::ids::{Digest, Timestamp};
use proto::message::{Published, Rejection};
use proto::plan::{MAX_PLAN_BYTES, Plan};
use proto::shown::shown;
use rand::rngs::SysRng;
use rand_core::{Rng, SeedableRng, UnwrapErr};
use session::conditions::{Conditions, Judgment, Purpose, Snapshot, judge};
use session::policy::{Breach, Policy};
use session::{Action, Ended, Event, Session, Work};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::enrollment::EnrolledDevice;
use crate::error::Error;
use crate::monitor::DeviceMonitor;
use crate::store::{Declined, DeviceStore, DeviceStoreError, is_over};
use crate::trainer::{Trainer, TrainerError, TrainingEnd, TrainingJob};
use crate::transport::{MAX_ARTIFACT_BYTES, Transport, TransportError};

/// Where the state keeps what seeds of trainings are made of.
const TRAINING_SECRET: &str = "training-secret";

/// What a monitor may take for one look.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// When this device took part in drawing a graph, in its state.
const DRAWN: &str = "drawn";

/// How a device that runs once ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished {
    /// The sum of a round with this device in it was published, and the version is installed.
    Contributed(Published),
    /// The task is over; its last version is installed.
    NoMoreWork,
    /// It was told to stop.
    Stopped,
}

/// When a device trains, and how long it runs.
#[derive(Clone, Debug)]
pub(super) struct When {
    pub(super) conditions: Conditions,
    /// Whether the person at the keyboard said to train whatever the conditions are.
    pub(super) override_conditions: bool,
    /// Whether to end after one round.
    pub(super) once: bool,
}

/// A device that runs.
pub(super) struct Running {
    session: Session,
    policy: Policy,
    transport: Transport,
    store: DeviceStore,
    trainer: Arc<dyn Trainer>,
    monitor: Arc<dyn DeviceMonitor>,
    when: When,
    stop: CancellationToken,
    /// The version from which the contribution that was charged last was trained.
    contributed: Option<u32>,
}

impl Running {
    /// A device that has not done anything yet; it stops when `stop` says so.
    pub(super) fn new(
        enrolled: EnrolledDevice,
        store: DeviceStore,
        trainer: Arc<dyn Trainer>,
        monitor: Arc<dyn DeviceMonitor>,
        when: When,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        store.checkpoint().clean_up();
        let policy = enrolled.device.policy.clone();
        let device = Arc::new(enrolled.device);
        let session = Session::new(device, store.spending(), store.installed()?, now());
        let session = session.having_signed(store.signed());
        let session = session.having_drawn(store.get(DRAWN)?.unwrap_or_default());
        let transport = enrolled.transport;
        if available_bytes().is_none() && policy.largest_memory_mib.is_none() {
            tracing::warn!(
                "this system does not say how much memory is free, so nothing bounds what a training takes; set \
                 policy.largest_memory_mib"
            );
        }
        Ok(Self { session, policy, transport, store, trainer, monitor, when, stop, contributed: None })
    }

    /// Runs until it is told to stop, or, if it runs once, until one round is over.
    pub(super) async fn run(mut self) -> Result<Finished, Error> {
        loop {
            if self.stop.is_cancelled() {
                return Ok(Finished::Stopped);
            }
            if self.when.once
                && let Some(finished) = self.finished()
            {
                return Ok(finished);
            }
            let event = match self.session.action() {
                Action::Sleep(until) => {
                    self.sleep(until.millis_since(now())).await;
                    Event::Woke
                }
                Action::Send(request) => match self.transport.send(&request).await {
                    Ok(reply) => {
                        tracing::debug!(request = request.name(), reply = reply.name(), "answered");
                        Event::Replied(reply)
                    }
                    Err(error) => failure(error),
                },
                Action::LoadPlan(published) => {
                    self.store.checkpoint().keep_only(&published);
                    self.load_plan(&published).await.unwrap_or_else(failure)
                }
                Action::Load { published, frozen, plan, trains } => match self.fits(&plan, trains) {
                    Ok(()) => self.load(published, frozen).await.unwrap_or_else(failure),
                    Err(breach) => Event::CannotTrain(breach),
                },
                Action::RecordFound(found) => {
                    tracing::warn!(
                        task = %found.task,
                        times = found.times,
                        "the coordinator charged this device for more rounds than its ledger knows: the folder was \
                         restored from a backup, or the coordinator errs; they are written to the ledger and count"
                    );
                    self.store.charge_found(found, now().0)?;
                    Event::Recorded
                }
                Action::Install(work) => self.install(&work).await?,
                Action::Train(work) => self.train(work).await?,
                Action::Charge(charge) => {
                    self.contributed = Some(charge.version);
                    self.store.charge(charge, now().0)?;
                    self.store.set_declined(None)?;
                    Event::Recorded
                }
                Action::RecordDraws(times) => {
                    self.store.put(DRAWN, &times)?;
                    Event::Recorded
                }
                Action::RecordSignature(signed) => {
                    self.store.sign(signed)?;
                    Event::Recorded
                }
                Action::RecordAnswer(answered) => {
                    self.store.answer(answered)?;
                    Event::Recorded
                }
            };
            let state = self.session.state();
            self.session = if matches!(event, Event::Loaded { .. }) {
                // Frozen factors are drawn and earlier epochs folded in, which may take long: on a thread that no request
                // and no signal waits for.
                let session = self.session;
                let build = move || session.handle(event, now(), &mut generator());
                tokio::select! {
                    built = tokio::task::spawn_blocking(build) => {
                        built.map_err(|error| Error::Thread(error.to_string()))?
                    }
                    () = self.stop.cancelled() => return Ok(Finished::Stopped),
                }
            } else {
                self.session.handle(event, now(), &mut generator())
            };
            if self.session.state() != state {
                tracing::info!(state = self.session.state().as_str(), "session");
            }
            if self.session.is_complete() {
                self.store.checkpoint().delete("the task is over");
            }
            if let Some(ended) = self.session.take_ended() {
                self.report(ended)?;
            }
        }
    }

    /// Whether an agent that runs once has done what it was started for.
    fn finished(&self) -> Option<Finished> {
        let installed = self.session.installed();
        let newer = |published: &Published| self.contributed.is_some_and(|from| published.version > from);
        if let Some(published) = installed.filter(newer) {
            return Some(Finished::Contributed(published));
        }
        self.session.is_complete().then_some(Finished::NoMoreWork)
    }

    fn report(&self, ended: Ended) -> Result<(), Error> {
        tracing::warn!("{}", shown(&ended.to_string()));
        if is_over(&ended) {
            self.store.checkpoint().delete("this device does not train it any more");
        }
        if matches!(ended, Ended::Breach(_) | Ended::Plan(_)) {
            let declined = Declined { unix_millis: now().0, why: shown(&ended.to_string()).to_string() };
            // A note for the user: that it cannot be kept is no reason to end.
            if let Err(error) = self.store.set_declined(Some(&declined)) {
                tracing::warn!("what is said above cannot be kept for the user: {error}");
            }
        }
        if !self.when.once {
            return Ok(());
        }
        match ended {
            Ended::Breach(breach) => Err(Error::Breach(breach)),
            Ended::Rejected(rejection @ Rejection::NotEnrolled) => Err(Error::NotEnrolled(rejection)),
            // Whoever runs once does not wait for hours.
            rests @ Ended::TrainerRests { .. } => Err(Error::TrainerRests(rests.to_string())),
            Ended::Rejected(_)
            | Ended::Refused(_)
            | Ended::Roster(_)
            | Ended::Contribution(_)
            | Ended::Round(_)
            | Ended::SignedBefore { .. }
            | Ended::RoundTooFar { .. }
            | Ended::Draws(_)
            | Ended::Plan(_)
            | Ended::WrongArtifact(_)
            | Ended::WrongReply { .. }
            | Ended::NotTrained(_)
            | Ended::TrainerFailed(_) => Ok(()),
        }
    }

    /// Sleeps, but not on when it is told to stop.
    async fn sleep(&self, millis: u64) {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(millis)) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn load_plan(&mut self, published: &Published) -> Result<Event, TransportError> {
        let plan = self.artifact(published.plan, Keep::Yes, MAX_PLAN_BYTES as u64).await?;
        Ok(Event::PlanLoaded(plan))
    }

    async fn load(&mut self, published: Published, frozen: Option<Digest>) -> Result<Event, TransportError> {
        let frozen = match frozen {
            Some(digest) => Some(self.artifact(digest, Keep::Yes, MAX_ARTIFACT_BYTES).await?),
            None => None,
        };
        let folded = match published.folded {
            Some(digest) => Some(self.artifact(digest, Keep::Yes, MAX_ARTIFACT_BYTES).await?),
            None => None,
        };
        let adapter = self.artifact(published.adapter, Keep::No, MAX_ARTIFACT_BYTES).await?;
        Ok(Event::Loaded { adapter, frozen, folded })
    }

    /// An artefact of at most so many bytes, from the disk or from the coordinator.
    async fn artifact(
        &mut self,
        digest: Digest,
        keep: Keep,
        most_bytes: u64,
    ) -> Result<Vec<u8>, TransportError> {
        if let Some(bytes) = self.store.cached(digest) {
            return Ok(bytes);
        }
        let bytes = self.transport.fetch(digest, most_bytes).await?;
        if keep == Keep::Yes {
            self.store.cache_artifact(digest, &bytes);
        }
        Ok(bytes)
    }

    /// Keeps a version for the user. What comes out is made on a thread that no request waits for: it may take a
    /// singular value decomposition of every layer.
    async fn install(&self, work: &Arc<Work>) -> Result<Event, Error> {
        let theirs = Arc::clone(work);
        let shipped =
            tokio::task::spawn_blocking(move || theirs.state.shipped(theirs.plan.shipped_rank())).await;
        let shipped = shipped.map_err(|error| Error::Thread(error.to_string()))?;
        self.store.install_shipped(work, shipped.map_err(DeviceStoreError::from)?)?;
        tracing::info!(version = work.published.version, "installed");
        Ok(Event::Recorded)
    }

    /// Waits for the conditions, then reads the user's text and trains on it as long as they hold, on a thread that no
    /// request waits for.
    async fn train(&mut self, work: Arc<Work>) -> Result<Event, Error> {
        if !self.when.override_conditions {
            loop {
                let blocking = self.blocking(Purpose::Start).await;
                if blocking.is_empty() {
                    break;
                }
                if self.stop.is_cancelled() {
                    return Ok(Event::NotTrained("the agent stops".to_owned()));
                }
                if self.when.once {
                    return Err(Error::Conditions(blocking));
                }
                tracing::info!(blocking, "waiting to train");
                self.sleep(1000 * u64::from(self.when.conditions.check_secs)).await;
                if self.stop.is_cancelled() {
                    return Ok(Event::NotTrained("the agent stops".to_owned()));
                }
            }
        }
        if let Err(breach) = self.has_memory(&work) {
            return Ok(Event::CannotTrain(breach));
        }
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
        let event = |end: Result<Result<TrainingEnd, TrainerError>, tokio::task::JoinError>| match end {
            Ok(end) => Ok(Event::from(end?)),
            // What a panic says could be of the user's text.
            Err(_) => Ok(Event::NotTrained("the trainer stopped itself".to_owned())),
        };
        loop {
            let pause = Duration::from_secs(u64::from(self.when.conditions.check_secs).max(1));
            let result = tokio::select! {
                result = &mut training => Some(result),
                () = self.stop.cancelled() => None,
                () = tokio::time::sleep(pause) => None,
            };
            match result {
                Some(end) => return event(end),
                None if self.stop.is_cancelled() => leave.tell(),
                None if self.when.override_conditions => {}
                None => {
                    let blocking = self.blocking(Purpose::Continue).await;
                    if !blocking.is_empty() {
                        tracing::info!(blocking, "training is interrupted");
                        leave.tell();
                    }
                }
            }
            if leave.is_told() {
                return event(training.await);
            }
        }
    }

    /// Whether this device has the layers that a plan adapts, and the memory for what the plan makes it load and build, and
    /// for the training where it is to train.
    fn fits(&self, plan: &Plan, trains: bool) -> Result<(), Breach> {
        if plan.base == self.trainer.base() {
            let own: BTreeSet<String> = self.trainer.layers().into_iter().collect();
            if let Some(foreign) = plan.adapter.modules.iter().find(|module| !own.contains(&module.name)) {
                return Err(Breach::Layer(foreign.name.clone()));
            }
        }
        self.policy.memory(planned_bytes(self.trainer.as_ref(), plan, trains), available_bytes())
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

    /// What the monitor says, asked on a thread that no request waits for; nothing is known where it fails, says nothing
    /// for [`LONGEST_LOOK`], or the device is told to stop meanwhile.
    async fn look(&self) -> Snapshot {
        let monitor = Arc::clone(&self.monitor);
        tokio::select! {
            looked = tokio::task::spawn_blocking(move || monitor.look()) => looked.unwrap_or_default(),
            () = tokio::time::sleep(LONGEST_LOOK) => Snapshot::default(),
            () = self.stop.cancelled() => Snapshot::default(),
        }
    }

    /// The conditions that keep the device from training, in words; empty where none does.
    async fn blocking(&self, purpose: Purpose) -> String {
        let judged = judge(&self.look().await, &self.when.conditions, purpose);
        let words =
            |row: &Judgment| format!("{:?} is {} (wanted: {})", row.condition, row.value, row.threshold);
        let blocking: Vec<String> = judged.iter().filter(|row| row.blocking).map(words).collect();
        blocking.join(", ")
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

/// Bytes that a plan makes a device hold beside the base: frozen and trained parameters, and what is made of them for the
/// user; and what the training takes, where it trains.
fn planned_bytes(trainer: &dyn Trainer, plan: &Plan, trains: bool) -> u64 {
    let size = |tokens: u32| usize::try_from(tokens).unwrap_or(usize::MAX);
    let (frozen, trained) = (plan.adapter.frozen_len(), plan.adapter.trained_len());
    let held = 4 * (frozen as u64).saturating_add(3 * trained as u64);
    if !trains {
        return held;
    }
    let taken =
        trainer.training_bytes(trained, size(plan.training.batch_size), size(plan.training.sequence_len));
    held.saturating_add(taken)
}

/// Tells a training to leave, at the latest when it is dropped.
#[derive(Debug, Default)]
struct Leave(Arc<AtomicBool>);

impl Leave {
    fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.tell();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

fn failure(error: TransportError) -> Event {
    match error {
        TransportError::Rejected(rejection) => Event::Rejected(rejection),
        other @ (TransportError::Unreachable { .. }
        | TransportError::Answer(_)
        | TransportError::Setup { .. }
        | TransportError::Artifact { .. }) => {
            tracing::warn!("{}", shown(&other.to_string()));
            Event::Unreachable
        }
    }
}

/// A generator with a key from the system, wiped when it is dropped. The system itself is five times slower, and
/// the noise of an update takes megabytes.
fn generator() -> ChaCha20Rng {
    let mut key = Zeroizing::new([0; 32]);
    UnwrapErr(SysRng).fill_bytes(key.as_mut_slice());
    ChaCha20Rng::from_seed(*key)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

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
