//! Rotary position embeddings, RoPE (Su et al. 2021, arXiv 2104.09864), in the half-split form.
//!
//! `x'[i] = x[i] · cos θ − x[i + half] · sin θ` and `x'[i + half] = x[i + half] · cos θ + x[i] · sin θ`, with
//! `half = width / 2` and `θ = position · frequency[i]`, for every head of `x`: (batch · length, heads · width).

use crate::kernels::narrow;
use crate::kernels::pool::Team;
use crate::kernels::simd::vectorized;

/// The rows of each sequence that are rotated.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowSpan {
    /// Position of the first one in its sequence.
    pub(super) first: usize,
    /// Number of rows.
    pub(super) length: usize,
}

/// Cosines and sines of the rotary angles: (length, width / 2) each.
#[derive(Debug)]
pub(crate) struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rope {
    /// The table for `length` positions and `width / 2` frequencies. Angles are rounded to f32, as in the programs that
    /// trained the bases.
    pub(crate) fn new(length: usize, frequencies: &[f32]) -> Self {
        let half = frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(length * half), Vec::with_capacity(length * half));
        for position in 0..length {
            for frequency in frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(narrow(angle.cos()));
                sin.push(narrow(angle.sin()));
            }
        }
        Self { cos, sin, half }
    }

    /// Rotates every head of `x`: (batch · length, heads · width) by its position's angles, in place; backward, by the
    /// negative angles.
    ///
    /// `step` is the length of a row of `x`, whose rows are those of `span` for one sequence after the other.
    pub(super) fn rotate(
        &self,
        team: Team,
        x: &mut [f32],
        step: usize,
        span: RowSpan,
        direction_of: Direction,
    ) {
        let rows = x.len() / step.max(1);
        let share = team.rows(rows, step);
        let parts = x.chunks_mut(share * step).enumerate().collect();
        let direction = match direction_of {
            Direction::Forward => 1.0,
            Direction::Backward => -1.0,
        };
        team.each(parts, |(part, x): (usize, &mut [f32])| {
            rotate_rows(self, x, step, span, part * share, direction);
        });
    }
}

vectorized! {
/// Rotates rows of `step` elements, the first of which is row `row` of the whole matrix.
fn rotate_rows(rope: &Rope, x: &mut [f32], step: usize, span: RowSpan, row: usize, direction: f32) {
    for (i, x) in x.chunks_exact_mut(step).enumerate() {
        let position = span.first + (row + i) % span.length;
        let angles = position * rope.half..(position + 1) * rope.half;
        let (cos, sin) = (&rope.cos[angles.clone()], &rope.sin[angles]);
        for head in x.chunks_exact_mut(2 * rope.half) {
            let (x, y) = head.split_at_mut(rope.half);
            for ((x, y), (cos, sin)) in x.iter_mut().zip(y).zip(cos.iter().zip(sin)) {
                let sin = sin * direction;
                (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
            }
        }
    }
}
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}
