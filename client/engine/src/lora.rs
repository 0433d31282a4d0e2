//! LoRA adapters of a base: the layout of their vectors, frozen factors by truncated SVD, and merging into the
//! base.
//!
//! Start reading at `layout`, which maps an adapter's vectors to the base's layers; [`merge`] writes a merged
//! base.

pub(crate) mod layout;
pub mod merge;
pub(crate) mod svd;
