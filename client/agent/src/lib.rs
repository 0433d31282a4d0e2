//! The device's daemon and its command line.
//!
//! [`cli`] is what people type, [`config`] the file that they write, [`control`] how commands reach a daemon that runs,
//! [`monitor`] what the machine says of itself, [`trainer`] the child process in which this device trains, [`service`] how
//! the system starts it.
//!
//! It deliberately does not know how a device takes part, what a training computes or what may be sent: that is in the
//! packages `nightshift-client`, `nightshift-engine` and `nightshift-session`, which it holds for whoever types. Start at
//! [`cli::main`].

mod bases;
pub mod cli;
pub mod config;
pub mod control;
pub mod monitor;
pub mod service;
pub mod trainer;
