//! The device: trains an adapter on its user's text and contributes it without showing it.

pub mod train;
