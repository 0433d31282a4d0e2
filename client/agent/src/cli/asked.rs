//! Where a command finds the device: in the daemon that runs, or, where none does, in its folder.

use std::path::Path;

use client::store::{Entry, Note};
use client::{Control, Device, Forgotten, Now, Status};
use proto::ids::{TaskId, Timestamp};

use super::known_tasks::KnownTasks;
use super::{Failure, device, device_failure, failed};
use crate::config::Config;
use crate::control::{Answer, Request, ask};

/// A device that commands ask.
pub(super) enum Asked<'a> {
    /// A daemon holds it.
    Daemon(&'a Config),
    /// Nobody does but this command.
    Folder(Box<Device>),
    /// There is none: nothing is made only to say so.
    Nothing,
}

/// What is to be done where there is no device.
pub(super) fn no_device(config: &Config) -> Failure {
    let folder = config.state_dir.display();
    failed(3)(anyhow::anyhow!("there is no device in {folder}; `nightshift-agent enroll` makes one"))
}

/// An answer that does not belong to the request.
fn foreign() -> Failure {
    failed(4)(anyhow::anyhow!("the agent that runs is of another version; restart it"))
}

impl<'a> Asked<'a> {
    /// Looks for a daemon, then for the folder.
    pub(super) fn open(config: &'a Config) -> Result<Self, Failure> {
        match Self::now_of(config)? {
            Some(_) => Ok(Self::Daemon(config)),
            None if !is_device(&config.state_dir) => Ok(Self::Nothing),
            None => Ok(Self::Folder(Box::new(device(config)?))),
        }
    }

    /// The same for who changes something, or tells what a device did: fails where there is no device, of which there is
    /// nothing to tell.
    pub(super) fn open_to_tell(config: &'a Config) -> Result<Self, Failure> {
        match Self::open(config)? {
            Self::Nothing => Err(no_device(config)),
            asked @ (Self::Daemon(_) | Self::Folder(_)) => Ok(asked),
        }
    }

    /// The task that a user means by its id, the beginning of it, or its name.
    pub(super) fn task(&self, named: &str) -> Result<TaskId, Failure> {
        if let Ok(task) = named.parse() {
            return Ok(task);
        }
        let known = KnownTasks::of(&self.status()?, &self.entries()?);
        known.meant(named).map_err(|why| failed(2)(anyhow::anyhow!(why)))
    }

    /// What the daemon of this folder does, where one runs.
    pub(super) fn now_of(config: &Config) -> Result<Option<Now>, Failure> {
        match tell(config, &Request::Now)? {
            Some(Answer::Now(now)) => Ok(Some(*now)),
            Some(_) => Err(foreign()),
            None => Ok(None),
        }
    }

    /// The ledger's records.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, Failure> {
        match self {
            Self::Daemon(config) => match tell(config, &Request::Ledger)? {
                Some(Answer::Ledger(entries)) => Ok(entries),
                Some(_) | None => Err(foreign()),
            },
            Self::Folder(device) => Ok(device.store().entries().to_vec()),
            Self::Nothing => Ok(Vec::new()),
        }
    }

    /// What the device did.
    pub(super) fn journal(&self) -> Result<Vec<Note>, Failure> {
        match self {
            Self::Daemon(config) => match tell(config, &Request::Journal)? {
                Some(Answer::Journal(notes)) => Ok(notes),
                Some(_) | None => Err(foreign()),
            },
            Self::Folder(device) => device.control().journal().map_err(device_failure),
            Self::Nothing => Ok(Vec::new()),
        }
    }

    /// What the device is and holds.
    pub(super) fn status(&self) -> Result<Status, Failure> {
        match self {
            Self::Daemon(config) => match tell(config, &Request::Status)? {
                Some(Answer::Status(status)) => Ok(*status),
                Some(_) | None => Err(foreign()),
            },
            Self::Folder(device) => device.status().map_err(device_failure),
            Self::Nothing => Ok(Status::default()),
        }
    }

    /// Pauses the device until then, or until it is resumed.
    pub(super) fn pause(&self, until: Option<Timestamp>) -> Result<(), Failure> {
        let request = Request::Pause { until: until.map(|until| until.0) };
        self.done(&request, |control| control.pause(until))
    }

    /// Ends a pause.
    pub(super) fn resume(&self) -> Result<(), Failure> {
        self.done(&Request::Resume, Control::resume)
    }

    /// Leaves a task.
    pub(super) fn forget(&self, task: TaskId) -> Result<Forgotten, Failure> {
        match self {
            Self::Daemon(config) => match tell(config, &Request::Forget { task })? {
                Some(Answer::Forgotten(forgotten)) => Ok(forgotten),
                Some(_) | None => Err(foreign()),
            },
            Self::Folder(device) => device.forget(task).map_err(device_failure),
            Self::Nothing => Err(failed(3)(anyhow::anyhow!("there is no device"))),
        }
    }

    /// Takes a task back.
    pub(super) fn rejoin(&self, task: TaskId) -> Result<bool, Failure> {
        match self {
            Self::Daemon(config) => match tell(config, &Request::Rejoin { task })? {
                Some(Answer::Rejoined(was)) => Ok(was),
                Some(_) | None => Err(foreign()),
            },
            Self::Folder(device) => device.rejoin(task).map_err(device_failure),
            Self::Nothing => Err(failed(3)(anyhow::anyhow!("there is no device"))),
        }
    }

    fn done(
        &self,
        request: &Request,
        here: impl FnOnce(&Control) -> Result<(), client::Error>,
    ) -> Result<(), Failure> {
        match self {
            Self::Daemon(config) => match tell(config, request)? {
                Some(Answer::Done) => Ok(()),
                Some(_) | None => Err(foreign()),
            },
            Self::Folder(device) => here(&device.control()).map_err(device_failure),
            Self::Nothing => Err(failed(3)(anyhow::anyhow!("there is no device"))),
        }
    }
}

/// Whether a folder is one that an agent made. A ledger that is gone from it is a fault of which the device tells.
fn is_device(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).exists();
    has("state") && (has("ledger") || has("keys"))
}

fn tell(config: &Config, request: &Request) -> Result<Option<Answer>, Failure> {
    ask(&config.state_dir, request).map_err(|error| failed(4)(error.into()))
}
