//! The coordinator: adds up what devices contribute without reading any one of them.
//!
//! What happens next is decided by the pure machines of the package [`task`]. This is their shell: [`driver`]
//! owns the tasks, [`task::spool`] holds unfinished inputs on disk, [`bases`] has what devices lack, [`service`] is the wire, [`server`] runs both, [`cli`] is
//! what people type. The coordinator never links a tensor library and never holds a contribution that is not masked.
//! Start at [`driver::Driver`].

pub use authority::{kept_log, tokens};
pub use serving::{address, listener, peer, tls};

use serving::{seldom, status};

pub mod artifacts;
pub mod audit;
pub mod bases;
mod census;
mod chunks;
pub mod cli;
pub mod config;
mod dashboard;
pub mod descriptors;
pub mod driver;
pub mod enroller;
pub mod enrollment;
pub mod known;
pub mod last_seen;
pub mod metrics;
pub mod observe;
pub mod offline;
pub mod operators;
pub mod outside;
pub mod pki;
pub mod records;
pub mod revocations;
pub mod roles;
pub mod server;
mod server_certificates;
pub mod service;
pub mod stored;
pub mod traces;
