//! Products with frozen weights: `y = x · Wᵀ` on the way there, `dx = dy · W` on the way back.
//!
//! Weights are packed a panel at a time, by the thread that needs them, so a base stays in memory as it came. For
//! batches of a few hundred rows that costs a few hundredths of the product. What an adapter adds goes a way of its
//! own beside them, `y += s · (x · Aᵀ) · Bᵀ`, so that frozen numbers are rounded alike in every step.

#[cfg(target_arch = "x86_64")]
mod packed;
mod rows;
mod small;
#[cfg(test)]
mod tests;
pub(crate) mod thin;
#[cfg(target_arch = "x86_64")]
mod tiled;

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{Result, bail};

use crate::kernels::buffer::sized;
use crate::kernels::gemm::gemm;
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::pool::Team;
use crate::kernels::view::{View, ViewMut};
pub(crate) use rows::{Made, Make, Rows, TOGETHER, in_shares};
pub(crate) use small::small;

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
    /// The same of 8 bits, twice as many at a time: about as fine as what PyTorch's backward pass makes of bf16.
    Byte,
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
    #[cfg(target_arch = "x86_64")]
    inner: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    lefts: Vec<packed::Left>,
}

/// What each thread packs weights into, used again by its next product.
#[derive(Debug, Default)]
struct Own {
    panel: Vec<f32>,
    /// Rows before they are packed.
    #[cfg(target_arch = "x86_64")]
    made: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    right: packed::Right,
    /// Of what goes beside a product.
    #[cfg(target_arch = "x86_64")]
    beside: Vec<packed::Right>,
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
    /// What products are computed in on the way there, where there is no other: what is rounded there is rounded in
    /// every number that comes of it.
    pub(crate) fn there(self) -> Self {
        match self {
            Self::Single => Self::Single,
            Self::Short | Self::Byte => Self::Short,
        }
    }

    /// The fastest that this CPU has and that is finer than bf16.
    pub fn fine() -> Self {
        Self::Short.or_finer()
    }

    /// The fastest that this CPU has.
    pub fn fastest() -> Self {
        Self::Byte.or_finer()
    }

    /// This one, or the next finer one that the CPU has instructions for.
    pub(crate) fn or_finer(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if packed::available(self) {
            return self;
        }
        match self {
            Self::Byte => Self::Short.or_finer(),
            Self::Short | Self::Single => Self::Single,
        }
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
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "tiles are of that CPU"))]
pub(crate) fn forward<'a>(
    team: Team,
    arithmetic: Arithmetic,
    scratch: &mut Scratch,
    x: impl Into<Rows<'a>>,
    products: Vec<(Weight<'_>, ViewMut<'_>, Add)>,
) -> Result<()> {
    let x = x.into();
    let fit = |(weight, y, _): &(Weight<'_>, ViewMut<'_>, Add)| {
        let (rows, columns) = (weight.matrix.rows(), weight.matrix.columns());
        x.widths() == [columns] && (y.rows(), y.columns()) == (x.count(), rows)
    };
    if let Some((weight, y, _)) = products.iter().find(|product| !fit(product)) {
        bail!("cannot make {} × {} of {x:?} and {:?}", y.rows(), y.columns(), weight.matrix);
    }
    #[cfg(target_arch = "x86_64")]
    if tiled::fits(arithmetic, &x) {
        return tiled::forward(team, arithmetic, scratch, x, products);
    }
    match x.in_memory(team)[..] {
        [x] => forward_plain(team, x, products),
        ref xs => bail!("{} matrices instead of one to be multiplied", xs.len()),
    }
}

/// `dx = Σ dy · W` over all weights, or `dx += …` with `add`; `dys`: (rows, outputs) of each, `dx`: (rows, inputs).
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "tiles are of that CPU"))]
pub(crate) fn backward<'a>(
    team: Team,
    arithmetic: Arithmetic,
    scratch: &mut Scratch,
    dys: impl Into<Rows<'a>>,
    weights: &[Weight<'_>],
    mut dx: ViewMut<'_>,
    mut add: Add,
) -> Result<()> {
    let dys = dys.into();
    let matrices = weights.iter().map(|weight| weight.matrix);
    if !matrices.clone().map(Matrix::rows).eq(dys.widths())
        || matrices.clone().any(|matrix| matrix.columns() != dx.columns())
        || dys.count() != dx.rows()
    {
        let matrices: Vec<_> = matrices.collect();
        bail!("cannot make {} × {} of {dys:?} and {matrices:?}", dx.rows(), dx.columns());
    }
    #[cfg(target_arch = "x86_64")]
    if tiled::fits(arithmetic, &dys) {
        return tiled::backward(team, arithmetic, scratch, dys, weights, dx, add);
    }
    for (dy, weight) in dys.in_memory(team).into_iter().zip(weights) {
        backward_plain(team, scratch, dy, *weight, dx.borrow(), add)?;
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

fn forward_plain(team: Team, x: View<'_>, products: Vec<(Weight<'_>, ViewMut<'_>, Add)>) -> Result<()> {
    let mut parts = Vec::new();
    for (weight, y, add) in products {
        let width = width(x.columns);
        for (i, y) in y.column_parts(width).into_iter().enumerate() {
            parts.push((weight, i * width, y, add));
        }
    }
    team.try_each(parts, |(weight, first, y, add)| {
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
