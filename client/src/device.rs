//! A device of a federation, for the program that holds it.

mod asks;
mod base;
mod base_fetch;
mod clock;
mod coming_bases;
mod fetch;
mod forget;
mod install;
mod live;
mod memory;
mod meter;
mod once;
mod outage;
mod perform;
mod permits;
mod problems;
mod renew;
mod run;
mod seen;
mod train;
mod unwritten;
mod waits;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::ids::{DeviceId, Digest, TaskId};
use proto::message::{Published, Rejection};
use proto::token::BootstrapToken;
use serde::{Deserialize, Serialize};
use session::LogPolicy;
use session::conditions::Conditions;
use session::policy::Policy;
use shell::proxy::Proxy;
use tokio_util::sync::CancellationToken;

use crate::coordinator_clock::Answered;
use crate::enrollment::{enroll, enrolled_as, enrolled_with, load};
use crate::enrollment_log::{self, VerifiedLog};
use crate::error::Error;
use crate::monitor::DeviceMonitor;
use crate::store::{Declined, DeviceStore, TurnedAway};
use crate::tpm::Tpm;
use crate::trainer::Trainer;
use crate::transport::TransportError;
use live::{Ask, Live};
use run::{Running, When};

pub use clock::uptime;
pub use forget::Forgotten;
pub use live::{Control, Now, Preemption};
pub use run::Finished;

/// A device and its folder: keys, ledger, the version that it holds.
///
/// A host program opens one, enrolls it once with a token, and lets it run whenever it has time to lend. One program at
/// a time holds a folder.
#[derive(Debug)]
pub struct Device {
    folder: PathBuf,
    store: DeviceStore,
    control: Control,
    proxy: Proxy,
}

/// What a device runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the coordinator is, `host:port`, if not where the token said.
    pub coordinator: Option<String>,
    /// The device's own limits, which no coordinator can lift.
    pub policy: Policy,
    /// When it may train.
    pub conditions: Conditions,
    /// Whether the person at the keyboard said to train whatever the conditions are.
    pub override_conditions: bool,
    /// Whether to end when one round with this device in it was published, or the task is over.
    pub once: bool,
}

/// What a device is and holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name; none where it is not enrolled.
    pub device: Option<DeviceId>,
    /// How long its certificate lasts; none where it is not enrolled.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// The version that it holds of each task.
    pub installed: Vec<Published>,
    /// Why it does not take part in what its coordinator offered last, if it does not.
    pub declined: Option<Declined>,
    /// Rounds that the coordinator charged and this folder did not know of.
    pub charges_found_at_coordinator: u32,
    /// The tasks that its user left.
    pub forgotten: BTreeSet<TaskId>,
    /// How the coordinator's operator calls it; empty where that is not known.
    #[serde(default)]
    pub label: String,
    /// Where its coordinator is, as the token said; none where it is not enrolled.
    #[serde(default)]
    pub coordinator: Option<String>,
    /// The names of the tasks that it heard of last.
    #[serde(default)]
    pub names: BTreeMap<TaskId, String>,
    /// Since when and why its coordinator does not take it any more, where that is so.
    #[serde(default)]
    pub turned_away: Option<TurnedAway>,
    /// Until when its user paused it, in milliseconds since 1970; `u64::MAX` is until they resume it.
    #[serde(default)]
    pub paused_until: Option<u64>,
}

/// The certificate by which a device connects, and the credential beside it, which end together. In milliseconds since
/// 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its last moment.
    pub ends: u64,
    /// From when on the device asks for the next one.
    pub renewal_due: u64,
}

impl Status {
    /// By what is durable.
    fn of(store: &DeviceStore) -> Result<Self, Error> {
        let enrolled = enrolled_as(store)?;
        let who = enrolled_with(store)?;
        Ok(Self {
            label: who.as_ref().map_or(String::new(), |(label, _)| label.clone()),
            coordinator: who.map(|(_, coordinator)| coordinator),
            names: store.task_names()?.into_iter().collect(),
            device: enrolled.map(|(device, _)| device),
            certificate: enrolled.map(|(device, lifetime)| Certificate {
                ends: lifetime.expires_unix_secs.saturating_mul(1000),
                renewal_due: lifetime.renewal_due(device).0,
            }),
            installed: store.installed(),
            declined: store.declined()?,
            charges_found_at_coordinator: store.found_at_coordinator(),
            forgotten: forget::forgotten(store)?,
            turned_away: store.turned_away()?,
            paused_until: live::paused_until(&store.state())?.map(|until| until.0),
        })
    }
}

impl Device {
    /// Opens the device's folder, or makes it. Fails where another program holds it, where it is not the owner's alone,
    /// and where its ledger is not whole.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let store = DeviceStore::open(folder)?;
        let live = Arc::new(Live::open(&store)?);
        live.keeps(&store)?;
        Ok(Self { folder: folder.to_owned(), store, control: Control { live }, proxy: Proxy::from_env() })
    }

    /// The same device, which keeps at most so many MiB of what it fetched.
    #[must_use]
    pub fn with_cache_mib(self, most_mib: u64) -> Self {
        Self { store: self.store.with_cache_mib(most_mib), ..self }
    }

    /// The same device, whose installed versions, of all tasks, take at most so many MiB.
    #[must_use]
    pub fn with_installed_mib(self, most_mib: u64) -> Self {
        Self { store: self.store.with_installed_mib(most_mib), ..self }
    }

    /// The same device, which reaches its coordinator through this proxy; otherwise as the environment says.
    #[must_use]
    pub fn with_proxy(self, proxy: Proxy) -> Self {
        Self { proxy, ..self }
    }

    /// What tells what the device does, and tells it what its user wants, while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Leaves a task: it is neither trained nor installed any more, and what is there of it is deleted, but for the
    /// ledger, which says what was spent.
    pub fn forget(&self, task: TaskId) -> Result<Forgotten, Error> {
        let forgotten = forget::forget(&self.store, task)?;
        self.control.live.note("forgot", &format!("task {task}"));
        Ok(forgotten)
    }

    /// Takes part in a task again that was forgotten. Returns whether it was.
    pub fn rejoin(&self, task: TaskId) -> Result<bool, Error> {
        forget::rejoin(&self.store, task)
    }

    /// Uses a token up to become one of a coordinator's devices. The keys are made here and never leave.
    ///
    /// `coordinator` is where it is, `host:port`, if not where the token says. What an earlier enrolment was training is
    /// deleted.
    pub async fn enroll(&self, token: &BootstrapToken, coordinator: Option<&str>) -> Result<DeviceId, Error> {
        self.enroll_attested(token, coordinator, None).await
    }

    /// The same, showing what this machine's TPM says of it, where one is given: some coordinators ask for it.
    pub async fn enroll_attested(
        &self,
        token: &BootstrapToken,
        coordinator: Option<&str>,
        tpm: Option<&Tpm>,
    ) -> Result<DeviceId, Error> {
        let device = enroll(&self.folder, &self.store, token, (coordinator, &self.proxy), tpm).await?;
        self.store.checkpoint().delete("the device was enrolled anew");
        self.store.is_taken()?;
        self.control.live.note("enrolled", &format!("as {device}"));
        Ok(device)
    }

    /// Does what its user asks of it by [`Self::control`], for as long as it does not run; never ends.
    pub async fn answers(&self) -> Infallible {
        loop {
            self.control.live.asked.notified().await;
            for ask in self.control.live.asks() {
                match ask {
                    Ask::Forget(task, answer) => drop(answer.send(self.forget(task))),
                    Ask::Rejoin(task, answer) => drop(answer.send(self.rejoin(task))),
                }
                if let Err(error) = self.control.live.keeps(&self.store) {
                    tracing::warn!("what was asked for is done, and cannot be told: {error}");
                }
            }
        }
    }

    /// Takes part until `stop` is cancelled, or, if it runs once, until one round is over.
    ///
    /// A device that runs once waits for work and for others to fill a round, however long that takes; it fails where its
    /// coordinator answers nothing for half a minute, where there is no text, and where its limits forbid to take part.
    /// One that does not waits for all of these.
    ///
    /// Trains only while what `monitor` sees satisfies the conditions, and sends nothing but requests and masked, noised
    /// inputs. What it spends is in the ledger before it leaves. A monitor that says nothing for half a minute knows
    /// nothing. Dropping the future stops a training at its next micro-batch; the folder is free when it has left.
    pub async fn run(
        self,
        trainer: impl Trainer,
        monitor: impl DeviceMonitor,
        settings: Settings,
        stop: CancellationToken,
    ) -> Result<Finished, Error> {
        let Settings { coordinator, policy, conditions, override_conditions, once } = settings;
        let enrolled =
            load(&self.folder, &self.store, (coordinator.as_deref(), &self.proxy), trainer.bases(), policy)?;
        let when = When { conditions, override_conditions, once };
        let (trainer, monitor) = (Arc::new(trainer), Arc::new(monitor));
        let running = Running::new(enrolled, self.store, trainer, monitor, when, (self.control.live, stop))?;
        // What a device does is much to carry about for whoever holds this.
        Box::pin(running.run()).await
    }

    /// Asks the coordinator, at `coordinator` if not where the token said, something that changes nothing, as this device.
    /// Returns when it answered and what its clock says; fails where it cannot be reached, or does not take this device.
    pub async fn reach(&self, coordinator: Option<&str>) -> Result<Answered, Error> {
        let way = (coordinator, &self.proxy);
        let enrolled = load(&self.folder, &self.store, way, Vec::new(), Policy::default())?;
        let mut transport = enrolled.transport;
        // No base has this digest, and every coordinator says so to its devices.
        match transport.describe_base(Digest([0; 32])).await {
            Ok(_) | Err(TransportError::Rejected(Rejection::UnknownArtifact)) => {}
            Err(error) => return Err(error.into()),
        }
        transport
            .answered()
            .ok_or_else(|| Error::Coordinator("the coordinator's answer says no time".to_owned()))
    }

    /// Reads all of the log of its enrollment authority, at `coordinator` if not where the token said, and looks at every
    /// entry. What it has seen of the log is kept, and a log that does not go on from it is told.
    pub async fn verify_log(
        &self,
        coordinator: Option<&str>,
        policy: &LogPolicy,
    ) -> Result<VerifiedLog, Error> {
        let way = (coordinator, &self.proxy);
        let enrolled = load(&self.folder, &self.store, way, Vec::new(), Policy::default())?;
        enrollment_log::verify(enrolled, &self.store, policy, clock::now()).await
    }

    /// Forgets what it has seen of the log of its enrollment authority: for a user who knows why the log is another one now,
    /// such as that the coordinator came back from a backup.
    pub fn forget_log(&self) -> Result<(), Error> {
        self.store.put_seen_log(None)?;
        self.control.live.note("forgot", "what it had seen of the enrollment log");
        Ok(())
    }

    /// What it is and holds.
    pub fn status(&self) -> Result<Status, Error> {
        Status::of(&self.store)
    }

    /// The folders of the bases that came from the coordinator, which a trainer may train on.
    pub fn fetched_bases(&self) -> Vec<PathBuf> {
        let bases = self.store.bases();
        bases.whole().into_iter().map(|base| bases.path(base)).collect()
    }

    /// The version that it holds of each task; their files are in the folder, below `installed/TASK/VERSION`.
    pub fn installed(&self) -> Vec<Published> {
        self.store.installed()
    }

    /// What it keeps: above all its ledger.
    pub fn store(&self) -> &DeviceStore {
        &self.store
    }

    /// Deletes what an interrupted training has come to, because of this.
    pub fn forget_training(&self, why: &'static str) {
        self.store.checkpoint().clean_up();
        self.store.checkpoint().delete(why);
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contributed(published) => {
                write!(f, "contributed to version {}, which is installed", published.version)
            }
            Self::NoMoreWork => f.write_str("there is no more work"),
            Self::NewBase(base) => write!(f, "the base {base} has come"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}
