//! Buffers of a forward and backward pass, reused by the next one.
//!
//! Freed memory goes back to the system and returns page by page at the next allocation, which can cost more
//! than the computation.

use crate::kernels::matmul::Scratch;
use crate::kernels::pool::Team;
use crate::model::saved::{ActivationPrecision, Saved};

/// All buffers that a pass writes to; `d…` is the gradient of what is named behind the `d`.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The residual stream: (rows, hidden).
    pub(crate) x: Vec<f32>,
    /// Gradient of the residual stream.
    pub(crate) g: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) dnormed: Vec<f32>,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    /// Queries and keys before their norms.
    pub(crate) raw: [Vec<f32>; 2],
    /// Log-sum-exp of each attention row.
    pub(crate) logs: Vec<f32>,
    /// Attention output, the input of the output projection.
    pub(crate) mixed: Vec<f32>,
    pub(crate) gate: Vec<f32>,
    pub(crate) up: Vec<f32>,
    /// A saved residual stream, widened to f32.
    pub(crate) earlier: Vec<f32>,
    /// Output of a block's attention or MLP before its norm, where the model has one, and its gradient.
    pub(crate) output: Vec<f32>,
    /// Rows of the residual stream whose next token is a target.
    pub(crate) middle: Vec<f32>,
    /// SwiGLU output, the input of the down projection.
    pub(crate) inner: Vec<f32>,
    pub(crate) dinner: Vec<f32>,
    /// Gradients of the gate and up projections' outputs, side by side, where they are needed in memory.
    pub(crate) dhalves: Vec<f32>,
    pub(crate) dmixed: Vec<f32>,
    pub(crate) dq: Vec<f32>,
    pub(crate) dk: Vec<f32>,
    pub(crate) dv: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    /// Saved activations of each block; a single entry where blocks are recomputed one after the other.
    pub(crate) kept: Vec<SavedBlock>,
    /// Each block's input, where blocks are recomputed.
    pub(crate) inputs: Vec<Vec<f32>>,
    pub(crate) scratch: Scratch,
}

/// Saved activations of a block.
#[derive(Debug, Default)]
pub(crate) struct SavedBlock {
    /// The block's input: (rows, hidden).
    pub(crate) x: Saved,
    /// Queries after RoPE.
    pub(crate) q: Saved,
    /// Keys after RoPE.
    pub(crate) k: Saved,
    pub(crate) v: Saved,
    /// Queries and keys before their norms, where the model has QK norms.
    pub(crate) raw: [Saved; 2],
    /// Log-sum-exp of each attention row.
    pub(crate) logs: Vec<f32>,
    /// Attention output, where the output projection has a gradient.
    pub(crate) mixed: Saved,
    /// The residual stream before the second norm.
    pub(crate) middle: Saved,
    pub(crate) gate: Saved,
    pub(crate) up: Saved,
    /// Outputs of attention and MLP before their norms, where the model has these.
    pub(crate) outputs: [Saved; 2],
}

impl Workspace {
    /// Saves the outputs of the gate and up projections in entry `at` of the saved blocks.
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

    /// Saves the residual stream as the input of block `layer`.
    pub(crate) fn save_input(&mut self, layer: usize) {
        if self.inputs.len() <= layer {
            self.inputs.resize_with(layer + 1, Vec::new);
        }
        let input = &mut self.inputs[layer];
        input.clear();
        input.extend_from_slice(&self.x);
    }
}
