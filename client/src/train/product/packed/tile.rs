//! Tiles of a product: eight rows, three vectors of columns, all of a block, in registers.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before, \
              and is called only where the CPU has the instructions"
)]

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
};

use super::{Left, Right, TALL, available, load, words};
use crate::train::product::{Add, Arithmetic};
use crate::train::view::ViewMut;

/// `out = left · right` of one block, or `out += left · right`, where `out` has all rows of `left` and the
/// columns of `right`.
pub(crate) fn multiply(left: &Left, block: usize, right: &Right, add: Add, out: &mut ViewMut<'_>) {
    assert!(available(left.arithmetic));
    assert_eq!(out.rows(), left.rows);
    assert_eq!(out.columns().div_ceil(16), right.vectors);
    // SAFETY: the CPU has the instructions.
    unsafe {
        match (left.arithmetic, right.vectors) {
            (Arithmetic::Single, 1) => multiply_single::<1>(left, block, right, add, out),
            (Arithmetic::Single, 2) => multiply_single::<2>(left, block, right, add, out),
            (Arithmetic::Single, _) => multiply_single::<3>(left, block, right, add, out),
            (Arithmetic::Short, 1) => multiply_short::<1>(left, block, right, add, out),
            (Arithmetic::Short, 2) => multiply_short::<2>(left, block, right, add, out),
            (Arithmetic::Short, _) => multiply_short::<3>(left, block, right, add, out),
        }
    }
}

/// The words of one group of rows in one block, and of all columns, with how many there are of a row.
fn operands<'a>(
    left: &'a Left,
    block: usize,
    right: &'a Right,
    group: usize,
) -> (&'a [i32], &'a [i32], usize) {
    let of = |block| words(left.arithmetic, block);
    let (before, depth) = (left.blocks[..block].iter().map(of).sum::<usize>(), of(&left.blocks[block]));
    assert_eq!(right.numbers.len(), depth * right.vectors * 16);
    (&left.numbers[(group * left.depth + before) * TALL..][..depth * TALL], &right.numbers, depth)
}

/// Which of the last vector's columns there are.
fn masks<const VECTORS: usize>(columns: usize) -> [u16; VECTORS] {
    let rest = columns - (VECTORS - 1) * 16;
    let last = if rest == 16 { u16::MAX } else { (1u16 << rest) - 1 };
    std::array::from_fn(|v| if v + 1 == VECTORS { last } else { u16::MAX })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn multiply_single<const VECTORS: usize>(
    left: &Left,
    block: usize,
    right: &Right,
    add: Add,
    out: &mut ViewMut<'_>,
) {
    assert_eq!(right.vectors, VECTORS);
    let masks = masks::<VECTORS>(out.columns());
    for group in 0..left.rows.div_ceil(TALL) {
        let (rows, columns, depth) = operands(left, block, right, group);
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; TALL];
        let (mut a, mut b) = (rows.as_ptr().cast::<f32>(), columns.as_ptr().cast::<f32>());
        for _ in 0..depth {
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
        let first = group * TALL;
        for (i, sums) in sums.iter().enumerate().take(left.rows - first) {
            let row = out.row(first + i);
            for v in 0..VECTORS {
                let new = match add {
                    Add::ToWhatIsThere => _mm512_add_ps(load_masked(&row[16 * v..], masks[v]), sums[v]),
                    Add::ToNothing => sums[v],
                };
                // SAFETY: the mask leaves out what is behind the row.
                unsafe { _mm512_mask_storeu_ps(row[16 * v..].as_mut_ptr(), masks[v], new) };
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn multiply_short<const VECTORS: usize>(
    left: &Left,
    block: usize,
    right: &Right,
    add: Add,
    out: &mut ViewMut<'_>,
) {
    assert_eq!(right.vectors, VECTORS);
    let masks = masks::<VECTORS>(out.columns());
    let worth: [_; VECTORS] = std::array::from_fn(|v| load(&right.worth, 16 * v));
    for group in 0..left.rows.div_ceil(TALL) {
        let (rows, columns, depth) = operands(left, block, right, group);
        let left_worth = &left.worth[(group * left.blocks.len() + block) * TALL..][..TALL];
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; TALL];
        let (mut a, mut b) = (rows.as_ptr(), columns.as_ptr());
        for _ in 0..depth {
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
        let first = group * TALL;
        for (i, sums) in sums.iter().enumerate().take(left.rows - first) {
            let row = out.row(first + i);
            let row_worth = _mm512_set1_ps(left_worth[i]);
            for v in 0..VECTORS {
                let product = _mm512_cvtepi32_ps(sums[v]);
                let worth = _mm512_mul_ps(worth[v], row_worth);
                let old = match add {
                    Add::ToWhatIsThere => load_masked(&row[16 * v..], masks[v]),
                    Add::ToNothing => _mm512_setzero_ps(),
                };
                let new = _mm512_fmadd_ps(product, worth, old);
                // SAFETY: the mask leaves out what is behind the row.
                unsafe { _mm512_mask_storeu_ps(row[16 * v..].as_mut_ptr(), masks[v], new) };
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_masked(x: &[f32], mask: u16) -> __m512 {
    // SAFETY: the mask leaves out what is behind the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }
}
