//! Memory that is asked for before it is needed, while the CPU multiplies: many lines at once would wait for one another.

use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};
use std::ops::Range;

use crate::kernels::view::ViewMut;

/// Bytes that a cache holds together.
const LINE: usize = 64;

/// Parts of rows, too far apart for the CPU to foresee them, line by line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    row: *const u8,
    rows: usize,
    /// Bytes of a row, and from one row to the next.
    len: usize,
    step: usize,
    /// The next line of the first row that is left, and how many bytes of it begin before the row's end.
    line: *const u8,
    left: usize,
}

/// What is asked for during a sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Soon {
    /// What the sum is written to.
    pub(super) write: Lines,
    /// What the next block is packed from, and how many lines of it are asked for at a time.
    pub(super) read: Lines,
    pub(super) reads: usize,
}

/// Lines to be written to that are asked for at a time.
const WRITES: usize = 3;

/// Asks for a line.
#[inline]
fn ask<const HINT: i32>(address: *const u8) {
    #[expect(unsafe_code, reason = "a hint, which no address makes fail; every CPU of this kind has it")]
    // SAFETY: as the reason says.
    unsafe {
        _mm_prefetch::<HINT>(address.cast());
    }
}

#[expect(
    clippy::inline_always,
    reason = "a call in the middle of a sum would take its registers to memory and back"
)]
impl Lines {
    /// Nothing.
    pub(super) const NONE: Self = Self::new(std::ptr::null(), 0, 0, 0);

    /// `rows` parts of `len` bytes, one `step` bytes after the other.
    pub(super) const fn new(row: *const u8, rows: usize, len: usize, step: usize) -> Self {
        Self { row, rows: if len == 0 { 0 } else { rows }, len, step, line: row, left: len }
    }

    /// Some rows of `out`.
    pub(super) fn of(out: &mut ViewMut<'_>, rows: Range<usize>) -> Self {
        const SIZE: usize = size_of::<f32>();
        let (len, step) = (out.columns() * SIZE, out.row_step() * SIZE);
        Self::new(out.row(rows.start).as_ptr().cast(), rows.len(), len, step)
    }

    /// About how many there are.
    pub(super) fn count(&self) -> usize {
        self.rows * (self.len / LINE + 1)
    }

    /// Asks for the next line, if any is left.
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
            // From the line's beginning on, in which the row begins somewhere.
            let before = self.row.addr() % LINE;
            self.line = self.row.wrapping_sub(before);
            self.left = self.len + before;
        }
    }
}

#[expect(clippy::inline_always, reason = "as above")]
impl Soon {
    /// Asks for the next lines.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        (0..WRITES).for_each(|_| self.write.fetch::<_MM_HINT_ET0>());
        (0..self.reads).for_each(|_| self.read.fetch::<_MM_HINT_T1>());
    }
}
