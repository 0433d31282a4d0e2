//! How packed factors are laid out, and how large the integers are.

#![expect(unsafe_code, reason = "vector loads and stores through pointers, which stay inside of their rows")]

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};
use std::ops::Range;

use crate::kernels::matmul::precision::Precision;

/// Most words of one block along the inner dimension: the numbers that fit into the nearest cache.
pub(super) const BLOCK: usize = 320;
/// Words of 32 bits that are packed together.
pub(super) const STEP: usize = 16;
/// Rows of a tile.
pub(crate) const TALL: usize = 8;
/// Columns of a tile: three vectors.
pub(crate) const WIDE: usize = 48;
/// Largest integer on the weights' side, and of bytes on either side.
pub(super) const MOST_RIGHT: f32 = 4095.0;
pub(super) const MOST_BYTE: f32 = 127.0;
/// What is added to a weight's byte, so that it has no sign.
pub(super) const ADDED: i32 = 128;
/// Largest sum of absolute integers in a block's row on the other side: times [`MOST_RIGHT`] it is below 2³¹.
pub(super) const MOST_LEFT_SUM: f32 = 524_000.0;
/// Largest integer there.
pub(super) const MOST_LEFT: f32 = 32_767.0;

/// One block of an inner dimension: some columns of one of the matrices whose columns it is.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Which of the matrices.
    pub(crate) side: usize,
    pub(crate) range: Range<usize>,
}

/// The blocks of an inner dimension, matrix by matrix in order, those of one of nearly one size.
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

/// Words of a block's row, filled up with zeros.
pub(super) fn words(precision: Precision, block: &Range<usize>) -> usize {
    block.len().div_ceil(precision.in_a_word()).next_multiple_of(STEP)
}

/// What the integers of a block's row are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scale {
    /// What one is worth.
    pub(super) scale_of: f32,
    /// What their sums begin with, so that what is added to each weight is taken away.
    pub(super) begin: i32,
}

/// Rows of a block before they are laid side by side.
#[derive(Debug)]
pub(crate) struct Lines(pub(super) [[i32; BLOCK]; TALL]);

impl Default for Lines {
    fn default() -> Self {
        Self([[0; BLOCK]; TALL])
    }
}

/// Eight rows of words become eight columns, each row of which starts `step` words after the one before.
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
