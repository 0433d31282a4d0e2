//! The coordinator: adds up what devices contribute without reading any one of them.
//!
//! [`task`] and [`round`] are pure machines: they decide. [`optimizer`] turns a mean update into the next
//! version, [`spool`] holds unfinished inputs. The rest is the shell: [`driver`] owns the tasks, [`service`] is
//! the wire, [`server`] runs both, [`cli`] is what people type. The coordinator never links a tensor library and never
//! holds a contribution that is not masked. Start at [`round::Round`].

pub mod admin_channel;
pub mod artefacts;
pub mod base;
pub mod cli;
pub mod config;
pub mod descriptors;
pub mod driver;
pub mod enrolment;
pub mod listener;
pub mod operators;
pub mod optimizer;
pub mod peer;
pub mod pki;
pub mod records;
pub mod revocations;
pub mod round;
mod seldom;
pub mod server;
pub mod service;
pub mod spool;
mod status;
pub mod store;
pub mod task;
pub mod tls;
pub mod tokens;
