//! Left factors of products: matrices side by side, in memory or computed while they are packed.

use std::fmt;

use crate::kernels::buffer::resized;
use crate::kernels::pool::Team;
use crate::kernels::view::View;

/// Rows that are computed at a time: as many as are packed together.
pub(crate) const TILE_ROWS: usize = 8;

/// Matrices side by side, with the same number of rows.
#[derive(Debug)]
pub(crate) enum Rows<'a> {
    InMemory(Vec<View<'a>>),
    Lazy(LazyRows<'a>),
}

/// Computes up to [`TILE_ROWS`] rows, row-major; each holds that row of every matrix, one after the other.
pub(crate) type Make<'a> = Box<dyn FnOnce(&mut [f32]) + Send + 'a>;

/// Rows that are computed when they are packed, and need not be stored (operator fusion).
pub(crate) struct LazyRows<'a> {
    pub(crate) rows: usize,
    /// Columns of each matrix.
    pub(crate) widths: Vec<usize>,
    /// One closure for every [`TILE_ROWS`] rows.
    pub(crate) makes: Vec<Make<'a>>,
    /// Receives all rows if they are `wanted` by the caller or needed by a product.
    pub(crate) memory: &'a mut Vec<f32>,
    pub(crate) wanted: bool,
}

impl fmt::Debug for LazyRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.wanted { ", wanted in memory" } else { "" };
        write!(f, "{} rows of {:?} columns{why}", self.rows, self.widths)
    }
}

impl<'a> From<View<'a>> for Rows<'a> {
    fn from(view: View<'a>) -> Self {
        Self::InMemory(vec![view])
    }
}

impl<'a> Rows<'a> {
    /// Number of rows.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::InMemory(views) => views.first().map_or(0, |view| view.rows),
            Self::Lazy(made) => made.rows,
        }
    }

    /// Columns of each matrix.
    pub(crate) fn widths(&self) -> Vec<usize> {
        match self {
            Self::InMemory(views) => views.iter().map(|view| view.columns).collect(),
            Self::Lazy(made) => made.widths.clone(),
        }
    }

    /// The matrices in memory; computes lazy rows into their buffer.
    pub(crate) fn in_memory(self, team: Team) -> Vec<View<'a>> {
        match self {
            Self::InMemory(views) => views,
            Self::Lazy(LazyRows { rows, widths, makes, memory, .. }) => {
                assert_eq!(makes.len(), rows.div_ceil(TILE_ROWS), "rows that nothing makes");
                let columns: usize = widths.iter().sum();
                let memory = resized(memory, rows * columns);
                let share = team.rows(makes.len(), TILE_ROWS * columns);
                let places = memory.chunks_mut((TILE_ROWS * columns).max(1));
                let parts = in_shares(makes.into_iter().zip(places), share);
                team.each(parts, |part: Vec<(Make<'_>, &mut [f32])>| {
                    for (make, rows) in part {
                        make(rows);
                    }
                });
                side_by_side(memory, &widths)
            }
        }
    }
}

/// Views of matrices of these widths whose rows are concatenated in `numbers`.
pub(crate) fn side_by_side<'a>(numbers: &'a [f32], widths: &[usize]) -> Vec<View<'a>> {
    let columns: usize = widths.iter().sum();
    let all = View::whole(numbers, columns);
    let mut at = 0;
    let views = widths.iter().map(|width| {
        at += width;
        all.columns(at - width..at)
    });
    views.collect()
}

/// Splits into chunks of `share` items; the last one may be shorter.
pub(crate) fn in_shares<T>(mut all: impl Iterator<Item = T>, share: usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    loop {
        let part: Vec<_> = all.by_ref().take(share).collect();
        if part.is_empty() {
            return parts;
        }
        parts.push(part);
    }
}
