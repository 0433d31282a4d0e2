//! Data parallelism over the threads of the current pool, and no others.

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// The threads that share the tasks of one computation.
///
/// What a task computes, and in which order, does not depend on the number of threads, so results are bit-identical for
/// any number. Tasks are handed out as threads become free: a thread that another program keeps off its core gets
/// fewer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Team {
    threads: usize,
}

impl Team {
    /// The calling thread only.
    pub(crate) const ALONE: Self = Self { threads: 1 };

    /// The threads of the pool that the caller runs in.
    pub(crate) fn current() -> Self {
        Self { threads: rayon::current_num_threads() }
    }

    pub(crate) fn threads(self) -> usize {
        self.threads
    }

    /// Runs `work` on every part.
    pub(crate) fn each<P: Send>(self, parts: Vec<P>, work: impl Fn(P) + Send + Sync) {
        if self.threads == 1 || parts.len() == 1 {
            parts.into_iter().for_each(work);
        } else {
            parts.into_par_iter().with_max_len(1).for_each(work);
        }
    }

    /// Runs `work` on every part; returns the first error in the order of the parts.
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

    /// Rows of one task if `rows` rows of `row_cost` elements each are shared: few, so that a slow thread delays the
    /// others little, but enough that scheduling a task costs less than its work.
    pub(crate) fn rows(self, rows: usize, row_cost: usize) -> usize {
        let least = (1 << 14) / row_cost.max(1) + 1;
        rows.div_ceil(4 * self.threads).max(least).min(rows.max(1))
    }
}
