//! The operator's terminal, `nightshift`: tasks, devices, privacy and models of a coordinator.
//!
//! A command is a file below `commands`. Most ask a running coordinator, over a connection that [`client`] makes;
//! `nightshift up` runs one in this process. What a plan needs to know of a base, [`formats::BaseInfo`] reads.
//!
//! `nightshift eval` measures versions on the operator's own text, by the engine and the reader of devices.
//!
//! This package names the coordinator, for its configuration, its certificates and its server; the coordinator does not
//! name this one. It holds no state but what is in the operator's folder. Start at [`run`].
//!
//! An operator's script:
//!
//! ```no_run
#![doc = include_str!("../examples/tasks.rs")]
//! ```

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;
pub use coordinator;

/// The words of tasks, as the coordinator uses them too.
pub mod words {
    pub use proto::{admin, ids, message};
}

pub mod admin_channel;
mod base_source;
mod bases;
pub mod client;
mod commands;
mod connection;
mod error;
mod evals;
mod output;

/// All that can be typed to `nightshift`, for manual pages and completions.
pub fn command() -> clap::Command {
    commands::Arguments::command()
}

/// Runs `nightshift` with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    coordinator::cli::program(arguments, commands::operate)
}
