//! General matrix product (GEMM), `C = α · A · B + β · C`, in f32 on the calling thread.

use crate::kernels::error::{Result, bail};
use crate::kernels::view::{View, ViewMut};

/// `out = alpha · left · right + beta · out`; `out` is not read if `beta` is zero.
///
/// Fails if the shapes do not match, or if a view exceeds its slice. `left`: (m, k), `right`: (k, n), `out`: (m, n).
pub(crate) fn gemm(
    alpha: f32,
    left: View<'_>,
    right: View<'_>,
    beta: f32,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let (m, n, k) = (out.rows(), out.columns(), left.columns);
    if (left.rows, right.rows, right.columns) != (m, k, n) {
        bail!("cannot make {m} × {n} of {} × {k} and {} × {}", left.rows, right.rows, right.columns);
    }
    let step = |step: usize| isize::try_from(step).ok();
    let steps =
        [left.column_step, left.row_step, right.column_step, right.row_step, out.row_step()].map(step);
    let [Some(a_cs), Some(a_rs), Some(b_cs), Some(b_rs), Some(c_rs)] = steps else {
        bail!("a step of {m} × {n} × {k} is too long");
    };
    if !(left.is_inside() && right.is_inside()) {
        bail!("{m} × {n} × {k} exceeds a slice");
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    let (left, right) = (left.numbers.as_ptr(), right.numbers.as_ptr());
    // The `gemm` crate names the two the other way round: its alpha scales `out`, its beta the product.
    let (old, new, read_old) = (beta, alpha, beta.abs() > 0.0);
    let serial = gemm::Parallelism::None;
    #[expect(
        unsafe_code,
        reason = "bounds proven: every offset `i · row_step + j · column_step` of the factors is inside its slice, \
                  and `out` is a part of one that nothing else writes to"
    )]
    // SAFETY: every element of `left` and `right` is inside its slice, as checked above, and every element of `out` by
    // its invariant, exclusively; the crate has a kernel for f32.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.start(),
            1,
            c_rs,
            read_old,
            left,
            a_cs,
            a_rs,
            right,
            b_cs,
            b_rs,
            old,
            new,
            false,
            false,
            false,
            serial,
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
                let (left, right) = (View::part(&a, m, k, k + 3), View::part(&b, n, k, k + 1).t());
                gemm(alpha, left, right, beta, ViewMut::whole(&mut c, n + 2).split_at_column(n).0).unwrap();
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
    fn shapes_that_do_not_fit_are_refused() {
        let (a, mut c) = ([0.0; 12], [0.0; 12]);
        let mut fails = |left, right, rows: usize| {
            gemm(1.0, left, right, 0.0, ViewMut::whole(&mut c[..rows * 3], 3)).is_err()
        };
        let (left, right) = (View::whole(&a, 3), View::whole(&a[..9], 3));
        assert!(!fails(left, right, 4));
        assert!(fails(left, right, 3), "another number of rows");
        assert!(fails(left, left, 4), "another inner size");
        assert!(fails(View::part(&a, 4, 3, 4), right, 4), "the left ends outside");
        assert!(fails(left, View::part(&a[..8], 3, 3, 3), 4), "the right ends outside");
        assert!(fails(View::part(&a, 4, 3, usize::MAX / 2), right, 4), "an offset overflows");
    }
}
