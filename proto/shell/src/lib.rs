//! What the IO shells of both sides do: the device's, in `nightshift-client`, and the server's, in
//! `nightshift-coordinator`.
//!
//! It knows neither side: no plan, no round, no record of theirs. [`store`] is the durable key-value store in which each
//! side keeps records of its own, [`tls`] the connecting side of TLS,
//! [`keys`] the files of secret keys, [`pem`] certificates as text.

pub mod keys;
pub mod pem;
pub mod store;
pub mod tls;
