//! `nightshift-agent run`: the device takes part with the bases that are here, while others are fetched.
#![expect(clippy::disallowed_methods, reason = "IO shell: commands are answered beside the device")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Device, Finished, NoData, Settings};
use engine::Repository;
use proto::shown::shown;
use shell::cli::note;
use shell::notify::Notifier;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Failure, device_failure, failed, is_in_use, opened};
use crate::bases::{self, Bases, CannotCome, Come, Network};
use crate::config::Config;
use crate::control;
use crate::monitor::{Sources, ThisMachine};
use crate::trainer::{ChildTrainer, StartError, TrainerSettings};

/// When a base is read again that came and cannot be used.
const UNUSABLE: Duration = Duration::from_secs(60);

/// The first wait for a state that cannot be opened, doubled up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What a daemon runs with.
pub(super) struct Daemon<'a> {
    config: &'a Config,
    once: bool,
    network: Network,
    stop: &'a CancellationToken,
}

/// Whether a daemon has begun before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    First,
    Again,
}

/// For as long as the bases that are here stay the same.
struct Turn {
    /// Absent where no base is here that can be used, and one is still to come.
    trainer: Option<ChildTrainer>,
    missing: Vec<Repository>,
    /// Where bases of the user's own are to be and are not yet.
    absent: Vec<PathBuf>,
    /// Whether one that came cannot be used, as where it is not whole yet: it is read again later.
    is_unusable: bool,
    stop: CancellationToken,
    answering: Option<JoinHandle<()>>,
}

impl<'a> Daemon<'a> {
    pub(super) fn new(
        config: &'a Config,
        (once, overridden): (bool, bool),
        sources: Sources,
        stop: &'a CancellationToken,
    ) -> Self {
        if overridden {
            note(
                "conditions are overridden: this device trains even on battery, in use, or hot, because you said so",
            );
        }
        let monitor = Arc::new(ThisMachine::start(sources));
        Self {
            config,
            once,
            network: Network { monitor, limits: config.conditions.clone(), overridden },
            stop,
        }
    }

    /// Runs the device until it is told to stop, or, if it runs once, until one round is over. Its manager is told that it
    /// is ready when the bases that are here have been read.
    ///
    /// Whenever a base has come that was not here, and the device is not at work on a version, it begins anew with it.
    pub(super) async fn run(
        &self,
        device: Device,
        manager: &Notifier,
        says: &str,
    ) -> Result<Finished, Failure> {
        let turn = self.begin(&device, &[], Begins::First).await?;
        let turns = self.turns(device, turn);
        Box::pin(manager.served(says, self.stop, || std::future::ready(()), turns)).await
    }

    async fn turns(&self, mut device: Device, mut turn: Turn) -> Result<Finished, Failure> {
        // One that has come and is not found all the same is not fetched for ever.
        let mut come = Vec::new();
        loop {
            let finished = match turn.trainer.take() {
                Some(trainer) => self.take_part(&turn, device, trainer, &mut come).await,
                None => self.wait_for_a_base(&turn, device, &mut come).await,
            };
            turn.end().await;
            match finished? {
                Finished::NewBase(_) => {}
                Finished::Stopped if !self.stop.is_cancelled() => {}
                finished @ (Finished::Stopped | Finished::Contributed(_) | Finished::NoMoreWork) => {
                    return Ok(finished);
                }
            }
            let Some(again) = self.opened_again().await? else { return Ok(Finished::Stopped) };
            device = again;
            turn = self.begin(&device, &come, Begins::Again).await?;
        }
    }

    /// The device for the next turn; its disk may be full of what has come. Nothing where the daemon is told to stop.
    async fn opened_again(&self) -> Result<Option<Device>, Failure> {
        let mut wait = FIRST_WAIT;
        loop {
            match Device::open(&self.config.state_dir) {
                // A command that looks into the folder has it open for a moment, which is no matter of the disk.
                Err(error) if error.may_pass() && !self.once && !is_in_use(&error) => {
                    if wait == FIRST_WAIT {
                        tracing::warn!(
                            "its state cannot be opened; it is tried again with growing waits: {error}"
                        );
                    }
                }
                other => {
                    drop(other);
                    return opened(self.config).await.map(Some);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = LONGEST_WAIT.min(2 * wait),
                () = self.stop.cancelled() => return Ok(None),
            }
        }
    }

    /// Looks what is here, answers commands from now on, and reads the bases.
    ///
    /// A base that is not there yet is waited for, but by a device that runs once.
    async fn begin(&self, device: &Device, come: &[Repository], begins: Begins) -> Result<Turn, Failure> {
        let stop = self.stop.child_token();
        let answering = answer_commands(&self.config.state_dir, device, &stop);
        let control = device.control();
        if self.config.data.is_empty() {
            device.forget_training("there is no text any more");
            return Err(failed(3)(StartError::from(NoData).into()));
        }
        let Bases { mut here, mut missing } =
            Bases::find(&self.config.sources(), &bases::hub(&self.config.state_dir));
        let absent = if self.once { Vec::new() } else { bases::absent(&here) };
        here.retain(|path| !absent.contains(path));
        here.extend(device.fetched_bases());
        for path in &absent {
            let waits = format!(
                "waiting for the base {}: it is not there; put it there, or name another by `base`",
                shown(&path.to_string_lossy())
            );
            tracing::warn!("{waits}");
            control.failed(&waits);
        }
        missing.retain(|repository| {
            if come.contains(repository) {
                control.failed(&format!("{repository} was fetched and is not found; it is left out"));
            }
            !come.contains(repository)
        });
        control.prepares("reading its bases");
        let from_coordinator = self.config.policy.coordinator_bases_mib > 0;
        let mut is_unusable = false;
        let trainer = if here.is_empty() && !missing.is_empty() {
            None
        } else if here.is_empty() && !absent.is_empty() {
            from_coordinator.then(|| ChildTrainer::without_base(TrainerSettings::of(self.config, Vec::new())))
        } else {
            tokio::select! {
                started = start(self.config, here, self.once) => match started {
                    Ok(trainer) => Some(trainer),
                    Err(error @ StartError::Unusable(_)) if !missing.is_empty() => {
                        control.failed(&error.to_string());
                        None
                    }
                    // A base that a task needs comes from the coordinator.
                    Err(error @ StartError::Unusable(_)) if from_coordinator => {
                        control.failed(&error.to_string());
                        Some(ChildTrainer::without_base(TrainerSettings::of(self.config, Vec::new())))
                    }
                    // One that came while the daemon ran may not be whole yet.
                    Err(error @ StartError::Unusable(_)) if begins == Begins::Again && !self.once => {
                        tracing::warn!("{error}; it is read again in {} s", UNUSABLE.as_secs());
                        control.failed(&error.to_string());
                        is_unusable = true;
                        None
                    }
                    Err(error) => return Err(failed(3)(error.into())),
                },
                () = stop.cancelled() => None,
            }
        };
        for why in trainer.iter().flat_map(ChildTrainer::left_out) {
            control.failed(why);
        }
        Ok(Turn { trainer, missing, absent, is_unusable, stop, answering })
    }

    /// Runs the device; ends it when a further base has come.
    async fn take_part(
        &self,
        turn: &Turn,
        device: Device,
        trainer: ChildTrainer,
        come: &mut Vec<Repository>,
    ) -> Result<Finished, Failure> {
        let settings = Settings {
            coordinator: self.config.coordinator.clone(),
            policy: self.config.policy.clone(),
            conditions: self.config.conditions.clone(),
            override_conditions: self.network.overridden,
            once: self.once,
        };
        let control = device.control();
        let monitor = Arc::clone(&self.network.monitor);
        let mut running = Box::pin(device.run(trainer, monitor, settings, turn.stop.clone()));
        // One round is one round, whatever comes from the hub meanwhile.
        if self.once {
            return running.await.map_err(device_failure);
        }
        let fetching = self.fetch(turn, control.clone(), Come::Beside);
        tokio::select! {
            finished = &mut running => return finished.map_err(device_failure),
            fetched = fetching => come.extend(fetched?),
            () = turn.base_appears() => {}
        }
        control.leave_when_free();
        running.await.map_err(device_failure)
    }

    /// Does nothing but fetch, until one base is here.
    async fn wait_for_a_base(
        &self,
        turn: &Turn,
        device: Device,
        come: &mut Vec<Repository>,
    ) -> Result<Finished, Failure> {
        let how = if self.once { Come::AtOnce } else { Come::Alone };
        let control = device.control();
        if let (Some(path), []) = (turn.absent.first(), turn.missing.as_slice()) {
            control.prepares(&format!(
                "waiting for the base {}: it is not there",
                shown(&path.to_string_lossy())
            ));
        }
        tokio::select! {
            fetched = self.fetch(turn, control, how) => come.extend(fetched?),
            () = turn.base_appears() => {}
            never = device.answers() => match never {},
            () = turn.stop.cancelled() => {}
        }
        Ok(Finished::Stopped)
    }

    /// The next of the missing bases that has come; never where there is none.
    async fn fetch(
        &self,
        turn: &Turn,
        control: client::Control,
        how: Come,
    ) -> Result<Option<Repository>, Failure> {
        if turn.missing.is_empty() {
            return std::future::pending().await;
        }
        let hub = bases::hub(&self.config.state_dir);
        let fetched =
            bases::fetch(turn.missing.clone(), hub, (&self.network, how), control, turn.stop.clone());
        fetched.await.map_err(|error| match error {
            CannotCome::Conditions(_) => failed(7)(error.into()),
            CannotCome::Fetch(_) => failed(3)(error.into()),
        })
    }
}

impl Turn {
    /// Waits until a base of the user's own is there that was not, or is to be read again.
    async fn base_appears(&self) {
        tokio::select! {
            () = bases::appear(&self.absent) => {}
            () = tokio::time::sleep(UNUSABLE), if self.is_unusable => {}
        }
    }

    /// Nobody is answered by it any more.
    async fn end(self) {
        self.stop.cancel();
        if let Some(answering) = self.answering {
            drop(answering.await);
        }
    }
}

/// The trainer, on a thread that may wait for it to read the bases. Who runs once is told at once that there is no text,
/// and not only when there is work.
async fn start(config: &Config, here: Vec<PathBuf>, once: bool) -> Result<ChildTrainer, StartError> {
    let settings = TrainerSettings::of(config, here);
    let started = tokio::task::spawn_blocking(move || {
        let trainer = ChildTrainer::start(settings)?;
        if once {
            trainer.look_at_text()?;
        }
        Ok(trainer)
    })
    .await;
    let trainer = started.unwrap_or_else(|error| Err(StartError::Unusable(error.to_string())))?;
    tracing::info!(device = %trainer.device(), "trains on");
    Ok(trainer)
}

/// Lets other commands ask and tell this daemon. Where that cannot be, they say so, and the device runs all the same.
fn answer_commands(state_dir: &Path, device: &Device, stop: &CancellationToken) -> Option<JoinHandle<()>> {
    match control::serve(state_dir, device.control(), stop.clone()) {
        Ok(serving) => Some(tokio::spawn(serving)),
        Err(error) => {
            tracing::warn!(
                "commands cannot reach this agent while it runs, because {} cannot be made: {error}",
                control::socket(state_dir).display()
            );
            None
        }
    }
}
