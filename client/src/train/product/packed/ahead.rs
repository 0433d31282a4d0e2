//! Memory that is asked for before it is needed, while the CPU multiplies.

use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};
use std::ops::Range;

use crate::train::view::ViewMut;

/// Bytes that a cache holds together.
const LINE: usize = 64;

/// Memory that will be read: parts of rows, too far apart for the CPU to foresee them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToRead {
    pub(super) start: *const u8,
    pub(super) rows: usize,
    /// Bytes of a row, and from one row to the next.
    pub(super) len: usize,
    pub(super) step: usize,
}

/// Memory that will be written to: parts of rows.
#[derive(Debug)]
pub(crate) struct ToWrite {
    row: *const f32,
    rows: usize,
    /// Numbers of a row, those of them that were asked for, and those from one row to the next.
    len: usize,
    done: usize,
    step: usize,
}

/// Asks for a line.
#[inline]
fn ask<const HINT: i32>(address: *const u8) {
    #[expect(unsafe_code, reason = "a hint, which no address makes fail; every CPU of this kind has it")]
    // SAFETY: as the reason says.
    unsafe {
        _mm_prefetch::<HINT>(address.cast());
    }
}

impl ToRead {
    /// Asks for some of the rows.
    #[inline]
    pub(super) fn fetch(&self, rows: Range<usize>) {
        for row in rows.start..rows.end.min(self.rows) {
            let start = self.start.wrapping_add(row * self.step);
            let before = start.addr() % LINE;
            for at in (0..before + self.len).step_by(LINE) {
                ask::<_MM_HINT_T1>(start.wrapping_sub(before).wrapping_add(at));
            }
        }
    }
}

impl ToWrite {
    /// Nothing.
    pub(super) const NONE: Self = Self { row: std::ptr::null(), rows: 0, len: 0, done: 0, step: 0 };

    /// Some rows.
    pub(super) fn new(out: &mut ViewMut<'_>, rows: Range<usize>) -> Self {
        let (len, step) = (out.columns(), out.row_step());
        Self { row: out.row(rows.start).as_ptr(), rows: rows.len(), len, done: 0, step }
    }

    /// Asks for the next line, if any is left.
    #[inline]
    pub(super) fn fetch(&mut self) {
        if self.rows == 0 {
            return;
        }
        ask::<_MM_HINT_ET0>(self.row.wrapping_add(self.done).cast());
        self.done += LINE / size_of::<f32>();
        if self.done >= self.len {
            self.done = 0;
            self.row = self.row.wrapping_add(self.step);
            self.rows -= 1;
        }
    }
}
