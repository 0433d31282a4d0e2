//! Products of packed factors with AVX-512 or AVX2: of f32, and of 16-bit integers.
//!
//! Both factors are cut along the inner dimension into blocks of at most [`BLOCK`] numbers, and laid out so that a
//! tile of [`TALL`] × [`WIDE`] results reads both from front to back and stays in registers.
//!
//! As integers each row of a weight has one scale, for both directions, and at most 12 bits and a sign; each row of
//! a block of the other factor has one too, and up to 15 bits. `vpdpwssd` multiplies 32 pairs an instruction and
//! adds them exactly in 32 bits, twice the numbers of an f32 instruction, on CPUs with bf16 products and without; its
//! factors have more bits than bf16. Scales are chosen so that no sum can overflow. `vpdpbusd` does the same with 64
//! pairs of bytes, of which one has no sign: 128 is added to the weights, and what that adds to a sum is taken away
//! where the sum begins.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before, \
              and is called only where the CPU has the instructions"
)]

mod ahead;
mod avx2;
mod right;
mod tile;

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm512_abs_ps, _mm512_add_ps,
    _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_reduce_add_epi32, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_epi8, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_si512,
};
use std::ops::Range;

use super::Arithmetic;
use crate::kernels::instructions::{Vectors, vectors};
use crate::kernels::view::View;

pub(crate) use right::{Held, Right, Source, worth};
use right::{joined, load};
pub(crate) use tile::{Block, Turn, multiply};

/// Most words of one block along the inner dimension: the numbers that fit into the nearest cache.
const BLOCK: usize = 320;
/// Words of 32 bits that are packed together.
const STEP: usize = 16;
/// Rows of a tile.
pub(crate) const TALL: usize = 8;
/// Columns of a tile: three vectors.
pub(crate) const WIDE: usize = 48;
/// Largest integer on the weights' side, and of bytes on either side.
const MOST_RIGHT: f32 = 4095.0;
const MOST_BYTE: f32 = 127.0;
/// What is added to a weight's byte, so that it has no sign.
const ADDED: i32 = 128;
/// Largest sum of absolute integers in a block's row on the other side: times [`MOST_RIGHT`] it is below 2³¹.
const MOST_LEFT_SUM: f32 = 524_000.0;
/// Largest integer there.
const MOST_LEFT: f32 = 32_767.0;

/// Whether this CPU has instructions for it.
///
/// With AVX-512 and no VNNI the sums of 16-bit integers' products would take the units that make these: f32 is as fast.
pub(crate) fn available(arithmetic: Arithmetic) -> bool {
    match arithmetic {
        Arithmetic::Single => vectors() >= Vectors::Avx2,
        Arithmetic::Short => matches!(vectors(), Vectors::Avx2 | Vectors::Vnni),
        Arithmetic::Byte => vectors() == Vectors::Vnni,
    }
}

/// Whether it is done with AVX-512.
fn is_wide(arithmetic: Arithmetic) -> bool {
    match arithmetic {
        Arithmetic::Single => vectors() >= Vectors::Avx512,
        Arithmetic::Short | Arithmetic::Byte => vectors() == Vectors::Vnni,
    }
}

impl Arithmetic {
    /// Numbers of one word.
    fn in_a_word(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Short => 2,
            Self::Byte => 4,
        }
    }
}

/// One block of an inner dimension: some columns of one of the matrices whose columns it is.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Which of the matrices.
    pub(crate) side: usize,
    pub(crate) range: Range<usize>,
}

/// The blocks of an inner dimension, matrix by matrix in order, those of one of nearly one size.
fn spans(arithmetic: Arithmetic, widths: &[usize]) -> Vec<Span> {
    let (most, step) = match arithmetic {
        Arithmetic::Single | Arithmetic::Short => (BLOCK, 32),
        Arithmetic::Byte => (2 * BLOCK, 64),
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
fn words(arithmetic: Arithmetic, block: &Range<usize>) -> usize {
    block.len().div_ceil(arithmetic.in_a_word()).next_multiple_of(STEP)
}

/// The left factor: (rows, inner), matrices side by side.
///
/// For each [`TALL`] rows and each block, word by word the rows' words side by side.
#[derive(Debug)]
pub(crate) struct Left {
    arithmetic: Arithmetic,
    rows: usize,
    spans: Vec<Span>,
    /// Words before each block, and of all.
    starts: Vec<usize>,
    numbers: Vec<i32>,
    /// What integers are, for each group of rows, each block, each row.
    scales: Vec<Scale>,
}

/// What the integers of a block's row are.
#[derive(Clone, Copy, Debug, Default)]
struct Scale {
    /// What one is worth.
    worth: f32,
    /// What their sums begin with, so that what is added to each weight is taken away.
    begin: i32,
}

impl Default for Left {
    fn default() -> Self {
        let (spans, starts, numbers, scales) = Default::default();
        Self { arithmetic: Arithmetic::Single, rows: 0, spans, starts, numbers, scales }
    }
}

/// The part of [`Left`] that belongs to one group of rows.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    arithmetic: Arithmetic,
    numbers: &'a mut [i32],
    scales: &'a mut [Scale],
    pub(crate) rows: Range<usize>,
}

/// Rows of a block before they are laid side by side.
#[derive(Debug)]
pub(crate) struct Lines([[i32; BLOCK]; TALL]);

impl Default for Lines {
    fn default() -> Self {
        Self([[0; BLOCK]; TALL])
    }
}

impl Left {
    /// Makes room for a factor of matrices with so many columns.
    pub(crate) fn shape(&mut self, arithmetic: Arithmetic, rows: usize, widths: &[usize]) {
        self.arithmetic = arithmetic;
        self.rows = rows;
        self.spans = spans(arithmetic, widths);
        self.starts = vec![0];
        for span in &self.spans {
            self.starts.push(self.depth() + words(arithmetic, &span.range));
        }
        let groups = rows.div_ceil(TALL);
        // Never shorter, so that no part is cleared again for a longer factor after a shorter one.
        self.numbers.resize(self.numbers.len().max(groups * self.depth() * TALL), 0);
        let scales = groups * self.spans.len() * TALL;
        self.scales.resize(self.scales.len().max(scales), Scale::default());
    }

    /// Words of all blocks.
    fn depth(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The groups of rows, to be filled apart.
    pub(crate) fn groups(&mut self) -> (Vec<Group<'_>>, Vec<Span>) {
        let depth = self.depth();
        let rows = (0..self.rows).step_by(TALL).map(|from| from..(from + TALL).min(self.rows));
        let numbers = self.numbers.chunks_mut((depth * TALL).max(1));
        let scales = self.scales.chunks_mut((self.spans.len() * TALL).max(1));
        let groups = rows.zip(numbers.zip(scales));
        let groups = groups
            .map(|(rows, (numbers, scales))| Group { arithmetic: self.arithmetic, numbers, scales, rows })
            .collect();
        (groups, self.spans.clone())
    }
}

impl Group<'_> {
    /// Packs these rows of `xs`, of which row `first` is the first one there, as integers times each column's factor;
    /// those rows' numbers are neighbours.
    pub(crate) fn fill(
        self,
        (xs, first): (&[View<'_>], usize),
        spans: &[Span],
        factors: Option<&[Vec<f32>]>,
        lines: &mut Lines,
    ) {
        let Group { arithmetic, mut numbers, scales, rows } = self;
        assert!(available(arithmetic));
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
                let line_here = &mut line[..words(arithmetic, block)];
                let factors = factors.map(|factors| &factors[*side][block.clone()]);
                // SAFETY: the CPU has the instructions.
                *scale = match arithmetic {
                    Arithmetic::Single => {
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
                        Scale { worth: 1.0, begin: 0 }
                    }
                    Arithmetic::Short if !is_wide(arithmetic) => {
                        avx2::round(&x.row(row)[block.clone()], factors, line_here)
                    }
                    Arithmetic::Short => unsafe {
                        round::<2>(&x.row(row)[block.clone()], factors, line_here)
                    },
                    Arithmetic::Byte => unsafe { round::<4>(&x.row(row)[block.clone()], factors, line_here) },
                };
            }
            let (here, rest) = numbers.split_at_mut(words(arithmetic, block) * TALL);
            numbers = rest;
            // SAFETY: the CPU has the instructions.
            unsafe { interleave(lines, here, TALL) };
        }
    }
}

/// Rounds a block's row, times the columns' factors where there are some, to so many integers a word; words behind
/// it are zero.
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
    // Most vectors are whole, and need no mask.
    let loaded = |x: &[f32], at| match x.get(at..at + 16) {
        // SAFETY: sixteen numbers.
        Some(x) => unsafe { _mm512_loadu_ps(x.as_ptr()) },
        None => load(x, at),
    };
    let values = |at| {
        let x = loaded(x, at);
        if FACTORS { _mm512_mul_ps(x, loaded(factors, at)) } else { x }
    };
    // Two of each, because each waits for the one before it.
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
        return Scale { worth: f32::NAN, begin: 0 };
    }
    let scale = if IN_A_WORD == 4 {
        MOST_BYTE / most
    } else {
        // Rounding adds at most a half to each.
        let room = MOST_LEFT_SUM - 0.5 * x.len() as f32;
        (MOST_LEFT / most).min(room / total)
    };
    if !scale.is_finite() {
        // All zero, or so small that even their inverse is no number.
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
    Scale { worth: 1.0 / scale, begin: -ADDED * _mm512_reduce_add_epi32(sum) }
}

/// Eight rows of words become eight columns, each row of which starts `step` words after the one before.
#[target_feature(enable = "avx2")]
fn interleave(lines: &[[i32; BLOCK]; TALL], out: &mut [i32], step: usize) {
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
