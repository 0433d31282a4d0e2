//! The left factors of products: matrices side by side, in memory or made while they are packed.

use std::fmt;

use crate::kernels::buffer::resized;
use crate::kernels::pool::Team;
use crate::kernels::view::View;

/// Rows that are made at a time: as many as are packed together.
pub(crate) const TILE_ROWS: usize = 8;

/// Matrices with the same number of rows.
#[derive(Debug)]
pub(crate) enum Rows<'a> {
    InMemory(Vec<View<'a>>),
    Lazy(LazyRows<'a>),
}

/// Makes some rows, one after the other, each those of all matrices.
pub(crate) type Make<'a> = Box<dyn FnOnce(&mut [f32]) + Send + 'a>;

/// Rows that need not go through memory.
pub(crate) struct LazyRows<'a> {
    pub(crate) rows: usize,
    /// Columns of each matrix.
    pub(crate) widths: Vec<usize>,
    /// For every [`TILE_ROWS`] rows.
    pub(crate) makes: Vec<Make<'a>>,
    /// Where all rows are written to, if they are `wanted`, or if a product needs them.
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
    /// How many there are.
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

    /// All rows, in memory.
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

/// Matrices whose rows follow one another.
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

/// Parts of so many.
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
