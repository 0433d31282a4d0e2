//! What the devices contribute: pseudorandom numbers, drawn whenever they are needed and never kept.

use proto::message::CHUNK_COORDINATES;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// Everybody's input, by its seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs {
    pub(super) seed: u64,
    pub(super) coordinates: usize,
    pub(super) bits: u32,
}

impl Inputs {
    /// How many chunks an input has.
    pub(super) fn chunks(self) -> usize {
        self.coordinates.div_ceil(CHUNK_COORDINATES)
    }

    /// One chunk of one device's input.
    pub(super) fn chunk(self, device: usize, chunk: usize) -> Vec<u32> {
        let begin = chunk * CHUNK_COORDINATES;
        let len = self.coordinates.saturating_sub(begin).min(CHUNK_COORDINATES);
        let mut key = [0; 32];
        key[..8].copy_from_slice(b"input   ");
        key[8..16].copy_from_slice(&self.seed.to_le_bytes());
        key[16..24].copy_from_slice(&(device as u64).to_le_bytes());
        key[24..].copy_from_slice(&(chunk as u64).to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        (0..len).map(|_| rng.next_u32() & self.low_bits()).collect()
    }

    /// Whether `sum` is the plain sum of these devices' inputs, in the ring.
    pub(super) fn sum_to(self, devices: &[usize], sum: &[u32]) -> bool {
        sum.len() == self.coordinates
            && sum.par_chunks(CHUNK_COORDINATES).enumerate().all(|(chunk, found)| {
                let mut plain = vec![0_u32; found.len()];
                for device in devices {
                    for (sum, value) in plain.iter_mut().zip(self.chunk(*device, chunk)) {
                        *sum = sum.wrapping_add(value);
                    }
                }
                plain.iter().zip(found).all(|(plain, found)| plain & self.low_bits() == *found)
            })
    }

    fn low_bits(self) -> u32 {
        u32::MAX.checked_shr(32 - self.bits).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_with_another_or_a_changed_device_is_noticed() {
        let inputs = Inputs { seed: 1, coordinates: CHUNK_COORDINATES + 3, bits: 5 };
        let whole = |device| -> Vec<u32> { (0..2).flat_map(|chunk| inputs.chunk(device, chunk)).collect() };
        let mut sum: Vec<u32> = whole(0).iter().zip(whole(2)).map(|(a, b)| (a + b) % 32).collect();
        assert!(inputs.sum_to(&[0, 2], &sum));
        assert!(!inputs.sum_to(&[0, 1], &sum));
        assert!(!inputs.sum_to(&[0], &sum));
        sum[CHUNK_COORDINATES + 2] ^= 1;
        assert!(!inputs.sum_to(&[0, 2], &sum));
        assert!(!inputs.sum_to(&[0, 2], &sum[..CHUNK_COORDINATES]));
    }
}
