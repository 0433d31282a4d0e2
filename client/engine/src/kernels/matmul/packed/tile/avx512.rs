//! Micro-kernels for AVX-512, with a register tile of eight rows and up to three vectors of sixteen columns.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before"
)]

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::block::{Block, PREFETCH_STEP, Sums};
use crate::kernels::matmul::packed::ahead::Soon;
use crate::kernels::matmul::packed::layout::TALL;
use crate::kernels::matmul::packed::right::load;

/// Multiplies a group of rows by the block in f32; overwrites `out` if `first`, else adds to it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn sum_single<const VECTORS: usize>(
    block: Block<'_>,
    group: usize,
    first: bool,
    out: &mut Sums<VECTORS>,
    soon: &mut Soon,
) {
    let (rows, columns, depth) = (block.rows(group), block.right.words(), block.depth());
    assert!(rows.len() == depth * TALL && columns.len() == depth * 16 * VECTORS);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; TALL];
    let (mut a, mut b) = (rows.as_ptr().cast::<f32>(), columns.as_ptr().cast::<f32>());
    for _ in 0..depth / PREFETCH_STEP {
        soon.fetch();
        for _ in 0..PREFETCH_STEP {
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

/// As [`sum_single`], in 8-bit integers if `BYTES`, else in 16-bit ones; dequantizes the sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn sum_integers<const VECTORS: usize, const BYTES: bool>(
    block: Block<'_>,
    group: usize,
    first: bool,
    out: &mut Sums<VECTORS>,
    soon: &mut Soon,
) {
    let (rows, columns, depth) = (block.rows(group), block.right.words(), block.depth());
    let scales = block.scales(group);
    assert!(rows.len() == depth * TALL && columns.len() == depth * 16 * VECTORS);
    let mut sums: [[__m512i; VECTORS]; TALL] =
        std::array::from_fn(|i| [_mm512_set1_epi32(scales[i].begin); VECTORS]);
    let (mut a, mut b) = (rows.as_ptr(), columns.as_ptr());
    for _ in 0..depth / PREFETCH_STEP {
        soon.fetch();
        for _ in 0..PREFETCH_STEP {
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
    let scale_of: [__m512; VECTORS] = std::array::from_fn(|v| load(&block.right.scale_of, 16 * v));
    for ((out, sums), row) in out.iter_mut().zip(sums).zip(scales) {
        let row = _mm512_set1_ps(row.scale_of);
        for ((out, sum), scale_of) in out.iter_mut().zip(sums).zip(scale_of) {
            let (sum, scale_of) = (_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale_of, row));
            store(
                if first {
                    _mm512_mul_ps(sum, scale_of)
                } else {
                    _mm512_fmadd_ps(sum, scale_of, load(out, 0))
                },
                out,
            );
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(numbers: __m512, out: &mut [f32; 16]) {
    // SAFETY: sixteen values.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), numbers) };
}
