//! Packs integers modulo 2^b without gaps, lowest bit first.

use thiserror::Error;

use crate::modular::Ring;

/// Why bytes are not a packed vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PackingError {
    /// The width is not one of a ring that is used here.
    #[error("{bits} bits a coordinate, expected 1 to 32")]
    Bits {
        /// The width asked for.
        bits: u32,
    },
    /// The vector would not fit in memory.
    #[error("{len} coordinates are too many to pack")]
    TooLong {
        /// The coordinates asked for.
        len: usize,
    },
    /// There are too few or too many bytes.
    #[error("{got} packed bytes, expected {expected}")]
    Length {
        /// The bytes that such a vector has.
        expected: usize,
        /// The bytes that came.
        got: usize,
    },
    /// A bit behind the last coordinate is set, so the bytes are not canonical.
    #[error("a padding bit is set in the last byte {last:#04x}")]
    Padding {
        /// The last byte.
        last: u8,
    },
}

/// The bytes that `len` coordinates of `bits` bits take; `usize::MAX` if that
/// is more than can be counted.
pub const fn packed_len(len: usize, bits: u32) -> usize {
    // ⌈len·bits / 8⌉ without an intermediate above the result.
    let bits = bits as usize;
    match (len / 8).checked_mul(bits) {
        Some(whole) => whole.saturating_add((len % 8 * bits).div_ceil(8)),
        None => usize::MAX,
    }
}

/// Packs `values`, of which the low `bits` bits are kept. A width above 32 is
/// taken as 32.
pub fn pack(values: &[u32], bits: u32) -> Vec<u8> {
    let bits = bits.min(32);
    let low = (1_u64 << bits) - 1;
    let mut bytes = Vec::with_capacity(packed_len(values.len(), bits));
    let mut pending = 0_u64;
    let mut held = 0;
    for value in values {
        pending |= (u64::from(*value) & low) << held;
        held += bits;
        while held >= 8 {
            bytes.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        bytes.push(pending.to_le_bytes()[0]);
    }
    bytes
}

/// Fails unless `bytes` is exactly what [`pack`] makes of some `len`
/// coordinates of `bits` bits.
pub fn check(bytes: &[u8], bits: u32, len: usize) -> Result<(), PackingError> {
    Ring::new(bits).ok_or(PackingError::Bits { bits })?;
    let expected = packed_len(len, bits);
    if expected == usize::MAX {
        return Err(PackingError::TooLong { len });
    }
    if bytes.len() != expected {
        return Err(PackingError::Length { expected, got: bytes.len() });
    }
    // Up to 7 bits of the last byte belong to no coordinate.
    let used = (len % 8 * bits as usize) % 8;
    match bytes.last() {
        Some(last) if used > 0 && last >> used != 0 => Err(PackingError::Padding { last: *last }),
        Some(_) | None => Ok(()),
    }
}

/// Unpacks `len` coordinates of `bits` bits. Fails unless `bytes` is exactly
/// what [`pack`] makes of them.
pub fn unpack(bytes: &[u8], bits: u32, len: usize) -> Result<Vec<u32>, PackingError> {
    check(bytes, bits, len)?;
    let low = u32::MAX >> (32 - bits);
    let mut values = Vec::with_capacity(len);
    let mut pending = 0_u64;
    let mut held = 0;
    for byte in bytes {
        pending |= u64::from(*byte) << held;
        held += 8;
        while held >= bits && values.len() < len {
            values.push(low_word(pending) & low);
            pending >>= bits;
            held -= bits;
        }
    }
    Ok(values)
}

fn low_word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn coordinates_stand_lowest_bit_first() {
        assert_eq!(pack(&[0b101, 0b011, 0b111], 3), [0b1101_1101, 0b1]);
        assert_eq!(pack(&[0x0403_0201], 32), [1, 2, 3, 4]);
    }

    #[test]
    fn a_wrong_length_is_named() {
        for got in [0, 2, 4] {
            assert_eq!(unpack(&vec![0; got], 20, 1), Err(PackingError::Length { expected: 3, got }));
        }
    }

    #[test]
    fn a_set_padding_bit_is_refused() {
        assert_eq!(unpack(&[0xff, 0x0f], 12, 1), Ok(vec![0xfff]));
        assert_eq!(unpack(&[0xff, 0x1f], 12, 1), Err(PackingError::Padding { last: 0x1f }));
    }

    #[test]
    fn a_width_outside_the_ring_is_refused() {
        assert_eq!(unpack(&[], 0, 0), Err(PackingError::Bits { bits: 0 }));
        assert_eq!(unpack(&[], 33, 0), Err(PackingError::Bits { bits: 33 }));
    }

    #[test]
    fn a_length_that_cannot_be_counted_is_refused() {
        let len = usize::MAX;
        assert_eq!(unpack(&[], 32, len), Err(PackingError::TooLong { len }));
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(values: Vec<u32>, bits in 1_u32..=32) {
            let low = u32::MAX >> (32 - bits);
            let values: Vec<u32> = values.into_iter().map(|value| value & low).collect();
            let bytes = pack(&values, bits);
            prop_assert_eq!(bytes.len(), packed_len(values.len(), bits));
            prop_assert_eq!(unpack(&bytes, bits, values.len()), Ok(values));
        }
    }
}
