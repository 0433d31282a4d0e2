//! The threads that a computation may use, and not one more.

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Some threads that share the parts of one computation.
///
/// What each part computes, and in which order, does not depend on how many threads there are, so neither do the
/// results' bits. Parts are handed out as threads become free: a thread that another program keeps off its core
/// gets fewer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Team {
    threads: usize,
}

impl Team {
    /// The calling thread.
    pub(crate) const ALONE: Self = Self { threads: 1 };

    /// The threads of the pool that the caller runs in.
    pub(crate) fn current() -> Self {
        Self { threads: rayon::current_num_threads() }
    }

    pub(crate) fn threads(self) -> usize {
        self.threads
    }

    /// Does `work` for every part.
    pub(crate) fn each<P: Send>(self, parts: Vec<P>, work: impl Fn(P) + Send + Sync) {
        if self.threads == 1 || parts.len() == 1 {
            parts.into_iter().for_each(work);
        } else {
            parts.into_par_iter().with_max_len(1).for_each(work);
        }
    }

    /// Does `work` for every part; fails with the first failure in the parts' order.
    pub(crate) fn try_each<P: Send, E: Send>(
        self,
        parts: Vec<P>,
        work: impl Fn(P) -> Result<(), E> + Send + Sync,
    ) -> Result<(), E> {
        if self.threads == 1 || parts.len() == 1 {
            parts.into_iter().try_for_each(work)
        } else {
            let done: Vec<Result<(), E>> = parts.into_par_iter().with_max_len(1).map(work).collect();
            done.into_iter().collect()
        }
    }

    /// Rows of one part where `rows` of `row_cost` numbers each are shared: few, so that a slow thread keeps
    /// nobody waiting for long, and not so few that handing them out costs more than they do.
    pub(crate) fn rows(self, rows: usize, row_cost: usize) -> usize {
        let least = (1 << 14) / row_cost.max(1) + 1;
        rows.div_ceil(4 * self.threads).max(least).min(rows.max(1))
    }
}
