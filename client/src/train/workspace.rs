//! The memory of a pass, used again by the next one.
//!
//! What is freed and asked for again is handed back to the system and comes back page by page, which can cost
//! more than the computation.

use super::product::Scratch;

/// Everything that a pass writes to.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The residual stream: (rows, hidden).
    pub(crate) x: Vec<f32>,
    /// Its gradient.
    pub(crate) g: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) dnormed: Vec<f32>,
    /// Rows that have a loss.
    pub(crate) middle: Vec<f32>,
    pub(crate) inner: Vec<f32>,
    pub(crate) dinner: Vec<f32>,
    pub(crate) dmixed: Vec<f32>,
    pub(crate) dq: Vec<f32>,
    pub(crate) dk: Vec<f32>,
    pub(crate) dv: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    /// Of each block, or of one after the other.
    pub(crate) kept: Vec<Kept>,
    /// Each block's input, where blocks are computed again.
    pub(crate) inputs: Vec<Vec<f32>>,
    pub(crate) scratch: Scratch,
}

/// What the way back needs of a block.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The block's input: (rows, hidden).
    pub(crate) x: Vec<f32>,
    /// Turned.
    pub(crate) q: Vec<f32>,
    /// Turned.
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    /// Queries and keys before their norms, where the family has these.
    pub(crate) raw: [Vec<f32>; 2],
    pub(crate) logs: Vec<f32>,
    pub(crate) mixed: Vec<f32>,
    /// The residual stream at the second norm.
    pub(crate) middle: Vec<f32>,
    pub(crate) gate: Vec<f32>,
    pub(crate) up: Vec<f32>,
}

impl Workspace {
    /// Keeps the residual stream as a block's input.
    pub(crate) fn keep_input(&mut self, layer: usize) {
        if self.inputs.len() <= layer {
            self.inputs.resize_with(layer + 1, Vec::new);
        }
        let input = &mut self.inputs[layer];
        input.clear();
        input.extend_from_slice(&self.x);
    }
}

/// Memory of exactly `len` numbers; what is in them is not looked at.
pub(crate) fn sized(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    memory.resize(len, 0.0);
    memory
}
