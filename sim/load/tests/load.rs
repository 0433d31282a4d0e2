//! The program against a coordinator, over TLS on loopback: what it says is what the coordinator counted.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "the server is a task of its own, and processes are waited for"
)]

#[path = "load/ends.rs"]
mod ends;
#[path = "load/job.rs"]
mod job;
#[path = "load/measured.rs"]
mod measured;
#[path = "load/refused.rs"]
mod refused;
#[path = "load/rounds.rs"]
mod rounds;
#[path = "load/stage.rs"]
mod stage;
#[path = "load/traces.rs"]
mod traces;
#[path = "load/uploads.rs"]
mod uploads;
