//! The memory of a pass, used again by the next one.
//!
//! What is freed and asked for again is handed back to the system and comes back page by page, which can cost
//! more than the computation.

use crate::kernels::matmul::Scratch;
use crate::kernels::pool::Team;
use crate::model::saved::{ActivationPrecision, Saved};

/// Everything that a pass writes to.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The residual stream: (rows, hidden).
    pub(crate) x: Vec<f32>,
    /// Its gradient.
    pub(crate) g: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) dnormed: Vec<f32>,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) raw: [Vec<f32>; 2],
    pub(crate) logs: Vec<f32>,
    pub(crate) mixed: Vec<f32>,
    pub(crate) gate: Vec<f32>,
    pub(crate) up: Vec<f32>,
    /// The residual stream as it was, widened.
    pub(crate) earlier: Vec<f32>,
    /// Rows that have a loss.
    pub(crate) middle: Vec<f32>,
    pub(crate) inner: Vec<f32>,
    pub(crate) dinner: Vec<f32>,
    /// Gradients of the two halves of the feed-forward part, side by side, where they are needed in memory.
    pub(crate) dhalves: Vec<f32>,
    pub(crate) dmixed: Vec<f32>,
    pub(crate) dq: Vec<f32>,
    pub(crate) dk: Vec<f32>,
    pub(crate) dv: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    /// Of each block, or of one after the other.
    pub(crate) kept: Vec<SavedBlock>,
    /// Each block's input, where blocks are computed again.
    pub(crate) inputs: Vec<Vec<f32>>,
    pub(crate) scratch: Scratch,
}

/// What the way back needs of a block.
#[derive(Debug, Default)]
pub(crate) struct SavedBlock {
    /// The block's input: (rows, hidden).
    pub(crate) x: Saved,
    /// Turned.
    pub(crate) q: Saved,
    /// Turned.
    pub(crate) k: Saved,
    pub(crate) v: Saved,
    /// Queries and keys before their norms, where the family has these.
    pub(crate) raw: [Saved; 2],
    pub(crate) logs: Vec<f32>,
    pub(crate) mixed: Saved,
    /// The residual stream at the second norm.
    pub(crate) middle: Saved,
    pub(crate) gate: Saved,
    pub(crate) up: Saved,
}

impl Workspace {
    /// Keeps the two halves of the feed-forward part.
    pub(crate) fn save_gate_and_up(
        &mut self,
        at: usize,
        team: Team,
        columns: usize,
        keep: ActivationPrecision,
    ) {
        let Self { gate, up, kept, .. } = self;
        if let Some(kept) = kept.get_mut(at) {
            kept.gate.take(team, gate, columns, keep);
            kept.up.take(team, up, columns, keep);
        }
    }

    /// Keeps the residual stream as a block's input.
    pub(crate) fn save_input(&mut self, layer: usize) {
        if self.inputs.len() <= layer {
            self.inputs.resize_with(layer + 1, Vec::new);
        }
        let input = &mut self.inputs[layer];
        input.clear();
        input.extend_from_slice(&self.x);
    }
}
