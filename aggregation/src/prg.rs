//! Expands a seed to a mask: AES-256 in counter mode, from any offset.
//!
//! Coordinate `i` of a mask is the little-endian word at byte `4·i` of the key
//! stream of AES-256-CTR ([SP 800-38A], section 6.5) under a key that is
//! derived from the seed and the session, with a counter that starts at zero.
//! A key is used for one mask only, so the counter never meets another.
//!
//! [SP 800-38A]: https://doi.org/10.6028/NIST.SP.800-38A

use aes::{
    Aes256Enc, Block,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use zeroize::Zeroizing;

use crate::{
    modular::{self, Sign},
    seed::Seed,
};

/// How many coordinates are best masked at a time: all masks of one chunk are
/// applied before the next chunk, so that the chunk stays in the cache.
pub const CHUNK_COORDINATES: usize = 1 << 15;

/// Blocks of key stream made at a time; they stay in the first-level cache, and
/// are enough that to spread a key over vectors does not show.
const PAD_BLOCKS: usize = 512;

/// Coordinates to a block.
const WORDS: usize = 4;

/// One mask: a long vector of uniform words, made where it is needed.
#[derive(Clone, Debug)]
pub struct Mask {
    key: Seed,
}

impl Mask {
    /// The mask of `seed` in `session`, for the use that `label` names.
    pub fn new(seed: &Seed, session: &[u8; 32], label: &str) -> Self {
        Self { key: seed.derive(session, label, &[]) }
    }

    /// Adds coordinates `offset..offset + chunk.len()` of the mask to `chunk`,
    /// modulo 2^32.
    pub fn add(&self, offset: usize, chunk: &mut [u32]) {
        self.apply(Sign::Plus, offset, chunk, &mut Pad::new());
    }

    /// Takes away what [`Mask::add`] adds.
    pub fn subtract(&self, offset: usize, chunk: &mut [u32]) {
        self.apply(Sign::Minus, offset, chunk, &mut Pad::new());
    }

    fn apply(&self, sign: Sign, offset: usize, chunk: &mut [u32], pad: &mut Pad) {
        let cipher = Aes256Enc::new(self.key.as_bytes().into());
        let mut counter = (offset / WORDS) as u128;
        let mut skipped = offset % WORDS;
        let mut rest = chunk;
        while !rest.is_empty() {
            let taken = rest.len().min(WORDS * PAD_BLOCKS - skipped);
            let (part, after) = rest.split_at_mut(taken);
            let blocks = pad.fill(&cipher, counter, (skipped + taken).div_ceil(WORDS));
            let (words, _) = blocks.as_flattened().as_chunks();
            modular::apply(sign, part, &words[skipped..skipped + taken]);
            counter += blocks.len() as u128;
            (rest, skipped) = (after, 0);
        }
    }
}

/// Adds to `chunk`, or takes away, coordinates from `offset` on of all these
/// masks, modulo 2^32.
pub(crate) fn apply_all(masks: &[(Sign, Mask)], offset: usize, chunk: &mut [u32]) {
    let mut pad = Pad::new();
    for (sign, mask) in masks {
        mask.apply(*sign, offset, chunk, &mut pad);
    }
}

/// Where key stream is made: wiped once, and not after every mask.
struct Pad(Zeroizing<[[u8; 16]; PAD_BLOCKS]>);

impl Pad {
    fn new() -> Self {
        Self(Zeroizing::new([[0; 16]; PAD_BLOCKS]))
    }

    /// So many blocks of the key stream, from a 128-bit big-endian counter on.
    fn fill(&mut self, cipher: &Aes256Enc, first: u128, blocks: usize) -> &[[u8; 16]] {
        let blocks = &mut self.0[..blocks];
        let mut counter = first;
        for block in &mut *blocks {
            *block = counter.to_be_bytes();
            counter = counter.wrapping_add(1);
        }
        cipher.encrypt_blocks(Block::cast_slice_from_core_mut(blocks));
        blocks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_key_stream_agrees_with_sp_800_38a_f_5_5() {
        let key = [
            0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81,
            0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4,
        ];
        let counter = std::array::from_fn(|i| 0xf0 + u8::try_from(i).unwrap());
        // The output blocks of CTR-AES256.Encrypt.
        let expected: [[u8; 16]; 4] = [
            0x0bdf_7df1_5917_1633_5e9a_8b15_c860_c502_u128.to_be_bytes(),
            0x5a6e_699d_5361_1906_5433_863c_8f65_7b94_u128.to_be_bytes(),
            0x1bc1_2c9c_0161_0d5d_0d8b_d6a3_378e_ca62_u128.to_be_bytes(),
            0x2956_e1c8_6935_36b1_bee9_9c73_a315_76b6_u128.to_be_bytes(),
        ];
        let (cipher, mut pad) = (Aes256Enc::new(&key.into()), Pad::new());
        let counter = u128::from_be_bytes(counter);
        assert_eq!(pad.fill(&cipher, counter, 4), expected);
        assert_eq!(pad.fill(&cipher, counter + 1, 1), &expected[1..2]);
    }

    #[test]
    fn masks_of_two_sessions_or_two_labels_differ() {
        let seed = Seed::from_bytes([3; 32]);
        let words = |session: u8, label: &str| {
            let mut out = [0; 4];
            Mask::new(&seed, &[session; 32], label).add(0, &mut out);
            out
        };
        assert_ne!(words(1, "self"), words(2, "self"));
        assert_ne!(words(1, "self"), words(1, "pair"));
    }

    proptest! {
        #[test]
        fn a_mask_is_the_same_however_it_is_cut(
            len in 0_usize..3000,
            cut in 0_usize..3000,
            bytes: [u8; 32],
        ) {
            let mask = Mask::new(&Seed::from_bytes(bytes), &[0; 32], "test");
            let cut = cut.min(len);
            let mut whole = vec![0; len];
            mask.add(0, &mut whole);
            let mut parts = vec![0; len];
            let (left, right) = parts.split_at_mut(cut);
            mask.add(cut, right);
            mask.add(0, left);
            prop_assert_eq!(&whole, &parts);
            mask.subtract(0, &mut whole);
            prop_assert!(whole.iter().all(|word| *word == 0));
        }
    }
}
