//! Products with frozen weights: `y = x · Wᵀ` on the way there, `dx = dy · W` on the way back.
//!
//! Weights are packed a panel at a time, by the thread that needs them, so a base stays in memory as it came. For
//! batches of a few hundred rows that costs a few hundredths of the product. What an adapter adds goes a way of its
//! own beside them, `y += s · (x · Aᵀ) · Bᵀ`, so that frozen numbers are rounded alike in every step.

#[cfg(target_arch = "x86_64")]
mod packed;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Result;

use super::gemm::gemm;
use super::team::Team;
use super::view::{View, ViewMut};
use super::weights::{Matrix, Numbers};
use super::workspace::sized;

/// Numbers of widened weights that one thread holds at a time.
const PANEL: usize = 1 << 16;
/// Numbers of widened weights that all threads share at a time.
const SHARED: usize = 1 << 18;

/// In what numbers products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32.
    Single,
    /// 16-bit integers with a scale for each row of a block, summed up exactly: finer than bf16.
    Short,
}

/// A frozen matrix and what an adapter adds to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight<'a> {
    /// (outputs, inputs).
    pub(crate) matrix: &'a Matrix,
    /// What earlier epochs left, and what is trained.
    pub(crate) pairs: [Option<Pair<'a>>; 2],
}

/// `scale · B · A`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) scale: f32,
    pub(crate) rank: usize,
    /// (rank, inputs).
    pub(crate) a: &'a [f32],
    /// (outputs, rank).
    pub(crate) b: &'a [f32],
}

/// What a product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Add {
    ToNothing,
    ToWhatIsThere,
}

/// Memory of products that is used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    weights: Vec<f32>,
    /// Rows times the first factors of pairs, side by side.
    inner: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    lefts: Vec<packed::Left>,
}

/// What each thread packs weights into, used again by its next product.
#[derive(Debug, Default)]
struct Own {
    panel: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    right: packed::Right,
    /// Of the part of a result that is being made.
    #[cfg(target_arch = "x86_64")]
    sums: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    lines: packed::Lines,
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

impl Add {
    /// The factor of what is there.
    fn beta(self) -> f32 {
        match self {
            Self::ToWhatIsThere => 1.0,
            Self::ToNothing => 0.0,
        }
    }
}

impl Arithmetic {
    /// The fastest that this CPU has for a base of less than single precision.
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if packed::available(Self::Short) {
            return Self::Short;
        }
        Self::Single
    }
}

impl Weight<'_> {
    /// The matrix, and nothing added.
    #[cfg(target_arch = "x86_64")]
    fn alone(&self) -> Self {
        Self { pairs: [None; 2], ..*self }
    }

    /// The rows' numbers where they are held as f32 and nothing is added.
    fn plain(&self) -> Option<View<'_>> {
        match self.matrix.numbers() {
            Numbers::F32(numbers) if self.pairs.iter().all(Option::is_none) => {
                Some(View::whole(numbers, self.matrix.columns()))
            }
            Numbers::F32(_) | Numbers::F16(_) | Numbers::Bf16(_) | Numbers::Quantized(_) => None,
        }
    }

    /// Writes rows from `first` on as f32 to `out`, with what is added.
    pub(crate) fn widen(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let columns = self.matrix.columns();
        let rows = first..first + out.len() / columns;
        self.matrix.widen(rows.clone(), out)?;
        for pair in self.pairs.iter().flatten() {
            let b = View::whole(pair.b, pair.rank).rows(rows.clone());
            gemm(pair.scale, b, View::whole(pair.a, columns), 1.0, ViewMut::whole(out, columns))?;
        }
        Ok(())
    }
}

/// `y = x · Wᵀ`, or `y += …`, for every weight and its `y`: (rows, outputs), with `x`: (rows, inputs).
pub(crate) fn forward(
    team: Team,
    arithmetic: Arithmetic,
    scratch: &mut Scratch,
    x: View<'_>,
    products: Vec<(Weight<'_>, ViewMut<'_>)>,
    add: Add,
) -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    if is_packed(arithmetic, x) {
        return forward_packed(team, arithmetic, scratch, x, products, add);
    }
    forward_plain(team, x, products, add)
}

#[cfg(target_arch = "x86_64")]
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
            Arithmetic::Short => self.largest(),
        }
    }
}

/// `out = scale · factor · xᵀ`: (rank, rows), for `factor`: (rank, columns).
///
/// This way around, because products whose results are a few numbers wide use a part of a vector only.
pub(crate) fn thin(team: Team, scale: f32, factor: View<'_>, x: View<'_>, out: ViewMut<'_>) -> Result<()> {
    const ROWS: usize = 128;
    let parts = out.column_parts(ROWS).into_iter().enumerate().collect();
    team.try_each(parts, |(i, out): (usize, ViewMut<'_>)| {
        gemm(scale, factor, x.rows(i * ROWS..i * ROWS + out.columns()).t(), 0.0, out)
    })
}

/// Whether a product is large enough to be packed, and the CPU can.
#[cfg(target_arch = "x86_64")]
fn is_packed(arithmetic: Arithmetic, left: View<'_>) -> bool {
    match arithmetic {
        Arithmetic::Single => left.rows >= 32 && left.columns >= 128 && packed::available(arithmetic),
        Arithmetic::Short => packed::available(arithmetic),
    }
}

/// `dx = Σ dy · W` over all terms, or `dx += …` with `add`; `dy`: (rows, outputs), `dx`: (rows, inputs).
pub(crate) fn backward(
    team: Team,
    arithmetic: Arithmetic,
    scratch: &mut Scratch,
    terms: &[(View<'_>, Weight<'_>)],
    mut dx: ViewMut<'_>,
    add: Add,
) -> Result<()> {
    let mut add = add;
    for &(dy, weight) in terms {
        #[cfg(target_arch = "x86_64")]
        if is_packed(arithmetic, dy) {
            backward_packed(team, arithmetic, scratch, dy, weight, dx.borrow(), add)?;
            add = Add::ToWhatIsThere;
            continue;
        }
        backward_plain(team, scratch, dy, weight, dx.borrow(), add)?;
        add = Add::ToWhatIsThere;
    }
    Ok(())
}

/// Columns of a part: whole tiles of the kernels, and no more weights than a thread's cache holds.
///
/// Not a matter of the number of threads, because the order in which `gemm` adds up may be one of the width.
fn width(depth: usize) -> usize {
    ((PANEL / depth.max(1)) / 48 * 48).clamp(48, 192)
}

fn forward_plain(team: Team, x: View<'_>, products: Vec<(Weight<'_>, ViewMut<'_>)>, add: Add) -> Result<()> {
    let mut parts = Vec::new();
    for (weight, y) in products {
        let width = width(x.columns);
        for (i, y) in y.column_parts(width).into_iter().enumerate() {
            parts.push((weight, i * width, y));
        }
    }
    team.try_each(parts, |(weight, first, y)| {
        let rows = first..first + y.columns();
        if let Some(plain) = weight.plain() {
            return gemm(1.0, x, plain.rows(rows).t(), add.beta(), y);
        }
        OWN.with_borrow_mut(|Own { panel, .. }| {
            let panel = sized(panel, rows.len() * x.columns);
            weight.widen(first, panel)?;
            gemm(1.0, x, View::whole(panel, x.columns).t(), add.beta(), y)
        })
    })
}

fn backward_plain(
    team: Team,
    scratch: &mut Scratch,
    dy: View<'_>,
    weight: Weight<'_>,
    mut dx: ViewMut<'_>,
    mut add: Add,
) -> Result<()> {
    if let Some(plain) = weight.plain() {
        return columns_plain(team, dy, plain, dx, add);
    }
    let (rows, columns) = (weight.matrix.rows(), weight.matrix.columns());
    let height = (SHARED / columns).max(1);
    for from in (0..rows).step_by(height) {
        let here = from..(from + height).min(rows);
        let w = widen_together(team, &mut scratch.weights, weight, here.clone())?;
        columns_plain(team, dy.columns(here), w, dx.borrow(), add)?;
        add = Add::ToWhatIsThere;
    }
    Ok(())
}

/// `dx (+)= dy · w`, column part by column part.
fn columns_plain(team: Team, dy: View<'_>, w: View<'_>, dx: ViewMut<'_>, add: Add) -> Result<()> {
    let width = width(256);
    let parts = dx.column_parts(width).into_iter().enumerate().collect();
    team.try_each(parts, |(i, dx): (usize, ViewMut<'_>)| {
        gemm(1.0, dy, w.columns(i * width..i * width + dx.columns()), add.beta(), dx)
    })
}

/// Some rows of a weight as f32, with what is added.
fn widen_together<'a>(
    team: Team,
    memory: &'a mut Vec<f32>,
    weight: Weight<'_>,
    rows: Range<usize>,
) -> Result<View<'a>> {
    let columns = weight.matrix.columns();
    if memory.len() < rows.len() * columns {
        memory.resize(rows.len() * columns, 0.0);
    }
    let panel = &mut memory[..rows.len() * columns];
    let share = rows.len().div_ceil(4 * team.threads());
    let parts = panel.chunks_mut(share * columns).enumerate().collect();
    team.try_each(parts, |(i, part): (usize, &mut [f32])| weight.widen(rows.start + i * share, part))?;
    Ok(View::whole(panel, columns))
}

#[cfg(target_arch = "x86_64")]
fn forward_packed(
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
        OWN.with_borrow_mut(|Own { panel, right, sums, .. }| {
            let most = matrix.most(arithmetic)?;
            let (numbers, rows_there) = match matrix.held() {
                Some(held) => (held, rows.clone()),
                None => {
                    let panel = sized(panel, rows.len() * x.columns);
                    matrix.widen(rows.clone(), panel)?;
                    (packed::Held::F32(panel), 0..rows.len())
                }
            };
            let most = if rows_there == rows { most } else { most.get(rows.clone()).unwrap_or_default() };
            let source = packed::Source { numbers, columns: x.columns, most };
            let count =
                left.blocks().len() + pairs.iter().map(|(_, left)| left.blocks().len()).sum::<usize>();
            let mut turns = (0..count).map(|i| packed::Turn { first: i == 0, last: i + 1 == count });
            for ((at, block), turn) in left.blocks().iter().enumerate().zip(&mut turns) {
                right.fill_rows(arithmetic, source, rows_there.clone(), block);
                packed::multiply(left, at, right, turn, sums, (&mut y, add));
            }
            for (pair, left) in &*pairs {
                let source =
                    packed::Source { numbers: packed::Held::F32(pair.b), columns: pair.rank, most: &[] };
                for ((at, block), turn) in left.blocks().iter().enumerate().zip(&mut turns) {
                    right.fill_rows(Arithmetic::Single, source, rows.clone(), block);
                    packed::multiply(left, at, right, turn, sums, (&mut y, add));
                }
            }
            Ok(())
        })
    })
}

#[cfg(target_arch = "x86_64")]
fn backward_packed(
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
    let worth = (arithmetic == Arithmetic::Short)
        .then(|| most.iter().map(|most| packed::worth(*most).0).collect::<Vec<f32>>());
    let lefts = pack_lefts(team, lefts, (arithmetic, dy, worth.as_deref()), inner, &factors)?;
    let (left, beside) = (&lefts[0], &lefts[1..1 + pairs.len()]);
    let blocks = left.blocks();
    let together = match matrix.held() {
        Some(_) => blocks.len(),
        None => (SHARED / (blocks.first().map_or(1, ExactSizeIterator::len) * columns)).max(1),
    };
    for (i, some) in blocks.chunks(together.max(1)).enumerate() {
        let (Some(from), Some(to)) = (some.first(), some.last()) else { continue };
        let (numbers, first) = match matrix.held() {
            Some(held) => (held, 0),
            None => {
                let wide = widen_together(team, weights, weight.alone(), from.start..to.end)?;
                (packed::Held::F32(wide.numbers), from.start)
            }
        };
        let source = packed::Source { numbers, columns, most: most.get(first..).unwrap_or_default() };
        let last = i * together + some.len() == blocks.len();
        let parts = dx.borrow().column_parts(packed::WIDE).into_iter().enumerate().collect();
        team.each(parts, |(at, mut dx): (usize, ViewMut<'_>)| {
            OWN.with_borrow_mut(|Own { right, sums, .. }| {
                let columns = at * packed::WIDE..at * packed::WIDE + dx.columns();
                let beside = if last { beside } else { &[] };
                let count = some.len() + beside.iter().map(|left| left.blocks().len()).sum::<usize>();
                let mut turns = (0..count).map(|i| packed::Turn { first: i == 0, last: i + 1 == count });
                for ((j, block), turn) in some.iter().enumerate().zip(&mut turns) {
                    let rows = block.start - first..block.end - first;
                    right.fill_columns(arithmetic, source, &rows, columns.clone());
                    packed::multiply(left, i * together + j, right, turn, sums, (&mut dx, add));
                }
                for (pair, left) in pairs.iter().zip(beside) {
                    let numbers = packed::Held::F32(pair.a);
                    let source = packed::Source { numbers, columns: matrix.columns(), most: &[] };
                    for ((at, block), turn) in left.blocks().iter().enumerate().zip(&mut turns) {
                        right.fill_columns(Arithmetic::Single, source, block, columns.clone());
                        packed::multiply(left, at, right, turn, sums, (&mut dx, add));
                    }
                }
            });
        });
        add = Add::ToWhatIsThere;
    }
    Ok(())
}

/// Packs the rows of a product, and for each pair the rows times its first factor, which go beside.
#[cfg(target_arch = "x86_64")]
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
        thin(team, *scale, *factor, x, ViewMut::whole(inner, x.rows))?;
        pack_left(team, Arithmetic::Single, left, View::whole(inner, x.rows).t(), None);
    }
    Ok(lefts)
}

#[cfg(target_arch = "x86_64")]
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
            part.into_iter().for_each(|group| group.fill(x, &blocks, factors, lines));
        });
    });
}
