//! Products of matrices that fit in L1 or L2 cache, on the calling thread.
//!
//! Both factors are read in place. A general GEMM would pack them first, which for matrices as small as those of an
//! attention head is a noticeable part of the cost.

use crate::kernels::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::matmul::weight::Destination;
use crate::kernels::view::View;

/// `out = scale · left · right`, or `out += scale · left · right`; fails if the shapes do not match or exceed a slice.
pub(crate) fn small(scale: f32, left: View<'_>, right: View<'_>, destination: Destination<'_>) -> Result<()> {
    let Destination { out, accumulate } = destination;
    #[cfg(target_arch = "x86_64")]
    if vectors::fit(left, right, &out) {
        vectors::multiply(scale, left, right, out, accumulate);
        return Ok(());
    }
    gemm(scale, left, right, accumulate.beta(), out)
}

/// The kernel for AVX-512.
#[cfg(target_arch = "x86_64")]
mod vectors {
    #![expect(
        unsafe_code,
        reason = "vector loads and stores through pointers into views that were asserted to be inside their slices, \
                  only where the CPU has the instructions"
    )]

    use std::arch::x86_64::{
        __m512, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
        _mm512_setzero_ps,
    };

    use crate::kernels::instructions::{Vectors, vectors};
    use crate::kernels::matmul::weight::Accumulate;
    use crate::kernels::view::{View, ViewMut};

    /// The register tile: rows, and vectors of 16 columns.
    const TALL: usize = 6;
    const WIDE: usize = 4;

    /// Whether the CPU has AVX-512, shapes match, views are inside their slices and the rows of `right` are contiguous.
    pub(super) fn fit(left: View<'_>, right: View<'_>, out: &ViewMut<'_>) -> bool {
        vectors() >= Vectors::Avx512
            && right.column_step == 1
            && (left.rows, left.columns, right.columns) == (out.rows(), right.rows, out.columns())
            && left.is_inside()
            && right.is_inside()
    }

    pub(super) fn multiply(
        scale: f32,
        left: View<'_>,
        right: View<'_>,
        mut out: ViewMut<'_>,
        add: Accumulate,
    ) {
        assert!(fit(left, right, &out));
        // All rows use this column panel of `right` before the next one, so that it stays in cache.
        for from in (0..right.columns).step_by(16 * WIDE) {
            let columns = from..right.columns.min(from + 16 * WIDE);
            let right = right.columns(columns.clone());
            for first in (0..left.rows).step_by(TALL) {
                let left = left.rows(first..left.rows.min(first + TALL));
                let (_, below) = out.borrow().split_at_row(first);
                let (_, right_of) = below.split_at_column(from);
                let (here, _) = right_of.split_at_row(left.rows);
                let (place, _) = here.split_at_column(columns.len());
                let how = (scale, add);
                // SAFETY: the CPU has the instructions.
                unsafe {
                    match columns.len().div_ceil(16) {
                        1 => rows::<1>(left, right, place, how),
                        2 => rows::<2>(left, right, place, how),
                        3 => rows::<3>(left, right, place, how),
                        _ => rows::<WIDE>(left, right, place, how),
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn rows<const VECTORS: usize>(
        left: View<'_>,
        right: View<'_>,
        place: ViewMut<'_>,
        how: (f32, Accumulate),
    ) {
        match left.rows {
            1 => tile::<1, VECTORS>(left, right, place, how),
            2 => tile::<2, VECTORS>(left, right, place, how),
            3 => tile::<3, VECTORS>(left, right, place, how),
            4 => tile::<4, VECTORS>(left, right, place, how),
            5 => tile::<5, VECTORS>(left, right, place, how),
            _ => tile::<TALL, VECTORS>(left, right, place, how),
        }
    }

    #[target_feature(enable = "avx512f")]
    fn tile<const ROWS: usize, const VECTORS: usize>(
        left: View<'_>,
        right: View<'_>,
        mut place: ViewMut<'_>,
        (scale, add): (f32, Accumulate),
    ) {
        assert!(left.rows == ROWS && right.columns.div_ceil(16) == VECTORS && left.columns == right.rows);
        assert!(left.is_inside() && right.is_inside());
        let mut masks = [u16::MAX; VECTORS];
        masks[VECTORS - 1] = u16::MAX >> (16 * VECTORS - right.columns);
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        let (mut a, mut b) = (left.numbers.as_ptr(), right.numbers.as_ptr());
        for _ in 0..right.rows {
            // SAFETY: the masks exclude what is beyond the row of `right`, and every element of `left` is inside its
            // slice.
            unsafe {
                let columns: [__m512; VECTORS] =
                    std::array::from_fn(|v| _mm512_maskz_loadu_ps(masks[v], b.wrapping_add(16 * v)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row = _mm512_set1_ps(*a.wrapping_add(i * left.row_step));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm512_fmadd_ps(row, column, *sum);
                    }
                }
            }
            a = a.wrapping_add(left.column_step);
            b = b.wrapping_add(right.row_step);
        }
        let scale = _mm512_set1_ps(scale);
        for (i, sums) in sums.into_iter().enumerate() {
            let out = place.row(i);
            assert_eq!(out.len(), right.columns);
            for (v, sum) in sums.into_iter().enumerate() {
                let out = out.as_mut_ptr().wrapping_add(16 * v);
                // SAFETY: the masks exclude what is beyond the row.
                unsafe {
                    let sum = match add {
                        Accumulate::Overwrite => _mm512_mul_ps(sum, scale),
                        Accumulate::Add => _mm512_fmadd_ps(sum, scale, _mm512_maskz_loadu_ps(masks[v], out)),
                    };
                    _mm512_mask_storeu_ps(out, masks[v], sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::matmul::weight::Accumulate;
    use crate::kernels::view::ViewMut;

    fn numbers(len: usize, seed: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * seed + (i / 7) as f32).sin()).collect()
    }

    #[test]
    fn it_agrees_with_a_plain_loop_at_every_edge() {
        for rows in [1, 2, 3, 4, 5, 6, 7, 16, 48] {
            for (inner, columns) in
                [(1, 1), (5, 15), (16, 16), (33, 17), (7, 33), (64, 63), (48, 64), (20, 131)]
            {
                let (a, b) = (numbers(rows * (inner + 3), 0.7), numbers(inner * (columns + 2), 0.3));
                let straight = View::part(&a, rows, inner, inner + 3);
                let turned = View::part(&a, inner, rows, rows).t();
                let right = View::part(&b, inner, columns, columns + 2);
                let right_turned = View::part(&b, columns, inner, inner).t();
                for (left, right) in [(straight, right), (turned, right), (straight, right_turned)] {
                    for accumulate in [Accumulate::Overwrite, Accumulate::Add] {
                        let old = if accumulate == Accumulate::Overwrite { f32::NAN } else { 2.0 };
                        let mut out = vec![old; rows * (columns + 1)];
                        let part = ViewMut::whole(&mut out, columns + 1).split_at_column(columns).0;
                        small(0.5, left, right, Destination { out: part, accumulate }).unwrap();
                        let at = |view: &View<'_>, i: usize, j: usize| {
                            view.numbers[i * view.row_step + j * view.column_step]
                        };
                        for (i, row) in out.chunks_exact(columns + 1).enumerate() {
                            for (j, found) in row[..columns].iter().enumerate() {
                                let dot: f32 = (0..inner).map(|k| at(&left, i, k) * at(&right, k, j)).sum();
                                let expected =
                                    0.5 * dot + if accumulate == Accumulate::Overwrite { 0.0 } else { old };
                                assert!(
                                    (found - expected).abs() < 1e-4,
                                    "{rows} {inner} {columns} {accumulate:?}: {found} {expected}"
                                );
                            }
                            // The column next to the view is unchanged.
                            assert_eq!(row[columns].to_bits(), old.to_bits());
                        }
                    }
                }
            }
        }
    }
}
