//! The device: trains an adapter on its user's text and contributes it without showing it.

pub mod config;
pub mod files;
pub mod keys;
pub mod store;
pub mod tls;
pub mod token;
