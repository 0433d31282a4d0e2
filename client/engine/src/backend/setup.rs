//! What passes are computed with.

use crate::backend::compute::Compute;
use crate::backend::resident::Resident;
use crate::base::Base;
use crate::model::delta::FoldedDeltas;

/// What is computed with, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) base: &'a Base,
    /// What earlier epochs of a task left.
    pub(crate) folded_deltas: &'a FoldedDeltas,
    pub(crate) compute: Compute,
    /// The base on a device of candle's.
    pub(crate) resident: &'a Resident,
}
