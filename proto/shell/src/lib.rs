//! What the IO shells of both sides do: the device's, in `nightshift-client` and `nightshift-agent`, and the server's, in
//! `nightshift-coordinator` and `nightshift-operator`.
//!
//! It knows neither side: no plan, no round, no record, no command of theirs. [`store`] is the durable key-value store in
//! which each side keeps records of its own, [`keys`] the files of secret keys, [`pem`] certificates as text, [`tls`] the
//! connecting side of TLS, [`proxy`] the way there. Behind the feature `cli` is what programs have around their commands:
//! `config`, the file; `doctor`, what is said of a machine that was looked at; `home`, what `~` means in a path; `cli`, what is printed and how it ends; `logs`; `stop`, how it is told to; and `notify`, what a
//! service manager is told. Start at [`store::Store`].

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "cli")]
pub mod doctor;
#[cfg(feature = "cli")]
pub mod home;
pub mod keys;
#[cfg(feature = "cli")]
pub mod logs;
#[cfg(feature = "cli")]
pub mod notify;
pub mod pem;
pub mod proxy;
#[cfg(feature = "cli")]
pub mod stop;
pub mod store;
pub mod tls;
