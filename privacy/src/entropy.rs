//! Secure random words, drawn in bulk, and wiping.

use std::hint::black_box;

use rand_core::CryptoRng;

/// Words drawn from the generator at once.
const BATCH_WORDS: usize = 512;

/// A reader of random words that asks its generator for 4 KiB at a time.
/// Unused words are wiped with the rest when it is dropped.
pub(crate) struct Entropy<'a, R: CryptoRng> {
    rng: &'a mut R,
    bytes: [u8; BATCH_WORDS * 8],
    position: usize,
}

impl<'a, R: CryptoRng> Entropy<'a, R> {
    pub(crate) fn new(rng: &'a mut R) -> Self {
        let bytes = [0; BATCH_WORDS * 8];
        Self { rng, position: bytes.len(), bytes }
    }

    /// 64 uniform bits.
    #[inline]
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// 32 uniform bits.
    #[inline]
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// The next bytes; the few left at the end of a batch are thrown away when
    /// they are too few.
    #[inline]
    fn take<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        if let Some(bytes) = self.bytes[self.position..].first_chunk() {
            self.position += BYTES;
            return *bytes;
        }
        self.refill();
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(&self.bytes[..BYTES]);
        self.position = BYTES;
        bytes
    }

    #[cold]
    fn refill(&mut self) {
        self.rng.fill_bytes(&mut self.bytes);
        self.position = 0;
    }
}

impl<R: CryptoRng> Drop for Entropy<'_, R> {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// Overwrites `values` with zeros, and keeps the compiler from leaving that
/// out as far as safe code can.
pub(crate) fn wipe<T: Copy + Default>(values: &mut [T]) {
    values.fill(T::default());
    black_box(values);
}
