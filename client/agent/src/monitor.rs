//! What the machine says of its power, its users, its network, its heat and its load.
//!
//! [`ThisMachine`] asks the system that it runs on: on Linux the files below `/proc`, `/sys` and `/dev` and the services
//! on the system bus, elsewhere what that system has. What no source tells is unknown, with the reason; [`advice`] says
//! what a user can do about it.

mod advice;
#[cfg(any(target_os = "macos", test))]
mod apple_tools;
#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "windows")))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "windows")]
mod windows;

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "windows")))]
use elsewhere as system;
#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;
#[cfg(target_os = "windows")]
use windows as system;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::DeviceMonitor;
use session::conditions::Snapshot;
use tokio::sync::Notify;

pub use advice::{advice, untold};

/// Where the machine is asked. Systems other than Linux have one place each, and need none of this.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What has `proc`, `sys`, `dev` and `run` in it: `/` on a real machine.
    pub root: PathBuf,
    /// The bus on which the services are.
    pub bus: BusAddress,
    /// How long to wait before a bus that is not there is tried again; each failure doubles it, up to five minutes.
    pub retry: Duration,
}

/// A message bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusAddress {
    /// The system's, wherever `DBUS_SYSTEM_BUS_ADDRESS` or the standard says it is.
    System,
    /// The one at this D-Bus address, as `unix:path=/run/dbus/system_bus_socket`.
    At(String),
    /// None: only files are read.
    None,
}

impl Sources {
    /// The machine's own files and its system bus, tried again after five seconds.
    pub fn of_this_machine() -> Self {
        Self { root: PathBuf::from("/"), bus: BusAddress::System, retry: Duration::from_secs(5) }
    }
}

/// The machine that this program runs on.
///
/// It follows the services on the bus until it is dropped. Where it is started inside a tokio runtime of several threads
/// it does that there, and knows nothing of the bus any more once that runtime is gone; elsewhere on a thread of its own.
#[derive(Debug)]
pub struct ThisMachine(system::Machine);

impl ThisMachine {
    /// Begins to follow what the sources say, and returns at once.
    pub fn start(sources: Sources) -> Self {
        Self(system::Machine::start(sources))
    }
}

impl DeviceMonitor for ThisMachine {
    /// The first look takes half a second, to see how busy the machine is; later ones return at once and tell how busy
    /// it was since the one before, if that was a second ago or more.
    fn look(&self) -> Snapshot {
        self.0.look()
    }

    /// Notified, with a permit that waits for whoever comes next, when a service on the bus says something new.
    fn changes(&self) -> Option<Arc<Notify>> {
        self.0.changes()
    }
}
