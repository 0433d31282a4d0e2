//! The prime field of 2^61 − 1.
//!
//! An element is held as a word in 0..=p, so that zero has two forms and no
//! operation branches on a value; [`Fp::canonical`] gives the one below p.

use std::ops::{Add, Mul, Sub};

use rand_core::CryptoRng;
use zeroize::DefaultIsZeroes;

/// The prime 2^61 − 1.
const P: u64 = (1 << 61) - 1;

/// An element of the field.
#[derive(Clone, Copy, Default)]
pub(super) struct Fp(u64);

impl Fp {
    pub(super) const ZERO: Self = Self(0);
    pub(super) const ONE: Self = Self(1);

    /// The element with this canonical form, if it is one.
    pub(super) fn new(word: u64) -> Option<Self> {
        (word < P).then_some(Self(word))
    }

    /// The residue of any word.
    pub(super) const fn reduced(word: u64) -> Self {
        // At most p + 7, so once more.
        let once = (word & P) + (word >> 61);
        Self((once & P) + (once >> 61))
    }

    /// A uniform element, by rejection.
    pub(super) fn random(rng: &mut impl CryptoRng) -> Self {
        loop {
            if let Some(element) = Self::new(rng.next_u64() >> 3) {
                return element;
            }
        }
    }

    /// The one form below the prime.
    pub(super) const fn canonical(self) -> u64 {
        // Adding one carries into bit 61 exactly for p.
        (self.0 + ((self.0 + 1) >> 61)) & P
    }

    /// The inverse by Fermat; zero for zero.
    pub(super) fn inverse(self) -> Self {
        let mut power = self;
        let mut result = Self::ONE;
        let mut exponent = P - 2;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * power;
            }
            power = power * power;
            exponent >>= 1;
        }
        result
    }
}

impl DefaultIsZeroes for Fp {}

impl From<u32> for Fp {
    fn from(word: u32) -> Self {
        Self(word.into())
    }
}

impl PartialEq for Fp {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for Fp {}

impl std::fmt::Debug for Fp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fp(..)")
    }
}

impl Add for Fp {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let sum = self.0 + other.0;
        Self((sum & P) + (sum >> 61))
    }
}

impl Sub for Fp {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self(P - other.0)
    }
}

impl Mul for Fp {
    type Output = Self;

    #[expect(
        clippy::cast_possible_truncation,
        reason = "both factors are at most p, so the product is below 2^122 and each half fits"
    )]
    fn mul(self, other: Self) -> Self {
        let product = u128::from(self.0) * u128::from(other.0);
        let low = (product as u64) & P;
        let high = (product >> 61) as u64;
        let sum = low + high;
        Self((sum & P) + (sum >> 61))
    }
}

/// The value of a polynomial, given by its coefficients from the constant term
/// on, by Horner's rule.
pub(super) fn evaluate(coefficients: &[Fp], x: Fp) -> Fp {
    coefficients.iter().rev().fold(Fp::ZERO, |value, coefficient| value * x + *coefficient)
}

/// Inverts every element, none of which is zero, with a single inversion:
/// [Montgomery's trick](https://doi.org/10.1090/S0025-5718-1987-0866113-7),
/// section 10.3.1.
pub(super) fn invert_all(elements: &mut [Fp]) {
    let mut before = Vec::with_capacity(elements.len());
    let mut product = Fp::ONE;
    for element in &*elements {
        before.push(product);
        product = product * *element;
    }
    let mut inverse = product.inverse();
    for (element, before) in elements.iter_mut().zip(before).rev() {
        let own = inverse * before;
        inverse = inverse * *element;
        *element = own;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words() -> impl Strategy<Value = u64> {
        prop_oneof![0..=P, Just(0), Just(1), Just(P - 1), Just(P)]
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_wide_integers(a in words(), b in words()) {
            let (wide_a, wide_b, p) = (u128::from(a), u128::from(b), u128::from(P));
            let same = |got: Fp, wide: u128| u128::from(got.canonical()) == wide % p;
            prop_assert!(same(Fp(a) + Fp(b), wide_a + wide_b));
            prop_assert!(same(Fp(a) - Fp(b), wide_a + 2 * p - wide_b));
            prop_assert!(same(Fp(a) * Fp(b), wide_a * wide_b));
        }

        #[test]
        fn every_word_is_reduced(word: u64) {
            prop_assert_eq!(Fp::reduced(word).canonical(), word % P);
        }

        #[test]
        fn inverses_invert(a in proptest::collection::vec(1..P, 0..20)) {
            let mut inverses: Vec<Fp> = a.iter().map(|word| Fp(*word)).collect();
            invert_all(&mut inverses);
            for (word, inverse) in a.iter().zip(inverses) {
                prop_assert_eq!(Fp(*word) * inverse, Fp::ONE);
            }
        }
    }

    #[test]
    fn the_prime_itself_is_not_a_canonical_form() {
        assert!(Fp::new(P).is_none());
        assert!(Fp::new(P - 1).is_some());
        assert_eq!(Fp(P), Fp::ZERO);
    }
}
