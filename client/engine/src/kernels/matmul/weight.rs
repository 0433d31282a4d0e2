//! The right factor of a product, a frozen matrix with low-rank updates, and whether the result is accumulated.

use std::ops::Range;

use crate::kernels::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::pool::Team;
use crate::kernels::view::{View, ViewMut};

/// A frozen matrix and its low-rank updates: `W + Σ scale · B · A`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight<'a> {
    /// (outputs, inputs).
    pub(crate) matrix: &'a Matrix,
    /// The folded update of earlier epochs, and the one that is trained.
    pub(crate) pairs: [Option<LowRank<'a>>; 2],
}

/// A low-rank update, `scale · B · A`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRank<'a> {
    pub(crate) scale: f32,
    pub(crate) rank: usize,
    /// (rank, inputs).
    pub(crate) a: &'a [f32],
    /// (outputs, rank).
    pub(crate) b: &'a [f32],
}

/// Whether a product overwrites its output or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulate {
    Overwrite,
    Add,
}

/// Where a product is written.
#[derive(Debug)]
pub(crate) struct Destination<'a> {
    pub(crate) out: ViewMut<'a>,
    pub(crate) accumulate: Accumulate,
}

impl<'a> Destination<'a> {
    /// A destination that the product overwrites.
    pub(crate) fn overwrite(out: ViewMut<'a>) -> Self {
        Self { out, accumulate: Accumulate::Overwrite }
    }

    /// A destination that the product is added to.
    pub(crate) fn add(out: ViewMut<'a>) -> Self {
        Self { out, accumulate: Accumulate::Add }
    }

    /// The same destination, for a shorter time.
    pub(super) fn borrow(&mut self) -> Destination<'_> {
        Destination { out: self.out.borrow(), accumulate: self.accumulate }
    }

    /// The same destination in parts of `width` columns.
    pub(super) fn column_parts(self, width: usize) -> impl Iterator<Item = Self> {
        let accumulate = self.accumulate;
        self.out.column_parts(width).into_iter().map(move |out| Self { out, accumulate })
    }
}

impl Accumulate {
    /// The factor of the output's old values, beta of GEMM.
    pub(super) fn beta(self) -> f32 {
        match self {
            Self::Add => 1.0,
            Self::Overwrite => 0.0,
        }
    }
}

impl Weight<'_> {
    /// The matrix without its low-rank updates.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn alone(&self) -> Self {
        Self { pairs: [None; 2], ..*self }
    }

    /// The matrix itself if it is held as f32 and has no low-rank update.
    pub(super) fn plain(&self) -> Option<View<'_>> {
        match self.matrix.numbers() {
            Numbers::F32(numbers) if self.pairs.iter().all(Option::is_none) => {
                Some(View::whole(numbers, self.matrix.columns()))
            }
            Numbers::F32(_) | Numbers::F16(_) | Numbers::Bf16(_) | Numbers::Quantized(_) => None,
        }
    }

    /// Dequantizes rows from `first` on to `out` and adds the low-rank updates; fails if the rows are out of range.
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

/// Dequantizes `rows` of a weight with its low-rank updates, on all threads; fails if they are out of range.
pub(super) fn widen_together<'a>(
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
