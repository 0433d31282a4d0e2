//! The device's shell: performs what its machine decides. It reads the clock, draws randomness, talks and keeps;
//! [`train`](super::train) lends the machine to a training, [`window`](super::window) says when.

use std::sync::Arc;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use engine::process::available_bytes;
use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::Published;
use rand::rngs::SysRng;
use rand_core::{Rng, SeedableRng, UnwrapErr};
use session::conditions::{Conditions, in_words};
use session::policy::{Breach, Policy};
use session::{Action, Event, Session, SessionState, Work};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::clock::{StepDetector, now, uptime};
use super::coming_bases::ComingBases;
use super::forget;
use super::live::{Ask, Live};
use super::meter::Meter;
use super::waits::{Heard, Unanswered, Waits};
use super::window::Watching;
use crate::enrollment::EnrolledDevice;
use crate::error::Error;
use crate::monitor::DeviceMonitor;
use crate::store::{DeviceStore, DeviceStoreError};
use crate::trainer::Trainer;
use crate::transport::Transport;

/// The longest sleep without a look at the clock: one that was set, or a machine that slept, is noticed.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// When this device took part in drawing a graph, in its state.
const DRAWN: &str = "drawn";

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
    contributed: Option<(TaskId, u32)>,
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
        let meter = Meter::open(store.folder().to_owned(), store.state(), transport.carried());
        let meter = Arc::new(meter.map_err(DeviceStoreError::from)?);
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
            // A state whose last write failed keeps nothing any more: the device ends before it begins anything, to be
            // started again.
            if self.session.at_work_on().is_none() {
                self.store.check_state()?;
            }
            if self.when.once
                && let Some(finished) = self.finished()
            {
                return Ok(finished);
            }
            self.answer();
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
            let event = match action {
                Action::Sleep(until) => match self.sleep(until).await {
                    Some(event) => event,
                    None => continue,
                },
                Action::Send(request) => {
                    let sent = tokio::select! {
                        sent = self.transport.send(&request) => sent,
                        () = self.stop.cancelled() => continue,
                    };
                    match sent {
                        Ok(reply) => {
                            tracing::debug!(request = request.name(), reply = reply.name(), "answered");
                            Event::Replied(reply)
                        }
                        Err(error) => self.failure(error),
                    }
                }
                Action::Renew { has_certificate } => {
                    let stop = self.stop.clone();
                    tokio::select! {
                        renewed = self.renew(has_certificate) => renewed?,
                        () = stop.cancelled() => continue,
                    }
                }
                Action::LoadPlan(published) => {
                    self.store.checkpoint().keep_only(&published);
                    self.load_plan(&published).await.unwrap_or_else(|error| self.failure(error))
                }
                // Nothing is held of a version while there is no window to train it in.
                Action::Load { trains: true, .. } if !self.may_train().await? => Event::NoWindow,
                Action::Load { published, frozen, plan, trains, before } => {
                    self.store.name_task(published.task, &plan.name)?;
                    match self.fits(plan, trains).await? {
                        Ok(()) => {
                            let loaded = self.load(published, frozen, before).await;
                            loaded.unwrap_or_else(|error| self.failure(error))
                        }
                        Err(breach) => Event::CannotTrain(breach),
                    }
                }
                Action::RecordFound(found) => {
                    tracing::warn!(
                        task = %self.store.in_words(found.task),
                        times = found.times,
                        "the coordinator charged this device for more rounds than its ledger knows: the folder was \
                         restored from a backup, or the coordinator errs; they are written to the ledger and count"
                    );
                    self.store.charge_found(found, now().0)?;
                    self.live.keeps(&self.store)?;
                    Event::Recorded
                }
                Action::Install(work) => {
                    let stop = self.stop.clone();
                    tokio::select! {
                        installed = self.install(&work) => installed?,
                        () = stop.cancelled() => continue,
                    }
                }
                Action::Train(work) => {
                    self.store.set_declined(None)?;
                    self.train(work).await?
                }
                Action::Charge(charge) => {
                    self.contributed = Some((charge.task, charge.version));
                    self.live.note(
                        "contributes",
                        &format!("version {} of task {}", charge.version, self.store.in_words(charge.task)),
                    );
                    self.store.charge(charge, now().0)?;
                    self.store.set_declined(None)?;
                    self.live.keeps(&self.store)?;
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
            if let Some(lacking) = lacking {
                self.lacks(lacking)?;
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
        let tried = self.unanswered.heard(heard, at).filter(|_| self.when.once);
        tried.map_or(Ok(()), |tried| Err(self.unanswered(heard, tried)))
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

    /// Sleeps until then, but not on when it is told to stop, asked for something, or needed: `None` where it is to be
    /// looked at again what there is to do.
    async fn sleep(&mut self, until: Timestamp) -> Option<Event> {
        let left = until.millis_since(now());
        if left == 0 {
            return Some(Event::Woke);
        }
        let awaits = self.session.state() == SessionState::AwaitingWindow;
        let (stop, live, opens) = (self.stop.clone(), Arc::clone(&self.live), self.watching.open());
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(left).min(LONGEST_NAP)) => None,
            () = stop.cancelled() => None,
            () = live.asked.notified() => None,
            () = opens, if awaits => Some(Event::WindowOpened),
            () = self.bases.news() => None,
        }
    }

    /// Whether a window is open; a device that runs once says why there is none, or waits for the dwell.
    pub(super) async fn may_train(&mut self) -> Result<bool, Error> {
        loop {
            let seen = tokio::select! {
                seen = self.watching.first() => seen,
                () = self.stop.cancelled() => return Ok(false),
            };
            if seen.may_train || !self.when.once {
                return Ok(seen.may_train);
            }
            let blocking = seen.blocking();
            if !blocking.is_empty() {
                return Err(Error::Conditions(blocking));
            }
            tokio::select! {
                () = self.watching.next() => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Whether the network may be used; waits for the next look where it may not.
    async fn may_transfer(&mut self) -> Result<bool, Error> {
        let seen = tokio::select! {
            seen = self.watching.first() => seen,
            () = self.stop.cancelled() => return Ok(false),
        };
        if seen.may_transfer {
            return Ok(true);
        }
        let blocking = in_words(&seen.transfer);
        if self.when.once {
            return Err(Error::Conditions(blocking));
        }
        tracing::debug!(blocking, "waiting to use the network");
        self.live.does("waiting for the network", self.session.at_work_on(), None);
        tokio::select! {
            () = self.watching.next() => {}
            () = self.live.asked.notified() => {}
            () = self.stop.cancelled() => {}
        }
        Ok(false)
    }

    /// Does what the user asked for meanwhile.
    pub(super) fn answer(&mut self) {
        for ask in self.live.asks() {
            match ask {
                Ask::Forget(task, answer) => {
                    let done = forget::forget(&self.store, task);
                    // Whatever could be deleted: it is written down that the task was left.
                    if forget::forgotten(&self.store).is_ok_and(|forgotten| forgotten.contains(&task)) {
                        self.live.note("forgot", &format!("task {task}"));
                        self.session.forget(task);
                        self.bases.forget(task);
                    }
                    let told = self.live.keeps(&self.store);
                    let _gone = answer.send(done.and_then(|done| told.map(|()| done)));
                }
                Ask::Rejoin(task, answer) => {
                    let done = forget::rejoin(&self.store, task);
                    if done.is_ok() {
                        self.session.rejoin(task);
                    }
                    let told = self.live.keeps(&self.store);
                    let _gone = answer.send(done.and_then(|done| told.map(|()| done)));
                }
            }
        }
    }

    /// Keeps a version for the user. What comes out is made on a thread that no request waits for: it may take a
    /// singular value decomposition of every layer.
    async fn install(&self, work: &Arc<Work>) -> Result<Event, Error> {
        let theirs = Arc::clone(work);
        let shipped =
            tokio::task::spawn_blocking(move || theirs.state.shipped(theirs.plan.shipped_rank())).await;
        let shipped = shipped.map_err(|error| Error::Thread(error.to_string()))?;
        let kept = self.store.install_shipped(work, &shipped.map_err(DeviceStoreError::from)?);
        match kept {
            // A full disk is no reason to end: the user hears of it, and it may have room later.
            Err(error) if !self.when.once => {
                let Published { task, version, .. } = work.published;
                return Ok(Event::CannotTrain(Breach::NotKept(format!(
                    "version {version} of task {task}: {error}"
                ))));
            }
            other => other?,
        }
        self.live.keeps(&self.store)?;
        self.live.note(
            "installed",
            &format!(
                "version {} of task {}",
                work.published.version,
                self.store.in_words(work.published.task)
            ),
        );
        Ok(Event::Recorded)
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
        | Action::RecordSignature(_)
        | Action::RecordAnswer(_) => false,
    }
}

/// A generator with a key from the system, wiped when it is dropped. The system itself is five times slower, and
/// the noise of an update takes megabytes.
fn generator() -> ChaCha20Rng {
    let mut key = Zeroizing::new([0; 32]);
    UnwrapErr(SysRng).fill_bytes(key.as_mut_slice());
    ChaCha20Rng::from_seed(*key)
}
