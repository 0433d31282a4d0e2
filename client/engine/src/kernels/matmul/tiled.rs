//! The packed GEMM: splits a product into column panels of the result, one task each.
//!
//! A task packs the weights of its panel block by block along the inner dimension, and runs the micro-kernels of
//! `packed` on each. All tasks share the packed rows. Start with [`forward`].

use std::ops::Range;
use std::sync::Arc;

use super::{packed, thin};
use crate::kernels::buffer::{at_least, resized};
use crate::kernels::error::Result;
use crate::kernels::matmul::packed::Span;
use crate::kernels::matmul::plain::SHARED;
use crate::kernels::matmul::precision::{Precision, available};
use crate::kernels::matmul::rows::{LazyRows, Make, Rows, TILE_ROWS, in_shares, side_by_side};
use crate::kernels::matmul::scratch::{Scratch, THREAD_SCRATCH, ThreadScratch};
use crate::kernels::matmul::weight::{Accumulate, Destination, LowRank, Weight, widen_together};
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::pool::Team;
use crate::kernels::view::{View, ViewMut};

const _: () = assert!(TILE_ROWS == packed::TALL, "rows are made where they are packed");

/// Whether a product is large enough for packing, and there is a packed kernel for the CPU.
pub(super) fn fits(precision: Precision, left: &Rows<'_>) -> bool {
    match precision {
        Precision::F32 => {
            left.count() >= 32 && left.widths().iter().sum::<usize>() >= 128 && available(precision)
        }
        Precision::Int16 | Precision::Int8 => available(precision),
    }
}

impl Matrix {
    /// The elements as packing reads them; `None` if they are quantized in blocks.
    fn held(&self) -> Option<packed::Held<'_>> {
        match self.numbers() {
            Numbers::F32(numbers) => Some(packed::Held::F32(numbers)),
            Numbers::F16(numbers) => Some(packed::Held::F16(numbers)),
            Numbers::Bf16(numbers) => Some(packed::Held::Bf16(numbers)),
            Numbers::Quantized(_) => None,
        }
    }

    /// The largest absolute value of each row, empty for f32, which needs none; fails if a value is not finite.
    fn most(&self, precision: Precision) -> Result<&[f32]> {
        match precision {
            Precision::F32 => Ok(&[]),
            Precision::Int16 | Precision::Int8 => self.largest(),
        }
    }
}

/// As [`super::forward`].
pub(super) fn forward(
    team: Team,
    precision: Precision,
    scratch: &mut Scratch,
    x: Rows<'_>,
    products: Vec<(Weight<'_>, Destination<'_>)>,
) -> Result<()> {
    let columns = x.widths().iter().sum();
    let Scratch { inner, lefts, .. } = scratch;
    let pairs: Vec<LowRank<'_>> = products.iter().flat_map(|(weight, ..)| weight.pairs).flatten().collect();
    let factors: Vec<_> = pairs.iter().map(|pair| (0, pair.scale, View::whole(pair.a, columns))).collect();
    let lefts = pack_lefts(team, lefts, (precision, x, None), inner, &factors)?;
    let mut parts = Vec::new();
    let mut at = 1;
    for (weight, y) in products {
        let with: Vec<_> = weight.pairs.into_iter().flatten().zip(&lefts[at..]).collect();
        at += with.len();
        let with: Arc<[_]> = with.into();
        for (i, y) in y.column_parts(packed::WIDE).enumerate() {
            parts.push((weight.matrix, Arc::clone(&with), i * packed::WIDE, y));
        }
    }
    let left = &lefts[0];
    team.try_each(parts, |(matrix, pairs, first, mut y)| {
        let rows = first..first + y.out.columns();
        THREAD_SCRATCH.with_borrow_mut(|ThreadScratch { panel, right, beside, sums, .. }| {
            let most = matrix.most(precision)?;
            let (numbers, rows_in_memory) = if let Some(held) = matrix.held() {
                (held, rows.clone())
            } else {
                let panel = resized(panel, rows.len() * columns);
                matrix.widen(rows.clone(), panel)?;
                (packed::Held::F32(panel), 0..rows.len())
            };
            let most = if rows_in_memory == rows { most } else { most.get(rows.clone()).unwrap_or_default() };
            let source = packed::Source { numbers, columns, most };
            let beside = fill_beside(beside, pairs.iter().copied(), |right, pair, block| {
                let numbers = packed::Held::F32(pair.b);
                let source = packed::Source { numbers, columns: pair.rank, most: &[] };
                right.fill_rows(Precision::F32, source, rows.clone(), block);
            });
            let count = left.spans().len();
            for (at, span) in left.spans().iter().enumerate() {
                right.fill_rows(precision, source, rows_in_memory.clone(), &span.range);
                let ahead = if let Some(next) = left.spans().get(at + 1) {
                    source.ahead(&rows_in_memory, &next.range)
                } else {
                    let next = rows_in_memory.end..rows_in_memory.end + packed::WIDE;
                    source.ahead(&next, &left.spans()[0].range)
                };
                let turn = packed::BlockPosition { first: at == 0, last: at + 1 == count };
                packed::multiply(packed::Block { left, at, right }, &beside, turn, sums, y.borrow(), ahead);
            }
            Ok(())
        })
    })
}

/// As [`super::backward`]: one product, whose inner dimension is the outputs of all weights in order.
///
/// The scales of the weights' rows, which lie along the inner dimension, are multiplied into `dys` before packing.
pub(super) fn backward(
    team: Team,
    precision: Precision,
    scratch: &mut Scratch,
    dys: Rows<'_>,
    weights: &[Weight<'_>],
    mut dx: Destination<'_>,
) -> Result<()> {
    let Scratch { weights: widened, inner, lefts, .. } = scratch;
    let of_sides = weights.iter().enumerate();
    let pairs: Vec<(usize, LowRank<'_>)> = of_sides
        .flat_map(|(side, weight)| weight.pairs.into_iter().flatten().map(move |pair| (side, pair)))
        .collect();
    let factors = pairs.iter().map(|(side, pair)| (*side, pair.scale, View::whole(pair.b, pair.rank).t()));
    let factors: Vec<_> = factors.collect();
    let mosts: Vec<&[f32]> =
        weights.iter().map(|weight| weight.matrix.most(precision)).collect::<Result<_>>()?;
    let worths =
        mosts.iter().map(|most| most.iter().map(|most| packed::scale_of(precision, *most).0).collect());
    let worths: Option<Vec<Vec<f32>>> = (precision != Precision::F32).then(|| worths.collect());
    let lefts = pack_lefts(team, lefts, (precision, dys, worths.as_deref()), inner, &factors)?;
    let (left, beside) = (&lefts[0], &lefts[1..=pairs.len()]);
    let columns = dx.out.columns();
    let mut done = 0;
    while let Some(rest) = left.spans().get(done..)
        && let Some(Span { side, range: begin }) = rest.first()
    {
        // Weights held as f32, f16 or bf16 are packed by the thread that needs them, blocks of several matrices in one
        // go; quantized ones are first dequantized by all threads, a few blocks at a time.
        let (some, sources): (&[Span], Vec<_>) = if weights[*side].matrix.held().is_some() {
            let held = |span: &Span| Some((weights[span.side].matrix.held()?, mosts[span.side]));
            let sources: Vec<_> = rest.iter().map_while(held).collect();
            let sources = sources.into_iter();
            let sources =
                sources.map(|(numbers, most)| (packed::Source { numbers, columns, most }, 0)).collect();
            (rest, sources)
        } else {
            let together = (SHARED / (begin.len() * columns).max(1)).max(1);
            let some = rest.iter().take(together).take_while(|span| span.side == *side).count();
            let rows = begin.start..rest[some - 1].range.end;
            let (first, most) = (rows.start, mosts[*side].get(rows.start..).unwrap_or_default());
            let wide = widen_together(team, widened, weights[*side].alone(), rows)?;
            let source = packed::Source { numbers: packed::Held::F32(wide.numbers), columns, most };
            (&rest[..some], vec![(source, first); some])
        };
        let some = &some[..sources.len()];
        let last = done + some.len() == left.spans().len();
        let parts = dx.borrow().column_parts(packed::WIDE).enumerate().collect();
        team.each(parts, |(at, mut dx): (usize, Destination<'_>)| {
            THREAD_SCRATCH.with_borrow_mut(|ThreadScratch { right, beside: rights, sums, .. }| {
                let here = at * packed::WIDE..at * packed::WIDE + dx.out.columns();
                let beside = if last { beside } else { &[] };
                let of_pairs = pairs.iter().map(|(_, pair)| *pair).zip(beside);
                let beside = fill_beside(rights, of_pairs, |right, pair, block| {
                    let numbers = packed::Held::F32(pair.a);
                    let source = packed::Source { numbers, columns, most: &[] };
                    right.fill_columns(Precision::F32, source, block, here.clone());
                });
                for (j, (span, (source, first))) in some.iter().zip(&sources).enumerate() {
                    let rows = |span: &Span, first| span.range.start - first..span.range.end - first;
                    right.fill_columns(precision, *source, &rows(span, *first), here.clone());
                    let ahead = if let Some(next) = some.get(j + 1) {
                        sources[j + 1].0.ahead(&rows(next, sources[j + 1].1), &here)
                    } else {
                        let next = here.end..here.end + packed::WIDE;
                        sources[0].0.ahead(&rows(&some[0], sources[0].1), &next)
                    };
                    let turn = packed::BlockPosition { first: j == 0, last: j + 1 == some.len() };
                    let block = packed::Block { left, at: done + j, right };
                    packed::multiply(block, &beside, turn, sums, dx.borrow(), ahead);
                }
            });
        });
        done += some.len();
        dx.accumulate = Accumulate::Add;
    }
    Ok(())
}

/// Packs the right factors of the low-rank updates and returns their blocks, pair by pair.
fn fill_beside<'a>(
    rights: &'a mut Vec<packed::Right>,
    pairs: impl Iterator<Item = (LowRank<'a>, &'a packed::Left)>,
    fill: impl Fn(&mut packed::Right, LowRank<'a>, &Range<usize>),
) -> Vec<packed::Block<'a>> {
    let blocks: Vec<_> =
        pairs.flat_map(|(pair, left)| (0..left.spans().len()).map(move |at| (pair, left, at))).collect();
    rights.resize_with(rights.len().max(blocks.len()), Default::default);
    for ((pair, left, at), right) in blocks.iter().zip(&mut *rights) {
        fill(right, *pair, &left.spans()[*at].range);
    }
    let filled = blocks.into_iter().zip(&*rights);
    filled.map(|((_, left, at), right)| packed::Block { left, at, right }).collect()
}

/// Packs the rows of a product, followed by the left factors of its low-rank updates, each in f32:
/// `scale · rows · factorᵀ`, for each `(side, scale, factor)` of `pairs`, with the rows of matrix `side`.
fn pack_lefts<'s>(
    team: Team,
    lefts: &'s mut Vec<packed::Left>,
    (precision, rows, factors): (Precision, Rows<'_>, Option<&[Vec<f32>]>),
    inner: &mut Vec<f32>,
    pairs: &[(usize, f32, View<'_>)],
) -> Result<&'s [packed::Left]> {
    lefts.resize_with(lefts.len().max(1 + pairs.len()), Default::default);
    let count = rows.count();
    let xs = pack_left(team, (precision, factors), &mut lefts[0], rows, !pairs.is_empty());
    for ((side, scale, factor), left) in pairs.iter().zip(&mut lefts[1..]) {
        let inner = resized(inner, count * factor.rows);
        thin::inner(team, *scale, *factor, xs[*side], ViewMut::whole(inner, count))?;
        let inner = View::whole(inner, count).t();
        pack_left(team, (Precision::F32, None), left, inner.into(), false);
    }
    Ok(lefts)
}

/// Packs `rows` into `left` and returns their views; lazy rows are stored only if `needed` or wanted by the caller, and
/// otherwise no views are returned.
fn pack_left<'a>(
    team: Team,
    (precision, factors): (Precision, Option<&[Vec<f32>]>),
    left: &mut packed::Left,
    rows: Rows<'a>,
    needed: bool,
) -> Vec<View<'a>> {
    let widths = rows.widths();
    let columns: usize = widths.iter().sum();
    left.shape(precision, rows.count(), &widths);
    let (groups, spans) = left.groups();
    let share = team.rows(groups.len(), packed::TALL * columns);
    if let Rows::Lazy(LazyRows { makes, .. }) = &rows {
        assert_eq!(makes.len(), groups.len(), "rows that nothing makes");
    }
    match rows {
        Rows::InMemory(xs) => {
            team.each(in_shares(groups.into_iter(), share), |part: Vec<packed::Group<'_>>| {
                THREAD_SCRATCH.with_borrow_mut(|ThreadScratch { lines, .. }| {
                    for group in part {
                        group.fill((&xs, 0), &spans, factors, lines);
                    }
                });
            });
            xs
        }
        Rows::Lazy(LazyRows { rows, makes, memory, wanted, .. }) if needed || wanted => {
            let memory = resized(memory, rows * columns);
            let places = memory.chunks_mut((packed::TALL * columns).max(1));
            let parts = in_shares(groups.into_iter().zip(makes.into_iter().zip(places)), share);
            team.each(parts, |part: Vec<(packed::Group<'_>, (Make<'_>, &mut [f32]))>| {
                THREAD_SCRATCH.with_borrow_mut(|ThreadScratch { lines, .. }| {
                    for (group, (make, rows)) in part {
                        make(rows);
                        let first = group.rows.start;
                        group.fill((&side_by_side(rows, &widths), first), &spans, factors, lines);
                    }
                });
            });
            side_by_side(memory, &widths)
        }
        Rows::Lazy(LazyRows { makes, .. }) => {
            let parts = in_shares(groups.into_iter().zip(makes), share);
            team.each(parts, |part: Vec<(packed::Group<'_>, Make<'_>)>| {
                THREAD_SCRATCH.with_borrow_mut(|ThreadScratch { lines, made, .. }| {
                    for (group, make) in part {
                        let rows = at_least(made, group.rows.len() * columns);
                        make(rows);
                        let first = group.rows.start;
                        group.fill((&side_by_side(rows, &widths), first), &spans, factors, lines);
                    }
                });
            });
            Vec::new()
        }
    }
}
