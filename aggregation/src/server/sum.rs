//! The sum of the masked inputs so far.

use thiserror::Error;

use crate::modular::Ring;

/// The sum of masked inputs modulo 2^b, and how many there were.
#[derive(Clone, Debug)]
pub struct RunningSum {
    ring: Ring,
    sum: Vec<u32>,
    inputs: usize,
}

/// Why a vector cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SumError {
    /// The width is not one of a ring that is used here.
    #[error("{bits} bits a coordinate, expected 1 to 32")]
    Bits {
        /// The width asked for.
        bits: u32,
    },
    /// The input has another length than the sum.
    #[error("an input of {got} coordinates, expected {expected}")]
    Length {
        /// The coordinates of the input.
        got: usize,
        /// The coordinates of the sum.
        expected: usize,
    },
    /// A coordinate is not below 2^b.
    #[error("coordinate {place} is not below 2^{bits}")]
    OutOfRing {
        /// The first such coordinate.
        place: usize,
        /// The width.
        bits: u32,
    },
}

impl RunningSum {
    /// The empty sum. Fails unless 1 ≤ `bits` ≤ 32.
    pub fn new(len: usize, bits: u32) -> Result<Self, SumError> {
        Ok(Self { ring: Ring::new(bits).ok_or(SumError::Bits { bits })?, sum: vec![0; len], inputs: 0 })
    }

    /// Adds one complete masked input. Fails, and changes nothing, on another
    /// length or a coordinate that is not below 2^b.
    pub fn add(&mut self, input: &[u32]) -> Result<(), SumError> {
        let (got, expected) = (input.len(), self.sum.len());
        if got != expected {
            return Err(SumError::Length { got, expected });
        }
        if let Some(place) = input.iter().position(|value| !self.ring.contains(*value)) {
            let bits = self.ring.bits();
            return Err(SumError::OutOfRing { place, bits });
        }
        self.ring.add(&mut self.sum, input);
        self.inputs += 1;
        Ok(())
    }

    /// How many inputs were added.
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// The coordinates of the sum.
    pub const fn len(&self) -> usize {
        self.sum.len()
    }

    /// Whether the sum has no coordinates.
    pub const fn is_empty(&self) -> bool {
        self.sum.is_empty()
    }

    /// Bits of a coordinate.
    pub const fn bits(&self) -> u32 {
        self.ring.bits()
    }

    /// The sum.
    pub fn into_vec(self) -> Vec<u32> {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_added_modulo_two_to_the_b() {
        let mut sum = RunningSum::new(2, 4).unwrap();
        sum.add(&[15, 1]).unwrap();
        sum.add(&[2, 3]).unwrap();
        assert_eq!(sum.inputs(), 2);
        assert_eq!(sum.into_vec(), [1, 4]);
    }

    #[test]
    fn a_refused_input_changes_nothing() {
        let mut sum = RunningSum::new(2, 4).unwrap();
        sum.add(&[1, 2]).unwrap();
        let length = SumError::Length { got: 1, expected: 2 };
        assert_eq!(sum.add(&[1]), Err(length));
        let range = SumError::OutOfRing { place: 1, bits: 4 };
        assert_eq!(sum.add(&[1, 16]), Err(range));
        assert_eq!(sum.inputs(), 1);
        assert_eq!(sum.into_vec(), [1, 2]);
    }

    #[test]
    fn a_width_outside_the_ring_is_refused() {
        assert_eq!(RunningSum::new(1, 0).err(), Some(SumError::Bits { bits: 0 }));
        assert_eq!(RunningSum::new(1, 33).err(), Some(SumError::Bits { bits: 33 }));
    }
}
