//! The version before the newest one: what devices measure that one against, and what is left where it was worse.

use proto::ids::Digest;
use proto::message::Before;
use proto::plan::vector_to_bytes;

/// The parameters of an earlier version.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// Which, by what it consists of.
    pub(super) before: Before,
    /// Its trained parameters.
    pub(super) adapter: Vec<f32>,
    /// What earlier epochs left.
    pub(super) folded: Option<Vec<f32>>,
}

impl Earlier {
    /// A version with these parameters.
    pub fn new(version: u32, adapter: Vec<f32>, folded: Option<Vec<f32>>) -> Self {
        let digest = |vector: &[f32]| Digest::of(&vector_to_bytes(vector));
        let before = Before { version, adapter: digest(&adapter), folded: folded.as_deref().map(digest) };
        Self { before, adapter, folded }
    }
}
