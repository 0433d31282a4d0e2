//! The device's shell: performs what its machine decides. It reads the clock, draws randomness, talks, trains and
//! keeps; it decides nothing but when a condition is looked at again.
#![expect(clippy::disallowed_methods, reason = "IO shell: the device's clock")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chacha20::ChaCha20Rng;
use proto::ids::{Digest, Timestamp};
use proto::message::Published;
use proto::plan::{MAX_PLAN_BYTES, Plan};
use proto::shown::shown;
use rand::rngs::SysRng;
use rand_core::{Rng, SeedableRng, UnwrapErr};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::agent::checkpoint::is_over;
use crate::agent::memory::{Declined, Memory, MemoryError};
use crate::conditions::{Conditions, Judgement, Purpose, Snapshot, judge, sources};
use crate::enrolment::EnrolledDevice;
use crate::policy::{Breach, Policy};
use crate::process::available_bytes;
use crate::session::{Action, Ended, Event, Session, Work};
use crate::transport::{MAX_ARTEFACT_BYTES, Transport, TransportError};
use engine::Engine;
use engine::Projection;
use text::{ReadOptions, TextError};

mod cache;
mod checkpoint;
pub mod memory;
mod sealing;
mod training;

pub use cache::DEFAULT_CACHE_MIB;

/// Where the state keeps what seeds of trainings are made of.
const TRAINING_SECRET: &str = "training-secret";

/// When this device took part in drawing a graph, in its state.
const DRAWN: &str = "drawn";

/// What an agent runs with.
#[derive(Debug)]
pub struct Settings {
    /// Text files and folders.
    pub data: Vec<PathBuf>,
    /// How they are read.
    pub reading: ReadOptions,
    /// When it may train.
    pub conditions: Conditions,
    /// Whether the person at the keyboard said to train whatever the conditions are.
    pub override_conditions: bool,
    /// Whether to end after one round.
    pub once: bool,
}

/// How an agent that runs once ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished {
    /// The sum of a round with this device in it was published, and the version is installed.
    Contributed(Published),
    /// The task is over; its last version is installed.
    NoMoreWork,
    /// It was told to stop.
    Stopped,
}

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// What is durable.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The user's text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// There is nothing to train on.
    #[error("no text: name files or folders by `data` in the configuration or by --data")]
    NoData,
    /// The device's own limits forbid it.
    #[error("this device does not take part: {0}")]
    Breach(Breach),
    /// The coordinator does not know this device.
    #[error("{0}")]
    NotEnrolled(proto::message::Rejection),
    /// A thread ended in the middle of its work.
    #[error("a version could not be made ready: {0}; start the agent again")]
    Thread(String),
    /// A condition does not hold.
    #[error("this device may not train now: {0}; wait, or say --override-conditions")]
    Conditions(String),
}

/// The device's shell.
#[derive(Debug)]
pub struct Agent {
    session: Session,
    policy: Policy,
    transport: Transport,
    memory: Memory,
    engine: Engine,
    settings: Settings,
    stop: watch::Receiver<bool>,
    /// The version from which the contribution that was charged last was trained.
    contributed: Option<u32>,
}

impl Agent {
    /// An agent that has not done anything yet; it stops when `stop` says so.
    pub fn new(
        enrolled: EnrolledDevice,
        memory: Memory,
        engine: Engine,
        settings: Settings,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, AgentError> {
        memory.checkpoint().clean_up();
        if settings.data.is_empty() {
            memory.checkpoint().delete("there is no text any more");
            return Err(AgentError::NoData);
        }
        let policy = enrolled.device.policy.clone();
        let device = Arc::new(enrolled.device);
        let session = Session::new(device, memory.spending(), memory.installed()?, now());
        let session = session.having_signed(memory.signed());
        let session = session.having_drawn(memory.get(DRAWN)?.unwrap_or_default());
        let transport = enrolled.transport;
        Ok(Self { session, policy, transport, memory, engine, settings, stop, contributed: None })
    }

    /// Runs until it is told to stop, or, if it runs once, until one round is over.
    pub async fn run(mut self) -> Result<Finished, AgentError> {
        loop {
            if *self.stop.borrow() {
                return Ok(Finished::Stopped);
            }
            if self.settings.once
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
                    self.memory.checkpoint().keep_only(&published);
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
                    self.memory.charge_found(found, now().0)?;
                    Event::Recorded
                }
                Action::Install(work) => self.install(&work).await?,
                Action::Train(work) => self.train(work).await?,
                Action::Charge(charge) => {
                    self.contributed = Some(charge.version);
                    self.memory.charge(charge, now().0)?;
                    self.memory.set_declined(None)?;
                    Event::Recorded
                }
                Action::RecordDraws(times) => {
                    self.memory.put(DRAWN, &times)?;
                    Event::Recorded
                }
                Action::RecordSignature(signed) => {
                    self.memory.sign(signed)?;
                    Event::Recorded
                }
                Action::RecordAnswer(answered) => {
                    self.memory.answer(answered)?;
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
                        built.map_err(|error| AgentError::Thread(error.to_string()))?
                    }
                    () = stopped(self.stop.clone()) => return Ok(Finished::Stopped),
                }
            } else {
                self.session.handle(event, now(), &mut generator())
            };
            if self.session.state() != state {
                tracing::info!(state = self.session.state(), "session");
            }
            if self.session.is_complete() {
                self.memory.checkpoint().delete("the task is over");
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

    fn report(&self, ended: Ended) -> Result<(), AgentError> {
        tracing::warn!("{}", shown(&ended.to_string()));
        if is_over(&ended) {
            self.memory.checkpoint().delete("this device does not train it any more");
        }
        if matches!(ended, Ended::Breach(_) | Ended::Plan(_)) {
            let declined = Declined { unix_millis: now().0, why: shown(&ended.to_string()).to_string() };
            // A note for the user: that it cannot be kept is no reason to end.
            if let Err(error) = self.memory.set_declined(Some(&declined)) {
                tracing::warn!("what is said above cannot be kept for the user: {error}");
            }
        }
        if !self.settings.once {
            return Ok(());
        }
        match ended {
            Ended::Breach(breach) => Err(AgentError::Breach(breach)),
            Ended::Rejected(rejection @ proto::message::Rejection::NotEnrolled) => {
                Err(AgentError::NotEnrolled(rejection))
            }
            Ended::Rejected(_)
            | Ended::Refused(_)
            | Ended::Roster(_)
            | Ended::Contribution(_)
            | Ended::Round(_)
            | Ended::SignedBefore { .. }
            | Ended::RoundTooFar { .. }
            | Ended::Draws(_)
            | Ended::Plan(_)
            | Ended::WrongArtefact(_)
            | Ended::WrongReply { .. }
            | Ended::NotTrained(_) => Ok(()),
        }
    }

    /// Sleeps, but not on when it is told to stop.
    async fn sleep(&mut self, millis: u64) {
        let told = async {
            // An error means that nobody can say stop any more.
            if self.stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(millis)) => {}
            () = told => {}
        }
    }

    async fn load_plan(&mut self, published: &Published) -> Result<Event, TransportError> {
        let plan = self.artefact(published.plan, Keep::Yes, MAX_PLAN_BYTES as u64).await?;
        Ok(Event::PlanLoaded(plan))
    }

    async fn load(&mut self, published: Published, frozen: Option<Digest>) -> Result<Event, TransportError> {
        let frozen = match frozen {
            Some(digest) => Some(self.artefact(digest, Keep::Yes, MAX_ARTEFACT_BYTES).await?),
            None => None,
        };
        let folded = match published.folded {
            Some(digest) => Some(self.artefact(digest, Keep::Yes, MAX_ARTEFACT_BYTES).await?),
            None => None,
        };
        let adapter = self.artefact(published.adapter, Keep::No, MAX_ARTEFACT_BYTES).await?;
        Ok(Event::Loaded { adapter, frozen, folded })
    }

    /// An artefact of at most so many bytes, from the disk or from the coordinator.
    async fn artefact(
        &mut self,
        digest: Digest,
        keep: Keep,
        most_bytes: u64,
    ) -> Result<Vec<u8>, TransportError> {
        if let Some(bytes) = self.memory.cached(digest) {
            return Ok(bytes);
        }
        let bytes = self.transport.fetch(digest, most_bytes).await?;
        if keep == Keep::Yes {
            self.memory.cache_artefact(digest, &bytes);
        }
        Ok(bytes)
    }

    /// Keeps a version for the user. What comes out is made on a thread that no request waits for: it may take a
    /// singular value decomposition of every layer.
    async fn install(&self, work: &Arc<Work>) -> Result<Event, AgentError> {
        let theirs = Arc::clone(work);
        let shipped =
            tokio::task::spawn_blocking(move || theirs.state.shipped(theirs.plan.shipped_rank())).await;
        let shipped = shipped.map_err(|error| AgentError::Thread(error.to_string()))?;
        self.memory.install_shipped(work, shipped.map_err(MemoryError::from)?)?;
        tracing::info!(version = work.published.version, "installed");
        Ok(Event::Recorded)
    }

    /// Waits for the conditions, then reads the user's text and trains on it as long as they hold, on a thread that no
    /// request waits for.
    async fn train(&mut self, work: Arc<Work>) -> Result<Event, AgentError> {
        if !self.settings.override_conditions {
            loop {
                let blocking = self.blocking(Purpose::Start).await;
                if blocking.is_empty() {
                    break;
                }
                if self.settings.once {
                    return Err(AgentError::Conditions(blocking));
                }
                tracing::info!(blocking, "waiting to train");
                self.sleep(1000 * u64::from(self.settings.conditions.check_secs)).await;
                if *self.stop.borrow() {
                    return Ok(Event::NotTrained("the agent stops".to_owned()));
                }
            }
        }
        if let Err(breach) = self.has_memory(&work) {
            return Ok(Event::CannotTrain(breach));
        }
        let text = training::Text { data: self.settings.data.clone(), reading: self.settings.reading };
        let leave = Arc::new(AtomicBool::new(false));
        let (engine, flag) = (self.engine.clone(), Arc::clone(&leave));
        let (seed, checkpoint) = (self.training_seed(&work.published)?, self.memory.checkpoint());
        let policy = self.policy.clone();
        let mut training = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let elapsed = || begun.elapsed();
            let hold = training::Hold { leave: &flag, policy: &policy, elapsed: &elapsed };
            training::read_and_train(&engine, &work, &text, seed, hold, &checkpoint)
        });
        loop {
            let pause = Duration::from_secs(u64::from(self.settings.conditions.check_secs).max(1));
            let told = self.stop.clone();
            let result = tokio::select! {
                result = &mut training => Some(result),
                () = stopped(told) => None,
                () = tokio::time::sleep(pause) => None,
            };
            match result {
                Some(Ok(event)) => return Ok(event?),
                Some(Err(error)) => return Ok(Event::NotTrained(error.to_string())),
                None if *self.stop.borrow() => leave.store(true, Ordering::Relaxed),
                None if self.settings.override_conditions => {}
                None => {
                    let blocking = self.blocking(Purpose::Continue).await;
                    if !blocking.is_empty() {
                        tracing::info!(blocking, "training is interrupted");
                        leave.store(true, Ordering::Relaxed);
                    }
                }
            }
            if leave.load(Ordering::Relaxed) {
                return match training.await {
                    Ok(event) => Ok(event?),
                    Err(error) => Ok(Event::NotTrained(error.to_string())),
                };
            }
        }
    }

    /// Whether this device has the layers that a plan adapts, and the memory for what the plan makes it load and build, and
    /// for the training where it is to train.
    fn fits(&self, plan: &Plan, trains: bool) -> Result<(), Breach> {
        let base = self.engine.base();
        if plan.base == base.digest() {
            let own: BTreeSet<_> = base.modules(&Projection::ALL).into_iter().map(|own| own.name).collect();
            if let Some(foreign) = plan.adapter.modules.iter().find(|module| !own.contains(&module.name)) {
                return Err(Breach::Layer(foreign.name.clone()));
            }
        }
        self.policy.memory(training::planned_bytes(&self.engine, plan, trains), available_bytes())
    }

    /// Whether there is the memory for a training, by the user's limit and by what the system has free now.
    fn has_memory(&self, work: &Work) -> Result<(), Breach> {
        self.policy.memory(training::needed_bytes(&self.engine, work), available_bytes())
    }

    /// What the batches of a version are drawn by: alike when its training begins again, and nobody else's to know.
    fn training_seed(&self, published: &Published) -> Result<[u8; 32], MemoryError> {
        let secret = if let Some(secret) = self.memory.get::<Digest>(TRAINING_SECRET)? {
            secret
        } else {
            let mut secret = Digest([0; 32]);
            UnwrapErr(SysRng).fill_bytes(&mut secret.0);
            self.memory.put(TRAINING_SECRET, &secret)?;
            secret
        };
        let mut material = b"nightshift training seed v1".to_vec();
        material.extend(secret.0);
        material.extend(published.task.0);
        material.extend(published.version.to_le_bytes());
        Ok(Digest::of(&material).0)
    }

    /// The conditions that keep the device from training, in words; empty where none does.
    async fn blocking(&self, purpose: Purpose) -> String {
        let judged = judge(&look().await, &self.settings.conditions, purpose);
        let words =
            |row: &Judgement| format!("{:?} is {} (wanted: {})", row.condition, row.value, row.threshold);
        let blocking: Vec<String> = judged.iter().filter(|row| row.blocking).map(words).collect();
        blocking.join(", ")
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
        | TransportError::Artefact { .. }) => {
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

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Reads the machine, taking half a second to see how busy it is.
pub async fn look() -> Snapshot {
    let root = Path::new("/");
    let before = sources::ticks(root);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let busy_percent = match (before, sources::ticks(root)) {
        (Some(before), Some(after)) => sources::busy_percent(before, after),
        (None, _) | (_, None) => None,
    };
    Snapshot { busy_percent, ..sources::read(root) }
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
        let memory = Memory::open(folder.path()).unwrap();
        let quoted = format!("unknown field `{}`", "ä".repeat(100_000));
        let why = shown(&quoted).to_string();
        assert!(why.starts_with("unknown field `ää") && why.ends_with('…'), "{}", why.len());
        memory.set_declined(Some(&Declined { unix_millis: 1, why: why.clone() })).unwrap();
        assert_eq!(memory.declined().unwrap().map(|declined| declined.why), Some(why));
    }
}
