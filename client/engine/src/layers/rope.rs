//! Rotary positions (Su et al. 2021, arXiv 2104.09864), in the half-split form.

use crate::kernels::narrow;
use crate::kernels::pool::Team;
use crate::kernels::simd::vectorized;

/// Cosines and sines of the rotary angles: (length, width / 2) each.
#[derive(Debug)]
pub(crate) struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rope {
    /// The angles `position · frequency`, in f32 like the programs that trained the bases.
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

    /// Turns every head of rows `x`: (batch · length, heads · width) by its position's angle, or back.
    pub(super) fn rotate(
        &self,
        team: Team,
        x: &mut [f32],
        step: usize,
        (first, length): (usize, usize),
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
            rotate_rows(self, x, step, (first, length), part * share, direction);
        });
    }
}

vectorized! {
/// Turns rows of `step` numbers, of which the first is row `row` of all.
fn rotate_rows(rope: &Rope, x: &mut [f32], step: usize, places: (usize, usize), row: usize, direction: f32) {
    let (first, length) = places;
    for (i, x) in x.chunks_exact_mut(step).enumerate() {
        let position = first + (row + i) % length;
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
