//! `nightshift-agent run`: the device takes part with the bases that are here, while others are fetched.
#![expect(clippy::disallowed_methods, reason = "IO shell: commands are answered beside the device")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::{Device, DeviceMonitor, Finished, Settings};
use engine::Repository;
use shell::cli::note;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Failure, device_failure, failed, opened};
use crate::bases::{self, Bases, Network};
use crate::config::Config;
use crate::control;
use crate::monitor::{Sources, ThisMachine};
use crate::trainer::{ChildTrainer, StartError, TrainerSettings};

/// Runs the device until it is told to stop, or, if it runs once, until one round is over. Whenever a base has come that
/// was not here it begins anew; a training that is under way goes on where it was.
pub(super) async fn run(
    mut device: Device,
    config: &Config,
    (once, override_conditions): (bool, bool),
    sources: Sources,
    stop: &CancellationToken,
) -> Result<Finished, Failure> {
    if override_conditions {
        note(
            "conditions are overridden: this device trains even on battery, in use, or hot, because you said so",
        );
    }
    let monitor: Arc<dyn DeviceMonitor> = Arc::new(ThisMachine::start(sources));
    let network = Network {
        monitor: Arc::clone(&monitor),
        limits: config.conditions.clone(),
        overridden: override_conditions,
    };
    let hub = bases::hub(&config.state_dir);
    let mut fetched: Vec<Repository> = Vec::new();
    loop {
        let turn = stop.child_token();
        let answering = answer_commands(&config.state_dir, &device, &turn);
        let Bases { here, missing } = Bases::find(&config.sources(), &hub);
        if let Some(lost) = missing.iter().find(|repository| fetched.contains(repository)) {
            let why = anyhow::anyhow!(
                "{lost} was fetched and is not in {} now",
                config.state_dir.join("hub").display()
            );
            return Err(failed(4)(why));
        }
        let alone = here.is_empty();
        let fetch =
            bases::fetch(missing.clone(), hub.clone(), network.clone(), device.control(), turn.clone());
        if alone && !missing.is_empty() {
            device.control().prepares("fetching its base");
            fetch.await;
            fetched.extend(missing);
            end(turn, answering).await;
            if stop.is_cancelled() {
                return Ok(Finished::Stopped);
            }
            drop(device);
            device = opened(config).await?;
            continue;
        }
        device.control().prepares("reading its bases");
        let trainer = trainer(config, &device, here).await?;
        let settings = Settings {
            coordinator: config.coordinator.clone(),
            policy: config.policy.clone(),
            conditions: config.conditions.clone(),
            override_conditions,
            once,
        };
        let running = device.run(trainer, Arc::clone(&monitor), settings, turn.clone());
        let come = async {
            if missing.is_empty() {
                std::future::pending::<()>().await;
            }
            fetch.await;
            turn.cancel();
            std::future::pending::<Result<Finished, client::Error>>().await
        };
        let finished = tokio::select! {
            finished = Box::pin(running) => finished,
            finished = come => finished,
        };
        end(turn, answering).await;
        let finished = finished.map_err(device_failure)?;
        if finished != Finished::Stopped || stop.is_cancelled() {
            return Ok(finished);
        }
        fetched.extend(missing);
        device = opened(config).await?;
    }
}

/// The trainer, on a thread that may wait for it to read the bases.
async fn trainer(config: &Config, device: &Device, here: Vec<PathBuf>) -> Result<ChildTrainer, Failure> {
    let settings = TrainerSettings::of(config, here);
    let started = tokio::task::spawn_blocking(|| ChildTrainer::start(settings)).await;
    let trainer = started.unwrap_or_else(|error| Err(StartError::Unusable(error.to_string())));
    let trainer = trainer.map_err(|error| {
        if matches!(error, StartError::NoData(_)) {
            device.forget_training("there is no text any more");
        }
        failed(3)(error.into())
    })?;
    tracing::info!(device = %trainer.device(), "trains on");
    Ok(trainer)
}

/// Lets other commands ask and tell this daemon. Where that cannot be, they say so, and the device runs all the same.
fn answer_commands(state_dir: &Path, device: &Device, turn: &CancellationToken) -> Option<JoinHandle<()>> {
    match control::serve(state_dir, device.control(), turn.clone()) {
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

/// Ends a turn: nobody is answered by it any more.
async fn end(turn: CancellationToken, answering: Option<JoinHandle<()>>) {
    turn.cancel();
    if let Some(answering) = answering {
        drop(answering.await);
    }
}
