//! Gated linear units, element by element (Shazeer 2020, arXiv 2002.05202): SwiGLU, `y = gate · σ(gate) · up`, and GEGLU,
//! `y = gelu(gate) · up`, with the GELU by a hyperbolic tangent (Hendrycks and Gimpel 2016, arXiv 1606.08415).
//!
//! As `(1 + tanh z) / 2 = σ(2z)`, that GELU is `gate · σ(k)` with `k = √(8 / π) · (gate + 0.044715 · gate³)`.

use crate::kernels::pool::Team;
use crate::kernels::simd::{sigmoid, vectorized};

/// What a gate passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// `gate · σ(gate)`.
    Silu,
    /// The GELU by a hyperbolic tangent.
    Gelu,
}

/// `√(8 / π)`, and what the cube is multiplied by.
const GELU: [f32; 2] = [1.595_769, 0.044_715];

impl Gate {
    /// The forward pass; all slices have the same length.
    pub(crate) fn forward(self, team: Team, gate: &[f32], up: &[f32], y: &mut [f32]) {
        let share = team.rows(y.len(), 4);
        let parts = y.chunks_mut(share).zip(gate.chunks(share).zip(up.chunks(share))).collect();
        team.each(parts, |(y, (gate, up))| self.rows(y, gate, up));
    }

    /// The forward pass on the calling thread.
    pub(crate) fn rows(self, y: &mut [f32], gate: &[f32], up: &[f32]) {
        match self {
            Self::Silu => swiglu_rows(y, gate, up),
            Self::Gelu => geglu_rows(y, gate, up),
        }
    }

    /// The gradients of `gate` and `up`, side by side in `out`: (rows, 2 · columns); the others: (rows, columns).
    pub(crate) fn backward_rows(self, columns: usize, gate: &[f32], up: &[f32], dy: &[f32], out: &mut [f32]) {
        match self {
            Self::Silu => swiglu_backward_rows(columns, gate, up, dy, out),
            Self::Gelu => geglu_backward_rows(columns, gate, up, dy, out),
        }
    }
}

vectorized! {
fn geglu_rows(y: &mut [f32], gate: &[f32], up: &[f32]) {
    let [scale, cubic] = GELU;
    for (y, (g, u)) in y.iter_mut().zip(gate.iter().zip(up)) {
        *y = g * sigmoid(scale * g * (1.0 + cubic * g * g)) * u;
    }
}
}

vectorized! {
/// With `s = σ(k)`: `dup = dy · gate · s`, `dgate = dy · up · s · (1 + gate · (1 − s) · dk/dgate)`.
fn geglu_backward_rows(columns: usize, gate: &[f32], up: &[f32], dy: &[f32], out: &mut [f32]) {
    let [scale, cubic] = GELU;
    let rows = gate.chunks_exact(columns).zip(up.chunks_exact(columns)).zip(dy.chunks_exact(columns));
    for (out, ((gate, up), dy)) in out.chunks_exact_mut(2 * columns).zip(rows) {
        let (dgate, dup) = out.split_at_mut(columns);
        for ((dgate, dup), (dy, (g, u))) in dgate.iter_mut().zip(dup).zip(dy.iter().zip(gate.iter().zip(up))) {
            let square = cubic * g * g;
            let s = sigmoid(scale * g * (1.0 + square));
            let slope = scale * (1.0 + 3.0 * square);
            *dup = dy * g * s;
            *dgate = dy * u * s * (1.0 + g * (1.0 - s) * slope);
        }
    }
}
}

vectorized! {
fn swiglu_rows(y: &mut [f32], gate: &[f32], up: &[f32]) {
    for (y, (g, u)) in y.iter_mut().zip(gate.iter().zip(up)) {
        *y = g * sigmoid(*g) * u;
    }
}
}

vectorized! {
/// With `s = σ(gate)`: `dup = dy · gate · s`, `dgate = dy · up · s · (1 + gate · (1 − s))`.
fn swiglu_backward_rows(columns: usize, gate: &[f32], up: &[f32], dy: &[f32], out: &mut [f32]) {
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
