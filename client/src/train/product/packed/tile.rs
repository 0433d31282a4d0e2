//! Tiles of a product: eight rows, three vectors of columns, all of a block, in registers.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before, \
              and is called only where the CPU has the instructions"
)]

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::ahead::{ToRead, ToWrite};
use super::{Left, Right, Scale, TALL, available, load, words};
use crate::train::product::{Add, Arithmetic};
use crate::train::view::ViewMut;

/// Which of the blocks that are summed up one is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
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

/// Adds one block to `sums`, which the first one sets, and the last one, with the blocks of f32 that go `beside` it,
/// to what becomes of `out`. What is `ahead` is asked for meanwhile.
///
/// Sums of all rows are neighbours: the rows of `out` can be so far apart that they fall on the same few lines of a
/// cache, and are touched once only.
pub(crate) fn multiply(
    block: Block<'_>,
    beside: &[Block<'_>],
    turn: Turn,
    sums: &mut Vec<f32>,
    (out, add): (&mut ViewMut<'_>, Add),
    ahead: ToRead,
) {
    let Block { left, right, .. } = block;
    assert!(available(left.arithmetic));
    assert_eq!(out.rows(), left.rows);
    assert_eq!(out.columns().div_ceil(16), right.vectors);
    assert!(beside.iter().all(|block| block.left.arithmetic == Arithmetic::Single));
    assert!(beside.iter().all(|block| block.left.rows == left.rows && block.right.vectors == right.vectors));
    let len = left.rows.div_ceil(TALL) * TALL * right.vectors * 16;
    sums.resize(sums.len().max(len), 0.0);
    // SAFETY: the CPU has the instructions.
    unsafe {
        match right.vectors {
            1 => multiply_by::<1>(block, beside, turn, sums, (out, add), ahead),
            2 => multiply_by::<2>(block, beside, turn, sums, (out, add), ahead),
            _ => multiply_by::<3>(block, beside, turn, sums, (out, add), ahead),
        }
    }
}

/// Words of a sum between which [`LINES`] lines are asked for: many at once would wait for one another.
const TOGETHER: usize = 16;
const LINES: usize = 3;

/// The sums of a tile.
type Sums<const VECTORS: usize> = [[[f32; 16]; VECTORS]; TALL];

#[expect(clippy::inline_always, reason = "for a few instructions that are needed in every tile")]
impl Block<'_> {
    /// Words of a row of either side.
    #[inline(always)]
    fn depth(&self) -> usize {
        words(self.left.arithmetic, &self.left.blocks[self.at])
    }

    /// The words of a group of rows.
    #[inline(always)]
    fn rows(&self, group: usize) -> &[i32] {
        // Only the last block can be shorter.
        let before = self.at * words(self.left.arithmetic, &self.left.blocks[0]);
        &self.left.numbers[(group * self.left.depth + before) * TALL..][..self.depth() * TALL]
    }

    /// What the integers of each row of a group are.
    #[inline(always)]
    fn scales(&self, group: usize) -> &[Scale] {
        &self.left.scales[(group * self.left.blocks.len() + self.at) * TALL..][..TALL]
    }
}

/// Which of the last vector's columns there are.
fn masks<const VECTORS: usize>(columns: usize) -> [u16; VECTORS] {
    let rest = columns - (VECTORS - 1) * 16;
    let last = if rest == 16 { u16::MAX } else { (1u16 << rest) - 1 };
    std::array::from_fn(|v| if v + 1 == VECTORS { last } else { u16::MAX })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn multiply_by<const VECTORS: usize>(
    block: Block<'_>,
    beside: &[Block<'_>],
    turn: Turn,
    sums: &mut [f32],
    (out, add): (&mut ViewMut<'_>, Add),
    ahead: ToRead,
) {
    let Block { left, right, .. } = block;
    assert_eq!(right.vectors, VECTORS);
    let groups = left.rows.div_ceil(TALL);
    let share = ahead.rows.div_ceil(groups);
    let masks = masks::<VECTORS>(out.columns());
    let sums: &mut [Sums<VECTORS>] = sums.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0;
    for group in 0..groups {
        let first = group * TALL;
        let count = (left.rows - first).min(TALL);
        let mut soon = if turn.last { ToWrite::new(out, first..first + count) } else { ToWrite::NONE };
        ahead.fetch(group * share..(group + 1) * share);
        // Where nothing is to be kept for a next block, all use one place.
        let sums = &mut sums[if turn.first && turn.last { 0 } else { group }];
        match left.arithmetic {
            Arithmetic::Single => sum_single(block, group, turn.first, sums, &mut soon),
            // SAFETY: `multiply` has asked whether the CPU has the instructions.
            Arithmetic::Short => unsafe {
                sum_integers::<VECTORS, false>(block, group, turn.first, sums, &mut soon);
            },
            // SAFETY: as before.
            Arithmetic::Byte => unsafe {
                sum_integers::<VECTORS, true>(block, group, turn.first, sums, &mut soon);
            },
        }
        if !turn.last {
            continue;
        }
        for block in beside {
            sum_single(*block, group, false, sums, &mut soon);
        }
        for (i, sums) in sums.iter().enumerate().take(count) {
            let out = out.row(first + i);
            for ((sum, mask), out) in sums.iter().zip(masks).zip(out.chunks_mut(16)) {
                let sum = load(sum, 0);
                let new = match add {
                    Add::ToWhatIsThere => _mm512_add_ps(load_masked(out, mask), sum),
                    Add::ToNothing => sum,
                };
                // SAFETY: the mask leaves out what is behind the row.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, new) };
            }
        }
    }
}

/// The products of a group of rows become `out`, or are added to it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sum_single<const VECTORS: usize>(
    block: Block<'_>,
    group: usize,
    first: bool,
    out: &mut Sums<VECTORS>,
    soon: &mut ToWrite,
) {
    let (rows, columns, depth) = (block.rows(group), block.right.words(), block.depth());
    assert!(rows.len() == depth * TALL && columns.len() == depth * 16 * VECTORS);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; TALL];
    let (mut a, mut b) = (rows.as_ptr().cast::<f32>(), columns.as_ptr().cast::<f32>());
    for from in (0..depth).step_by(TOGETHER) {
        (0..LINES).for_each(|_| soon.fetch());
        for _ in from..depth.min(from + TOGETHER) {
            // SAFETY: `a` and `b` advance by one word of each side, of which there are `depth`.
            unsafe {
                let columns: [__m512; VECTORS] = std::array::from_fn(|v| _mm512_loadu_ps(b.add(16 * v)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row = _mm512_set1_ps(*a.add(i));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm512_fmadd_ps(row, column, *sum);
                    }
                }
                a = a.add(TALL);
                b = b.add(16 * VECTORS);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.iter_mut().zip(sums) {
            store(if first { sum } else { _mm512_add_ps(load(out, 0), sum) }, out);
        }
    }
}

/// Like [`sum_single`], of integers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn sum_integers<const VECTORS: usize, const BYTES: bool>(
    block: Block<'_>,
    group: usize,
    first: bool,
    out: &mut Sums<VECTORS>,
    soon: &mut ToWrite,
) {
    let (rows, columns, depth) = (block.rows(group), block.right.words(), block.depth());
    let scales = block.scales(group);
    assert!(rows.len() == depth * TALL && columns.len() == depth * 16 * VECTORS);
    let mut sums: [[__m512i; VECTORS]; TALL] =
        std::array::from_fn(|i| [_mm512_set1_epi32(scales[i].begin); VECTORS]);
    let (mut a, mut b) = (rows.as_ptr(), columns.as_ptr());
    for from in (0..depth).step_by(TOGETHER) {
        (0..LINES).for_each(|_| soon.fetch());
        for _ in from..depth.min(from + TOGETHER) {
            // SAFETY: `a` and `b` advance by one word of each side, of which there are `depth`.
            unsafe {
                let columns: [__m512i; VECTORS] =
                    std::array::from_fn(|v| _mm512_loadu_si512(b.add(16 * v).cast()));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row = _mm512_set1_epi32(*a.add(i));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = if BYTES {
                            _mm512_dpbusd_epi32(*sum, column, row)
                        } else {
                            _mm512_dpwssd_epi32(*sum, row, column)
                        };
                    }
                }
                a = a.add(TALL);
                b = b.add(16 * VECTORS);
            }
        }
    }
    let worth: [__m512; VECTORS] = std::array::from_fn(|v| load(&block.right.worth, 16 * v));
    for ((out, sums), row) in out.iter_mut().zip(sums).zip(scales) {
        let row = _mm512_set1_ps(row.worth);
        for ((out, sum), worth) in out.iter_mut().zip(sums).zip(worth) {
            let (sum, worth) = (_mm512_cvtepi32_ps(sum), _mm512_mul_ps(worth, row));
            store(
                if first { _mm512_mul_ps(sum, worth) } else { _mm512_fmadd_ps(sum, worth, load(out, 0)) },
                out,
            );
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(numbers: __m512, out: &mut [f32; 16]) {
    // SAFETY: sixteen numbers.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), numbers) };
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_masked(x: &[f32], mask: u16) -> __m512 {
    // SAFETY: the mask leaves out what is behind the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }
}
