//! Tiles of a product: eight rows, three vectors of columns, all of a block, in registers.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before, \
              and is called only where the CPU has the instructions"
)]

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps,
    _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps,
};

use super::ahead::{ToRead, ToWrite};
use super::{Left, Right, TALL, available, load, words};
use crate::train::product::{Add, Arithmetic};
use crate::train::view::ViewMut;

/// Which of the blocks that are summed up one is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) first: bool,
    pub(crate) last: bool,
}

/// Adds `left · right` of one block to `sums`, which the first block sets, and the last one to what becomes of
/// `out`: all rows of `left`, and the columns of `right`. What is `ahead` is asked for meanwhile.
///
/// Sums of all rows are neighbours: the rows of `out` can be so far apart that they fall on the same few lines of a
/// cache, and are touched once only.
pub(crate) fn multiply(
    left: &Left,
    block: usize,
    right: &Right,
    turn: Turn,
    sums: &mut Vec<f32>,
    (out, add): (&mut ViewMut<'_>, Add),
    ahead: ToRead,
) {
    assert!(available(left.arithmetic));
    assert_eq!(out.rows(), left.rows);
    assert_eq!(out.columns().div_ceil(16), right.vectors);
    let len = left.rows.div_ceil(TALL) * TALL * right.vectors * 16;
    sums.resize(sums.len().max(len), 0.0);
    // SAFETY: the CPU has the instructions.
    unsafe {
        match right.vectors {
            1 => multiply_by::<1>(left, block, right, turn, sums, (out, add), ahead),
            2 => multiply_by::<2>(left, block, right, turn, sums, (out, add), ahead),
            _ => multiply_by::<3>(left, block, right, turn, sums, (out, add), ahead),
        }
    }
}

/// Words of a sum between which [`LINES`] lines are asked for: many at once would wait for one another.
const TOGETHER: usize = 16;
const LINES: usize = 3;

/// The sums of a tile, once they leave the registers: of f32 or of integers.
type Sums<const VECTORS: usize> = [[__m512i; VECTORS]; TALL];

/// Where the words of a block begin in a group of rows, and how many there are of a row.
fn place(left: &Left, block: usize, right: &Right) -> (usize, usize) {
    let of = |block| words(left.arithmetic, block);
    let (before, depth) = (left.blocks[..block].iter().map(of).sum(), of(&left.blocks[block]));
    assert_eq!(right.words().len(), depth * right.vectors * 16);
    (before, depth)
}

/// Which of the last vector's columns there are.
fn masks<const VECTORS: usize>(columns: usize) -> [u16; VECTORS] {
    let rest = columns - (VECTORS - 1) * 16;
    let last = if rest == 16 { u16::MAX } else { (1u16 << rest) - 1 };
    std::array::from_fn(|v| if v + 1 == VECTORS { last } else { u16::MAX })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn multiply_by<const VECTORS: usize>(
    left: &Left,
    block: usize,
    right: &Right,
    turn: Turn,
    sums: &mut [f32],
    (out, add): (&mut ViewMut<'_>, Add),
    ahead: ToRead,
) {
    assert_eq!(right.vectors, VECTORS);
    let groups = left.rows.div_ceil(TALL);
    let share = ahead.rows.div_ceil(groups);
    let masks = masks::<VECTORS>(out.columns());
    let worth: [_; VECTORS] = std::array::from_fn(|v| load(&right.worth, 16 * v));
    let (before, depth) = place(left, block, right);
    let mut tile: Sums<VECTORS> = [[_mm512_setzero_si512(); VECTORS]; TALL];
    for (group, sums) in sums.chunks_exact_mut(TALL * VECTORS * 16).enumerate().take(left.rows.div_ceil(TALL))
    {
        let first = group * TALL;
        let count = (left.rows - first).min(TALL);
        let mut soon = if turn.last { ToWrite::new(out, first..first + count) } else { ToWrite::NONE };
        ahead.fetch(group * share..(group + 1) * share);
        let rows = &left.numbers[(group * left.depth + before) * TALL..][..depth * TALL];
        match left.arithmetic {
            // SAFETY: `multiply` has asked whether the CPU has the instructions.
            Arithmetic::Short => unsafe { sum_short(rows, right.words(), depth, &mut tile, &mut soon) },
            Arithmetic::Single => sum_single(rows, right.words(), depth, &mut tile, &mut soon),
        }
        let left_worth = &left.worth[(group * left.blocks.len() + block) * TALL..][..TALL];
        let rows = tile.iter().zip(sums.chunks_exact_mut(VECTORS * 16)).zip(left_worth);
        for (i, ((tile, sums), row_worth)) in rows.enumerate().take(count) {
            let row_worth = _mm512_set1_ps(*row_worth);
            for (v, sums) in sums.chunks_exact_mut(16).enumerate() {
                let product = match left.arithmetic {
                    Arithmetic::Short => {
                        _mm512_mul_ps(_mm512_cvtepi32_ps(tile[v]), _mm512_mul_ps(worth[v], row_worth))
                    }
                    Arithmetic::Single => _mm512_castsi512_ps(tile[v]),
                };
                let sum = if turn.first { product } else { _mm512_add_ps(product, load(sums, 0)) };
                if turn.last {
                    let out = &mut out.row(first + i)[16 * v..];
                    let new = match add {
                        Add::ToWhatIsThere => _mm512_add_ps(load_masked(out, masks[v]), sum),
                        Add::ToNothing => sum,
                    };
                    // SAFETY: the mask leaves out what is behind the row.
                    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), masks[v], new) };
                } else {
                    // SAFETY: sixteen numbers.
                    unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), sum) };
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sum_single<const VECTORS: usize>(
    rows: &[i32],
    columns: &[i32],
    depth: usize,
    out: &mut Sums<VECTORS>,
    soon: &mut ToWrite,
) {
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
    *out = sums.map(|sums| sums.map(|sum| _mm512_castps_si512(sum)));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn sum_short<const VECTORS: usize>(
    rows: &[i32],
    columns: &[i32],
    depth: usize,
    out: &mut Sums<VECTORS>,
    soon: &mut ToWrite,
) {
    assert!(rows.len() == depth * TALL && columns.len() == depth * 16 * VECTORS);
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; TALL];
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
                        *sum = _mm512_dpwssd_epi32(*sum, row, column);
                    }
                }
                a = a.add(TALL);
                b = b.add(16 * VECTORS);
            }
        }
    }
    *out = sums;
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_masked(x: &[f32], mask: u16) -> __m512 {
    // SAFETY: the mask leaves out what is behind the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }
}
