//! Products of two thin factors: their sum, and its best approximation of a given rank.
//!
//! A sum of products is one product of longer factors, `B · A` with `A`: (R, inputs) and `B`: (outputs, R). Both are
//! made orthonormal first, so that the singular values are those of an R × R matrix and nothing of the size of a
//! layer is ever formed. Only additions, multiplications, divisions and square roots, in f64.

use crate::linear::{cosine, dot, jacobi_tangent, normalize, orthogonalize, subtract};

/// `Σ_k b_k · a_kᵀ`: as many vectors on either side as the rank.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Product {
    /// Rows of `A`, each as long as the inputs.
    pub(super) a: Vec<Vec<f64>>,
    /// Columns of `B`, each as long as the outputs.
    pub(super) b: Vec<Vec<f64>>,
}

/// Sweeps of the rotations, at most; some ten are enough.
const SWEEPS: usize = 60;

impl Product {
    /// The product of `a`: (rank, inputs) and `b`: (outputs, rank), both row by row, times `scale`.
    pub(super) fn new(a: &[f32], b: &[f32], (rank, inputs): (usize, usize), scale: f64) -> Self {
        let rows = a.chunks_exact(inputs.max(1)).take(rank);
        let column =
            |k: usize| b.iter().skip(k).step_by(rank.max(1)).map(|x| scale * f64::from(*x)).collect();
        Self {
            a: rows.map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect(),
            b: (0..rank).map(column).collect(),
        }
    }

    /// The sum of both.
    pub(super) fn plus(mut self, other: Self) -> Self {
        self.a.extend(other.a);
        self.b.extend(other.b);
        self
    }

    /// The product of rank `rank` that is nearest to this one (Eckart and Young), its factors equally long.
    pub(super) fn truncated(&self, rank: usize) -> Self {
        let ((qa, ra), (qb, rb)) = (orthonormal(&self.a), orthonormal(&self.b));
        // B · A = Qb · (Rb · Raᵀ) · Qaᵀ; the columns of the matrix between them.
        let columns: Vec<Vec<f64>> = ra.iter().map(|a| rb.iter().map(|b| dot(a, b)).collect()).collect();
        let (columns, v) = rotated(columns);
        let mut order: Vec<(usize, f64)> =
            columns.iter().map(|column| dot(column, column).sqrt()).enumerate().collect();
        order.sort_by(|(_, x), (_, y)| y.total_cmp(x));
        let (mut a, mut b) = (Vec::with_capacity(rank), Vec::with_capacity(rank));
        for &(k, sigma) in order.iter().take(rank) {
            let root = sigma.sqrt();
            a.push(combined(&qa, v[k].iter().map(|x| x * root)));
            // The k-th left singular vector is the column divided by σ.
            let share = if root > 0.0 { 1.0 / root } else { 0.0 };
            b.push(combined(&qb, columns[k].iter().map(|x| x * share)));
        }
        Self { a, b }
    }

    /// `A`: (rank, inputs) and `B`: (outputs, rank), row by row.
    pub(super) fn to_factors(&self) -> (Vec<f32>, Vec<f32>) {
        let outputs = self.b.first().map_or(0, Vec::len);
        let a = self.a.iter().flatten().map(|x| super::narrow(*x)).collect();
        let b = (0..outputs)
            .flat_map(|row| self.b.iter().map(move |column| super::narrow(column[row])))
            .collect();
        (a, b)
    }
}

/// The sum of `vectors`, each times its factor.
fn combined(vectors: &[Vec<f64>], factors: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut out = vec![0.0; vectors.first().map_or(0, Vec::len)];
    for (vector, factor) in vectors.iter().zip(factors) {
        subtract(&mut out, -factor, vector);
    }
    out
}

/// `Q` and `R` with `vectors[k] = Σ_j R[j][k] · Q[j]`: Gram–Schmidt, twice for accuracy. A vector that depends on the
/// earlier ones leaves a zero vector in `Q`.
fn orthonormal(vectors: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let size = vectors.len();
    let (mut q, mut r): (Vec<Vec<f64>>, _) = (Vec::with_capacity(size), vec![vec![0.0; size]; size]);
    for (k, vector) in vectors.iter().enumerate() {
        let mut rest = vector.clone();
        let before = dot(&rest, &rest).sqrt();
        orthogonalize(&mut rest, &q, |j, along| r[j][k] += along);
        match normalize(&mut rest, f64::max(before * 1e-14, f64::MIN_POSITIVE)) {
            Some(norm) => r[k][k] = norm,
            None => rest.fill(0.0),
        }
        q.push(rest);
    }
    (q, r)
}

/// The columns of `M · V`, which are orthogonal, and those of `V`, which is (one-sided Jacobi rotations, Hestenes
/// 1958): singular values are the norms of the former, to high relative accuracy.
fn rotated(mut columns: Vec<Vec<f64>>) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let size = columns.len();
    let mut v = vec![vec![0.0; size]; size];
    (0..size).for_each(|k| v[k][k] = 1.0);
    for _ in 0..SWEEPS {
        let mut turned = false;
        for p in 0..size {
            for q in p + 1..size {
                let (pp, qq, pq) = (
                    dot(&columns[p], &columns[p]),
                    dot(&columns[q], &columns[q]),
                    dot(&columns[p], &columns[q]),
                );
                let Some(t) = jacobi_tangent(pp, qq, pq) else { continue };
                turned = true;
                let c = cosine(t);
                for vectors in [&mut columns, &mut v] {
                    let (head, tail) = vectors.split_at_mut(q);
                    for (x, y) in head[p].iter_mut().zip(&mut tail[0]) {
                        (*x, *y) = (c * (*x - t * *y), c * (t * *x + *y));
                    }
                }
            }
        }
        if !turned {
            break;
        }
    }
    // `V` is kept by columns: v[k] belongs to columns[k].
    (columns, v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(len: usize, at: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * 7 + at * 13 + i * i * at) as f64 * 0.37).sin()).collect()
    }

    fn product(outputs: usize, inputs: usize, rank: usize) -> Product {
        Product {
            a: (0..rank).map(|k| vector(inputs, k + 1)).collect(),
            b: (0..rank)
                .map(|k| vector(outputs, k + 31).iter().map(|x| x / (1 + 5 * k) as f64).collect())
                .collect(),
        }
    }

    fn dense(product: &Product) -> Vec<f64> {
        let (outputs, inputs) = (product.b[0].len(), product.a[0].len());
        let mut out = vec![0.0; outputs * inputs];
        for (a, b) in product.a.iter().zip(&product.b) {
            for i in 0..outputs {
                subtract(&mut out[i * inputs..(i + 1) * inputs], -b[i], a);
            }
        }
        out
    }

    fn distance(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt()
    }

    #[test]
    fn a_rank_that_holds_all_of_it_loses_nothing() {
        for (outputs, inputs, rank) in [(9, 12, 4), (12, 5, 5), (4, 30, 4)] {
            let whole = product(outputs, inputs, rank);
            let cut = whole.truncated(rank);
            assert!(distance(&dense(&whole), &dense(&cut)) < 1e-12, "{outputs} × {inputs}");
        }
    }

    #[test]
    fn more_vectors_than_a_side_has_still_give_the_product() {
        let whole = product(3, 6, 3).plus(product(3, 6, 3)).plus(product(3, 6, 1));
        let cut = whole.truncated(3);
        assert!(distance(&dense(&whole), &dense(&cut)) < 1e-11);
        assert_eq!(cut.a.len(), 3);
    }

    #[test]
    fn nothing_of_that_rank_is_nearer() {
        // Known singular values: orthonormal vectors times 5, 3, 1, 0.5.
        let ((left, _), (right, _)) = (orthonormal(&product(10, 8, 4).b), orthonormal(&product(10, 8, 4).a));
        let sigma = [3.0, 0.5, 5.0, 1.0];
        let scaled = |k: usize| left[k].iter().map(|x| x * sigma[k]).collect();
        let whole = Product { a: right, b: (0..4).map(scaled).collect() };
        for (rank, lost) in [(1, 9.0 + 1.0 + 0.25_f64), (2, 1.25), (3, 0.25)] {
            let cut = whole.truncated(rank);
            let found = distance(&dense(&whole), &dense(&cut));
            assert!((found - lost.sqrt()).abs() < 1e-12, "{rank}: {found}");
        }
    }

    #[test]
    fn factors_share_the_length_of_the_product() {
        let cut = product(9, 12, 4).truncated(4);
        for (a, b) in cut.a.iter().zip(&cut.b) {
            assert!((dot(a, a) - dot(b, b)).abs() < 1e-12);
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        let zero = Product { a: vec![vec![0.0; 4]; 2], b: vec![vec![0.0; 3]; 2] };
        assert!(dense(&zero.truncated(2)).iter().all(|x| *x == 0.0));
    }
}
