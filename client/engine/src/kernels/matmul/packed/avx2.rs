//! Packing for AVX2, in plain loops that are compiled for it: of f32 and of 16-bit integers.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined into `vectorised` is not compiled for the CPU's vector instructions"
)]

use std::ops::Range;

use half::slice::HalfFloatSliceExt;

use crate::kernels::matmul::packed::layout::{
    BLOCK, Lines, MOST_LEFT, MOST_LEFT_SUM, STEP, Scale, TALL, WIDE, interleave,
};
use crate::kernels::matmul::packed::right::{Held, Right, Source, scale_of};
use crate::kernels::matmul::precision::Precision;
use crate::kernels::simd::{largest, sum, vectorized};

/// Numbers of a block's row, of which two make a word.
type Row = [f32; 2 * BLOCK];

vectorized! {
    /// Rounds a block's row, times the columns' factors where there are some; words behind it are zero.
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
        // Rounding adds at most a half to each.
        let room = MOST_LEFT_SUM - 0.5 * x.len() as f32;
        let scale = (MOST_LEFT / most).min(room / total);
        if !scale.is_finite() {
            // All zero, or so small that even their inverse is no number.
            words.fill(0);
            return Scale::default();
        }
        join(row, scale, words);
        Scale { scale_of: 1.0 / scale, begin: 0 }
    }
}

/// Pairs of numbers as words.
#[inline(always)]
fn join(row: &[f32], scale: f32, words: &mut [i32]) {
    for (words, row) in words.chunks_exact_mut(STEP).zip(row.chunks_exact(2 * STEP)) {
        let (low, high) = row.split_at(STEP);
        for (word, (low, high)) in words.iter_mut().zip(low.iter().zip(high)) {
            *word = pair(low * scale, high * scale);
        }
    }
}

/// Two numbers below 2¹⁵, rounded to integers, the first one lowest.
#[inline(always)]
fn pair(low: f32, high: f32) -> i32 {
    // Adding 1.5 · 2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let bits = |x: f32| (x + ROUND).to_bits();
    ((bits(low) & 0xffff) | (bits(high) << 16)).cast_signed()
}

vectorized! {
    /// A row of a block as words.
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

/// The numbers as f32 at the beginning of `out`.
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
    /// Some numbers of a row; none where there is no such row.
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

    /// The inverse of what an integer of a row is worth.
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
            // SAFETY: as the reason says.
            unsafe {
                interleave(&lines.0, &mut self.numbers[first..self.len], step);
            }
        }
    }

    pub(super) fn fill_columns_avx2(
        &mut self,
        precision: Precision,
        source: Source<'_>,
        block: &Range<usize>,
        columns: &Range<usize>,
    ) {
        assert_ne!(precision, Precision::Int8, "bytes need VNNI");
        // What a row's integers are worth is in the left factor.
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
    /// Columns of one row, or of two that are joined, as words.
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
