//! The integers modulo 2^b, as a quotient of `u32`: the one place that wraps.

/// The ring `Z_2^b`, 1 ≤ b ≤ 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    bits: u32,
    low: u32,
}

/// Whether a mask is added or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

impl Ring {
    /// The ring with `bits` bits, or nothing unless 1 ≤ `bits` ≤ 32.
    pub(crate) const fn new(bits: u32) -> Option<Self> {
        match bits {
            1..=32 => Some(Self { bits, low: u32::MAX >> (32 - bits) }),
            _ => None,
        }
    }

    pub(crate) const fn bits(self) -> u32 {
        self.bits
    }

    pub(crate) const fn contains(self, value: u32) -> bool {
        value <= self.low
    }

    /// Keeps the low b bits of each coordinate.
    pub(crate) fn reduce(self, coordinates: &mut [u32]) {
        for coordinate in coordinates {
            *coordinate &= self.low;
        }
    }

    /// Adds `input` coordinate by coordinate; both have the same length.
    pub(crate) fn add(self, sum: &mut [u32], input: &[u32]) {
        for (total, value) in sum.iter_mut().zip(input) {
            *total = total.wrapping_add(*value) & self.low;
        }
    }
}

/// Adds little-endian words to the coordinates, or takes them away, modulo
/// 2^32. Reduction modulo 2^b can wait until the last mask is applied.
pub(crate) fn apply(sign: Sign, coordinates: &mut [u32], words: &[[u8; 4]]) {
    let pairs = coordinates.iter_mut().zip(words);
    match sign {
        Sign::Plus => pairs.for_each(|(c, w)| *c = c.wrapping_add(u32::from_le_bytes(*w))),
        Sign::Minus => pairs.for_each(|(c, w)| *c = c.wrapping_sub(u32::from_le_bytes(*w))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_to_thirty_two_bits_make_a_ring() {
        assert_eq!(Ring::new(0), None);
        assert_eq!(Ring::new(33), None);
        assert!(Ring::new(1).unwrap().contains(1));
        assert!(!Ring::new(1).unwrap().contains(2));
        assert!(Ring::new(32).unwrap().contains(u32::MAX));
    }

    #[test]
    fn adding_and_taking_away_the_same_words_changes_nothing() {
        let mut coordinates = [0, 1, u32::MAX];
        let words = [[0xff; 4], [1, 2, 3, 4], [2, 0, 0, 0]];
        apply(Sign::Plus, &mut coordinates, &words);
        assert_eq!(coordinates, [u32::MAX, 0x0403_0202, 1]);
        apply(Sign::Minus, &mut coordinates, &words);
        assert_eq!(coordinates, [0, 1, u32::MAX]);
    }

    #[test]
    fn a_sum_wraps_at_two_to_the_b() {
        let ring = Ring::new(3).unwrap();
        let mut sum = [5, 7];
        ring.add(&mut sum, &[4, 1]);
        assert_eq!(sum, [1, 0]);
    }
}
