//! What a pass may do to need less memory.

/// What is done to need less memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing.
    Never,
    /// Only each block's input is kept, and the block is computed again on the way back: a third more time.
    Blocks,
}
