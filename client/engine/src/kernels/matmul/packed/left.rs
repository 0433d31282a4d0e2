//! The packed left factor of a product: rows of activations or gradients, quantized if integers, in groups of eight.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before, \
              and is called only where the CPU has the instructions"
)]

use std::arch::x86_64::{
    _mm512_abs_ps, _mm512_add_ps, _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_max_ps,
    _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_epi8,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_si512,
};
use std::ops::Range;

use crate::kernels::matmul::packed::avx2;
use crate::kernels::matmul::packed::layout::{
    ADDED, Lines, MOST_BYTE, MOST_LEFT, MOST_LEFT_SUM, STEP, Scale, Span, TALL, interleave, spans, words,
};
use crate::kernels::matmul::packed::right::{joined, load};
use crate::kernels::matmul::precision::{Precision, available, is_wide};
use crate::kernels::view::View;

/// The packed left factor: (rows, inner), matrices side by side along the inner dimension.
///
/// Layout: group of [`TALL`] rows, block, word of the block, row of the group.
#[derive(Debug)]
pub(crate) struct Left {
    pub(super) precision: Precision,
    pub(super) rows: usize,
    pub(super) spans: Vec<Span>,
    /// The first word of each block in a row, and last the words of a row.
    pub(super) starts: Vec<usize>,
    pub(super) numbers: Vec<i32>,
    /// Scales by group of rows, block, row of the group.
    pub(super) scales: Vec<Scale>,
}

impl Default for Left {
    fn default() -> Self {
        let (spans, starts, numbers, scales) = Default::default();
        Self { precision: Precision::F32, rows: 0, spans, starts, numbers, scales }
    }
}

/// One group of [`TALL`] rows of [`Left`], to be filled independently of the others.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    precision: Precision,
    numbers: &'a mut [i32],
    scales: &'a mut [Scale],
    pub(crate) rows: Range<usize>,
}

impl Left {
    /// Allocates for matrices side by side with these numbers of columns.
    pub(crate) fn shape(&mut self, precision: Precision, rows: usize, widths: &[usize]) {
        self.precision = precision;
        self.rows = rows;
        self.spans = spans(precision, widths);
        self.starts = vec![0];
        for span in &self.spans {
            self.starts.push(self.depth() + words(precision, &span.range));
        }
        let groups = rows.div_ceil(TALL);
        // Never shrinks, so that nothing is zeroed twice when the size varies.
        self.numbers.resize(self.numbers.len().max(groups * self.depth() * TALL), 0);
        let scales = groups * self.spans.len() * TALL;
        self.scales.resize(self.scales.len().max(scales), Scale::default());
    }

    /// Words of a row, over all blocks.
    pub(super) fn depth(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The groups of rows, to be filled in parallel, and the blocks.
    pub(crate) fn groups(&mut self) -> (Vec<Group<'_>>, Vec<Span>) {
        let depth = self.depth();
        let rows = (0..self.rows).step_by(TALL).map(|from| from..(from + TALL).min(self.rows));
        let numbers = self.numbers.chunks_mut((depth * TALL).max(1));
        let scales = self.scales.chunks_mut((self.spans.len() * TALL).max(1));
        let groups = rows.zip(numbers.zip(scales));
        let groups = groups
            .map(|(rows, (numbers, scales))| Group { precision: self.precision, numbers, scales, rows })
            .collect();
        (groups, self.spans.clone())
    }
}

impl Group<'_> {
    /// Packs this group's rows; the views in `xs` begin at row `first` of the factor.
    ///
    /// Integers are quantized after each column is multiplied by its factor, if there are `factors`; their rows must be
    /// contiguous.
    pub(crate) fn fill(
        self,
        (xs, first): (&[View<'_>], usize),
        spans: &[Span],
        factors: Option<&[Vec<f32>]>,
        lines: &mut Lines,
    ) {
        let Group { precision, mut numbers, scales, rows } = self;
        assert!(available(precision));
        let lines = &mut lines.0;
        for (Span { side, range: block }, scales) in spans.iter().zip(scales.chunks_exact_mut(TALL)) {
            let x = xs[*side];
            for (i, (line, scale)) in lines.iter_mut().zip(scales).enumerate() {
                if i >= rows.len() {
                    line.fill(0);
                    *scale = Scale::default();
                    continue;
                }
                let row = rows.start + i - first;
                let line_here = &mut line[..words(precision, block)];
                let factors = factors.map(|factors| &factors[*side][block.clone()]);
                // SAFETY: the CPU has the instructions.
                *scale = match precision {
                    Precision::F32 => {
                        let (numbers, rest) = line_here.split_at_mut(block.len());
                        rest.fill(0);
                        let bits = |x: &f32| x.to_bits().cast_signed();
                        if x.column_step == 1 {
                            let row = &x.row(row)[block.clone()];
                            numbers.iter_mut().zip(row).for_each(|(w, x)| *w = bits(x));
                        } else {
                            let row = x.numbers[row * x.row_step + block.start * x.column_step..].iter();
                            let row = row.step_by(x.column_step);
                            numbers.iter_mut().zip(row).for_each(|(w, x)| *w = bits(x));
                        }
                        Scale { scale_of: 1.0, begin: 0 }
                    }
                    Precision::Int16 if !is_wide(precision) => {
                        avx2::round(&x.row(row)[block.clone()], factors, line_here)
                    }
                    Precision::Int16 => unsafe { round::<2>(&x.row(row)[block.clone()], factors, line_here) },
                    Precision::Int8 => unsafe { round::<4>(&x.row(row)[block.clone()], factors, line_here) },
                };
            }
            let (here, rest) = numbers.split_at_mut(words(precision, block) * TALL);
            numbers = rest;
            // SAFETY: the CPU has the instructions.
            unsafe { interleave(lines, here, TALL) };
        }
    }
}

/// Quantizes a block's row, times `factors` if given, to `IN_A_WORD` integers a word; words beyond its end are zero.
///
/// The scale is NaN if a value is not finite.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn round<const IN_A_WORD: usize>(x: &[f32], factors: Option<&[f32]>, words: &mut [i32]) -> Scale {
    match factors {
        Some(factors) => {
            assert_eq!(x.len(), factors.len());
            round_by::<IN_A_WORD, true>(x, factors, words)
        }
        None => round_by::<IN_A_WORD, false>(x, &[], words),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn round_by<const IN_A_WORD: usize, const FACTORS: bool>(
    x: &[f32],
    factors: &[f32],
    words: &mut [i32],
) -> Scale {
    assert!(x.len() <= words.len() * IN_A_WORD);
    // Most vectors are full and need no mask.
    let loaded = |x: &[f32], at| match x.get(at..at + 16) {
        // SAFETY: sixteen values.
        Some(x) => unsafe { _mm512_loadu_ps(x.as_ptr()) },
        None => load(x, at),
    };
    let values = |at| {
        let x = loaded(x, at);
        if FACTORS { _mm512_mul_ps(x, loaded(factors, at)) } else { x }
    };
    // Two accumulators each, to hide the latency of the dependency chain.
    let mut mosts = [_mm512_setzero_ps(); 2];
    let mut totals = mosts;
    for at in (0..x.len()).step_by(32) {
        for (i, (most, total)) in mosts.iter_mut().zip(&mut totals).enumerate() {
            let values = _mm512_abs_ps(values(at + 16 * i));
            *most = _mm512_max_ps(*most, values);
            *total = _mm512_add_ps(*total, values);
        }
    }
    let most = _mm512_reduce_max_ps(_mm512_max_ps(mosts[0], mosts[1]));
    let total = _mm512_reduce_add_ps(_mm512_add_ps(totals[0], totals[1]));
    if !total.is_finite() {
        words.fill(0);
        return Scale { scale_of: f32::NAN, begin: 0 };
    }
    let scale = if IN_A_WORD == 4 {
        MOST_BYTE / most
    } else {
        // Rounding adds at most 0.5 to each absolute value.
        let room = MOST_LEFT_SUM - 0.5 * x.len() as f32;
        (MOST_LEFT / most).min(room / total)
    };
    if !scale.is_finite() {
        // All values are zero, or so small that the scale overflows.
        words.fill(0);
        return Scale::default();
    }
    let scale_of_all = _mm512_set1_ps(scale);
    let mut sum = _mm512_setzero_si512();
    for (step, place) in words.chunks_exact_mut(STEP).enumerate() {
        let at = step * STEP * IN_A_WORD;
        let word = joined::<IN_A_WORD>(std::array::from_fn(|i| {
            _mm512_cvtps_epi32(_mm512_mul_ps(values(at + 16 * i), scale_of_all))
        }));
        if IN_A_WORD == 4 {
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), word);
        }
        // SAFETY: sixteen words.
        unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), word) };
    }
    Scale { scale_of: 1.0 / scale, begin: -ADDED * _mm512_reduce_add_epi32(sum) }
}
