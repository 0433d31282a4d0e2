//! Adapters of a base: where their vectors meet its layers, their factors, and the base with one merged into it.

pub(crate) mod layout;
pub mod merge;
pub(crate) mod svd;
