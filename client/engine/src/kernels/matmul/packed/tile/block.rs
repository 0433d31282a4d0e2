//! What a tile reads and writes.

use crate::kernels::matmul::packed::layout::{STEP, Scale, TALL};
use crate::kernels::matmul::packed::left::Left;
use crate::kernels::matmul::packed::right::Right;

/// Which of the blocks that are summed up one is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPosition {
    pub(crate) first: bool,
    pub(crate) last: bool,
}

/// One block of a product: all rows of `left`, and the columns of `right`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    pub(crate) left: &'a Left,
    /// Which of the left factor's blocks.
    pub(crate) at: usize,
    pub(crate) right: &'a Right,
}

/// Words of a sum, of which there are always whole [`STEP`]s, between which some lines are asked for: many at once
/// would wait for one another.
pub(super) const PREFETCH_STEP: usize = STEP;

/// The sums of a tile.
pub(super) type Sums<const VECTORS: usize> = [[[f32; 16]; VECTORS]; TALL];

#[expect(clippy::inline_always, reason = "for a few instructions that are needed in every tile")]
impl Block<'_> {
    /// Words of a row of either side.
    #[inline(always)]
    pub(super) fn depth(&self) -> usize {
        self.left.starts[self.at + 1] - self.left.starts[self.at]
    }

    /// The words of a group of rows.
    #[inline(always)]
    pub(super) fn rows(&self, group: usize) -> &[i32] {
        let before = group * self.left.depth() + self.left.starts[self.at];
        &self.left.numbers[before * TALL..][..self.depth() * TALL]
    }

    /// What the integers of each row of a group are.
    #[inline(always)]
    pub(super) fn scales(&self, group: usize) -> &[Scale] {
        &self.left.scales[(group * self.left.spans.len() + self.at) * TALL..][..TALL]
    }
}
