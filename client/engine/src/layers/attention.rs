//! Causal grouped-query attention (GQA) with rotary position embeddings (RoPE; Su et al. 2021, arXiv 2104.09864, in the
//! half-split form), between the q, k and v projections and the output projection.
//!
//! `out = softmax(scale · q · kᵀ + causal mask) · v` per head; `q`, `out`: (batch · length, heads · width), `k`, `v`:
//! (batch · (past + length), kv heads · width). Start with [`Attention::forward`].
//!
//! The backward pass recomputes the attention weights from each row's log-sum-exp instead of saving them
//! (flash attention; Dao et al. 2022, arXiv 2205.14135), so memory is linear in the length and not quadratic.

use std::cell::RefCell;

use crate::kernels::buffer::at_least;
use crate::kernels::error::Result;
use crate::kernels::matmul::{Destination, small};
use crate::kernels::pool::Team;
use crate::kernels::simd::{exp, exp_all, most, sum, vectorized};
use crate::kernels::view::{View, ViewMut};
use crate::layers::rope::{Direction, Rope, RowSpan};

/// Rows of a query tile: its queries, for each head that shares a key/value head. Keys after the last one are skipped.
const ROWS: usize = 48;

/// Rows and columns of a square tile of [`turn_over`].
const TRANSPOSE_TILE: usize = 16;

/// Scratch buffers of a thread, reused for every head.
#[derive(Debug, Default)]
struct Own {
    /// Attention weights, and their gradients.
    weights: [Vec<f32>; 2],
    /// A tile's queries, reused for its results, and its output gradients: (heads of the group · queries, width).
    stacked: [Vec<f32>; 2],
    /// Keys and values, transposed.
    turned: [Vec<f32>; 2],
}

thread_local! {
    static SCRATCH: RefCell<Own> = RefCell::default();
}

/// The shape of an attention: a batch of sequences, or the next rows of one sequence with a key/value cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    /// Rows of each sequence that are computed (queries).
    pub(crate) length: usize,
    /// Earlier rows of each sequence, whose keys and values are cached.
    pub(crate) past: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Width of a head.
    pub(crate) width: usize,
    /// What scores are multiplied by; usually `1 / √width`.
    pub(crate) scale: f32,
    /// Keys that a query sees, its own included; `usize::MAX` for all before it.
    pub(crate) window: usize,
    pub(crate) rope: &'a Rope,
}

/// Queries of a tile; each has one row for every head of the group.
fn queries(group: usize, length: usize) -> usize {
    (ROWS / group).max(8).min(length)
}

/// Elements of a thread's scratch buffers in the backward pass, for `group` heads to a key/value head.
pub(crate) fn attention_numbers(group: usize, width: usize, length: usize) -> usize {
    let rows = group * queries(group, length);
    2 * (rows * length + rows * width + length * width)
}

/// `(sequence, key/value head, its submatrix)`.
type Part<'a> = (usize, usize, ViewMut<'a>);

/// A range of queries of one sequence, and the keys that they attend to.
#[derive(Clone, Copy)]
struct Tile {
    /// The first query.
    first: usize,
    /// Number of queries.
    queries: usize,
    /// Keys visible to the last query.
    keys: usize,
    /// Keys visible to the first query.
    seen: usize,
    /// Of those, how many of the last ones are in the window.
    window: usize,
}

impl Tile {
    /// Keys visible to query `row` of the tile, and the same rounded up to whole vectors, at most [`Self::keys`].
    #[inline(always)]
    fn seen(&self, row: usize) -> (usize, usize) {
        let seen = (self.seen + row).min(self.keys);
        (seen, seen.next_multiple_of(16).min(self.keys))
    }

    /// Keys before the window of query `row`.
    #[inline(always)]
    fn passed(&self, row: usize) -> usize {
        (self.seen + row).min(self.keys).saturating_sub(self.window)
    }
}

impl Attention<'_> {
    /// Heads that share a key/value head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn tiles(&self) -> impl Iterator<Item = Tile> + use<> {
        let (Self { length, past, window, .. }, most) = (*self, queries(self.group(), self.length));
        (0..length).step_by(most.max(1)).map(move |first| {
            let queries = most.min(length - first);
            Tile { first, queries, keys: past + first + queries, seen: past + first + 1, window }
        })
    }

    /// Gathers the tile's rows of the heads from `first` on: `out`: (heads · queries, width).
    fn stack(&self, x: &[f32], (sequence, first): (usize, usize), tile: Tile, out: &mut [f32]) {
        for (h, out) in out.chunks_exact_mut(tile.queries * self.width).enumerate() {
            let x = self.q(x, sequence, first + h);
            for (i, out) in out.chunks_exact_mut(self.width).enumerate() {
                out.copy_from_slice(x.row(tile.first + i));
            }
        }
    }

    /// Scatters `x`: (heads · queries, width) to the tile's rows of `out`: (length, heads · width).
    fn unstack(&self, x: &[f32], tile: Tile, out: &mut ViewMut<'_>) {
        for (h, x) in x.chunks_exact(tile.queries * self.width).enumerate() {
            for (i, x) in x.chunks_exact(self.width).enumerate() {
                out.row(tile.first + i)[h * self.width..(h + 1) * self.width].copy_from_slice(x);
            }
        }
    }

    /// Applies RoPE to `q`: (batch · length, heads · width) and `k`: (batch · length, kv heads · width), in place.
    pub(crate) fn rotate(&self, team: Team, q: &mut [f32], k: &mut [f32]) {
        let span = RowSpan { first: self.past, length: self.length };
        self.rope.rotate(team, q, self.heads * self.width, span, Direction::Forward);
        self.rope.rotate(team, k, self.kv_heads * self.width, span, Direction::Forward);
    }

    /// Backward of [`Self::rotate`]: rotates the gradients by the negative angles, in place.
    pub(crate) fn rotate_backward(&self, team: Team, dq: &mut [f32], dk: &mut [f32]) {
        let span = RowSpan { first: self.past, length: self.length };
        self.rope.rotate(team, dq, self.heads * self.width, span, Direction::Backward);
        self.rope.rotate(team, dk, self.kv_heads * self.width, span, Direction::Backward);
    }

    /// `out = softmax(scale · q · kᵀ) · v` with a causal mask; fails or panics if the shapes do not match.
    ///
    /// `q` and `out`: (batch · length, heads · width); `k` and `v`: (batch · (past + length), kv heads · width).
    /// RoPE is already applied to `q` and `k`. Writes log-sum-exps to `logs`: (batch · kv heads, group · length), where
    /// `group` is heads / kv heads.
    pub(crate) fn forward(
        &self,
        team: Team,
        (q, k, v): (&[f32], &[f32], &[f32]),
        out: &mut [f32],
        logs: &mut [f32],
    ) -> Result<()> {
        let group = self.group();
        let parts = self.parts(out, self.length, group * self.width);
        let parts = parts.into_iter().zip(logs.chunks_mut(group * self.length)).collect();
        team.try_each(parts, |((sequence, kv, mut out), logs): (Part<'_>, &mut [f32])| {
            SCRATCH.with_borrow_mut(
                |Own { weights: [weights, _], stacked: [stacked, _], turned: [turned, _] }| {
                    let (keys, values) = (self.kv(k, sequence, kv), self.kv(v, sequence, kv));
                    let turned = self.turned(keys, turned);
                    for tile in self.tiles() {
                        let Tile { first, queries, keys: count, .. } = tile;
                        let p = at_least(weights, group * queries * count);
                        let stacked = at_least(stacked, group * queries * self.width);
                        self.stack(q, (sequence, kv * group), tile, stacked);
                        let (query, scores) = (View::whole(stacked, self.width), ViewMut::whole(p, count));
                        small(self.scale, query, turned.columns(0..count), Destination::overwrite(scores))?;
                        let heads =
                            p.chunks_exact_mut(queries * count).zip(logs.chunks_exact_mut(self.length));
                        for (p, logs) in heads {
                            softmax(p, tile, &mut logs[first..first + queries]);
                        }
                        let mixed = ViewMut::whole(stacked, self.width);
                        small(
                            1.0,
                            View::whole(p, count),
                            values.rows(0..count),
                            Destination::overwrite(mixed),
                        )?;
                        self.unstack(stacked, tile, &mut out);
                    }
                    Ok(())
                },
            )
        })
    }

    /// Writes the gradients of `q`, `k` and `v` to `dq`, `dk` and `dv`; fails or panics if the shapes do not match.
    ///
    /// `dV = Pᵀ · dO`, `dP = dO · Vᵀ`, `dS = P ∘ (dP − Σ P ∘ dP / Σ P) · scale` with `Σ` over each row, `dQ = dS · K`,
    /// `dK = dSᵀ · Q`. Shapes as in [`Self::forward`], with `past = 0`.
    pub(crate) fn backward(
        &self,
        team: Team,
        (q, k, v): (&[f32], &[f32], &[f32]),
        (logs, dout): (&[f32], &[f32]),
        (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
    ) -> Result<()> {
        let group = self.group();
        let dqs = self.parts(dq, self.length, group * self.width);
        let dks = self.parts(dk, self.length, self.width);
        let dvs = self.parts(dv, self.length, self.width);
        let outputs = dqs.into_iter().zip(dks.into_iter().zip(dvs));
        let parts = outputs.zip(logs.chunks(group * self.length)).collect();
        team.try_each(parts, |((dq, (dk, dv)), logs): ((Part<'_>, (Part<'_>, Part<'_>)), &[f32])| {
            SCRATCH.with_borrow_mut(|own| {
                let ((sequence, kv, mut dq), (.., mut dk), (.., mut dv)) = (dq, dk, dv);
                for row in 0..self.length {
                    dk.row(row).fill(0.0);
                    dv.row(row).fill(0.0);
                }
                let Own { weights: [weights, gradients], stacked: [queries_of, douts], turned } = own;
                let (keys, values) = (self.kv(k, sequence, kv), self.kv(v, sequence, kv));
                let [turned_keys, turned_values] = turned;
                let turned = (self.turned(keys, turned_keys), self.turned(values, turned_values));
                for tile in self.tiles() {
                    let Tile { first, queries, keys: count, .. } = tile;
                    let rows = group * queries;
                    let (p, ds) = (at_least(weights, rows * count), at_least(gradients, rows * count));
                    let qs = at_least(queries_of, rows * self.width);
                    let douts = at_least(douts, rows * self.width);
                    self.stack(q, (sequence, kv * group), tile, qs);
                    self.stack(dout, (sequence, kv * group), tile, douts);
                    let (query, there) = (View::whole(qs, self.width), View::whole(douts, self.width));
                    let seen = 0..count;
                    let (scores, dp) = (ViewMut::whole(p, count), ViewMut::whole(ds, count));
                    small(self.scale, query, turned.0.columns(seen.clone()), Destination::overwrite(scores))?;
                    small(1.0, there, turned.1.columns(seen.clone()), Destination::overwrite(dp))?;
                    let heads = p.chunks_exact_mut(queries * count).zip(ds.chunks_exact_mut(queries * count));
                    for ((p, ds), logs) in heads.zip(logs.chunks_exact(self.length)) {
                        softmax_backward(p, ds, tile, &logs[first..first + queries], self.scale);
                    }
                    let (p, ds) = (View::whole(p, count), View::whole(ds, count));
                    let (dv, _) = dv.borrow().split_at_row(count);
                    small(1.0, p.t(), there, Destination::add(dv))?;
                    let (dk, _) = dk.borrow().split_at_row(count);
                    small(1.0, ds.t(), query, Destination::add(dk))?;
                    small(1.0, ds, keys.rows(seen), Destination::overwrite(ViewMut::whole(qs, self.width)))?;
                    self.unstack(qs, tile, &mut dq);
                }
                Ok(())
            })
        })
    }

    /// The transpose of keys or values: a copy if there are enough queries to pay for it, otherwise a strided view.
    fn turned<'x>(&self, x: View<'x>, memory: &'x mut Vec<f32>) -> View<'x> {
        if self.length < TRANSPOSE_TILE {
            return x.t();
        }
        let memory = at_least(memory, x.rows * x.columns);
        turn_over(x, memory);
        View::whole(memory, x.rows)
    }

    /// Splits `x`: (batch · length, kv heads · width) by sequence and key/value head.
    fn parts<'x>(&self, x: &'x mut [f32], length: usize, width: usize) -> Vec<Part<'x>> {
        let rows = ViewMut::whole(x, self.kv_heads * width).row_parts(length);
        let parts = rows.into_iter().enumerate().flat_map(|(b, rows)| {
            rows.column_parts(width).into_iter().enumerate().map(move |(kv, part)| (b, kv, part))
        });
        parts.collect()
    }

    /// One head of one sequence of `x`: (batch · length, heads · width), as (length, width).
    fn q<'x>(&self, x: &'x [f32], b: usize, head: usize) -> View<'x> {
        let step = self.heads * self.width;
        View::part(&x[b * self.length * step + head * self.width..], self.length, self.width, step)
    }

    /// One head of one sequence of keys or values, as (past + length, width).
    fn kv<'x>(&self, x: &'x [f32], b: usize, kv: usize) -> View<'x> {
        let (step, rows) = (self.kv_heads * self.width, self.past + self.length);
        View::part(&x[b * rows * step + kv * self.width..], rows, self.width, step)
    }
}

vectorized! {
/// Causal softmax of one head's scores: (queries, keys), in place; writes each row's log-sum-exp to `logs`.
fn softmax(scores: &mut [f32], tile: Tile, logs: &mut [f32]) {
    for (i, (row, log)) in scores.chunks_exact_mut(tile.keys).zip(logs).enumerate() {
        let ((seen, whole), passed) = (tile.seen(i), tile.passed(i));
        // Pads to whole vectors with a score whose exponential is negligible.
        row[seen..whole].fill(f32::MIN);
        let most = most(&row[passed..whole]);
        let total = exp_all(&mut row[passed..whole], most);
        let inverse = 1.0 / total;
        for x in &mut row[passed..whole] {
            *x *= inverse;
        }
        row[seen..].fill(0.0);
        row[..passed].fill(0.0);
        *log = most + total.ln();
    }
}
}

vectorized! {
/// Recomputes one head's weights from its scores, and turns their gradients into those of the scores, both in place.
fn softmax_backward(scores: &mut [f32], gradients: &mut [f32], tile: Tile, logs: &[f32], scale: f32) {
    let rows = scores.chunks_exact_mut(tile.keys).zip(gradients.chunks_exact_mut(tile.keys));
    for (i, ((p, ds), log)) in rows.zip(logs).enumerate() {
        let ((seen, whole), passed) = (tile.seen(i), tile.passed(i));
        for p in &mut p[passed..whole] {
            *p = exp(*p - log);
        }
        for x in [&mut *p, &mut *ds] {
            x[seen..].fill(0.0);
            x[..passed].fill(0.0);
        }
        let (p, ds) = (&p[passed..whole], &mut ds[passed..whole]);
        // Divided by the sum of the weights, which is one up to rounding, so that the gradients of a row sum to zero.
        let mean = sum([p, ds], |[p, dp]| p * dp) / sum([p], |[p]| p);
        for (p, ds) in p.iter().zip(ds) {
            *ds = p * (*ds - mean) * scale;
        }
    }
}
}

vectorized! {
/// Transposes `x` into `out` in square tiles, because the elements of a column are a stride apart.
fn turn_over(x: View<'_>, out: &mut [f32]) {
    for first in (0..x.rows).step_by(TRANSPOSE_TILE) {
        let rows = first..x.rows.min(first + TRANSPOSE_TILE);
        for from in (0..x.columns).step_by(TRANSPOSE_TILE) {
            for column in from..x.columns.min(from + TRANSPOSE_TILE) {
                for row in rows.clone() {
                    out[column * x.rows + row] = x.numbers[row * x.row_step + column];
                }
            }
        }
    }
}
}
