//! What a coordinator asks others when a device enrolls: who signs its certificate ([`CertIssuer`]), and whether its machine is
//! one that may come ([`AttestationVerifier`]).
//!
//! The answer to both is the coordinator's own by default, and nobody is asked. Where somebody is, it is a program on this
//! machine, or a service by HTTP, and each is bounded in time, in what it may say, and in how many are asked at once. What it
//! says is checked, as if a stranger had said it: a certificate has to be good at the coordinator's own listener. Whatever fails
//! lets nobody in.
//!
//! It deliberately knows nothing of tokens, records and credentials: `nightshift-coordinator` asks before it uses a token up, and
//! tells the device. Start at [`CertIssuer::open`] and [`AttestationVerifier::open`].

mod allow_list;
mod attestation;
mod chain;
pub mod config;
mod failure;
mod gate;
mod issuer;
mod open;
mod program;
mod quote;
mod talk;
mod vouched;
mod webhook;

pub use attestation::{AttestationError, AttestationVerifier, Demand, Policy, Shown};
pub use chain::{ChainError, Signed, ToSign};
pub use failure::HookError;
pub use issuer::{CertIssuer, Outside};
pub use open::OpenError;
pub use quote::{QuoteError, Registers, Wanted, verify as verify_quote};
