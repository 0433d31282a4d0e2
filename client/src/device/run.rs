//! The device's shell: performs what its machine decides. It reads the clock, draws randomness, talks and keeps;
//! [`train`](super::train) lends the machine to a training, [`window`](super::window) says when.

use std::sync::Arc;

use chacha20::ChaCha20Rng;
use engine::process::available_bytes;
use proto::ids::{Digest, TaskId};
use proto::message::Published;
use rand::rngs::SysRng;
use rand_core::{Rng, SeedableRng, UnwrapErr};
use session::conditions::{Conditions, Uptime};
use session::policy::Policy;
use session::{Action, Event, Session, SessionState};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::clock::{StepDetector, now, uptime};
use super::coming_bases::ComingBases;
use super::forget;
use super::live::Live;
use super::meter::Meter;
use super::once::Once;
use super::outage::Outage;
use super::waits::{Heard, Unanswered, Waits, is_in_vain};
use super::window::Watching;
use crate::enrollment::EnrolledDevice;
use crate::error::Error;
use crate::monitor::DeviceMonitor;
use crate::store::DeviceStore;
use crate::trainer::Trainer;
use crate::transport::{Transport, TransportError};

/// When this device took part in drawing a graph, in its state.
pub(super) const DRAWN: &str = "drawn";

/// How a device that runs once ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished {
    /// The sum of a round with this device in it was published, and the version is installed.
    Contributed(Published),
    /// The task is over; its last version is installed.
    NoMoreWork,
    /// A base that a task needs has come from the coordinator: a device that begins anew, with a trainer that knows it,
    /// takes part. It is one of [`Device::fetched_bases`](super::Device::fetched_bases).
    NewBase(Digest),
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
    pub(super) session: Session,
    pub(super) policy: Policy,
    pub(super) transport: Transport,
    pub(super) store: DeviceStore,
    pub(super) trainer: Arc<dyn Trainer>,
    pub(super) watching: Watching,
    pub(super) meter: Arc<Meter>,
    pub(super) live: Arc<Live>,
    pub(super) when: When,
    pub(super) stop: CancellationToken,
    /// The bases that tasks need and that are coming.
    pub(super) bases: Arc<ComingBases>,
    /// A base that has come.
    pub(super) came: Option<Digest>,
    waits: Waits,
    unanswered: Unanswered,
    clock: StepDetector,
    /// The task and the version from which the contribution that was charged last was trained.
    pub(super) contributed: Option<(TaskId, u32)>,
    pub(super) outage: Outage,
    pub(super) once: Once,
}

impl Running {
    /// A device that has not done anything yet; it stops when `stop` says so.
    pub(super) fn new(
        enrolled: EnrolledDevice,
        store: DeviceStore,
        trainer: Arc<dyn Trainer>,
        monitor: Arc<dyn DeviceMonitor>,
        when: When,
        (live, stop): (Arc<Live>, CancellationToken),
    ) -> Result<Self, Error> {
        store.checkpoint().clean_up();
        tracing::info!("takes part as {}, with the coordinator {}", enrolled.label, enrolled.coordinator);
        live.trains_on(enrolled.device.bases.clone());
        let policy = enrolled.device.policy.clone();
        let device = Arc::new(enrolled.device);
        let session =
            Session::new(device, store.spending(), store.installed(), now()).renewing(enrolled.lifetime);
        let session = session.having_signed(store.signed());
        let session = session.having_drawn(store.get(DRAWN)?.unwrap_or_default());
        let session = session.having_seen(store.seen_log()?);
        let forgotten = forget::forgotten(&store)?;
        // What could not be deleted when they were left.
        for published in store.installed().into_iter().filter(|held| forgotten.contains(&held.task)) {
            forget::forget(&store, published.task)?;
        }
        let session = session.having_forgotten(forgotten);
        let transport = enrolled.transport;
        let bases = ComingBases::new(transport.clone());
        if available_bytes().is_none() && policy.largest_memory_mib.is_none() {
            tracing::warn!(
                "this system does not say how much memory is free, so nothing bounds what a training takes; set \
                 policy.largest_memory_mib"
            );
        }
        let meter = Arc::clone(&live.meter);
        meter.counts(transport.carried());
        let (limits, overridden) = (when.conditions.clone(), when.override_conditions);
        let watching = Watching::begin(monitor, limits, overridden, Arc::clone(&meter), Arc::clone(&live));
        let clock = StepDetector::new(now(), uptime());
        Ok(Self {
            session,
            policy,
            transport,
            store,
            trainer,
            watching,
            meter,
            live,
            when,
            stop,
            bases: Arc::new(bases),
            came: None,
            waits: Waits::default(),
            unanswered: Unanswered::default(),
            clock,
            contributed: None,
            outage: Outage::default(),
            once: Once::default(),
        })
    }

    /// Runs until it is told to stop, or, if it runs once, until one round is over. The folder is free when this returns.
    pub(super) async fn run(mut self) -> Result<Finished, Error> {
        let (looks, bases) = (self.watching.take_looks(), Arc::clone(&self.bases));
        let finished = self.take_part().await;
        bases.end().await;
        looks.end().await;
        finished
    }

    async fn take_part(mut self) -> Result<Finished, Error> {
        loop {
            let leaves = self.live.leaves() && self.session.at_work_on().is_none();
            if leaves || self.stop.is_cancelled() {
                self.meter.keep();
                return Ok(Finished::Stopped);
            }
            self.take_bases()?;
            if let Some(base) = self.came
                && self.session.at_work_on().is_none()
            {
                self.meter.keep();
                return Ok(Finished::NewBase(base));
            }
            // Nothing is begun that could not be kept.
            if let Err(error) = self.store.check_written() {
                self = self.until_written(error.into()).await?;
                continue;
            }
            if self.when.once
                && let Some(finished) = self.finished()
            {
                return Ok(finished);
            }
            self.answer();
            self.live.answered(self.transport.answered());
            if let Some(step) = self.clock.step(now(), uptime()) {
                tracing::warn!(
                    seconds = step / 1000,
                    "the clock was set; what was waited for is looked at anew"
                );
                self.session = self.session.handle(Event::ClockStepped, now(), &mut generator());
            }
            let action = self.session.action();
            if transfers(&action) && !self.may_transfer().await? {
                continue;
            }
            let until = if let Action::Sleep(until) = action { Some(until) } else { None };
            self.live.does(self.waits.name(self.session.state()), self.session.at_work_on(), until);
            let event = match self.perform(action).await {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                // The machine wants the same again.
                Err(error) => {
                    self = self.until_written(error).await?;
                    continue;
                }
            };
            let (state, heard) = (self.session.state(), Heard::of(&event));
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
            self.hears(&heard, state)?;
            if self.session.is_complete() {
                self.store.checkpoint().delete("the task is over");
            }
            let lacking = self.session.take_lacking_base();
            if let Some(lacking) = lacking
                && let Err(error) = self.lacks(lacking)
            {
                // It is asked for it again when the task is looked at again.
                self = self.until_written(error).await?;
            }
            if let Some(ended) = self.session.take_ended() {
                let task = self.session.take_ended_task();
                self.report(ended, task)?;
            }
        }
    }

    /// Tells what the device waits for. Fails where it runs once and its coordinator has not answered for too long.
    fn hears(&mut self, heard: &Heard, before: SessionState) -> Result<(), Error> {
        let (state, at) = (self.session.state(), uptime());
        if state != before {
            tracing::debug!(state = state.as_str(), "session");
        }
        if let Some(waits) = self.waits.heard(heard, (before, state), at) {
            tracing::info!("{waits}");
        }
        if let Some(ago) = self.transport.served_ago() {
            let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            self.unanswered.served(Uptime(at.0.saturating_sub(ago)));
        }
        let tried = self.unanswered.heard(heard, at).filter(|_| self.when.once);
        tried.map_or(Ok(()), |tried| Err(self.unanswered(heard, tried)))
    }

    /// A question goes out now. What is given ends when a device that runs once has nothing more to hope for from it.
    pub(super) fn asks(&mut self) -> impl Future<Output = ()> + use<> {
        self.unanswered.asks(uptime());
        is_in_vain(self.transport.clone(), self.unanswered.since().filter(|_| self.when.once))
    }

    /// Why such a question is given up.
    pub(super) fn silent(&self) -> TransportError {
        let (address, why) = (self.transport.address().to_owned(), "it does not answer".to_owned());
        TransportError::Unreachable { address, why }
    }

    /// Tells what the device waits for while its coordinator holds its question.
    pub(super) fn is_held(&mut self) {
        let state = self.session.state();
        if let Some(waits) = self.waits.held(state, uptime()) {
            tracing::info!("{waits}");
        }
        self.live.does(self.waits.name(state), self.session.at_work_on(), None);
    }

    /// Whether an agent that runs once has done what it was started for.
    fn finished(&self) -> Option<Finished> {
        if let Some((task, from)) = self.contributed
            && let Some(published) = self.session.installed(task).filter(|newer| newer.version > from)
        {
            return Some(Finished::Contributed(published));
        }
        self.session.is_complete().then_some(Finished::NoMoreWork)
    }

    /// What the trainer says, which may have to read a base for it: on a thread that no request waits for. `None` where
    /// the device stops meanwhile.
    pub(super) async fn asked<T: Send + 'static>(
        &self,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        tokio::select! {
            said = tokio::task::spawn_blocking(ask) => {
                said.map(Some).map_err(|error| Error::Thread(error.to_string()))
            }
            () = self.stop.cancelled() => Ok(None),
        }
    }
}

/// Whether an action uses the network.
fn transfers(action: &Action) -> bool {
    match action {
        Action::Send(_) | Action::Renew { .. } | Action::LoadPlan(_) | Action::Load { .. } => true,
        Action::Sleep(_)
        | Action::RecordFound(_)
        | Action::Install(_)
        | Action::Train(_)
        | Action::Charge(_)
        | Action::RecordDraws(_)
        | Action::RecordLog(_)
        | Action::RecordSignature(_)
        | Action::RecordAnswer(_) => false,
    }
}

/// A generator with a key from the system, wiped when it is dropped. The system itself is five times slower, and
/// the noise of an update takes megabytes.
pub(super) fn generator() -> ChaCha20Rng {
    let mut key = Zeroizing::new([0; 32]);
    UnwrapErr(SysRng).fill_bytes(key.as_mut_slice());
    ChaCha20Rng::from_seed(*key)
}
