//! Products of a matrix with a low-rank factor of an adapter (skinny GEMM).
//!
//! The matrix is read in place, and once for ranks up to eight. A general GEMM would pack it first, which costs more
//! than multiplying it by eight rows.

use crate::kernels::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::pool::Team;
use crate::kernels::view::{View, ViewMut};

/// Rows of the matrix for one task of [`inner`].
const ROWS: usize = 96;
/// Columns of the matrix for one task of [`outer`].
const COLUMNS: usize = 192;

/// `out = scale · factor · xᵀ`; fails or panics if the shapes do not match.
///
/// `factor`: (rank, columns), `x`: (rows, columns), `out`: (rank, rows).
pub(crate) fn inner(team: Team, scale: f32, factor: View<'_>, x: View<'_>, out: ViewMut<'_>) -> Result<()> {
    let parts = out.column_parts(ROWS).into_iter().enumerate().collect();
    let rows = |i, out: &ViewMut<'_>| x.rows(i * ROWS..i * ROWS + out.columns());
    #[cfg(target_arch = "x86_64")]
    if vectors::fit(x) {
        let mut turned = Vec::new();
        let factor = if factor.column_step == 1 {
            factor
        } else {
            turned.reserve(factor.rows * factor.columns);
            for row in 0..factor.rows {
                let row = factor.numbers[row * factor.row_step..].iter();
                turned.extend(row.step_by(factor.column_step).take(factor.columns));
            }
            View::whole(&turned, factor.columns)
        };
        team.each(parts, |(i, mut out): (usize, ViewMut<'_>)| {
            vectors::inner(scale, factor, rows(i, &out), &mut out);
        });
        return Ok(());
    }
    team.try_each(parts, |(i, out): (usize, ViewMut<'_>)| gemm(scale, factor, rows(i, &out).t(), 0.0, out))
}

/// `out = scale · left · x`; fails or panics if the shapes do not match.
///
/// `left`: (rank, rows), `x`: (rows, columns), `out`: (rank, columns).
pub(crate) fn outer(team: Team, scale: f32, left: View<'_>, x: View<'_>, out: ViewMut<'_>) -> Result<()> {
    let parts = out.column_parts(COLUMNS).into_iter().enumerate().collect();
    let columns = |i, out: &ViewMut<'_>| x.columns(i * COLUMNS..i * COLUMNS + out.columns());
    #[cfg(target_arch = "x86_64")]
    if vectors::fit(x) && vectors::fit(left) {
        team.each(parts, |(i, mut out): (usize, ViewMut<'_>)| {
            vectors::outer(scale, left, columns(i, &out), &mut out);
        });
        return Ok(());
    }
    team.try_each(parts, |(i, out): (usize, ViewMut<'_>)| gemm(scale, left, columns(i, &out), 0.0, out))
}

/// The kernels for AVX-512.
#[cfg(target_arch = "x86_64")]
mod vectors {
    #![expect(
        unsafe_code,
        reason = "vector loads and stores through pointers into slices of asserted lengths, only where the CPU has \
                  the instructions"
    )]

    use std::arch::x86_64::{
        __m512, _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
        _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };

    use crate::kernels::instructions::{Vectors, vectors};
    use crate::kernels::view::{View, ViewMut};

    /// The register tile of [`inner`]: rows of the matrix, and rows of the factor.
    const TALL: usize = 6;
    const FEW: usize = 4;
    /// The register tile of [`outer`]: rows of the left factor, and vectors of 16 columns.
    const LEFT: usize = 8;
    const WIDE: usize = 3;
    /// Prefetch distance in rows, whose stride is too long for the hardware prefetcher.
    const AHEAD: usize = 12;

    /// Whether the CPU has AVX-512 and the rows are contiguous.
    pub(super) fn fit(x: View<'_>) -> bool {
        x.column_step == 1 && vectors() >= Vectors::Avx512
    }

    /// Mask of the up to sixteen elements from `at` on of a row of `len`.
    fn mask(at: usize, len: usize) -> u16 {
        match len.saturating_sub(at) {
            rest @ 0..16 => (1 << rest) - 1,
            _ => u16::MAX,
        }
    }

    pub(super) fn inner(scale: f32, factor: View<'_>, x: View<'_>, out: &mut ViewMut<'_>) {
        assert!(fit(x) && fit(factor) && x.columns == factor.columns);
        assert!(out.rows() == factor.rows && out.columns() == x.rows);
        for first in (0..x.rows).step_by(TALL) {
            // Past the end, the last row is repeated.
            let rows: [_; TALL] = std::array::from_fn(|i| x.row((first + i).min(x.rows - 1)));
            for few in (0..factor.rows).step_by(FEW) {
                let factors: [_; FEW] = std::array::from_fn(|j| factor.row((few + j).min(factor.rows - 1)));
                // SAFETY: the CPU has the instructions.
                let dots = unsafe { dots(rows, factors, x.columns) };
                for (j, dots) in dots.iter().enumerate().take(factor.rows - few) {
                    let out = out.row(few + j)[first..].iter_mut();
                    out.zip(dots).for_each(|(out, dot)| *out = scale * dot);
                }
            }
        }
    }

    /// The dot product of every row with every factor.
    #[target_feature(enable = "avx512f")]
    fn dots(rows: [&[f32]; TALL], factors: [&[f32]; FEW], len: usize) -> [[f32; TALL]; FEW] {
        assert!(rows.iter().chain(&factors).all(|row| row.len() == len));
        let (rows, factors) = (rows.map(<[f32]>::as_ptr), factors.map(<[f32]>::as_ptr));
        let mut sums = [[_mm512_setzero_ps(); FEW]; TALL];
        for at in (0..len).step_by(16) {
            let mask = mask(at, len);
            // SAFETY: the mask excludes what is beyond the rows.
            let load = |from: *const f32| unsafe { _mm512_maskz_loadu_ps(mask, from.add(at)) };
            let factors: [__m512; FEW] = std::array::from_fn(|j| load(factors[j]));
            for (row, sums) in rows.iter().zip(&mut sums) {
                let row = load(*row);
                for (sum, factor) in sums.iter_mut().zip(factors) {
                    *sum = _mm512_fmadd_ps(row, factor, *sum);
                }
            }
        }
        std::array::from_fn(|j| std::array::from_fn(|i| _mm512_reduce_add_ps(sums[i][j])))
    }

    pub(super) fn outer(scale: f32, left: View<'_>, x: View<'_>, out: &mut ViewMut<'_>) {
        assert!(fit(x) && fit(left) && x.rows == left.columns && x.is_inside());
        assert!(out.rows() == left.rows && out.columns() == x.columns);
        for from in (0..x.columns).step_by(16 * WIDE) {
            let x = x.columns(from..x.columns.min(from + 16 * WIDE));
            for first in (0..left.rows).step_by(LEFT) {
                let lefts: [_; LEFT] = std::array::from_fn(|j| left.row((first + j).min(left.rows - 1)));
                // SAFETY: the CPU has the instructions.
                unsafe {
                    let sums = weighted(lefts, x);
                    for (j, sums) in sums.iter().enumerate().take(left.rows - first) {
                        store(scale, sums, &mut out.row(first + j)[from..from + x.columns]);
                    }
                }
            }
        }
    }

    /// `lefts · x`, for at most [`WIDE`] vectors of columns.
    #[target_feature(enable = "avx512f")]
    fn weighted(lefts: [&[f32]; LEFT], x: View<'_>) -> [[__m512; WIDE]; LEFT] {
        assert!(lefts.iter().all(|left| left.len() == x.rows) && x.is_inside());
        let lefts = lefts.map(<[f32]>::as_ptr);
        let masks: [u16; WIDE] = std::array::from_fn(|v| mask(16 * v, x.columns));
        let mut sums = [[_mm512_setzero_ps(); WIDE]; LEFT];
        for row in 0..x.rows {
            let from = x.numbers.as_ptr().wrapping_add(row * x.row_step);
            // SAFETY: the masks exclude what is beyond the row, and the row is inside its slice.
            let columns: [__m512; WIDE] = std::array::from_fn(|v| unsafe {
                _mm512_maskz_loadu_ps(masks[v], from.wrapping_add(16 * v))
            });
            for v in 0..WIDE {
                // A hint, which faults at no address.
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD * x.row_step + 16 * v).cast());
            }
            for (left, sums) in lefts.iter().zip(&mut sums) {
                // SAFETY: `row` is below the length of every left row.
                let left = _mm512_set1_ps(unsafe { *left.add(row) });
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(left, column, *sum);
                }
            }
        }
        sums
    }

    #[target_feature(enable = "avx512f")]
    fn store(scale: f32, sums: &[__m512; WIDE], out: &mut [f32]) {
        for (v, sum) in sums.iter().enumerate() {
            let place = out.as_mut_ptr().wrapping_add(16 * v);
            // SAFETY: the mask excludes what is beyond the slice.
            unsafe {
                _mm512_mask_storeu_ps(
                    place,
                    mask(16 * v, out.len()),
                    _mm512_mul_ps(*sum, _mm512_set1_ps(scale)),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * seed + (i / 7) as f32).sin()).collect()
    }

    #[test]
    fn both_agree_with_a_plain_loop_at_every_edge() {
        for (rank, rows, columns) in
            [(1, 1, 1), (2, 7, 15), (3, 97, 16), (8, 100, 33), (9, 6, 193), (13, 200, 400)]
        {
            let step = columns + 5;
            let (x, factor) = (numbers(rows * step, 0.7), numbers(rank * columns.max(rows), 0.3));
            let x = View::part(&x, rows, columns, step);
            let at =
                |view: &View<'_>, i: usize, j: usize| view.numbers[i * view.row_step + j * view.column_step];
            for team in [Team::ALONE, Team::current()] {
                let turned = View::part(&factor, columns, rank, rank).t();
                for factor in [View::whole(&factor[..rank * columns], columns), turned] {
                    let mut out = vec![f32::NAN; rank * rows];
                    inner(team, 0.5, factor, x, ViewMut::whole(&mut out, rows)).unwrap();
                    for (i, found) in out.iter().enumerate() {
                        let dot: f32 =
                            (0..columns).map(|k| at(&factor, i / rows, k) * at(&x, i % rows, k)).sum();
                        assert!((found - 0.5 * dot).abs() < 1e-4, "{rank} {rows} {columns}: {found} {dot}");
                    }
                }
                let left = View::part(&factor, rank, rows, rows);
                let mut out = vec![f32::NAN; rank * columns];
                outer(team, -2.0, left, x, ViewMut::whole(&mut out, columns)).unwrap();
                for (i, found) in out.iter().enumerate() {
                    let sum: f32 =
                        (0..rows).map(|k| at(&left, i / columns, k) * at(&x, k, i % columns)).sum();
                    assert!((found + 2.0 * sum).abs() < 1e-4, "{rank} {rows} {columns}: {found} {sum}");
                }
            }
        }
    }
}
