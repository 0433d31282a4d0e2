//! The layout of packed factors, and the ranges of quantized integers.

#![expect(unsafe_code, reason = "vector loads and stores through pointers, which stay inside of their rows")]

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};
use std::ops::Range;

use crate::kernels::matmul::precision::Precision;

/// Most words of a block along the inner dimension, so that [`TALL`] packed rows (10 KiB) fit in L1 cache and [`WIDE`]
/// packed columns (60 KiB) in L2.
pub(super) const BLOCK: usize = 320;
/// Words of 32 bits that are packed together: with n values a word, word `i` has the values `i + STEP · j`, `j < n`.
pub(super) const STEP: usize = 16;
/// Rows of a tile, and of a group of packed rows.
pub(crate) const TALL: usize = 8;
/// Columns of a tile: three vectors of AVX-512.
pub(crate) const WIDE: usize = 48;
/// Largest 16-bit integer of the weights.
pub(super) const MOST_RIGHT: f32 = 4095.0;
/// Largest 8-bit integer of either factor.
pub(super) const MOST_BYTE: f32 = 127.0;
/// Offset of the weights' bytes, which makes them unsigned.
pub(super) const ADDED: i32 = 128;
/// Largest sum of absolute 16-bit integers in a block's row of the left factor: times [`MOST_RIGHT`] it is below 2³¹.
pub(super) const MOST_LEFT_SUM: f32 = 524_000.0;
/// Largest 16-bit integer of the left factor.
pub(super) const MOST_LEFT: f32 = 32_767.0;

/// One block of the inner dimension, which is the columns of one or several matrices side by side.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Which of the matrices.
    pub(crate) side: usize,
    /// Its columns.
    pub(crate) range: Range<usize>,
}

/// Splits the inner dimension into blocks, matrix by matrix; those of one matrix have nearly the same size.
pub(super) fn spans(precision: Precision, widths: &[usize]) -> Vec<Span> {
    let (most, step) = match precision {
        Precision::F32 | Precision::Int16 => (BLOCK, 32),
        Precision::Int8 => (2 * BLOCK, 64),
    };
    let mut spans = Vec::new();
    for (side, inner) in widths.iter().copied().enumerate() {
        let count = inner.div_ceil(most).max(1);
        let size = inner.div_ceil(count).next_multiple_of(step);
        let ranges = (0..inner).step_by(size).map(|from| from..(from + size).min(inner));
        spans.extend(ranges.map(|range| Span { side, range }));
    }
    spans
}

/// Words of a block's row, with the zeros it is padded with.
pub(super) fn words(precision: Precision, block: &Range<usize>) -> usize {
    block.len().div_ceil(precision.in_a_word()).next_multiple_of(STEP)
}

/// How the integers of a block's row are quantized.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scale {
    /// The value of integer 1; the scale of dequantization.
    pub(super) scale_of: f32,
    /// Start value of their sums, which compensates for the offset [`ADDED`] of the weights.
    pub(super) begin: i32,
}

/// [`TALL`] rows of a block before [`interleave`].
#[derive(Debug)]
pub(crate) struct Lines(pub(super) [[i32; BLOCK]; TALL]);

impl Default for Lines {
    fn default() -> Self {
        Self([[0; BLOCK]; TALL])
    }
}

/// Transposes eight rows of words: word `k` of all eight is written at `k · step` of `out`.
#[target_feature(enable = "avx2")]
pub(super) fn interleave(lines: &[[i32; BLOCK]; TALL], out: &mut [i32], step: usize) {
    for (at, out) in out.chunks_mut(step * TALL).enumerate().take(BLOCK / TALL) {
        // SAFETY: eight words from word `8 · at` on are inside the row.
        let r: [__m256i; TALL] =
            std::array::from_fn(|i| unsafe { _mm256_loadu_si256(lines[i].as_ptr().add(TALL * at).cast()) });
        let low = |a, b| _mm256_unpacklo_epi32(a, b);
        let high = |a, b| _mm256_unpackhi_epi32(a, b);
        let t = [
            low(r[0], r[1]),
            high(r[0], r[1]),
            low(r[2], r[3]),
            high(r[2], r[3]),
            low(r[4], r[5]),
            high(r[4], r[5]),
            low(r[6], r[7]),
            high(r[6], r[7]),
        ];
        let low = |a, b| _mm256_unpacklo_epi64(a, b);
        let high = |a, b| _mm256_unpackhi_epi64(a, b);
        let u = [
            low(t[0], t[2]),
            high(t[0], t[2]),
            low(t[1], t[3]),
            high(t[1], t[3]),
            low(t[4], t[6]),
            high(t[4], t[6]),
            low(t[5], t[7]),
            high(t[5], t[7]),
        ];
        for i in 0..4 {
            let first = _mm256_permute2x128_si256::<0x20>(u[i], u[i + 4]);
            let second = _mm256_permute2x128_si256::<0x31>(u[i], u[i + 4]);
            for (row, words) in [(i, first), (i + 4, second)] {
                let out = &mut out[step * row..][..TALL];
                // SAFETY: eight words.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), words) };
            }
        }
    }
}
