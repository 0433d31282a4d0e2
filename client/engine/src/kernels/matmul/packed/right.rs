//! The packed right factor: panels of weights as a tile reads them, converted and quantized from the held type in one
//! pass.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before, \
              and is called only where the CPU has the instructions"
)]

use std::arch::x86_64::{
    __m512, __m512i, _mm256_maskz_loadu_epi16, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_or_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_slli_epi32, _mm512_sllv_epi32, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    _mm512_xor_si512,
};
use std::ops::Range;

use half::{bf16, f16};

use crate::kernels::matmul::packed::ahead::Lines;
use crate::kernels::matmul::packed::layout::{BLOCK, MOST_BYTE, MOST_RIGHT, STEP, WIDE, words};
use crate::kernels::matmul::precision::{Precision, available, is_wide};

/// One packed block of up to [`WIDE`] columns of the right factor.
///
/// Layout: word of the block, column, with the columns padded to whole vectors of 16.
#[derive(Debug, Default)]
pub(crate) struct Right {
    pub(super) numbers: Vec<i32>,
    /// Words of [`Self::numbers`] in use.
    pub(super) len: usize,
    /// Quantization scale of each column.
    pub(super) scale_of: Vec<f32>,
    /// Vectors of 16 columns.
    pub(super) vectors: usize,
}

/// A row-major matrix to pack panels from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) numbers: Held<'a>,
    pub(crate) columns: usize,
    /// The largest absolute value of each row; empty for f32.
    pub(crate) most: &'a [f32],
}

/// The elements of a [`Source`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl Source<'_> {
    /// The cache lines of this submatrix, as far as it is inside the matrix, for prefetching.
    pub(crate) fn ahead(&self, rows: &Range<usize>, columns: &Range<usize>) -> Lines {
        let (start, bytes) = match self.numbers {
            Held::F32(numbers) => (numbers.as_ptr().cast::<u8>(), 4),
            Held::F16(numbers) => (numbers.as_ptr().cast::<u8>(), 2),
            Held::Bf16(numbers) => (numbers.as_ptr().cast::<u8>(), 2),
        };
        let first = rows.start * self.columns + columns.start;
        let rows = rows.end.min(self.numbers.len() / self.columns.max(1)).saturating_sub(rows.start);
        let len = columns.end.min(self.columns).saturating_sub(columns.start) * bytes;
        Lines::new(start.wrapping_add(first * bytes), rows, len, self.columns * bytes)
    }
}

/// Quantization scale of a row with largest absolute value `most`, and its inverse; both zero if the row is zero.
#[inline]
pub(crate) fn scale_of(precision: Precision, most: f32) -> (f32, f32) {
    let inverse = match precision {
        Precision::F32 => 1.0,
        Precision::Int16 => MOST_RIGHT / most,
        Precision::Int8 => MOST_BYTE / most,
    };
    if inverse.is_finite() && inverse > 0.0 { (1.0 / inverse, inverse) } else { (0.0, 0.0) }
}

/// An element type that can be loaded as a vector of f32.
pub(super) trait Number: Copy {
    /// Loads sixteen values as f32, zeros where the mask is not set.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW and VL, and every element of the mask can be read.
    unsafe fn load(from: *const Self, mask: u16) -> __m512;
}

impl Number for f32 {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const Self, mask: u16) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Number for f16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const Self, mask: u16) -> __m512 {
        // SAFETY: the caller's.
        _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) })
    }
}

impl Number for bf16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const Self, mask: u16) -> __m512 {
        // SAFETY: the caller's.
        let halves = unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }
}

impl Right {
    /// The packed words of the block.
    pub(super) fn words(&self) -> &[i32] {
        &self.numbers[..self.len]
    }

    /// Packs one block of at most [`WIDE`] rows of `source` as columns of the right factor: transposed, for `x · Wᵀ`.
    pub(crate) fn fill_rows(
        &mut self,
        precision: Precision,
        source: Source<'_>,
        rows: Range<usize>,
        block: &Range<usize>,
    ) {
        assert!(available(precision) && rows.len() <= WIDE && words(precision, block) <= BLOCK);
        assert!(rows.end * source.columns <= source.numbers.len() && block.end <= source.columns);
        self.shape(precision, rows.len(), block);
        if !is_wide(precision) {
            return self.fill_rows_avx2(precision, source, rows, block);
        }
        // SAFETY: the CPU has the instructions.
        unsafe {
            match source.numbers {
                Held::F32(numbers) => self.take_rows(precision, (numbers, source), rows, block),
                Held::F16(numbers) => self.take_rows(precision, (numbers, source), rows, block),
                Held::Bf16(numbers) => self.take_rows(precision, (numbers, source), rows, block),
            }
        }
    }

    /// Packs one block of rows of at most [`WIDE`] columns of `source`: not transposed, for `dy · W`.
    pub(crate) fn fill_columns(
        &mut self,
        precision: Precision,
        source: Source<'_>,
        block: &Range<usize>,
        columns: Range<usize>,
    ) {
        assert!(available(precision) && columns.len() <= WIDE && words(precision, block) <= BLOCK);
        assert!(block.end * source.columns <= source.numbers.len() && columns.end <= source.columns);
        self.shape(precision, columns.len(), block);
        if !is_wide(precision) {
            return self.fill_columns_avx2(precision, source, block, &columns);
        }
        // SAFETY: the CPU has the instructions.
        unsafe {
            match source.numbers {
                Held::F32(numbers) => self.take_columns(precision, (numbers, source), block, columns),
                Held::F16(numbers) => self.take_columns(precision, (numbers, source), block, columns),
                Held::Bf16(numbers) => self.take_columns(precision, (numbers, source), block, columns),
            }
        }
    }

    fn shape(&mut self, precision: Precision, columns: usize, block: &Range<usize>) {
        self.vectors = columns.div_ceil(16);
        self.len = words(precision, block) * self.vectors * 16;
        // Never shrinks, so that nothing is zeroed twice.
        self.numbers.resize(self.numbers.len().max(self.len), 0);
        self.scale_of.resize(WIDE, 0.0);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn take_rows<N: Number>(
        &mut self,
        precision: Precision,
        (numbers, source): (&[N], Source<'_>),
        rows: Range<usize>,
        block: &Range<usize>,
    ) {
        let step = self.vectors * 16;
        let mut inverses = [0.0f32; WIDE];
        if precision != Precision::F32 {
            self.scale_of.fill(0.0);
            let scales = self.scale_of.iter_mut().zip(&mut inverses);
            for ((scale, inverse), most) in scales.zip(&source.most[rows.clone()]) {
                (*scale, *inverse) = scale_of(precision, *most);
            }
        }
        let read = 16 * precision.in_a_word();
        for vector in 0..self.vectors {
            let count = (rows.len() - 16 * vector).min(16);
            for at in (0..block.len()).step_by(read) {
                let mut r = [_mm512_setzero_si512(); 16];
                for (i, r) in r.iter_mut().enumerate().take(count) {
                    let row = &numbers[(rows.start + 16 * vector + i) * source.columns..][block.clone()];
                    let scale = _mm512_set1_ps(inverses[16 * vector + i]);
                    let rounded = |i| _mm512_cvtps_epi32(_mm512_mul_ps(load(row, at + 16 * i), scale));
                    *r = match precision {
                        Precision::F32 => _mm512_castps_si512(load(row, at)),
                        Precision::Int16 => joined::<2>(std::array::from_fn(rounded)),
                        Precision::Int8 => without_sign(joined::<4>(std::array::from_fn(rounded))),
                    };
                }
                let words = &mut self.numbers[at * 16 / read * step + 16 * vector..];
                for (i, turned) in transpose(&r).into_iter().enumerate() {
                    let place = &mut words[i * step..i * step + 16];
                    // SAFETY: sixteen words.
                    unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), turned) };
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn take_columns<N: Number>(
        &mut self,
        precision: Precision,
        (numbers, source): (&[N], Source<'_>),
        block: &Range<usize>,
        columns: Range<usize>,
    ) {
        // The scales of the rows are multiplied into the left factor.
        self.scale_of.fill(1.0);
        match precision {
            Precision::F32 => {
                let step = self.vectors * 16;
                for (at, line) in self.numbers[..self.len].chunks_exact_mut(step).enumerate() {
                    let row = match block.clone().nth(at) {
                        Some(row) => &numbers[row * source.columns..][columns.clone()],
                        None => &[],
                    };
                    for (vector, place) in line.chunks_exact_mut(16).enumerate() {
                        let values = _mm512_castps_si512(load(row, 16 * vector));
                        // SAFETY: sixteen words.
                        unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), values) };
                    }
                }
            }
            Precision::Int16 => self.round_columns::<N, 2>(precision, (numbers, source), block, &columns),
            Precision::Int8 => self.round_columns::<N, 4>(precision, (numbers, source), block, &columns),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn round_columns<N: Number, const IN_A_WORD: usize>(
        &mut self,
        precision: Precision,
        (numbers, source): (&[N], Source<'_>),
        block: &Range<usize>,
        columns: &Range<usize>,
    ) {
        let step = self.vectors * 16;
        // Ahead of the loop, so that the divisions vectorize: sixteen are as fast as one.
        let mut inverses = [0.0; 2 * BLOCK];
        for (inverse, most) in inverses.iter_mut().zip(&source.most[block.clone()]) {
            *inverse = scale_of(precision, *most).1;
        }
        let inverses = &inverses[..block.len()];
        for (at, line) in self.numbers[..self.len].chunks_exact_mut(step).enumerate() {
            let first = at / STEP * STEP * IN_A_WORD + at % STEP;
            let rows: [(&[N], __m512); IN_A_WORD] =
                std::array::from_fn(|i| match inverses.get(first + STEP * i) {
                    Some(inverse) => {
                        let row = (block.start + first + STEP * i) * source.columns;
                        (&numbers[row..][columns.clone()], _mm512_set1_ps(*inverse))
                    }
                    None => (&[][..], _mm512_setzero_ps()),
                });
            for (vector, place) in line.chunks_exact_mut(16).enumerate() {
                let rounded = rows
                    .map(|(row, inverse)| _mm512_cvtps_epi32(_mm512_mul_ps(load(row, 16 * vector), inverse)));
                let words = joined(rounded);
                let words = if IN_A_WORD == 4 { without_sign(words) } else { words };
                // SAFETY: sixteen words.
                unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), words) };
            }
        }
    }
}

impl Held<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
        }
    }
}

/// Loads sixteen values of a row from `at` on, zeros beyond its end.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn load<N: Number>(row: &[N], at: usize) -> __m512 {
    let rest = row.len().saturating_sub(at);
    if rest == 0 {
        return _mm512_setzero_ps();
    }
    let mask = if rest >= 16 { u16::MAX } else { (1 << rest) - 1 };
    // SAFETY: the mask excludes what is beyond the row.
    unsafe { N::load(row.as_ptr().add(at), mask) }
}

/// Packs the low 16 bits of two vectors of integers, or 8 of four, into words; the first vector is lowest.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn joined<const IN_A_WORD: usize>(integers: [__m512i; IN_A_WORD]) -> __m512i {
    let (bits, mask) = if IN_A_WORD == 2 { (16, 0xffff) } else { (8, 0xff) };
    let mut words = _mm512_setzero_si512();
    for integers in integers.into_iter().rev() {
        let lowest = _mm512_and_si512(integers, _mm512_set1_epi32(mask));
        words = _mm512_or_si512(_mm512_sllv_epi32(words, _mm512_set1_epi32(bits)), lowest);
    }
    words
}

/// Adds [`ADDED`](crate::kernels::matmul::packed::layout::ADDED) to each byte, by flipping its sign bit.
#[target_feature(enable = "avx512f")]
#[inline]
fn without_sign(bytes: __m512i) -> __m512i {
    _mm512_xor_si512(bytes, _mm512_set1_epi8(i8::MIN))
}

/// Transposes 16 × 16 words.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut twos = *rows;
    for i in 0..8 {
        twos[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        twos[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = twos;
    for i in 0..4 {
        fours[4 * i] = _mm512_unpacklo_epi64(twos[4 * i], twos[4 * i + 2]);
        fours[4 * i + 1] = _mm512_unpackhi_epi64(twos[4 * i], twos[4 * i + 2]);
        fours[4 * i + 2] = _mm512_unpacklo_epi64(twos[4 * i + 1], twos[4 * i + 3]);
        fours[4 * i + 3] = _mm512_unpackhi_epi64(twos[4 * i + 1], twos[4 * i + 3]);
    }
    // Now lane `l` of `fours[4 · q + c]` holds column `4 · l + c` of rows `4 · q` to `4 · q + 3`.
    let float = |x: __m512i| _mm512_castsi512_ps(x);
    let backward = |x| _mm512_castps_si512(x);
    let mut out = *rows;
    for column in 0..4 {
        let (first, second) = (float(fours[column]), float(fours[4 + column]));
        let (third, fourth) = (float(fours[8 + column]), float(fours[12 + column]));
        let even = _mm512_shuffle_f32x4::<0x88>(first, second);
        let odd = _mm512_shuffle_f32x4::<0xdd>(first, second);
        let later_even = _mm512_shuffle_f32x4::<0x88>(third, fourth);
        let later_odd = _mm512_shuffle_f32x4::<0xdd>(third, fourth);
        out[column] = backward(_mm512_shuffle_f32x4::<0x88>(even, later_even));
        out[8 + column] = backward(_mm512_shuffle_f32x4::<0xdd>(even, later_even));
        out[4 + column] = backward(_mm512_shuffle_f32x4::<0x88>(odd, later_odd));
        out[12 + column] = backward(_mm512_shuffle_f32x4::<0xdd>(odd, later_odd));
    }
    out
}
