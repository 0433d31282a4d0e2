//! Software prefetch, spread over the loop of the micro-kernel: many prefetches at once would wait for one another.

use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};
use std::ops::Range;

use crate::kernels::view::ViewMut;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Cache lines of a matrix, row by row, whose stride is too long for the hardware prefetcher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    /// The current row, and how many are left, with it.
    row: *const u8,
    rows: usize,
    /// Length and stride of a row, in bytes.
    len: usize,
    step: usize,
    /// The next line of the current row, and the bytes from there to the row's end.
    line: *const u8,
    left: usize,
}

/// What is prefetched during a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Soon {
    /// The output of the tile, prefetched for writing.
    pub(super) write: Lines,
    /// The weights of the next block to pack, prefetched to L2 cache, and how many lines of them at a time.
    pub(super) read: Lines,
    pub(super) reads: usize,
}

/// Lines of the output that are prefetched at a time.
const WRITES: usize = 3;

/// Prefetches a cache line.
#[inline]
fn ask<const HINT: i32>(address: *const u8) {
    #[expect(unsafe_code, reason = "a hint, which no address makes fail; every CPU of this kind has it")]
    // SAFETY: a prefetch is a hint that faults at no address, and every x86-64 CPU has it.
    unsafe {
        _mm_prefetch::<HINT>(address.cast());
    }
}

#[expect(
    clippy::inline_always,
    reason = "a call in the middle of a sum would take its registers to memory and back"
)]
impl Lines {
    /// No lines.
    pub(super) const NONE: Self = Self::new(std::ptr::null(), 0, 0, 0);

    /// `rows` rows of `len` bytes, with a stride of `step` bytes.
    pub(super) const fn new(row: *const u8, rows: usize, len: usize, step: usize) -> Self {
        Self { row, rows: if len == 0 { 0 } else { rows }, len, step, line: row, left: len }
    }

    /// Some rows of `out`.
    pub(super) fn of(out: &mut ViewMut<'_>, rows: Range<usize>) -> Self {
        const SIZE: usize = size_of::<f32>();
        let (len, step) = (out.columns() * SIZE, out.row_step() * SIZE);
        Self::new(out.row(rows.start).as_ptr().cast(), rows.len(), len, step)
    }

    /// The approximate number of lines.
    pub(super) fn count(&self) -> usize {
        self.rows * (self.len / LINE + 1)
    }

    /// Prefetches the next line, if any is left.
    #[inline(always)]
    fn fetch<const HINT: i32>(&mut self) {
        if self.rows == 0 {
            return;
        }
        ask::<HINT>(self.line);
        if self.left > LINE {
            self.left -= LINE;
            self.line = self.line.wrapping_add(LINE);
        } else {
            self.rows -= 1;
            self.row = self.row.wrapping_add(self.step);
            // Start at the boundary of the line that the row begins in.
            let before = self.row.addr() % LINE;
            self.line = self.row.wrapping_sub(before);
            self.left = self.len + before;
        }
    }
}

#[expect(clippy::inline_always, reason = "as above")]
impl Soon {
    /// Prefetches the next lines.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        (0..WRITES).for_each(|_| self.write.fetch::<_MM_HINT_ET0>());
        (0..self.reads).for_each(|_| self.read.fetch::<_MM_HINT_T1>());
    }
}
