//! Products in tiles of packed panels: which parts there are, and what each is made of.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Result;

use super::{Add, Arithmetic, OWN, Own, Pair, SHARED, Scratch, Weight, packed, thin, widen_together};
use crate::train::sized::sized;
use crate::train::team::Team;
use crate::train::view::{View, ViewMut};
use crate::train::weights::{Matrix, Numbers};

/// Whether a product is large enough to be packed, and the CPU can.
pub(super) fn fits(arithmetic: Arithmetic, left: View<'_>) -> bool {
    match arithmetic {
        Arithmetic::Single => left.rows >= 32 && left.columns >= 128 && packed::available(arithmetic),
        Arithmetic::Short | Arithmetic::Byte => packed::available(arithmetic),
    }
}

impl Matrix {
    /// What panels can be made of, if the numbers are held one by one.
    fn held(&self) -> Option<packed::Held<'_>> {
        match self.numbers() {
            Numbers::F32(numbers) => Some(packed::Held::F32(numbers)),
            Numbers::F16(numbers) => Some(packed::Held::F16(numbers)),
            Numbers::Bf16(numbers) => Some(packed::Held::Bf16(numbers)),
            Numbers::Quantized(_) => None,
        }
    }

    /// The largest absolute number of each row, where the arithmetic needs it.
    fn most(&self, arithmetic: Arithmetic) -> Result<&[f32]> {
        match arithmetic {
            Arithmetic::Single => Ok(&[]),
            Arithmetic::Short | Arithmetic::Byte => self.largest(),
        }
    }
}

pub(super) fn forward(
    team: Team,
    arithmetic: Arithmetic,
    scratch: &mut Scratch,
    x: View<'_>,
    products: Vec<(Weight<'_>, ViewMut<'_>)>,
    add: Add,
) -> Result<()> {
    let Scratch { inner, lefts, .. } = scratch;
    let pairs: Vec<Pair<'_>> = products.iter().flat_map(|(weight, _)| weight.pairs).flatten().collect();
    let factors: Vec<_> = pairs.iter().map(|pair| (pair.scale, View::whole(pair.a, x.columns))).collect();
    let lefts = pack_lefts(team, lefts, (arithmetic, x, None), inner, &factors)?;
    let mut parts = Vec::new();
    let mut at = 1;
    for (weight, y) in products {
        let with: Vec<_> = weight.pairs.into_iter().flatten().zip(&lefts[at..]).collect();
        at += with.len();
        let with: Arc<[_]> = with.into();
        for (i, y) in y.column_parts(packed::WIDE).into_iter().enumerate() {
            parts.push((weight.matrix, Arc::clone(&with), i * packed::WIDE, y));
        }
    }
    let left = &lefts[0];
    team.try_each(parts, |(matrix, pairs, first, mut y)| {
        let rows = first..first + y.columns();
        OWN.with_borrow_mut(|Own { panel, right, beside, sums, .. }| {
            let most = matrix.most(arithmetic)?;
            let (numbers, rows_there) = if let Some(held) = matrix.held() {
                (held, rows.clone())
            } else {
                let panel = sized(panel, rows.len() * x.columns);
                matrix.widen(rows.clone(), panel)?;
                (packed::Held::F32(panel), 0..rows.len())
            };
            let most = if rows_there == rows { most } else { most.get(rows.clone()).unwrap_or_default() };
            let source = packed::Source { numbers, columns: x.columns, most };
            let beside = fill_beside(beside, pairs.iter().copied(), |right, pair, block| {
                let numbers = packed::Held::F32(pair.b);
                let source = packed::Source { numbers, columns: pair.rank, most: &[] };
                right.fill_rows(Arithmetic::Single, source, rows.clone(), block);
            });
            let count = left.blocks().len();
            for (at, block) in left.blocks().iter().enumerate() {
                right.fill_rows(arithmetic, source, rows_there.clone(), block);
                let ahead = match left.blocks().get(at + 1) {
                    Some(next) => source.ahead(&rows_there, next),
                    None => source.ahead(&(rows_there.end..rows_there.end + packed::WIDE), &left.blocks()[0]),
                };
                let turn = packed::Turn { first: at == 0, last: at + 1 == count };
                packed::multiply(
                    packed::Block { left, at, right },
                    &beside,
                    turn,
                    sums,
                    (&mut y, add),
                    ahead,
                );
            }
            Ok(())
        })
    })
}

pub(super) fn backward(
    team: Team,
    arithmetic: Arithmetic,
    scratch: &mut Scratch,
    dy: View<'_>,
    weight: Weight<'_>,
    mut dx: ViewMut<'_>,
    mut add: Add,
) -> Result<()> {
    let Scratch { weights, inner, lefts } = scratch;
    let (matrix, most) = (weight.matrix, weight.matrix.most(arithmetic)?);
    let columns = matrix.columns();
    let pairs: Vec<Pair<'_>> = weight.pairs.into_iter().flatten().collect();
    let factors: Vec<_> = pairs.iter().map(|pair| (pair.scale, View::whole(pair.b, pair.rank).t())).collect();
    let worth = (arithmetic != Arithmetic::Single)
        .then(|| most.iter().map(|most| packed::worth(arithmetic, *most).0).collect::<Vec<f32>>());
    let lefts = pack_lefts(team, lefts, (arithmetic, dy, worth.as_deref()), inner, &factors)?;
    let (left, beside) = (&lefts[0], &lefts[1..=pairs.len()]);
    let blocks = left.blocks();
    let together = match matrix.held() {
        Some(_) => blocks.len(),
        None => (SHARED / (blocks.first().map_or(1, ExactSizeIterator::len) * columns)).max(1),
    };
    for (i, some) in blocks.chunks(together.max(1)).enumerate() {
        let (Some(from), Some(to)) = (some.first(), some.last()) else { continue };
        let (numbers, first) = if let Some(held) = matrix.held() {
            (held, 0)
        } else {
            let wide = widen_together(team, weights, weight.alone(), from.start..to.end)?;
            (packed::Held::F32(wide.numbers), from.start)
        };
        let source = packed::Source { numbers, columns, most: most.get(first..).unwrap_or_default() };
        let last = i * together + some.len() == blocks.len();
        let parts = dx.borrow().column_parts(packed::WIDE).into_iter().enumerate().collect();
        team.each(parts, |(at, mut dx): (usize, ViewMut<'_>)| {
            OWN.with_borrow_mut(|Own { right, beside: rights, sums, .. }| {
                let columns = at * packed::WIDE..at * packed::WIDE + dx.columns();
                let beside = if last { beside } else { &[] };
                let beside = fill_beside(rights, pairs.iter().copied().zip(beside), |right, pair, block| {
                    let numbers = packed::Held::F32(pair.a);
                    let source = packed::Source { numbers, columns: matrix.columns(), most: &[] };
                    right.fill_columns(Arithmetic::Single, source, block, columns.clone());
                });
                for (j, block) in some.iter().enumerate() {
                    let rows = block.start - first..block.end - first;
                    right.fill_columns(arithmetic, source, &rows, columns.clone());
                    let (next, there) = match some.get(j + 1) {
                        Some(next) => (next, columns.clone()),
                        None => (&some[0], columns.end..columns.end + packed::WIDE),
                    };
                    let ahead = source.ahead(&(next.start - first..next.end - first), &there);
                    let turn = packed::Turn { first: j == 0, last: j + 1 == some.len() };
                    let block = packed::Block { left, at: i * together + j, right };
                    packed::multiply(block, &beside, turn, sums, (&mut dx, add), ahead);
                }
            });
        });
        add = Add::ToWhatIsThere;
    }
    Ok(())
}

/// Packs the columns of what goes beside a product, each pair's blocks one after the other.
fn fill_beside<'a>(
    rights: &'a mut Vec<packed::Right>,
    pairs: impl Iterator<Item = (Pair<'a>, &'a packed::Left)>,
    fill: impl Fn(&mut packed::Right, Pair<'a>, &Range<usize>),
) -> Vec<packed::Block<'a>> {
    let blocks: Vec<_> =
        pairs.flat_map(|(pair, left)| (0..left.blocks().len()).map(move |at| (pair, left, at))).collect();
    rights.resize_with(rights.len().max(blocks.len()), Default::default);
    for ((pair, left, at), right) in blocks.iter().zip(&mut *rights) {
        fill(right, *pair, &left.blocks()[*at]);
    }
    let filled = blocks.into_iter().zip(&*rights);
    filled.map(|((_, left, at), right)| packed::Block { left, at, right }).collect()
}

/// Packs the rows of a product, and for each pair the rows times its first factor, which go beside.
fn pack_lefts<'s>(
    team: Team,
    lefts: &'s mut Vec<packed::Left>,
    (arithmetic, x, factors): (Arithmetic, View<'_>, Option<&[f32]>),
    inner: &mut Vec<f32>,
    pairs: &[(f32, View<'_>)],
) -> Result<&'s [packed::Left]> {
    lefts.resize_with(lefts.len().max(1 + pairs.len()), Default::default);
    pack_left(team, arithmetic, &mut lefts[0], x, factors);
    for ((scale, factor), left) in pairs.iter().zip(&mut lefts[1..]) {
        let inner = sized(inner, x.rows * factor.rows);
        thin::inner(team, *scale, *factor, x, ViewMut::whole(inner, x.rows))?;
        pack_left(team, Arithmetic::Single, left, View::whole(inner, x.rows).t(), None);
    }
    Ok(lefts)
}

fn pack_left(
    team: Team,
    arithmetic: Arithmetic,
    left: &mut packed::Left,
    x: View<'_>,
    factors: Option<&[f32]>,
) {
    left.shape(arithmetic, x.rows, x.columns);
    let (groups, blocks) = left.groups();
    let share = team.rows(groups.len(), packed::TALL * x.columns);
    let mut groups = groups.into_iter();
    let mut parts = Vec::new();
    loop {
        let part: Vec<_> = groups.by_ref().take(share).collect();
        if part.is_empty() {
            break;
        }
        parts.push(part);
    }
    team.each(parts, |part| {
        OWN.with_borrow_mut(|Own { lines, .. }| {
            for group in part {
                group.fill(x, &blocks, factors, lines);
            }
        });
    });
}
