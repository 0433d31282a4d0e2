//! Causal attention of grouped heads with rotary positions (Su et al. 2021, arXiv 2104.09864, in the
//! half-split form), from the projections' outputs to the output layer's input.
//!
//! The weights of the heads are not kept for the way back: a row's logarithm of its sum makes them again (Dao et
//! al. 2022, arXiv 2205.14135), so memory grows with the length and not with its square.

use std::cell::RefCell;

use crate::kernels::buffer::at_least;
use crate::kernels::error::Result;
use crate::kernels::matmul::{Accumulate, small};
use crate::kernels::pool::Team;
use crate::kernels::simd::{exp, exp_all, most, sum, vectorized};
use crate::kernels::view::{View, ViewMut};
use crate::layers::rope::{Direction, Rope};

/// Rows of one product: queries of all heads that share a key head. Keys after the last query are not looked at.
const ROWS: usize = 48;

/// Rows and columns of a square that is transposed at once.
const TRANSPOSE_TILE: usize = 16;

/// What each thread computes a head in, used again by its next one.
#[derive(Debug, Default)]
struct Own {
    /// Weights, and their gradients.
    weights: [Vec<f32>; 2],
    /// Rows of several heads, upon each other.
    stacked: [Vec<f32>; 2],
    /// Keys and values, transposed.
    turned: [Vec<f32>; 2],
}

thread_local! {
    static SCRATCH: RefCell<Own> = RefCell::default();
}

/// The shape of an attention; with a past, of one sequence that goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    /// Rows of each sequence that are computed.
    pub(crate) length: usize,
    /// Earlier rows of each sequence, whose keys and values are there.
    pub(crate) past: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) width: usize,
    pub(crate) rope: &'a Rope,
}

/// Queries of one tile, of which each has a row for every head of a group.
fn queries(group: usize, length: usize) -> usize {
    (ROWS / group).max(8).min(length)
}

/// Numbers that a thread computes a head of this width in, on the way back over sequences of this length.
pub(crate) fn attention_numbers(group: usize, width: usize, length: usize) -> usize {
    let rows = group * queries(group, length);
    2 * (rows * length + rows * width + length * width)
}

/// A part of a matrix that belongs to one key head of one sequence, and which they are.
type Part<'a> = (usize, usize, ViewMut<'a>);

/// Some queries of one head of one sequence.
#[derive(Clone, Copy)]
struct Tile {
    /// The first, and how many.
    first: usize,
    queries: usize,
    /// Keys up to the last of them.
    keys: usize,
    /// Keys that the first one sees.
    seen: usize,
}

impl Tile {
    /// Keys that a row sees, and the same filled up to whole vectors as far as there are keys.
    #[inline(always)]
    fn seen(&self, row: usize) -> (usize, usize) {
        let seen = (self.seen + row).min(self.keys);
        (seen, seen.next_multiple_of(16).min(self.keys))
    }
}

impl Attention<'_> {
    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Heads that share a key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn tiles(&self) -> impl Iterator<Item = Tile> + use<> {
        let (Self { length, past, .. }, most) = (*self, queries(self.group(), self.length));
        (0..length).step_by(most.max(1)).map(move |first| {
            let queries = most.min(length - first);
            Tile { first, queries, keys: past + first + queries, seen: past + first + 1 }
        })
    }

    /// The tile's rows of all heads from `first` on in `x`, head upon head.
    fn stack(&self, x: &[f32], (sequence, first): (usize, usize), tile: Tile, out: &mut [f32]) {
        for (h, out) in out.chunks_exact_mut(tile.queries * self.width).enumerate() {
            let x = self.q(x, sequence, first + h);
            for (i, out) in out.chunks_exact_mut(self.width).enumerate() {
                out.copy_from_slice(x.row(tile.first + i));
            }
        }
    }

    /// Rows head upon head, put back side by side.
    fn unstack(&self, x: &[f32], tile: Tile, out: &mut ViewMut<'_>) {
        for (h, x) in x.chunks_exact(tile.queries * self.width).enumerate() {
            for (i, x) in x.chunks_exact(self.width).enumerate() {
                out.row(tile.first + i)[h * self.width..(h + 1) * self.width].copy_from_slice(x);
            }
        }
    }

    /// Turns `q`: (batch · length, heads · width) and `k`: (batch · length, kv heads · width) by their positions.
    pub(crate) fn rotate(&self, team: Team, q: &mut [f32], k: &mut [f32]) {
        let places = (self.past, self.length);
        self.rope.rotate(team, q, self.heads * self.width, places, Direction::Forward);
        self.rope.rotate(team, k, self.kv_heads * self.width, places, Direction::Forward);
    }

    /// The gradients of turned queries and keys become those of the ones before.
    pub(crate) fn rotate_backward(&self, team: Team, dq: &mut [f32], dk: &mut [f32]) {
        let places = (self.past, self.length);
        self.rope.rotate(team, dq, self.heads * self.width, places, Direction::Backward);
        self.rope.rotate(team, dk, self.kv_heads * self.width, places, Direction::Backward);
    }

    /// `out = softmax(q · kᵀ / √width) · v`, each row over the keys up to its own.
    ///
    /// `q` and `out`: (batch · length, heads · width); `k` and `v`: (batch · (past + length), kv heads · width), `q`
    /// and `k` turned. `logs`: (batch · kv heads, heads / kv heads · length) takes the logarithms of the rows' sums.
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
                        small(self.scale(), query, turned.columns(0..count), scores, Accumulate::Overwrite)?;
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
                            mixed,
                            Accumulate::Overwrite,
                        )?;
                        self.unstack(stacked, tile, &mut out);
                    }
                    Ok(())
                },
            )
        })
    }

    /// `dV = Pᵀ · dO`, `dP = dO · Vᵀ`, `dS = P · (dP − Σ P · dP / Σ P)`, `dQ = dS · K`, `dK = dSᵀ · Q`, all over √width
    /// where the scores were; shapes as in [`Self::forward`], without a past.
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
                    small(
                        self.scale(),
                        query,
                        turned.0.columns(seen.clone()),
                        scores,
                        Accumulate::Overwrite,
                    )?;
                    small(1.0, there, turned.1.columns(seen.clone()), dp, Accumulate::Overwrite)?;
                    let heads = p.chunks_exact_mut(queries * count).zip(ds.chunks_exact_mut(queries * count));
                    for ((p, ds), logs) in heads.zip(logs.chunks_exact(self.length)) {
                        softmax_backward(p, ds, tile, &logs[first..first + queries], self.scale());
                    }
                    let (p, ds) = (View::whole(p, count), View::whole(ds, count));
                    let (dv, _) = dv.borrow().split_at_row(count);
                    small(1.0, p.t(), there, dv, Accumulate::Add)?;
                    let (dk, _) = dk.borrow().split_at_row(count);
                    small(1.0, ds.t(), query, dk, Accumulate::Add)?;
                    small(1.0, ds, keys.rows(seen), ViewMut::whole(qs, self.width), Accumulate::Overwrite)?;
                    self.unstack(qs, tile, &mut dq);
                }
                Ok(())
            })
        })
    }

    /// Keys or values with the numbers of each column side by side, where so many queries read them that it pays.
    fn turned<'x>(&self, x: View<'x>, memory: &'x mut Vec<f32>) -> View<'x> {
        if self.length < TRANSPOSE_TILE {
            return x.t();
        }
        let memory = at_least(memory, x.rows * x.columns);
        turn_over(x, memory);
        View::whole(memory, x.rows)
    }

    /// The parts of `x`: (batch · length, kv heads · width) by sequence and key head.
    fn parts<'x>(&self, x: &'x mut [f32], length: usize, width: usize) -> Vec<Part<'x>> {
        let rows = ViewMut::whole(x, self.kv_heads * width).row_parts(length);
        let parts = rows.into_iter().enumerate().flat_map(|(b, rows)| {
            rows.column_parts(width).into_iter().enumerate().map(move |(kv, part)| (b, kv, part))
        });
        parts.collect()
    }

    /// One head of one sequence of `x`: (batch · length, heads · width).
    fn q<'x>(&self, x: &'x [f32], b: usize, head: usize) -> View<'x> {
        let step = self.heads * self.width;
        View::part(&x[b * self.length * step + head * self.width..], self.length, self.width, step)
    }

    /// One head of one sequence of keys or values.
    fn kv<'x>(&self, x: &'x [f32], b: usize, kv: usize) -> View<'x> {
        let (step, rows) = (self.kv_heads * self.width, self.past + self.length);
        View::part(&x[b * rows * step + kv * self.width..], rows, self.width, step)
    }
}

vectorized! {
/// Scores of a tile become weights: each row sees the keys up to its own position.
fn softmax(scores: &mut [f32], tile: Tile, logs: &mut [f32]) {
    for (i, (row, log)) in scores.chunks_exact_mut(tile.keys).zip(logs).enumerate() {
        let (seen, whole) = tile.seen(i);
        // What fills up whole vectors is so small that its exponential does not count.
        row[seen..whole].fill(f32::MIN);
        let most = most(&row[..whole]);
        let total = exp_all(&mut row[..whole], most);
        let inverse = 1.0 / total;
        for x in &mut row[..whole] {
            *x *= inverse;
        }
        row[seen..].fill(0.0);
        *log = most + total.ln();
    }
}
}

vectorized! {
/// Scores become weights again, and gradients of weights those of scores.
fn softmax_backward(scores: &mut [f32], gradients: &mut [f32], tile: Tile, logs: &[f32], scale: f32) {
    let rows = scores.chunks_exact_mut(tile.keys).zip(gradients.chunks_exact_mut(tile.keys));
    for (i, ((p, ds), log)) in rows.zip(logs).enumerate() {
        let (seen, whole) = tile.seen(i);
        for p in &mut p[..whole] {
            *p = exp(*p - log);
        }
        p[seen..].fill(0.0);
        ds[seen..].fill(0.0);
        let (p, ds) = (&p[..whole], &mut ds[..whole]);
        // Over the sum of the weights, which is one but for rounding, so that the gradients of a row sum up to zero.
        let mean = sum([p, ds], |[p, dp]| p * dp) / sum([p], |[p]| p);
        for (p, ds) in p.iter().zip(ds) {
            *ds = p * (*ds - mean) * scale;
        }
    }
}
}

vectorized! {
/// The transpose of `x`, square by square: a column's numbers are far apart.
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
