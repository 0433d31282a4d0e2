//! `y = gate · σ(gate) · up` (Shazeer 2020, arXiv 2002.05202).

use super::{sigmoid, vectorised};
use crate::train::team::Team;

/// All of one length.
pub(crate) fn swiglu(team: Team, gate: &[f32], up: &[f32], y: &mut [f32]) {
    let share = team.rows(y.len(), 4);
    let parts = y.chunks_mut(share).zip(gate.chunks(share).zip(up.chunks(share))).collect();
    team.each(parts, |(y, (gate, up))| part_of(y, gate, up));
}

vectorised! {
fn part_of(y: &mut [f32], gate: &[f32], up: &[f32]) {
    for (y, (g, u)) in y.iter_mut().zip(gate.iter().zip(up)) {
        *y = g * sigmoid(*g) * u;
    }
}
}

/// The gradients of `gate` and `up` in their places.
///
/// With `s = σ(gate)`: `dup = dy · gate · s`, `dgate = dy · up · s · (1 + gate · (1 − s))`.
pub(crate) fn swiglu_back(team: Team, gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
    let share = team.rows(dy.len(), 8);
    let parts = gate.chunks_mut(share).zip(up.chunks_mut(share)).zip(dy.chunks(share)).collect();
    team.each(parts, |((gate, up), dy)| part_back(gate, up, dy));
}

vectorised! {
fn part_back(gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
    for ((g, u), dy) in gate.iter_mut().zip(up).zip(dy) {
        let s = sigmoid(*g);
        let dup = dy * *g * s;
        *g = dy * *u * s * (1.0 + *g * (1.0 - s));
        *u = dup;
    }
}
}
