//! The device: trains an adapter on its user's text and contributes it without showing it.
//!
//! [`session`] is a pure machine: it decides. [`policy`] holds the device's own limits, [`spending`] what
//! its ledger says was spent, [`contribution`] is the
//! one place where an update becomes something that may be sent, [`train`] is the only place that touches
//! tensors. The rest is the shell: [`agent`] performs what the machine decides, [`transport`] talks,
//! [`conditions`] says when it may train, [`adapter_files`] gives adapters to other programs and takes theirs. Start at
//! [`session::Session`].

use proto::files;

pub mod adapter_files;
pub mod agent;
pub mod cli;
pub mod conditions;
pub mod config;
pub mod contribution;
pub mod enrolment;
pub mod keys;
mod locked;
pub mod policy;
pub mod process;
pub mod session;
pub mod spending;
pub mod store;
pub mod tls;
pub mod token;
pub mod transport;
pub mod update;
