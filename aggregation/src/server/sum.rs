//! The sum of the masked inputs so far.

use thiserror::Error;

use crate::modular::Ring;

/// The sum of masked inputs modulo 2^b, and how many there were.
#[derive(Clone, Debug)]
pub struct RunningSum {
    ring: Ring,
    sum: Vec<u32>,
    inputs: usize,
    /// How much of the input that is being added has come.
    begun: usize,
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
    /// An input is longer than the sum.
    #[error("an input of at least {got} coordinates, expected {expected}")]
    Length {
        /// The coordinates of the input so far.
        got: usize,
        /// The coordinates of the sum.
        expected: usize,
    },
    /// A chunk does not begin where the last one of its input ended.
    #[error("a chunk at coordinate {got}, expected {expected}")]
    Offset {
        /// Where it begins.
        got: usize,
        /// Where it should.
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
        Ok(Self {
            ring: Ring::new(bits).ok_or(SumError::Bits { bits })?,
            sum: vec![0; len],
            inputs: 0,
            begun: 0,
        })
    }

    /// Adds the next chunk of a masked input, which begins at `offset`. Fails,
    /// and changes nothing, if it does not begin where the last one ended or
    /// ends behind the sum, or on a coordinate that is not below 2^b.
    ///
    /// The input counts when its last chunk is added. It cannot be taken back,
    /// so its chunks must all be there before the first one is added.
    pub fn add_chunk(&mut self, offset: usize, chunk: &[u32]) -> Result<(), SumError> {
        if offset != self.begun {
            return Err(SumError::Offset { got: offset, expected: self.begun });
        }
        let (got, expected) = (offset + chunk.len(), self.sum.len());
        let Some(sum) = self.sum.get_mut(offset..got) else {
            return Err(SumError::Length { got, expected });
        };
        if let Some(place) = chunk.iter().position(|value| !self.ring.contains(*value)) {
            let bits = self.ring.bits();
            return Err(SumError::OutOfRing { place: offset + place, bits });
        }
        self.ring.add(sum, chunk);
        self.begun = got;
        if self.begun == self.sum.len() {
            self.begun = 0;
            self.inputs += 1;
        }
        Ok(())
    }

    /// How many inputs were added whole.
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Whether part of an input was added and the rest was not.
    pub const fn is_torn(&self) -> bool {
        self.begun > 0
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
        sum.add_chunk(0, &[15, 1]).unwrap();
        sum.add_chunk(0, &[2]).unwrap();
        assert!(sum.is_torn());
        assert_eq!(sum.inputs(), 1);
        sum.add_chunk(1, &[3]).unwrap();
        assert!(!sum.is_torn());
        assert_eq!(sum.inputs(), 2);
        assert_eq!(sum.into_vec(), [1, 4]);
    }

    #[test]
    fn a_refused_input_changes_nothing() {
        let mut sum = RunningSum::new(2, 4).unwrap();
        sum.add_chunk(0, &[1, 2]).unwrap();
        let length = SumError::Length { got: 3, expected: 2 };
        assert_eq!(sum.add_chunk(0, &[1, 1, 1]), Err(length));
        let offset = SumError::Offset { got: 1, expected: 0 };
        assert_eq!(sum.add_chunk(1, &[1]), Err(offset));
        let range = SumError::OutOfRing { place: 1, bits: 4 };
        assert_eq!(sum.add_chunk(0, &[1, 16]), Err(range));
        assert_eq!(sum.inputs(), 1);
        assert_eq!(sum.into_vec(), [1, 2]);
    }

    #[test]
    fn a_width_outside_the_ring_is_refused() {
        assert_eq!(RunningSum::new(1, 0).err(), Some(SumError::Bits { bits: 0 }));
        assert_eq!(RunningSum::new(1, 33).err(), Some(SumError::Bits { bits: 33 }));
    }
}
