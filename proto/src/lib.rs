//! The words that both sides use, and their bytes on the wire.

pub mod adapter;
pub mod ids;
pub mod training;
