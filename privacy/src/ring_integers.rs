//! Integers mod 2^b, the only place with wrapping arithmetic.

/// The most bits that a ring may have.
pub(crate) const MOST_BITS: u32 = 31;

/// The ring of integers mod 2^b, b between 1 and [`MOST_BITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    bits: u32,
}

impl Ring {
    /// The smallest ring with at least `values` elements, or `None` when it
    /// would be wider than [`MOST_BITS`]. Compares powers of two instead of
    /// taking a logarithm, so that every machine finds the same ring.
    pub(crate) fn holding(values: f64) -> Option<Self> {
        (1..=MOST_BITS).find(|&bits| f64::from(1u32 << bits) >= values).map(|bits| Self { bits })
    }

    pub(crate) fn bits(self) -> u32 {
        self.bits
    }

    pub(crate) fn mask(self) -> u32 {
        (1 << self.bits) - 1
    }

    /// `value` mod 2^b.
    #[inline]
    pub(crate) fn reduce(self, value: i64) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "2^b divides 2^32, so dropping the upper half of the two's complement \
                      does not change the residue"
        )]
        let low = value as u32;
        low & self.mask()
    }

    /// The sum of an element and an integer.
    #[inline]
    pub(crate) fn add(self, element: u32, value: i64) -> u32 {
        element.wrapping_add(self.reduce(value)) & self.mask()
    }

    /// The representative in [−2^(b−1), 2^(b−1)).
    #[inline]
    pub(crate) fn center(self, element: u32) -> i32 {
        let shift = 32 - self.bits;
        (element << shift).cast_signed() >> shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centring_undoes_reducing_at_the_edges() {
        let ring = Ring::holding(1000.0).unwrap();
        assert_eq!(ring.bits(), 10);
        for value in [-512, -511, -1, 0, 1, 511] {
            assert_eq!(i64::from(ring.center(ring.reduce(value))), value);
        }
        assert_eq!(ring.center(ring.reduce(512)), -512);
        assert_eq!(ring.add(ring.reduce(500), 30), ring.reduce(530 - 1024));
    }

    #[test]
    fn the_widest_ring_has_thirty_one_bits() {
        assert_eq!(Ring::holding(2f64.powi(31)).unwrap().bits(), 31);
        assert_eq!(Ring::holding(2f64.powi(31) + 1.0), None);
    }
}
