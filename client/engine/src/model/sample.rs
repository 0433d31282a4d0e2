//! Sampling of batches.

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use crate::model::batch::Sequence;
use crate::model::blocks::Blocks;

/// Draws `count` blocks with replacement, and drops those that are not as long as the first.
pub(crate) fn draw<'a>(rng: &mut ChaCha20Rng, blocks: &'a Blocks, count: u32) -> Vec<Sequence<'a>> {
    let blocks = blocks.as_slice();
    let pick = |rng: &mut ChaCha20Rng| Sequence::of(&blocks[below(rng, blocks.len())]);
    let mut batch = vec![pick(rng)];
    for _ in 1..count {
        let next = pick(rng);
        if next.tokens.len() == batch[0].tokens.len() {
            batch.push(next);
        }
    }
    batch
}

/// A uniform random index below `bound`; its bias is below `bound / 2⁶⁴`.
pub(crate) fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    let scaled = (u128::from(rng.next_u64()) * bound as u128) >> 64;
    usize::try_from(scaled).unwrap_or(0) // Below `bound`, which is a `usize`.
}
