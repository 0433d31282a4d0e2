//! Activation checkpointing: recomputing activations in the backward pass to save memory.

/// Which activations the backward pass recomputes, to save memory (activation checkpointing).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// None: all activations that the backward pass needs are saved.
    Never,
    /// All but each block's input, which is saved: a third more time.
    Blocks,
}
