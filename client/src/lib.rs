//! The device: takes part in a federation for its user, without showing anybody what they wrote.
//!
//! A host program opens a [`Device`], enrolls it, and lends it time: [`Device::run`] with a [`Trainer`] that learns from
//! the user's text and a [`DeviceMonitor`] that says when the machine is idle. What decides is a pure machine,
//! `nightshift-session`; what computes is `nightshift-engine`, which [`InProcess`] puts behind the trait. Here is what
//! talks ([`transport`], [`enrollment`], and to this machine's TPM [`tpm`]), what keeps ([`store`], [`keys`]), and what gives adapters to other
//! programs and takes theirs ([`adapter_files`]).
//!
//! It deliberately has no command line and no configuration file, and does not decide what happens next. Of the user's
//! text only the trainer sees anything. Start at [`Device`].
//!
//! A host program that lends its idle time:
//!
//! ```no_run
#![doc = include_str!("../examples/lend_idle_time.rs")]
//! ```
//!
//! Training alone, without any federation:
//!
//! ```no_run
#![doc = include_str!("../examples/train_alone.rs")]
//! ```

use proto::files;

// What a host program needs beside the door.
pub use {engine, session, text};

/// The words of plans and adapters, as both sides use them.
pub mod words {
    pub use proto::{adapter, ids, message, plan, training};
}

pub mod adapter_files;
mod coordinator_clock;
mod device;
pub mod enrollment;
mod enrollment_log;
mod error;
pub mod keys;
mod locked;
mod monitor;
pub mod store;
pub mod tpm;
mod trainer;
pub mod transport;

pub use coordinator_clock::Answered;
pub use device::{
    Certificate, Control, Device, Finished, Forgotten, Now, Preemption, Settings, Status, uptime,
};
pub use enrollment_log::VerifiedLog;
pub use error::{Error, ErrorKind};
pub use monitor::DeviceMonitor;
pub use shell::proxy::Proxy;
pub use trainer::{InProcess, LocalEnd, NoData, Recorder, Trainer};
pub use trainer::{TrainerError, TrainerFault, TrainingEnd, TrainingJob};
