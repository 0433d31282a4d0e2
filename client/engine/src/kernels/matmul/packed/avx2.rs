//! Packing for AVX2, of f32 and 16-bit integers, in plain loops that the compiler vectorizes.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined into `vectorized` is not compiled for the CPU's vector instructions"
)]

use std::ops::Range;

use half::slice::HalfFloatSliceExt;

use crate::kernels::matmul::packed::layout::{
    BLOCK, Lines, MOST_LEFT, MOST_LEFT_SUM, STEP, Scale, TALL, WIDE, interleave,
};
use crate::kernels::matmul::packed::right::{Held, Right, Source, scale_of};
use crate::kernels::matmul::precision::Precision;
use crate::kernels::simd::{largest, sum, vectorized};

/// The values of a block's row; two are packed in a word of 16-bit integers.
type Row = [f32; 2 * BLOCK];

vectorized! {
    /// Quantizes a block's row, times `factors` if given, to 16-bit integers; words beyond its end are zero.
    ///
    /// The scale is NaN if a value is not finite.
    pub(super) fn round(x: &[f32], factors: Option<&[f32]>, words: &mut [i32]) -> Scale {
        assert!(x.len() <= 2 * words.len() && factors.is_none_or(|factors| factors.len() == x.len()));
        let mut row: Row = [0.0; 2 * BLOCK];
        match factors {
            Some(factors) => {
                row.iter_mut().zip(x.iter().zip(factors)).for_each(|(row, (x, factor))| *row = x * factor);
            }
            None => row[..x.len()].copy_from_slice(x),
        }
        let row = &row[..2 * words.len()];
        let (most, total) = (largest(row), sum([row], |[x]| x.abs()));
        if !total.is_finite() {
            words.fill(0);
            return Scale { scale_of: f32::NAN, begin: 0 };
        }
        // Rounding adds at most 0.5 to each absolute value.
        let room = MOST_LEFT_SUM - 0.5 * x.len() as f32;
        let scale = (MOST_LEFT / most).min(room / total);
        if !scale.is_finite() {
            // All values are zero, or so small that the scale overflows.
            words.fill(0);
            return Scale::default();
        }
        join(row, scale, words);
        Scale { scale_of: 1.0 / scale, begin: 0 }
    }
}

/// Quantizes to 16 bits: word `i` of each [`STEP`] has the values `i`, `i + STEP` of its 2 · `STEP`.
#[inline(always)]
fn join(row: &[f32], scale: f32, words: &mut [i32]) {
    for (words, row) in words.chunks_exact_mut(STEP).zip(row.chunks_exact(2 * STEP)) {
        let (low, high) = row.split_at(STEP);
        for (word, (low, high)) in words.iter_mut().zip(low.iter().zip(high)) {
            *word = pair(low * scale, high * scale);
        }
    }
}

/// Two values below 2¹⁵, rounded to integers, `low` in the lower half of the word.
#[inline(always)]
fn pair(low: f32, high: f32) -> i32 {
    // Adding 1.5 · 2²³ rounds to an integer and leaves it in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let bits = |x: f32| (x + ROUND).to_bits();
    ((bits(low) & 0xffff) | (bits(high) << 16)).cast_signed()
}

vectorized! {
    /// Packs a row of a block into words, quantized by `inverse`, the inverse scale, if integers.
    fn line(precision: Precision, numbers: Held<'_>, inverse: f32, words: &mut [i32]) {
        let mut row: Row = [0.0; 2 * BLOCK];
        widen(numbers, &mut row);
        match precision {
            Precision::F32 => {
                words.iter_mut().zip(row).for_each(|(word, x)| *word = x.to_bits().cast_signed());
            }
            Precision::Int16 | Precision::Int8 => join(&row, inverse, words),
        }
    }
}

/// Converts to f32, at the beginning of `out`.
#[inline(always)]
fn widen(numbers: Held<'_>, out: &mut [f32]) {
    match numbers {
        Held::F32(numbers) => out[..numbers.len()].copy_from_slice(numbers),
        Held::F16(numbers) => numbers.convert_to_f32_slice(&mut out[..numbers.len()]),
        Held::Bf16(numbers) => {
            let bits = |x: &half::bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
            out.iter_mut().zip(numbers).for_each(|(out, x)| *out = bits(x));
        }
    }
}

impl Source<'_> {
    /// `columns` of a row; empty without a row.
    fn part(&self, row: Option<usize>, columns: &Range<usize>) -> Held<'_> {
        let part = match row {
            Some(row) => row * self.columns + columns.start..row * self.columns + columns.end,
            None => 0..0,
        };
        match self.numbers {
            Held::F32(numbers) => Held::F32(&numbers[part]),
            Held::F16(numbers) => Held::F16(&numbers[part]),
            Held::Bf16(numbers) => Held::Bf16(&numbers[part]),
        }
    }

    /// The inverse quantization scale of a row, 1 for f32.
    fn inverse(&self, precision: Precision, row: Option<usize>) -> f32 {
        match (precision, row) {
            (Precision::F32, _) => 1.0,
            (Precision::Int16 | Precision::Int8, row) => {
                row.map_or(0.0, |row| scale_of(precision, self.most[row]).1)
            }
        }
    }
}

impl Right {
    /// [`Right::fill_rows`] for AVX2.
    pub(super) fn fill_rows_avx2(
        &mut self,
        precision: Precision,
        source: Source<'_>,
        rows: Range<usize>,
        block: &Range<usize>,
    ) {
        assert_ne!(precision, Precision::Int8, "bytes need VNNI");
        let step = self.vectors * 16;
        if precision != Precision::F32 {
            self.scale_of.fill(0.0);
            for (place, most) in self.scale_of.iter_mut().zip(&source.most[rows.clone()]) {
                *place = scale_of(precision, *most).0;
            }
        }
        let depth = self.len / step;
        let mut lines = Lines::default();
        for first in (0..step).step_by(TALL) {
            for (i, place) in lines.0.iter_mut().enumerate() {
                let row = rows.clone().nth(first + i);
                line(precision, source.part(row, block), source.inverse(precision, row), &mut place[..depth]);
            }
            #[expect(unsafe_code, reason = "packing is called only where the CPU has AVX2")]
            // SAFETY: packing is called only where the CPU has AVX2.
            unsafe {
                interleave(&lines.0, &mut self.numbers[first..self.len], step);
            }
        }
    }

    /// [`Right::fill_columns`] for AVX2.
    pub(super) fn fill_columns_avx2(
        &mut self,
        precision: Precision,
        source: Source<'_>,
        block: &Range<usize>,
        columns: &Range<usize>,
    ) {
        assert_ne!(precision, Precision::Int8, "bytes need VNNI");
        // The scales of the rows are multiplied into the left factor.
        self.scale_of.fill(1.0);
        let step = self.vectors * 16;
        for (at, words) in self.numbers[..self.len].chunks_exact_mut(step).enumerate() {
            let rows = match precision {
                Precision::F32 => [block.clone().nth(at), None],
                Precision::Int16 | Precision::Int8 => {
                    let first = at / STEP * STEP * 2 + at % STEP;
                    [first, first + STEP].map(|row| block.clone().nth(row))
                }
            };
            let scales = rows.map(|row| source.inverse(precision, row));
            words_of(precision, rows.map(|row| source.part(row, columns)), scales, words);
        }
    }
}

vectorized! {
    /// Packs columns of one row, or of two rows as 16-bit pairs, into words.
    fn words_of(precision: Precision, rows: [Held<'_>; 2], scales: [f32; 2], words: &mut [i32]) {
        let mut wide = [[0.0; WIDE]; 2];
        wide.iter_mut().zip(rows).for_each(|(wide, row)| widen(row, wide));
        for (word, (low, high)) in words.iter_mut().zip(wide[0].iter().zip(wide[1])) {
            *word = match precision {
                Precision::F32 => low.to_bits().cast_signed(),
                Precision::Int16 | Precision::Int8 => pair(low * scales[0], high * scales[1]),
            };
        }
    }
}
