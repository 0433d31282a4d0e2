//! Decodes Reed–Solomon words: the polynomial through most of the points.
//!
//! Algorithm 1 of [Gao 2003]: interpolate all points, run Euclid's algorithm
//! with the product of the `(x − x_i)` until the degree is below (n + t) / 2, and
//! divide. Only the constant term is wanted here, but the division must be
//! exact and the degree below t.
//!
//! [Gao 2003]: https://doi.org/10.1007/978-1-4757-3789-9_5

use zeroize::Zeroize;

use super::field::{Fp, evaluate, invert_all};

/// Coefficients from the constant term on, without leading zeros; wiped on
/// drop, since the wanted polynomial is one of them.
struct Polynomial(Vec<Fp>);

/// A decoded word. Its constant is wiped on drop.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The value of the polynomial at zero.
    pub(super) constant: Fp,
    /// Which points it does not meet.
    pub(super) wrong: Vec<usize>,
}

/// Finds the polynomial of degree below `threshold` that meets all of the
/// points but at most ⌊(n − threshold) / 2⌋.
pub(super) fn decode(xs: &[Fp], ys: &[Fp], threshold: usize) -> Option<Decoded> {
    if xs.len() != ys.len() || threshold == 0 || xs.len() < threshold {
        return None;
    }
    let vanishing = xs.iter().fold(Polynomial::constant(Fp::ONE), |product, x| product.times_linear(*x));
    // Euclid: remainder = (..) · vanishing + cofactor · interpolant.
    let mut previous = (vanishing, Polynomial::zero());
    let mut current = (interpolate(xs, ys)?, Polynomial::constant(Fp::ONE));
    while 2 * current.0.len() >= xs.len() + threshold + 2 {
        let (quotient, remainder) = previous.0.divide(&current.0)?;
        let cofactor = previous.1.minus_product(&quotient, &current.1);
        previous = std::mem::replace(&mut current, (remainder, cofactor));
    }
    let (message, rest) = current.0.divide(&current.1)?;
    if rest.len() > 0 || message.len() > threshold {
        return None;
    }
    let points = xs.iter().zip(ys).enumerate();
    let wrong = points.filter(|(_, (x, y))| evaluate(&message.0, **x) != **y);
    Some(Decoded {
        constant: message.0.first().copied().unwrap_or(Fp::ZERO),
        wrong: wrong.map(|(place, _)| place).collect(),
    })
}

/// Newton's divided differences. Fails if an x is repeated.
fn interpolate(xs: &[Fp], ys: &[Fp]) -> Option<Polynomial> {
    let mut differences = Polynomial(ys.to_vec());
    for order in 1..xs.len() {
        let mut spans: Vec<Fp> = xs.iter().skip(order).zip(xs).map(|(b, a)| *b - *a).collect();
        if spans.contains(&Fp::ZERO) {
            return None;
        }
        invert_all(&mut spans);
        for place in (order..xs.len()).rev() {
            let difference = differences.0[place] - differences.0[place - 1];
            differences.0[place] = difference * spans[place - order];
        }
    }
    let start = Polynomial::zero();
    let sum = xs
        .iter()
        .zip(&differences.0)
        .rev()
        .fold(start, |sum, (x, difference)| sum.times_linear(*x).plus_constant(*difference));
    Some(sum)
}

impl Polynomial {
    const fn zero() -> Self {
        Self(Vec::new())
    }

    fn constant(value: Fp) -> Self {
        Self(vec![value]).trimmed()
    }

    /// One more than the degree; zero for the zero polynomial.
    fn len(&self) -> usize {
        self.0.len()
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&Fp::ZERO) {
            self.0.pop();
        }
        self
    }

    /// `self · (X − root)`.
    fn times_linear(&self, root: Fp) -> Self {
        let mut product = Self(vec![Fp::ZERO; self.len() + 1]);
        for (place, coefficient) in self.0.iter().enumerate() {
            product.0[place + 1] = product.0[place + 1] + *coefficient;
            product.0[place] = product.0[place] - root * *coefficient;
        }
        product.trimmed()
    }

    fn plus_constant(mut self, value: Fp) -> Self {
        match self.0.first_mut() {
            Some(constant) => *constant = *constant + value,
            None => self.0.push(value),
        }
        self.trimmed()
    }

    /// Quotient and remainder; nothing for a zero divisor.
    fn divide(&self, divisor: &Self) -> Option<(Self, Self)> {
        let lead = divisor.0.last()?.inverse();
        let mut rest = Self(self.0.clone());
        let mut quotient = Self(vec![Fp::ZERO; (self.len() + 1).saturating_sub(divisor.len())]);
        for shift in (0..quotient.len()).rev() {
            let factor = rest.0[shift + divisor.len() - 1] * lead;
            quotient.0[shift] = factor;
            for (place, coefficient) in divisor.0.iter().enumerate() {
                rest.0[shift + place] = rest.0[shift + place] - factor * *coefficient;
            }
        }
        Some((quotient.trimmed(), rest.trimmed()))
    }

    /// `self − a · b`.
    fn minus_product(&self, a: &Self, b: &Self) -> Self {
        let mut difference = Self(vec![Fp::ZERO; self.len().max(a.len() + b.len())]);
        for (out, coefficient) in difference.0.iter_mut().zip(&self.0) {
            *out = *coefficient;
        }
        for (i, left) in a.0.iter().enumerate() {
            for (j, right) in b.0.iter().enumerate() {
                difference.0[i + j] = difference.0[i + j] - *left * *right;
            }
        }
        difference.trimmed()
    }
}

impl Drop for Decoded {
    fn drop(&mut self) {
        self.constant.zeroize();
    }
}

impl Drop for Polynomial {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 + 5x + 2x² at 1..=count.
    fn points(count: u32) -> (Vec<Fp>, Vec<Fp>) {
        let xs: Vec<Fp> = (1..=count).map(Fp::from).collect();
        let ys = (1..=count).map(|x| Fp::from(3 + 5 * x + 2 * x * x)).collect();
        (xs, ys)
    }

    fn found(constant: u32, wrong: &[usize]) -> Decoded {
        Decoded { constant: Fp::from(constant), wrong: wrong.to_vec() }
    }

    #[test]
    fn a_clean_word_gives_its_decode() {
        let (xs, ys) = points(3);
        assert_eq!(decode(&xs, &ys, 3), Some(found(3, &[])));
    }

    #[test]
    fn errors_up_to_half_the_spare_points_are_corrected() {
        let (xs, mut ys) = points(7);
        ys[1] = Fp::from(99);
        ys[6] = Fp::ZERO;
        assert_eq!(decode(&xs, &ys, 3), Some(found(3, &[1, 6])));
    }

    #[test]
    fn a_polynomial_of_too_high_a_degree_is_not_accepted() {
        let (xs, ys) = points(6);
        assert_eq!(decode(&xs, &ys, 2), None);
    }

    #[test]
    fn a_word_of_zeros_decodes_to_zero() {
        let (xs, _) = points(5);
        assert_eq!(decode(&xs, &[Fp::ZERO; 5], 3), Some(found(0, &[])));
    }
}
