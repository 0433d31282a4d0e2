//! The coordinator: adds up what devices contribute without reading any one of them.

pub mod admin_channel;
pub mod artefacts;
pub mod config;
pub mod files;
pub mod peer;
pub mod pki;
pub mod store;
pub mod tls;
pub mod tokens;
