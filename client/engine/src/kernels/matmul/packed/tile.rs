//! The macro-kernel: the tiles of a block, each [`TALL`] rows and up to three vectors of 16 columns, over its depth.

mod avx2;
mod avx512;
mod block;

use std::ops::Range;

use crate::kernels::buffer::at_least;
use crate::kernels::matmul::packed::ahead::{Lines, Soon};
use crate::kernels::matmul::packed::layout::TALL;
use crate::kernels::matmul::precision::{Precision, available, is_wide};
use crate::kernels::matmul::weight::{Accumulate, Destination};
use crate::kernels::simd::vectorized;
use crate::kernels::view::ViewMut;
pub(crate) use block::{Block, BlockPosition};
use block::{PREFETCH_STEP, Sums};

/// Multiplies one block and accumulates it in `sums`, which the first block overwrites. After the last block, adds the
/// f32 blocks `beside`, of the low-rank updates, and writes or adds the sums to `out`. Meanwhile prefetches `ahead`.
///
/// `sums` is contiguous, for all rows: the stride of `out` can map its rows to the same few cache sets, so `out` is
/// accessed only once.
pub(crate) fn multiply(
    block: Block<'_>,
    beside: &[Block<'_>],
    position: BlockPosition,
    sums: &mut Vec<f32>,
    destination: Destination<'_>,
    ahead: Lines,
) {
    let Block { left, right, .. } = block;
    let out = &destination.out;
    assert!(available(left.precision));
    assert_eq!(out.rows(), left.rows);
    assert_eq!(out.columns().div_ceil(16), right.vectors);
    assert!(beside.iter().all(|block| block.left.precision == Precision::F32));
    assert!(beside.iter().all(|block| block.left.rows == left.rows && block.right.vectors == right.vectors));
    let len = left.rows.div_ceil(TALL) * TALL * right.vectors * 16;
    let sums = at_least(sums, len);
    match right.vectors {
        1 => multiply_by::<1>(block, beside, position, sums, destination, ahead),
        2 => multiply_by::<2>(block, beside, position, sums, destination, ahead),
        _ => multiply_by::<3>(block, beside, position, sums, destination, ahead),
    }
}

fn multiply_by<const VECTORS: usize>(
    block: Block<'_>,
    beside: &[Block<'_>],
    position: BlockPosition,
    sums: &mut [f32],
    destination: Destination<'_>,
    ahead: Lines,
) {
    let Block { left, right, .. } = block;
    let Destination { mut out, accumulate } = destination;
    assert_eq!(right.vectors, VECTORS);
    let groups = left.rows.div_ceil(TALL);
    let reads = ahead.count().div_ceil((groups * (block.depth() / PREFETCH_STEP)).max(1));
    let mut soon = Soon { write: Lines::NONE, read: ahead, reads };
    let sums: &mut [Sums<VECTORS>] = sums.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0;
    for group in 0..groups {
        let first = group * TALL;
        let rows = first..(first + TALL).min(left.rows);
        if position.last {
            soon.write = Lines::of(&mut out, rows.clone());
        }
        // With a single block there are no sums to carry over, and all groups use one buffer.
        let sums = &mut sums[if position.first && position.last { 0 } else { group }];
        sum(block, group, position.first, sums, &mut soon);
        if position.last {
            for block in beside {
                sum(*block, group, false, sums, &mut soon);
            }
            write(sums.as_flattened().as_flattened(), VECTORS * 16, rows, &mut out, accumulate);
        }
    }
}

/// Runs the micro-kernel for the precision and CPU on a group of rows: overwrites `sums` if `first`, else adds to them.
#[expect(unsafe_code, reason = "called only where the CPU has the instructions")]
fn sum<const VECTORS: usize>(
    block: Block<'_>,
    group: usize,
    first: bool,
    sums: &mut Sums<VECTORS>,
    soon: &mut Soon,
) {
    let wide = is_wide(block.left.precision);
    // SAFETY: `multiply` asserted that the CPU has the instructions for the precision of the product, which include
    // those for the f32 blocks beside it.
    unsafe {
        match block.left.precision {
            Precision::F32 if wide => avx512::sum_single(block, group, first, sums, soon),
            Precision::F32 => avx2::sum::<false, VECTORS>(block, group, first, sums, soon),
            Precision::Int16 if wide => {
                avx512::sum_integers::<VECTORS, false>(block, group, first, sums, soon);
            }
            Precision::Int16 => avx2::sum::<true, VECTORS>(block, group, first, sums, soon),
            Precision::Int8 => avx512::sum_integers::<VECTORS, true>(block, group, first, sums, soon),
        }
    }
}

vectorized! {
    /// Writes or adds `sums`, with a stride of `step` elements, to `rows` of `out`.
    fn write(
        sums: &[f32],
        step: usize,
        rows: Range<usize>,
        out: &mut ViewMut<'_>,
        accumulate: Accumulate,
    ) {
        for (row, sums) in rows.zip(sums.chunks_exact(step)) {
            // Vector by vector: copying a whole row would call `memcpy`.
            let (out, last) = out.row(row).as_chunks_mut::<16>();
            let (sums, last_sums) = sums.split_at(16 * out.len());
            for (out, sums) in out.iter_mut().zip(sums.as_chunks().0) {
                match accumulate {
                    Accumulate::Overwrite => *out = *sums,
                    Accumulate::Add => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                }
            }
            for (out, sum) in last.iter_mut().zip(last_sums) {
                *out = if accumulate == Accumulate::Add { *out + sum } else { *sum };
            }
        }
    }
}
