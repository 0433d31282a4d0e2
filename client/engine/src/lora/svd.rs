//! Truncated SVD: the leading singular vectors of a small matrix, by block power iteration (Halko, Martinsson
//! and Tropp 2011, arXiv 0909.4061, Algorithm 4.4) and Jacobi rotations on the small Gram matrix.

use proto::linear::{cosine, dot, jacobi_tangent, normalize, orthogonalize};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use crate::kernels::narrow;

/// Oversampling: vectors that are iterated beyond the rank.
const OVERSAMPLE: usize = 8;
const ITERATIONS: usize = 30;

/// Leading singular vectors, orthonormal.
pub(crate) struct TopFactors {
    /// Rows are right singular vectors: (rank, columns).
    pub(crate) right: Vec<f32>,
    /// Columns are left singular vectors: (rows, rank).
    pub(crate) left: Vec<f32>,
}

/// The leading `rank` singular vectors of `matrix`: (rows, columns); where its rank is lower, the others are
/// arbitrary orthonormal ones.
///
/// The signs of a pair are such that the largest entry of the right vector is positive.
pub(crate) fn top_factors(
    matrix: &[f64],
    rows: usize,
    columns: usize,
    rank: usize,
    rng: &mut ChaCha20Rng,
) -> TopFactors {
    let width = (rank + OVERSAMPLE).min(rows).min(columns);
    let mut right = vec![vec![0.0; columns]; width];
    orthonormalize(&mut right, rng);
    for _ in 0..ITERATIONS {
        right = right.iter().map(|v| apply_transposed(matrix, &apply(matrix, v), columns)).collect();
        orthonormalize(&mut right, rng);
    }
    let images: Vec<Vec<f64>> = right.iter().map(|v| apply(matrix, v)).collect();
    let gram = images.iter().map(|x| images.iter().map(|y| dot(x, y)).collect()).collect();
    let rotation = eigenvectors(gram);
    let rotate = |vectors: &[Vec<f64>], by: &[f64]| {
        let mut out = vec![0.0; vectors[0].len()];
        for (vector, factor) in vectors.iter().zip(by) {
            out.iter_mut().zip(vector).for_each(|(out, x)| *out += factor * x);
        }
        out
    };
    let mut a: Vec<Vec<f64>> = rotation.iter().take(rank).map(|by| rotate(&right, by)).collect();
    let mut b: Vec<Vec<f64>> = rotation.iter().take(rank).map(|by| rotate(&images, by)).collect();
    orthonormalize(&mut a, rng);
    orthonormalize(&mut b, rng);
    for (a, b) in a.iter_mut().zip(&mut b) {
        let largest = a.iter().fold(0.0f64, |most, x| if x.abs() > most.abs() { *x } else { most });
        if largest < 0.0 {
            a.iter_mut().chain(b).for_each(|x| *x = -*x);
        }
    }
    TopFactors {
        right: a.iter().flatten().map(|x| narrow(*x)).collect(),
        left: (0..rows).flat_map(|row| b.iter().map(move |column| narrow(column[row]))).collect(),
    }
}

fn apply(matrix: &[f64], vector: &[f64]) -> Vec<f64> {
    matrix.chunks_exact(vector.len()).map(|row| dot(row, vector)).collect()
}

fn apply_transposed(matrix: &[f64], vector: &[f64], columns: usize) -> Vec<f64> {
    let mut out = vec![0.0; columns];
    for (row, factor) in matrix.chunks_exact(columns).zip(vector) {
        out.iter_mut().zip(row).for_each(|(out, x)| *out += factor * x);
    }
    out
}

/// Gram–Schmidt, twice for accuracy; a vector that depends linearly on the earlier ones is replaced by a random
/// one.
fn orthonormalize(vectors: &mut [Vec<f64>], rng: &mut ChaCha20Rng) {
    for at in 0..vectors.len() {
        let (earlier, rest) = vectors.split_at_mut(at);
        let vector = &mut rest[0];
        loop {
            let before = dot(vector, vector).sqrt();
            orthogonalize(vector, earlier, |_, _| {});
            if normalize(vector, f64::max(before * 1e-10, f64::MIN_POSITIVE)).is_some() {
                break;
            }
            for x in &mut *vector {
                *x = f64::from(rng.next_u32()) / 4_294_967_296.0 - 0.5;
            }
        }
    }
}

/// The eigenvectors of a symmetric matrix as rows, the largest eigenvalue first (cyclic Jacobi).
fn eigenvectors(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let size = matrix.len();
    let mut vectors = vec![vec![0.0; size]; size];
    (0..size).for_each(|i| vectors[i][i] = 1.0);
    for _ in 0..30 {
        for p in 0..size {
            for q in p + 1..size {
                let (app, aqq, apq) = (matrix[p][p], matrix[q][q], matrix[p][q]);
                let Some(t) = jacobi_tangent(app, aqq, apq) else { continue };
                let c = cosine(t);
                let s = t * c;
                for row in &mut matrix {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                for rows in [&mut matrix, &mut vectors] {
                    let (head, tail) = rows.split_at_mut(q);
                    for (x, y) in head[p].iter_mut().zip(&mut tail[0]) {
                        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                    }
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&i, &j| matrix[j][j].total_cmp(&matrix[i][i]));
    order.into_iter().map(|i| vectors[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    /// `Σ σ_i · u_i · v_iᵀ` with known orthonormal vectors.
    fn known(rows: usize, columns: usize, sigma: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        let (mut u, mut v) = (vec![vec![0.0; rows]; sigma.len()], vec![vec![0.0; columns]; sigma.len()]);
        orthonormalize(&mut u, &mut rng);
        orthonormalize(&mut v, &mut rng);
        let mut matrix = vec![0.0; rows * columns];
        for ((u, v), sigma) in u.iter().zip(&v).zip(sigma) {
            for i in 0..rows {
                for j in 0..columns {
                    matrix[i * columns + j] += sigma * u[i] * v[j];
                }
            }
        }
        (matrix, u, v)
    }

    #[test]
    fn the_leading_vectors_of_a_known_matrix_are_found_in_order() {
        for (rows, columns) in [(30, 17), (12, 40)] {
            let (matrix, u, v) = known(rows, columns, &[9.0, 5.0, 4.5, 1.0, 0.5, 0.2]);
            let top = top_factors(&matrix, rows, columns, 3, &mut ChaCha20Rng::from_seed([1; 32]));
            for i in 0..3 {
                let right: f64 = (0..columns).map(|j| f64::from(top.right[i * columns + j]) * v[i][j]).sum();
                let left: f64 = (0..rows).map(|j| f64::from(top.left[j * 3 + i]) * u[i][j]).sum();
                assert!(right.abs() > 1.0 - 1e-5 && left.abs() > 1.0 - 1e-5, "{i}: {right} {left}");
                assert!(right * left > 0.0, "the signs of pair {i} differ");
            }
        }
    }

    #[test]
    fn a_matrix_of_too_small_a_rank_still_gives_orthonormal_factors() {
        let (matrix, ..) = known(6, 5, &[2.0]);
        let top = top_factors(&matrix, 6, 5, 3, &mut ChaCha20Rng::from_seed([1; 32]));
        for i in 0..3 {
            for j in 0..3 {
                let right: f32 = (0..5).map(|k| top.right[i * 5 + k] * top.right[j * 5 + k]).sum();
                let left: f32 = (0..6).map(|k| top.left[k * 3 + i] * top.left[k * 3 + j]).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((right - expected).abs() < 1e-5 && (left - expected).abs() < 1e-5);
            }
        }
    }
}
