//! How far one device can move the integer sum.

/// Bounds on the norms of one rounded update, in integer units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sensitivity {
    scaled_bound: f64,
    delta2: f64,
}

/// By how much rounding may enlarge the L2 sensitivity.
const LARGEST_GROWTH: f64 = 1.01;

impl Sensitivity {
    /// The bounds for vectors of norm at most `scaled_bound` that are
    /// rounded in `len` = d coordinates: Proposition 22 of Kairouz, Liu,
    /// Steinke 2021 (<https://arxiv.org/abs/2102.06387>) with β = e^(−1/2), so
    /// that √(2 ln(1/β)) = 1.
    pub fn rounded(scaled_bound: f64, len: usize) -> Self {
        let d = len as f64;
        let always = scaled_bound + d.sqrt();
        let likely = (scaled_bound * scaled_bound + d / 4.0 + (scaled_bound + d.sqrt() / 2.0)).sqrt();
        Self { scaled_bound, delta2: always.min(likely) }
    }

    /// The norm before rounding, in integer units.
    pub fn scaled_bound(&self) -> f64 {
        self.scaled_bound
    }

    /// Δ₂, the L2 bound that rounding enforces.
    pub fn delta2(&self) -> f64 {
        self.delta2
    }

    /// Δ₁ = min(√d·Δ₂, Δ₂²), the L1 bound that follows for integer vectors of
    /// `len` = d coordinates.
    pub fn delta1(&self, len: usize) -> f64 {
        ((len as f64).sqrt() * self.delta2).min(self.delta2 * self.delta2)
    }

    /// Whether rounding enlarges the sensitivity by no more than one per cent.
    pub(crate) fn is_tight(&self) -> bool {
        self.delta2 <= LARGEST_GROWTH * self.scaled_bound
    }

    /// The least scaled bound for which [`is_tight`](Self::is_tight) holds. For large d
    /// it is about 3.6·√d.
    pub(crate) fn least_scaled_bound(len: usize) -> f64 {
        let d = len as f64;
        let growth = LARGEST_GROWTH * LARGEST_GROWTH - 1.0;
        // growth·x² − x − (d/4 + √d/2) = 0, or x + √d = 1.01·x.
        let likely = (1.0 + (1.0 + 4.0 * growth * (d / 4.0 + d.sqrt() / 2.0)).sqrt()) / (2.0 * growth);
        let always = d.sqrt() / (LARGEST_GROWTH - 1.0);
        likely.min(always) * (1.0 + 1e-12)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_norms_match_the_reference() {
        for (scaled_bound, d, expected) in [
            (4096.0, 1 << 20, 4_128.434_085_703_682),
            (1000.0, 1 << 17, 1_016.832_837_459_522_6),
            (16.0, 1 << 10, 23.323_807_579_381_203),
        ] {
            let delta2 = Sensitivity::rounded(scaled_bound, d).delta2();
            assert!((delta2 - expected).abs() < 1e-11 * expected, "{delta2}");
        }
    }

    #[test]
    fn the_least_scaled_bound_is_where_one_per_cent_is_reached() {
        for exponent in 0..26 {
            let d = 1 << exponent;
            let least = Sensitivity::least_scaled_bound(d);
            assert!(Sensitivity::rounded(least, d).is_tight(), "d {d}");
            assert!(!Sensitivity::rounded(least * 0.999, d).is_tight(), "d {d}");
        }
    }
}
