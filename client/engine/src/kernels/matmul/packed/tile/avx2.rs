//! Micro-kernel for AVX2, with a register tile of four rows and two vectors of eight columns.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before"
)]

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_add_ps, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_ps,
};

use super::block::{Block, PREFETCH_STEP, Sums};
use crate::kernels::matmul::packed::ahead::Soon;
use crate::kernels::matmul::packed::layout::TALL;

/// The register tile, rows and vectors of columns: its sums and operands fit in sixteen registers.
const ROWS: usize = 4;
const WIDE: usize = 2;
/// Elements of a vector.
const LANES: usize = 8;

/// Multiplies a group of rows by the block, in 16-bit integers if `SHORT`, else in f32; overwrites `out` if `first`,
/// else adds to it.
#[target_feature(enable = "avx2,fma")]
pub(super) fn sum<const SHORT: bool, const VECTORS: usize>(
    block: Block<'_>,
    group: usize,
    first: bool,
    out: &mut Sums<VECTORS>,
    soon: &mut Soon,
) {
    // Columns in the outer loop, so that these columns of the panel are read again from L1 cache.
    for column in (0..16 * VECTORS).step_by(WIDE * LANES) {
        for row in (0..TALL).step_by(ROWS) {
            part::<SHORT, VECTORS>(block, group, (row, column), first, out, soon);
        }
    }
}

/// Computes the register tile that begins at this row and column.
#[target_feature(enable = "avx2,fma")]
fn part<const SHORT: bool, const VECTORS: usize>(
    block: Block<'_>,
    group: usize,
    (row, column): (usize, usize),
    first: bool,
    out: &mut Sums<VECTORS>,
    soon: &mut Soon,
) {
    let (rows, columns, depth) = (block.rows(group), block.right.words(), block.depth());
    assert!(rows.len() == depth * TALL && columns.len() == depth * 16 * VECTORS);
    assert!(row + ROWS <= TALL && column + WIDE * LANES <= 16 * VECTORS);
    let mut sums = [[_mm256_setzero_si256(); WIDE]; ROWS];
    let (mut a, mut b) = (rows.as_ptr().wrapping_add(row), columns.as_ptr().wrapping_add(column));
    for _ in 0..depth / PREFETCH_STEP {
        soon.fetch();
        for _ in 0..PREFETCH_STEP {
            // SAFETY: `a` and `b` advance by one word of each side, of which there are `depth`.
            let columns: [__m256i; WIDE] =
                std::array::from_fn(|v| unsafe { _mm256_loadu_si256(b.wrapping_add(LANES * v).cast()) });
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as before.
                let row = _mm256_set1_epi32(unsafe { *a.wrapping_add(i) });
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = if SHORT {
                        _mm256_add_epi32(*sum, _mm256_madd_epi16(row, column))
                    } else {
                        let [row, column, old] = [row, column, *sum].map(|x| _mm256_castsi256_ps(x));
                        _mm256_castps_si256(_mm256_fmadd_ps(row, column, old))
                    };
                }
            }
            (a, b) = (a.wrapping_add(TALL), b.wrapping_add(16 * VECTORS));
        }
    }
    let scales = &block.scales(group)[row..];
    for ((out, sums), scale) in out[row..].iter_mut().zip(sums).zip(scales) {
        let out = &mut out.as_flattened_mut()[column..][..WIDE * LANES];
        for (v, (out, sum)) in out.chunks_exact_mut(LANES).zip(sums).enumerate() {
            let sum = if SHORT {
                let scale_of = load(&block.right.scale_of[column + v * LANES..][..LANES]);
                let scale_of = _mm256_mul_ps(scale_of, _mm256_set1_ps(scale.scale_of));
                _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale_of)
            } else {
                _mm256_castsi256_ps(sum)
            };
            let sum = if first { sum } else { _mm256_add_ps(load(out), sum) };
            // SAFETY: eight values.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
}

/// Loads the first eight values.
#[target_feature(enable = "avx2")]
#[inline]
fn load(x: &[f32]) -> __m256 {
    assert!(x.len() >= LANES);
    // SAFETY: eight values.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}
