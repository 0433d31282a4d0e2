//! Strided views of matrices in slices of f32: submatrices, transposes, and disjoint mutable submatrices.

use std::marker::PhantomData;
use std::ops::Range;

/// A strided view of a matrix in a slice: element (i, j) is at `i · row_step + j · column_step`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
}

/// A mutable view of a row-major matrix in a slice, with a row stride.
///
/// A pointer and not a slice, because the rows of two views side by side alternate in memory. Invariants: every element
/// is inside the slice that the view was created from, rows do not overlap, and no two views share an element.
#[derive(Debug)]
pub(crate) struct ViewMut<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    row_step: usize,
    slice: PhantomData<&'a mut [f32]>,
}

#[expect(unsafe_code, reason = "as a `&mut [f32]` may be sent: its elements are nobody else's")]
// SAFETY: no two views share an element, so a view can be sent wherever a `&mut [f32]` can.
unsafe impl Send for ViewMut<'_> {}

/// Whether the offset of every element of such a matrix is below `len`, and therefore fits an `isize`.
fn fits(len: usize, (rows, row_step): (usize, usize), (columns, column_step): (usize, usize)) -> bool {
    if rows == 0 || columns == 0 {
        return true;
    }
    let down = (rows - 1).checked_mul(row_step);
    let across = (columns - 1).checked_mul(column_step);
    let last = down.zip(across).and_then(|(down, across)| down.checked_add(across));
    last.is_some_and(|last| last < len)
}

impl<'a> View<'a> {
    /// The whole slice as rows of `columns` elements.
    pub(crate) fn whole(numbers: &'a [f32], columns: usize) -> Self {
        Self::part(numbers, numbers.len() / columns.max(1), columns, columns)
    }

    /// `rows` rows of `columns` contiguous elements, with stride `row_step`.
    pub(crate) fn part(numbers: &'a [f32], rows: usize, columns: usize, row_step: usize) -> Self {
        Self { numbers, rows, columns, row_step, column_step: 1 }
    }

    /// The transpose, of the same memory.
    pub(crate) fn t(self) -> Self {
        let Self { numbers, rows, columns, row_step, column_step } = self;
        Self { numbers, rows: columns, columns: rows, row_step: column_step, column_step: row_step }
    }

    /// The rows in `range`.
    pub(crate) fn rows(self, range: Range<usize>) -> Self {
        let from = (range.start * self.row_step).min(self.numbers.len());
        Self { numbers: &self.numbers[from..], rows: range.len(), ..self }
    }

    /// The columns in `range`.
    pub(crate) fn columns(self, range: Range<usize>) -> Self {
        let from = (range.start * self.column_step).min(self.numbers.len());
        Self { numbers: &self.numbers[from..], columns: range.len(), ..self }
    }

    /// The elements of a row, if they are contiguous.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        debug_assert_eq!(self.column_step, 1, "a transposed matrix has no rows in memory");
        &self.numbers[row * self.row_step..][..self.columns]
    }

    /// Whether every element is inside the slice.
    pub(crate) fn is_inside(&self) -> bool {
        fits(self.numbers.len(), (self.rows, self.row_step), (self.columns, self.column_step))
    }
}

impl<'a> ViewMut<'a> {
    /// The whole slice as rows of `columns` elements.
    pub(crate) fn whole(numbers: &'a mut [f32], columns: usize) -> Self {
        let rows = numbers.len() / columns.max(1);
        let (columns, row_step) = (columns.min(numbers.len()), columns);
        Self { start: numbers.as_mut_ptr(), rows, columns, row_step, slice: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn row_step(&self) -> usize {
        self.row_step
    }

    /// Pointer to the first element.
    pub(crate) fn start(&mut self) -> *mut f32 {
        self.start
    }

    /// Reborrows the view.
    pub(crate) fn borrow(&mut self) -> ViewMut<'_> {
        let Self { start, rows, columns, row_step, .. } = *self;
        ViewMut { start, rows, columns, row_step, slice: PhantomData }
    }

    /// The elements of a row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        #[expect(unsafe_code, reason = "the row is inside, and `self` is borrowed for as long as the slice")]
        // SAFETY: the row is inside the slice, and `self` is borrowed for as long as the result.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(row * self.row_step), self.columns)
        }
    }

    /// The rows before `at` and the rest.
    pub(crate) fn split_at_row(self, at: usize) -> (Self, Self) {
        assert!(at <= self.rows, "row {at} of {}", self.rows);
        let Self { start, columns, row_step, slice, .. } = self;
        let below = start.wrapping_add(at * row_step);
        (
            Self { start, rows: at, columns, row_step, slice },
            Self { start: below, rows: self.rows - at, columns, row_step, slice },
        )
    }

    /// The columns before `at` and the rest.
    pub(crate) fn split_at_column(self, at: usize) -> (Self, Self) {
        assert!(at <= self.columns, "column {at} of {}", self.columns);
        let Self { start, rows, row_step, slice, .. } = self;
        let right = start.wrapping_add(at);
        (
            Self { start, rows, columns: at, row_step, slice },
            Self { start: right, rows, columns: self.columns - at, row_step, slice },
        )
    }

    /// Splits into panels of at most `width` columns, from left to right.
    pub(crate) fn column_parts(self, width: usize) -> Vec<Self> {
        let mut parts = Vec::with_capacity(self.columns.div_ceil(width));
        let mut rest = self;
        while rest.columns > 0 {
            let (part, later) = {
                let at = width.min(rest.columns);
                rest.split_at_column(at)
            };
            parts.push(part);
            rest = later;
        }
        parts
    }

    /// Splits into panels of at most `height` rows, from top to bottom.
    pub(crate) fn row_parts(self, height: usize) -> Vec<Self> {
        let mut parts = Vec::with_capacity(self.rows.div_ceil(height));
        let mut rest = self;
        while rest.rows > 0 {
            let (part, later) = {
                let at = height.min(rest.rows);
                rest.split_at_row(at)
            };
            parts.push(part);
            rest = later;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_element_once() {
        let mut numbers = vec![0.0f32; 7 * 10];
        for (i, rows) in ViewMut::whole(&mut numbers, 10).row_parts(3).into_iter().enumerate() {
            for (j, mut part) in rows.column_parts(4).into_iter().enumerate() {
                for row in 0..part.rows() {
                    part.row(row).iter_mut().for_each(|x| *x += (10 * i + j + 1) as f32);
                }
            }
        }
        for row in 0..7 {
            for column in 0..10 {
                let expected = (10 * (row / 3) + column / 4 + 1) as f32;
                assert!((numbers[row * 10 + column] - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_view_that_leaves_its_slice_is_seen() {
        let numbers = [0.0; 12];
        assert!(View::whole(&numbers, 4).is_inside());
        assert!(View::part(&numbers, 3, 4, 4).t().is_inside());
        assert!(!View::part(&numbers, 3, 5, 4).is_inside());
        assert!(!View::part(&numbers, 2, 2, usize::MAX).is_inside());
        assert!(View::part(&numbers, 0, 9, 9).is_inside());
    }
}
