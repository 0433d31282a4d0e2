//! Products of packed factors with AVX-512: of f32, and of 16-bit integers with the VNNI instructions.
//!
//! Both factors are cut along the inner dimension into blocks of at most [`BLOCK`] numbers, and laid out so that a
//! tile of [`TALL`] × [`WIDE`] results reads both from front to back and stays in registers.
//!
//! As integers each row of a block has one scale: at most 12 bits and a sign on the side of the weights, up to 15 on
//! the other. `vpdpwssd` multiplies 32 pairs an instruction and adds them exactly in 32 bits, twice the numbers of
//! an f32 instruction, on CPUs with bf16 products and without; its factors have more bits
//! than bf16. Scales are chosen so that no sum can overflow.

#![expect(
    unsafe_code,
    reason = "vector loads and stores through pointers: each function asserts the lengths of its slices before, \
              and is called only where the CPU has the instructions"
)]

mod tile;

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_storeu_si256,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    _mm512_abs_ps, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi256_si512,
    _mm512_castsi512_ps, _mm512_cvtps_epi32, _mm512_cvtsepi32_epi16, _mm512_inserti64x4, _mm512_loadu_ps,
    _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_f32x4, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::ops::Range;

use super::Arithmetic;
use crate::train::view::View;

pub(crate) use tile::multiply;

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
    let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
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
    let numbers = block.len().next_multiple_of(STEP);
    match arithmetic {
        Arithmetic::Single => numbers,
        Arithmetic::Short => numbers / 2,
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

/// One block of [`WIDE`] columns or fewer of the right factor: word by word, the columns' words.
#[derive(Debug, Default)]
pub(crate) struct Right {
    numbers: Vec<i32>,
    /// What an integer is worth, for each column.
    worth: Vec<f32>,
    vectors: usize,
}

/// The part of [`Left`] that belongs to one group of rows.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    arithmetic: Arithmetic,
    numbers: &'a mut [i32],
    worth: &'a mut [f32],
    rows: Range<usize>,
}

impl Left {
    /// Makes room for a factor of this shape.
    pub(crate) fn shape(&mut self, arithmetic: Arithmetic, rows: usize, inner: usize) {
        self.arithmetic = arithmetic;
        self.rows = rows;
        self.blocks = blocks(inner);
        self.depth = self.blocks.iter().map(|block| words(arithmetic, block)).sum();
        let groups = rows.div_ceil(TALL);
        self.numbers.resize(groups * self.depth * TALL, 0);
        self.worth.resize(groups * self.blocks.len() * TALL, 0.0);
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
    /// Packs these rows of `x`, whose rows' numbers are neighbours.
    pub(crate) fn fill(self, x: View<'_>, blocks: &[Range<usize>]) {
        let Group { arithmetic, mut numbers, worth, rows } = self;
        assert!(available(arithmetic));
        let mut lines = [[0i32; BLOCK]; TALL];
        for (block, worth) in blocks.iter().zip(worth.chunks_exact_mut(TALL)) {
            for (i, (line, worth)) in lines.iter_mut().zip(worth).enumerate() {
                if i >= rows.len() {
                    line.fill(0);
                    *worth = 0.0;
                    continue;
                }
                let row = &x.row(rows.start + i)[block.clone()];
                *worth = match arithmetic {
                    Arithmetic::Single => {
                        line[row.len()..].fill(0);
                        line.iter_mut().zip(row).for_each(|(word, x)| *word = x.to_bits().cast_signed());
                        1.0
                    }
                    // SAFETY: the CPU has the instructions.
                    Arithmetic::Short => unsafe { round_left(row, line) },
                };
            }
            let (here, rest) = numbers.split_at_mut(words(arithmetic, block) * TALL);
            numbers = rest;
            // SAFETY: the CPU has the instructions.
            unsafe { interleave(&lines, here) };
        }
    }
}

/// Rounds a block's row; what is behind it in its last [`STEP`] is zero. Returns what an integer is worth.
#[target_feature(enable = "avx512f,avx512bw")]
fn round_left(x: &[f32], pairs: &mut [i32; BLOCK]) -> f32 {
    assert!(x.len() <= BLOCK);
    let (mut most, mut total) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for at in (0..x.len()).step_by(16) {
        let values = _mm512_abs_ps(load(&x[at..]));
        most = _mm512_max_ps(most, values);
        total = _mm512_add_ps(total, values);
    }
    let (most, total) = (_mm512_reduce_max_ps(most), _mm512_reduce_add_ps(total));
    if !total.is_finite() {
        pairs.fill(0);
        return f32::NAN;
    }
    if total == 0.0 {
        pairs[..x.len().next_multiple_of(STEP) / 2].fill(0);
        return 0.0;
    }
    // Rounding adds at most a half to each.
    let room = MOST_LEFT_SUM - 0.5 * x.len() as f32;
    let scale = (MOST_LEFT / most).min(room / total);
    if !scale.is_finite() {
        // Numbers so small that even their inverse is none.
        pairs[..x.len().next_multiple_of(STEP) / 2].fill(0);
        return 0.0;
    }
    let factor = _mm512_set1_ps(scale);
    for at in (0..x.len().next_multiple_of(STEP)).step_by(16) {
        let values = if at < x.len() { load(&x[at..]) } else { _mm512_setzero_ps() };
        let rounded = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(values, factor)));
        let place = &mut pairs[at / 2..at / 2 + 8];
        // SAFETY: sixteen integers of 16 bits are eight of 32.
        unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), rounded) };
    }
    1.0 / scale
}

/// Up to sixteen numbers, zeros behind them.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(x: &[f32]) -> __m512 {
    if x.len() >= 16 {
        // SAFETY: sixteen numbers are there.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    } else {
        // SAFETY: only the numbers that are there are read.
        unsafe { _mm512_maskz_loadu_ps((1u16 << x.len()) - 1, x.as_ptr()) }
    }
}

/// Eight rows of words become eight columns.
#[target_feature(enable = "avx512f,avx512bw")]
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

impl Right {
    /// Rounds the columns of `wᵀ`, which are the rows of `w`, [`WIDE`] at most, in one block.
    pub(crate) fn fill_rows(&mut self, arithmetic: Arithmetic, w: View<'_>, block: &Range<usize>) {
        assert!(available(arithmetic) && w.rows <= WIDE && block.end <= w.columns);
        self.shape(arithmetic, w.rows, block);
        // SAFETY: the CPU has the instructions.
        unsafe {
            match arithmetic {
                Arithmetic::Single => self.copy_rows(w, block),
                Arithmetic::Short => self.round_rows(w, block),
            }
        }
    }

    /// Rounds the columns of `w`, [`WIDE`] at most, whose rows are one block.
    pub(crate) fn fill_columns(&mut self, arithmetic: Arithmetic, w: View<'_>) {
        assert!(available(arithmetic) && w.columns <= WIDE && w.rows <= BLOCK && w.is_inside());
        assert_eq!(w.column_step, 1);
        self.shape(arithmetic, w.columns, &(0..w.rows));
        // SAFETY: the CPU has the instructions.
        unsafe {
            match arithmetic {
                Arithmetic::Single => self.copy_columns(w),
                Arithmetic::Short => self.round_columns(w),
            }
        }
    }

    fn shape(&mut self, arithmetic: Arithmetic, columns: usize, block: &Range<usize>) {
        self.vectors = columns.div_ceil(16);
        self.numbers.resize(words(arithmetic, block) * self.vectors * 16, 0);
        self.worth.resize(self.vectors * 16, 0.0);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn copy_rows(&mut self, w: View<'_>, block: &Range<usize>) {
        let step = self.vectors * 16;
        for vector in 0..self.vectors {
            for at in (0..block.len().next_multiple_of(STEP)).step_by(16) {
                let mut r = [_mm512_setzero_si512(); 16];
                for (r, column) in r.iter_mut().zip(vector * 16..w.rows) {
                    let row = &w.row(column)[block.clone()];
                    *r = _mm512_castps_si512(load(&row[at.min(row.len())..]));
                }
                for (i, turned) in transpose(&r).into_iter().enumerate() {
                    let place = &mut self.numbers[(at + i) * step + vector * 16..][..16];
                    // SAFETY: sixteen words.
                    unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), turned) };
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn copy_columns(&mut self, w: View<'_>) {
        let step = self.vectors * 16;
        for (row, line) in self.numbers.chunks_exact_mut(step).enumerate() {
            for (vector, place) in line.chunks_exact_mut(16).enumerate() {
                let columns = vector * 16..(vector * 16 + 16).min(w.columns);
                let values = if row < w.rows { load(&w.row(row)[columns]) } else { _mm512_setzero_ps() };
                // SAFETY: sixteen words.
                unsafe { _mm512_storeu_ps(place.as_mut_ptr().cast(), values) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn round_rows(&mut self, w: View<'_>, block: &Range<usize>) {
        let step = self.vectors * 16;
        self.worth.fill(0.0);
        let mut scales = [0.0f32; WIDE];
        for (column, scale_of) in scales.iter_mut().enumerate().take(w.rows) {
            let row = &w.row(column)[block.clone()];
            let mut most = _mm512_setzero_ps();
            for at in (0..row.len()).step_by(16) {
                most = _mm512_max_ps(most, _mm512_abs_ps(load(&row[at..])));
            }
            let (scale, worth) = scale_right(_mm512_reduce_max_ps(most));
            (*scale_of, self.worth[column]) = (scale, worth);
        }
        for vector in 0..self.vectors {
            for at in (0..block.len()).step_by(STEP) {
                let mut r = [_mm512_setzero_si512(); 16];
                for (i, r) in r.iter_mut().enumerate() {
                    let column = vector * 16 + i;
                    if column < w.rows {
                        let row = &w.row(column)[block.clone()];
                        let scale = _mm512_set1_ps(scales[column]);
                        let integers = |from: usize| {
                            let x = load(&row[from.min(row.len())..]);
                            _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(x, scale)))
                        };
                        let low = _mm512_castsi256_si512(integers(at));
                        *r = _mm512_inserti64x4::<1>(low, integers(at + 16));
                    }
                }
                let turned = transpose(&r);
                for (i, turned) in turned.into_iter().enumerate() {
                    let place = &mut self.numbers[(at / 2 + i) * step + vector * 16..][..16];
                    // SAFETY: sixteen integers.
                    unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), turned) };
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn round_columns(&mut self, w: View<'_>) {
        let step = self.vectors * 16;
        for vector in 0..self.vectors {
            let from = vector * 16;
            let to = (from + 16).min(w.columns);
            let mut most = _mm512_setzero_ps();
            for row in 0..w.rows {
                most = _mm512_max_ps(most, _mm512_abs_ps(load(&w.row(row)[from..to])));
            }
            let mut found = [0.0f32; 16];
            // SAFETY: sixteen numbers.
            unsafe { _mm512_storeu_ps(found.as_mut_ptr(), most) };
            let mut scales = [0.0f32; 16];
            for (i, most) in found.into_iter().enumerate() {
                (scales[i], self.worth[from + i]) = scale_right(most);
            }
            let scale = load(&scales);
            let low = _mm512_set1_epi32(0xffff);
            let integers = |row: usize| {
                if row < w.rows {
                    _mm512_cvtps_epi32(_mm512_mul_ps(load(&w.row(row)[from..to]), scale))
                } else {
                    _mm512_setzero_si512()
                }
            };
            for pair in 0..self.numbers.len() / step {
                let both = _mm512_or_si512(
                    _mm512_and_si512(integers(2 * pair), low),
                    _mm512_slli_epi32::<16>(integers(2 * pair + 1)),
                );
                let place = &mut self.numbers[pair * step + from..][..16];
                // SAFETY: sixteen integers.
                unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), both) };
            }
        }
    }
}

/// What to multiply a column's numbers by, and what an integer is then worth.
fn scale_right(most: f32) -> (f32, f32) {
    let scale = MOST_RIGHT / most;
    if scale.is_finite() { (scale, 1.0 / scale) } else { (0.0, 0.0) }
}

/// Sixteen rows of sixteen become columns.
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
    let back = |x| _mm512_castps_si512(x);
    let mut out = *rows;
    for column in 0..4 {
        let (first, second) = (float(fours[column]), float(fours[4 + column]));
        let (third, fourth) = (float(fours[8 + column]), float(fours[12 + column]));
        let even = _mm512_shuffle_f32x4::<0x88>(first, second);
        let odd = _mm512_shuffle_f32x4::<0xdd>(first, second);
        let later_even = _mm512_shuffle_f32x4::<0x88>(third, fourth);
        let later_odd = _mm512_shuffle_f32x4::<0xdd>(third, fourth);
        out[column] = back(_mm512_shuffle_f32x4::<0x88>(even, later_even));
        out[8 + column] = back(_mm512_shuffle_f32x4::<0xdd>(even, later_even));
        out[4 + column] = back(_mm512_shuffle_f32x4::<0x88>(odd, later_odd));
        out[12 + column] = back(_mm512_shuffle_f32x4::<0xdd>(odd, later_odd));
    }
    out
}
