//! Products of packed factors with AVX-512: of f32, and of 16-bit integers with the VNNI instructions.
//!
//! Both factors are cut along the inner dimension into blocks of at most [`BLOCK`] numbers, and laid out so that a
//! tile of [`TALL`] × [`WIDE`] results reads both from front to back and stays in registers.
//!
//! As integers each row of a weight has one scale, for both directions, and at most 12 bits and a sign; each row of
//! a block of the other factor has one too, and up to 15 bits. `vpdpwssd` multiplies 32 pairs an instruction and
//! adds them exactly in 32 bits, twice the numbers of an f32 instruction, on CPUs with bf16 products and without; its
//! factors have more bits than bf16. Scales are chosen so that no sum can overflow.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before, \
              and is called only where the CPU has the instructions"
)]

mod ahead;
mod right;
mod tile;

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm512_abs_ps, _mm512_add_ps,
    _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_si512,
};
use std::ops::Range;

use super::Arithmetic;
use crate::train::view::View;

pub(crate) use right::{Held, Right, Source, worth};
use right::{load, pair};
pub(crate) use tile::{Block, Turn, multiply};

/// Most numbers of one block along the inner dimension.
const BLOCK: usize = 320;
/// Blocks are whole multiples of this, filled up with zeros.
const STEP: usize = 32;
/// Rows of a tile.
pub(crate) const TALL: usize = 8;
/// Columns of a tile: three vectors.
pub(crate) const WIDE: usize = 48;
/// Largest integer on the weights' side.
const MOST_RIGHT: f32 = 4095.0;
/// Largest sum of absolute integers in a block's row on the other side: times [`MOST_RIGHT`] it is below 2³¹.
const MOST_LEFT_SUM: f32 = 524_000.0;
/// Largest integer there.
const MOST_LEFT: f32 = 32_767.0;

/// Whether this CPU has the instructions.
pub(crate) fn available(arithmetic: Arithmetic) -> bool {
    let wide = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl");
    match arithmetic {
        Arithmetic::Single => wide,
        Arithmetic::Short => wide && is_x86_feature_detected!("avx512vnni"),
    }
}

/// The blocks of an inner dimension, in order.
pub(crate) fn blocks(inner: usize) -> Vec<Range<usize>> {
    let count = inner.div_ceil(BLOCK).max(1);
    let size = inner.div_ceil(count).next_multiple_of(STEP);
    (0..inner).step_by(size).map(|from| from..(from + size).min(inner)).collect()
}

/// Words of 32 bits of a block's row, zeros included: numbers, or pairs of integers.
fn words(arithmetic: Arithmetic, block: &Range<usize>) -> usize {
    match arithmetic {
        Arithmetic::Single => block.len().next_multiple_of(STEP / 2),
        Arithmetic::Short => block.len().next_multiple_of(STEP) / 2,
    }
}

/// The left factor: (rows, inner).
///
/// For each [`TALL`] rows and each block, word by word the rows' words side by side.
#[derive(Debug)]
pub(crate) struct Left {
    arithmetic: Arithmetic,
    rows: usize,
    blocks: Vec<Range<usize>>,
    /// Words of all blocks.
    depth: usize,
    numbers: Vec<i32>,
    /// What an integer is worth, for each group of rows, each block, each row.
    worth: Vec<f32>,
}

impl Default for Left {
    fn default() -> Self {
        let (blocks, numbers, worth) = Default::default();
        Self { arithmetic: Arithmetic::Single, rows: 0, blocks, depth: 0, numbers, worth }
    }
}

/// The part of [`Left`] that belongs to one group of rows.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    arithmetic: Arithmetic,
    numbers: &'a mut [i32],
    worth: &'a mut [f32],
    rows: Range<usize>,
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
    /// Makes room for a factor of this shape.
    pub(crate) fn shape(&mut self, arithmetic: Arithmetic, rows: usize, inner: usize) {
        self.arithmetic = arithmetic;
        self.rows = rows;
        self.blocks = blocks(inner);
        self.depth = self.blocks.iter().map(|block| words(arithmetic, block)).sum();
        let groups = rows.div_ceil(TALL);
        // Never shorter, so that no part is cleared again for a longer factor after a shorter one.
        self.numbers.resize(self.numbers.len().max(groups * self.depth * TALL), 0);
        self.worth.resize(self.worth.len().max(groups * self.blocks.len() * TALL), 0.0);
    }

    pub(crate) fn blocks(&self) -> &[Range<usize>] {
        &self.blocks
    }

    /// The groups of rows, to be filled apart.
    pub(crate) fn groups(&mut self) -> (Vec<Group<'_>>, Vec<Range<usize>>) {
        let rows = (0..self.rows).step_by(TALL).map(|from| from..(from + TALL).min(self.rows));
        let numbers = self.numbers.chunks_mut((self.depth * TALL).max(1));
        let worth = self.worth.chunks_mut((self.blocks.len() * TALL).max(1));
        let groups = rows.zip(numbers.zip(worth));
        let groups = groups
            .map(|(rows, (numbers, worth))| Group { arithmetic: self.arithmetic, numbers, worth, rows })
            .collect();
        (groups, self.blocks.clone())
    }
}

impl Group<'_> {
    /// Packs these rows of `x`, as integers times each column's factor; those rows' numbers are neighbours.
    pub(crate) fn fill(
        self,
        x: View<'_>,
        blocks: &[Range<usize>],
        factors: Option<&[f32]>,
        lines: &mut Lines,
    ) {
        let Group { arithmetic, mut numbers, worth, rows } = self;
        assert!(available(arithmetic));
        let lines = &mut lines.0;
        for (block, worth) in blocks.iter().zip(worth.chunks_exact_mut(TALL)) {
            for (i, (line, worth)) in lines.iter_mut().zip(worth).enumerate() {
                if i >= rows.len() {
                    line.fill(0);
                    *worth = 0.0;
                    continue;
                }
                let row = rows.start + i;
                *worth = match arithmetic {
                    Arithmetic::Single => {
                        line[block.len()..].fill(0);
                        let numbers = x.numbers[row * x.row_step + block.start * x.column_step..].iter();
                        let numbers = numbers.step_by(x.column_step);
                        line[..block.len()]
                            .iter_mut()
                            .zip(numbers)
                            .for_each(|(w, x)| *w = x.to_bits().cast_signed());
                        1.0
                    }
                    Arithmetic::Short => {
                        let row = &x.row(row)[block.clone()];
                        // SAFETY: the CPU has the instructions.
                        unsafe {
                            match factors {
                                Some(factors) => round_left::<true>(row, &factors[block.clone()], line),
                                None => round_left::<false>(row, &[], line),
                            }
                        }
                    }
                };
            }
            let (here, rest) = numbers.split_at_mut(words(arithmetic, block) * TALL);
            numbers = rest;
            // SAFETY: the CPU has the instructions.
            unsafe { interleave(lines, here) };
        }
    }
}

/// Rounds a block's row, times the columns' factors where there are some; what is behind it in its last [`STEP`] is zero. Returns what an
/// integer is worth.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn round_left<const FACTORS: bool>(x: &[f32], factors: &[f32], pairs: &mut [i32; BLOCK]) -> f32 {
    assert!(x.len() <= BLOCK);
    let values = |at| {
        let x = load(x, at);
        if FACTORS { _mm512_mul_ps(x, load(factors, at)) } else { x }
    };
    let (mut most, mut total) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for at in (0..x.len()).step_by(16) {
        let values = _mm512_abs_ps(values(at));
        most = _mm512_max_ps(most, values);
        total = _mm512_add_ps(total, values);
    }
    let (most, total) = (_mm512_reduce_max_ps(most), _mm512_reduce_add_ps(total));
    let pairs = &mut pairs[..x.len().next_multiple_of(STEP) / 2];
    if !total.is_finite() {
        pairs.fill(0);
        return f32::NAN;
    }
    // Rounding adds at most a half to each.
    let room = MOST_LEFT_SUM - 0.5 * x.len() as f32;
    let scale = (MOST_LEFT / most).min(room / total);
    if !scale.is_finite() {
        // All zero, or so small that even their inverse is no number.
        pairs.fill(0);
        return 0.0;
    }
    let scale_of_all = _mm512_set1_ps(scale);
    for (step, place) in pairs.chunks_exact_mut(16).enumerate() {
        let (low, high) = (values(step * STEP), values(step * STEP + 16));
        let words = pair(_mm512_mul_ps(low, scale_of_all), _mm512_mul_ps(high, scale_of_all));
        // SAFETY: sixteen words.
        unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), words) };
    }
    1.0 / scale
}

/// Eight rows of words become eight columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn interleave(lines: &[[i32; BLOCK]; TALL], out: &mut [i32]) {
    assert!(out.len().is_multiple_of(TALL * TALL) && out.len() / TALL <= BLOCK);
    for (step, out) in out.chunks_exact_mut(TALL * TALL).enumerate() {
        // SAFETY: eight words from word `8 · step` on are inside the row, by the assertion.
        let r: [__m256i; TALL] =
            std::array::from_fn(|i| unsafe { _mm256_loadu_si256(lines[i].as_ptr().add(8 * step).cast()) });
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
            // SAFETY: pairs `i` and `i + 4` of the eight, eight integers each.
            unsafe {
                _mm256_storeu_si256(out.as_mut_ptr().add(TALL * i).cast(), first);
                _mm256_storeu_si256(out.as_mut_ptr().add(TALL * (i + 4)).cast(), second);
            }
        }
    }
}
