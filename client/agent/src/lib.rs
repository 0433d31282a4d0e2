//! The device's daemon and its command line.
//!
//! [`cli`] is what people type, [`config`] the file that they write, [`monitor`] what the machine says of its power,
//! heat and load. What a device does is in the package `nightshift-client`.

pub mod cli;
pub mod config;
pub mod monitor;
