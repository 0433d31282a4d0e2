//! What an executor needs of an engine.

use crate::backend::compute::Compute;
use crate::backend::resident::Resident;
use crate::base::Base;
use crate::model::delta::FoldedDeltas;

/// A base with folded deltas, and the settings of passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) base: &'a Base,
    /// Folded LoRA deltas of a task's earlier epochs.
    pub(crate) folded_deltas: &'a FoldedDeltas,
    pub(crate) compute: Compute,
    /// The base's weights on a candle device, where that computes.
    pub(crate) resident: &'a Resident,
}
