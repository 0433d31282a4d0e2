//! Linear algebra on a few vectors of f64, with the same bits on every machine: only additions, multiplications, divisions
//! and square roots, in one order. That is why it is our own.

/// `x · y`.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// `x −= factor · y`.
pub fn subtract(x: &mut [f64], factor: f64, y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x -= factor * y);
}

/// Takes from `vector` what lies along the orthonormal `basis` (modified Gram–Schmidt, twice for accuracy). `along` hears
/// of every part that is taken: which vector of the basis, and how much of it.
pub fn orthogonalize(vector: &mut [f64], basis: &[Vec<f64>], mut along: impl FnMut(usize, f64)) {
    for _ in 0..2 {
        for (at, earlier) in basis.iter().enumerate() {
            let part = dot(vector, earlier);
            subtract(vector, part, earlier);
            along(at, part);
        }
    }
}

/// Divides `vector` by its length, which it gives, if that is above `least`; else leaves it as it is.
pub fn normalize(vector: &mut [f64], least: f64) -> Option<f64> {
    let norm = dot(vector, vector).sqrt();
    if norm <= least || norm.is_nan() {
        return None;
    }
    for x in vector {
        *x /= norm;
    }
    Some(norm)
}

/// The tangent of the smaller angle of the Jacobi rotation that makes the off-diagonal entry `pq` of the symmetric matrix
/// ((`pp`, `pq`), (`pq`, `qq`)) zero; none where it is zero already, to rounding.
pub fn jacobi_tangent(pp: f64, qq: f64, pq: f64) -> Option<f64> {
    if pq.abs() <= f64::EPSILON * (pp * qq).abs().sqrt() || pq.abs() < f64::MIN_POSITIVE {
        return None;
    }
    let cotangent = (qq - pp) / (2.0 * pq);
    Some(cotangent.signum() / (cotangent.abs() + (cotangent * cotangent + 1.0).sqrt()))
}

/// The cosine of the angle with this tangent.
pub fn cosine(tangent: f64) -> f64 {
    1.0 / (tangent * tangent + 1.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_vector_is_orthogonal_to_the_basis_and_the_parts_give_it_back() {
        let basis = vec![vec![0.6, 0.8, 0.0], vec![0.0, 0.0, 1.0]];
        let (whole, mut parts) = (vec![1.0, 2.0, 3.0], [0.0; 2]);
        let mut rest = whole.clone();
        orthogonalize(&mut rest, &basis, |at, part| parts[at] += part);
        assert!(basis.iter().all(|b| dot(b, &rest).abs() < 1e-15));
        for (basis, part) in basis.iter().zip(parts) {
            subtract(&mut rest, -part, basis);
        }
        assert!(rest.iter().zip(&whole).all(|(x, y)| (x - y).abs() < 1e-15));
    }

    #[test]
    fn a_rotation_by_the_tangent_makes_the_entry_zero() {
        let (pp, qq, pq) = (2.0, -1.0, 0.7);
        let t = jacobi_tangent(pp, qq, pq).unwrap();
        let (c, s) = (cosine(t), t * cosine(t));
        assert!((c * s * (pp - qq) + (c * c - s * s) * pq).abs() < 1e-15);
        assert_eq!(jacobi_tangent(1.0, 1.0, 0.0), None);
    }

    #[test]
    fn what_has_no_length_is_not_divided() {
        assert_eq!(normalize(&mut [0.0, 0.0], f64::MIN_POSITIVE), None);
        assert_eq!(normalize(&mut [f64::NAN], 0.0), None);
        let mut x = [3.0, 4.0];
        assert_eq!(normalize(&mut x, 1e-6), Some(5.0));
        assert!((x[0] - 0.6).abs() < 1e-16 && (x[1] - 0.8).abs() < 1e-16);
    }
}
