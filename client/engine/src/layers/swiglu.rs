//! SwiGLU, `y = gate · σ(gate) · up`, element by element (Shazeer 2020, arXiv 2002.05202).

use crate::kernels::pool::Team;
use crate::kernels::simd::{sigmoid, vectorized};

/// The forward pass; all slices have the same length.
pub(crate) fn swiglu(team: Team, gate: &[f32], up: &[f32], y: &mut [f32]) {
    let share = team.rows(y.len(), 4);
    let parts = y.chunks_mut(share).zip(gate.chunks(share).zip(up.chunks(share))).collect();
    team.each(parts, |(y, (gate, up))| swiglu_rows(y, gate, up));
}

vectorized! {
/// The forward pass on the calling thread.
pub(crate) fn swiglu_rows(y: &mut [f32], gate: &[f32], up: &[f32]) {
    for (y, (g, u)) in y.iter_mut().zip(gate.iter().zip(up)) {
        *y = g * sigmoid(*g) * u;
    }
}
}

vectorized! {
/// The gradients of `gate` and `up`, side by side in `out`: (rows, 2 · columns); the others: (rows, columns).
///
/// With `s = σ(gate)`: `dup = dy · gate · s`, `dgate = dy · up · s · (1 + gate · (1 − s))`.
pub(crate) fn swiglu_backward_rows(columns: usize, gate: &[f32], up: &[f32], dy: &[f32], out: &mut [f32]) {
    let rows = gate.chunks_exact(columns).zip(up.chunks_exact(columns)).zip(dy.chunks_exact(columns));
    for (out, ((gate, up), dy)) in out.chunks_exact_mut(2 * columns).zip(rows) {
        let (dgate, dup) = out.split_at_mut(columns);
        for ((dgate, dup), (dy, (g, u))) in dgate.iter_mut().zip(dup).zip(dy.iter().zip(gate.iter().zip(up))) {
            let s = sigmoid(*g);
            *dup = dy * g * s;
            *dgate = dy * u * s * (1.0 + g * (1.0 - s));
        }
    }
}
}
