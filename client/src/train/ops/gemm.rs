//! `C = α · A · B + β · C` on slices of f32, on the calling thread.

use candle_core::{Result, bail};

/// A matrix inside a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    numbers: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

/// A matrix inside a slice that is written to; each row's numbers are neighbours.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a> {
    numbers: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
}

impl<'a> Matrix<'a> {
    /// The whole slice in rows of `columns`.
    pub(crate) fn whole(numbers: &'a [f32], columns: usize) -> Self {
        Self::part(numbers, numbers.len() / columns.max(1), columns, columns)
    }

    /// `rows` rows of `columns` numbers; one row starts `row_step` after the other.
    pub(crate) fn part(numbers: &'a [f32], rows: usize, columns: usize, row_step: usize) -> Self {
        Self { numbers, rows, columns, row_step, column_step: 1 }
    }

    /// The same numbers, transposed.
    pub(crate) fn t(self) -> Self {
        let Self { numbers, rows, columns, row_step, column_step } = self;
        Self { numbers, rows: columns, columns: rows, row_step: column_step, column_step: row_step }
    }
}

impl<'a> MatrixMut<'a> {
    /// The whole slice in rows of `columns`.
    pub(crate) fn whole(numbers: &'a mut [f32], columns: usize) -> Self {
        let rows = numbers.len() / columns.max(1);
        Self::part(numbers, rows, columns, columns)
    }

    /// `rows` rows of `columns` numbers; one row starts `row_step` after the other.
    pub(crate) fn part(numbers: &'a mut [f32], rows: usize, columns: usize, row_step: usize) -> Self {
        Self { numbers, rows, columns, row_step }
    }
}

/// Whether the last number of such a matrix is below `len`, and every offset an `isize`.
fn fits(len: usize, (rows, row_step): (usize, usize), (columns, column_step): (usize, usize)) -> bool {
    if rows == 0 || columns == 0 {
        return true;
    }
    let down = (rows - 1).checked_mul(row_step);
    let across = (columns - 1).checked_mul(column_step);
    let last = down.zip(across).and_then(|(down, across)| down.checked_add(across));
    last.is_some_and(|last| last < len)
}

/// `out = alpha · left · right + beta · out`, where `out` is not read if `beta` is zero.
///
/// Fails when the shapes do not fit one another or their slices.
pub(crate) fn gemm(
    alpha: f32,
    left: Matrix<'_>,
    right: Matrix<'_>,
    beta: f32,
    out: MatrixMut<'_>,
) -> Result<()> {
    let MatrixMut { numbers: out, rows: m, columns: n, row_step: c_step } = out;
    let k = left.columns;
    if (left.rows, right.rows, right.columns) != (m, k, n) {
        bail!("cannot make {m} × {n} of {} × {k} and {} × {}", left.rows, right.rows, right.columns);
    }
    let inside = fits(left.numbers.len(), (m, left.row_step), (k, left.column_step))
        && fits(right.numbers.len(), (k, right.row_step), (n, right.column_step))
        && fits(out.len(), (m, c_step), (n, 1))
        && (m <= 1 || n <= c_step);
    let step = |step: usize| isize::try_from(step).ok();
    let steps = [left.column_step, left.row_step, right.column_step, right.row_step, c_step].map(step);
    let [Some(a_cs), Some(a_rs), Some(b_cs), Some(b_rs), Some(c_rs)] = steps else {
        bail!("a step of {m} × {n} × {k} is too long");
    };
    if !inside {
        bail!("{m} × {n} × {k} exceeds a slice");
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    let (out, left, right) = (out.as_mut_ptr(), left.numbers.as_ptr(), right.numbers.as_ptr());
    // The crate calls the factor of the old values alpha and that of the product beta.
    let (old, new, read_old) = (beta, alpha, beta.abs() > 0.0);
    let serial = gemm::Parallelism::None;
    #[expect(
        unsafe_code,
        reason = "bounds proven: every offset `i · row_step + j · column_step` of the three is inside its slice, \
                  and those of `out`, which nothing else borrows, differ as its rows do not overlap"
    )]
    // SAFETY: as the reason says; f32 is a type that the crate has a kernel for.
    unsafe {
        gemm::gemm(
            m, n, k, out, 1, c_rs, read_old, left, a_cs, a_rs, right, b_cs, b_rs, old, new, false, false,
            false, serial,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * seed).sin()).collect()
    }

    #[test]
    fn a_product_of_parts_and_transposes_agrees_with_a_plain_loop() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 2), (17, 9, 8), (33, 64, 128), (8, 172, 40)] {
            let (a, b, old) =
                (numbers(m * (k + 3), 1.1), numbers(n * (k + 1), 0.7), numbers(m * (n + 2), 0.3));
            for (alpha, beta) in [(1.0, 0.0), (-2.5, 1.0), (0.5, 0.25)] {
                let mut c = old.clone();
                if beta == 0.0 {
                    c[0] = f32::NAN;
                }
                let (left, right) = (Matrix::part(&a, m, k, k + 3), Matrix::part(&b, n, k, k + 1).t());
                gemm(alpha, left, right, beta, MatrixMut::part(&mut c, m, n, n + 2)).unwrap();
                for i in 0..m {
                    for j in 0..n {
                        let dot: f32 = (0..k).map(|l| a[i * (k + 3) + l] * b[j * (k + 1) + l]).sum();
                        let expected = alpha * dot + beta * old[i * (n + 2) + j];
                        let found = c[i * (n + 2) + j];
                        assert!((found - expected).abs() < 1e-4, "{m} {n} {k}: {found} {expected}");
                    }
                    let between = i * (n + 2) + n..(i + 1) * (n + 2);
                    assert_eq!(c[between.clone()], old[between]);
                }
            }
        }
    }

    #[test]
    fn a_product_that_leaves_a_slice_is_refused() {
        let (a, mut c) = ([0.0; 12], [0.0; 12]);
        let mut fails = |left, right, (rows, columns, step)| {
            gemm(1.0, left, right, 0.0, MatrixMut::part(&mut c, rows, columns, step)).is_err()
        };
        let (left, right) = (Matrix::whole(&a, 3), Matrix::whole(&a[..9], 3));
        assert!(!fails(left, right, (4, 3, 3)));
        assert!(fails(left, right, (4, 3, 4)), "the last row ends outside");
        assert!(fails(left, right, (4, 3, 2)), "rows overlap");
        assert!(fails(left, right, (3, 3, 3)), "another number of rows");
        assert!(fails(left, left, (4, 3, 3)), "another inner size");
        assert!(fails(Matrix::part(&a, 4, 3, 4), right, (4, 3, 3)), "the left ends outside");
        assert!(fails(left, Matrix::part(&a[..8], 3, 3, 3), (4, 3, 3)), "the right ends outside");
        assert!(fails(Matrix::part(&a, 4, 3, usize::MAX / 2), right, (4, 3, 3)), "an offset overflows");
    }
}
