//! What suites of several packages share.
//!
//! [`conformance`] is what every engine of a store has to do, [`postgres`] a PostgreSQL that a suite starts for itself, [`cut`] a way
//! to it that breaks. Nothing of it is in a program.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "suites: what fails panics, and they start servers and wait for them"
)]

pub mod conformance;
pub mod cut;
pub mod postgres;
