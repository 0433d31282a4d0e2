//! Arithmetic on unevaluated sums of two `f64`, about 106 bits.
//!
//! The noise tables are computed in it, so that their error, multiplied by the
//! coordinates, devices and participations of a whole task, stays far below
//! any δ. With u = 2^−53 the relative error of one operation is at most 3u² for
//! a sum, 5u² for a product and 10u² for a quotient (Joldes, Muller, Popescu,
//! "Tight and rigorous error bounds for basic building blocks of double-word
//! arithmetic", 2017, <https://hal.science/hal-01351529>), so below 2^−102 for
//! each of them.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// `hi + lo`, with |lo| at most half a unit in the last place of `hi`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Double {
    hi: f64,
    lo: f64,
}

impl Double {
    pub(crate) const ZERO: Self = Self { hi: 0.0, lo: 0.0 };
    pub(crate) const ONE: Self = Self { hi: 1.0, lo: 0.0 };

    /// ln 2 to 106 bits.
    const LN_2: Self = Self { hi: std::f64::consts::LN_2, lo: 2.319_046_813_846_299_6e-17 };

    /// The nearest `f64`.
    pub(crate) fn to_f64(self) -> f64 {
        self.hi
    }

    /// The exact value of `value`.
    pub(crate) fn from_u64(value: u64) -> Self {
        let high = (value >> 32) as f64 * 4_294_967_296.0;
        let low = (value & 0xffff_ffff) as f64;
        let (hi, lo) = two_sum(high, low);
        Self { hi, lo }
    }

    /// Multiplies by 2^`exponent`, exactly unless it underflows.
    pub(crate) fn times_power_of_two(self, exponent: i32) -> Self {
        let factor = 2f64.powi(exponent);
        Self { hi: self.hi * factor, lo: self.lo * factor }
    }

    /// The square root of a positive number, by one Newton step.
    pub(crate) fn sqrt(self) -> Self {
        let root = Self::from(self.hi.sqrt());
        root + (self - root * root) / (root + root)
    }

    /// e to this power, for |self| up to 500. The argument is reduced to
    /// |r| ≤ ½·ln 2 and the series summed to below 2^−110, so the relative
    /// error is that of the argument plus less than 2^−96.
    pub(crate) fn exp(self) -> Self {
        let multiple = (self.hi / std::f64::consts::LN_2).round();
        let reduced = self - Self::LN_2 * Self::from(multiple);
        let mut sum = Self::ONE;
        for term in (1..=28u32).rev() {
            sum = Self::ONE + sum * reduced / Self::from(f64::from(term));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a rounded number below 722 in size is an exact i32"
        )]
        let exponent = multiple as i32;
        sum.times_power_of_two(exponent)
    }

    /// The nearby integer of a number in [0, 2^127], off by less than 2.
    pub(crate) fn to_u128(self) -> u128 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the caller keeps the number in [0, 2^127]; the low part is taken by its size"
        )]
        let (high, low) = (self.hi as u128, self.lo.abs() as u128);
        if self.lo < 0.0 { high.saturating_sub(low) } else { high.saturating_add(low) }
    }
}

impl From<f64> for Double {
    fn from(value: f64) -> Self {
        Self { hi: value, lo: 0.0 }
    }
}

impl Add for Double {
    type Output = Self;

    /// Algorithm 6 of Joldes et al.
    fn add(self, other: Self) -> Self {
        let (sum, error) = two_sum(self.hi, other.hi);
        let (low_sum, low_error) = two_sum(self.lo, other.lo);
        let (sum, error) = fast_two_sum(sum, error + low_sum);
        let (hi, lo) = fast_two_sum(sum, low_error + error);
        Self { hi, lo }
    }
}

impl Neg for Double {
    type Output = Self;

    fn neg(self) -> Self {
        Self { hi: -self.hi, lo: -self.lo }
    }
}

impl Sub for Double {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Double {
    type Output = Self;

    /// Algorithm 11 of Joldes et al., with the products split as by Dekker.
    fn mul(self, other: Self) -> Self {
        let (product, error) = two_product(self.hi, other.hi);
        let cross = self.hi * other.lo + self.lo * other.hi;
        let (hi, lo) = fast_two_sum(product, error + cross);
        Self { hi, lo }
    }
}

impl Div for Double {
    type Output = Self;

    /// Long division with three quotient digits.
    fn div(self, other: Self) -> Self {
        let first = self.hi / other.hi;
        let rest = self - other * Self::from(first);
        let second = rest.hi / other.hi;
        let rest = rest - other * Self::from(second);
        let third = rest.hi / other.hi;
        let (hi, lo) = fast_two_sum(first, second);
        Self { hi, lo } + Self::from(third)
    }
}

/// The sum and its exact rounding error.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}

/// The same where `a` is zero or not smaller than `b`.
fn fast_two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// The product and its exact rounding error.
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let (a_high, a_low) = split(a);
    let (b_high, b_low) = split(b);
    let error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    (product, error)
}

/// The upper 26 bits and the rest.
fn split(a: f64) -> (f64, f64) {
    let shifted = 134_217_729.0 * a;
    let high = shifted - (shifted - a);
    (high, a - high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_three_times_is_one_to_a_hundred_bits() {
        let third = Double::ONE / Double::from(3.0);
        let error = third + third + third - Double::ONE;
        assert!(error.to_f64().abs() < 2f64.powi(-102));
    }

    #[test]
    fn the_root_of_two_squares_to_two() {
        let root = Double::from(2.0).sqrt();
        assert!((root * root - Double::from(2.0)).to_f64().abs() < 2f64.powi(-100));
    }

    #[test]
    fn exp_is_right_to_ninety_six_bits() {
        // From mpmath at 60 digits, as sums of two doubles.
        let cases = [
            (1.0, std::f64::consts::E, 1.445_646_891_729_250_2e-16),
            (-0.25, 0.778_800_783_071_404_9, -1.023_186_953_453_149_8e-17),
            (-79.25, 3.820_870_418_052_153e-35, 6.993_975_459_496_172e-52),
        ];
        for (x, hi, lo) in cases {
            let error = Double::from(x).exp() - Double { hi, lo };
            assert!((error.to_f64() / hi).abs() < 2f64.powi(-96), "{x}");
        }
        for x in [0.3, 7.0, 40.5, 79.25] {
            let product = Double::from(x).exp() * Double::from(-x).exp();
            assert!((product - Double::ONE).to_f64().abs() < 2f64.powi(-95), "{x}");
        }
    }

    #[test]
    fn large_integers_convert_without_loss() {
        let value = u64::MAX - 12_345;
        let double = Double::from_u64(value);
        assert_eq!(double.to_u128(), u128::from(value));
    }
}
