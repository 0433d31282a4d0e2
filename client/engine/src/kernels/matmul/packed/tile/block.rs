//! The operands of a tile.

use crate::kernels::matmul::packed::layout::{STEP, Scale, TALL};
use crate::kernels::matmul::packed::left::Left;
use crate::kernels::matmul::packed::right::Right;

/// Whether a block is the first or the last along the inner dimension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPosition {
    pub(crate) first: bool,
    pub(crate) last: bool,
}

/// One block of a product: all rows of block `at` of `left`, times `right`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    pub(crate) left: &'a Left,
    /// Which of the left factor's blocks.
    pub(crate) at: usize,
    pub(crate) right: &'a Right,
}

/// Words of the inner dimension between prefetches, of which many at once would wait for one another. The depth of a
/// block is a multiple of [`STEP`].
pub(super) const PREFETCH_STEP: usize = STEP;

/// The sums of a tile: (row, vector, column).
pub(super) type Sums<const VECTORS: usize> = [[[f32; 16]; VECTORS]; TALL];

#[expect(clippy::inline_always, reason = "for a few instructions that are needed in every tile")]
impl Block<'_> {
    /// Words of the block along the inner dimension.
    #[inline(always)]
    pub(super) fn depth(&self) -> usize {
        self.left.starts[self.at + 1] - self.left.starts[self.at]
    }

    /// The packed words of a group of rows.
    #[inline(always)]
    pub(super) fn rows(&self, group: usize) -> &[i32] {
        let before = group * self.left.depth() + self.left.starts[self.at];
        &self.left.numbers[before * TALL..][..self.depth() * TALL]
    }

    /// The quantization scales of a group of rows.
    #[inline(always)]
    pub(super) fn scales(&self, group: usize) -> &[Scale] {
        &self.left.scales[(group * self.left.spans.len() + self.at) * TALL..][..TALL]
    }
}
