//! The factors of a product: a frozen matrix with what an adapter adds to it, and what the result is added to.

use std::ops::Range;

use crate::kernels::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::pool::Team;
use crate::kernels::view::{View, ViewMut};

/// A frozen matrix and what an adapter adds to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight<'a> {
    /// (outputs, inputs).
    pub(crate) matrix: &'a Matrix,
    /// What earlier epochs left, and what is trained.
    pub(crate) pairs: [Option<LowRank<'a>>; 2],
}

/// `scale · B · A`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRank<'a> {
    pub(crate) scale: f32,
    pub(crate) rank: usize,
    /// (rank, inputs).
    pub(crate) a: &'a [f32],
    /// (outputs, rank).
    pub(crate) b: &'a [f32],
}

/// What a product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulate {
    Overwrite,
    Add,
}

impl Accumulate {
    /// The factor of what is there.
    pub(super) fn beta(self) -> f32 {
        match self {
            Self::Add => 1.0,
            Self::Overwrite => 0.0,
        }
    }
}

impl Weight<'_> {
    /// The matrix, and nothing added.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn alone(&self) -> Self {
        Self { pairs: [None; 2], ..*self }
    }

    /// The rows' numbers where they are held as f32 and nothing is added.
    pub(super) fn plain(&self) -> Option<View<'_>> {
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

/// Some rows of a weight as f32, with what is added.
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
