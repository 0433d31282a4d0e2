//! Whether a base can read tokens.

use crate::base::Base;
use crate::error::TrainError;
use crate::model::batch::Sequence;
use crate::model::blocks::Blocks;

/// Fails when there is nothing to predict or the base cannot read a block; else the longest block's tokens.
pub(crate) fn check_blocks(base: &Base, blocks: &Blocks) -> Result<usize, TrainError> {
    if blocks.is_empty() {
        return Err(TrainError::NoBlocks);
    }
    let mut longest = 0;
    for block in blocks.as_slice() {
        let tokens = Sequence::of(block).tokens;
        check_tokens(base, tokens)?;
        longest = longest.max(tokens.len());
    }
    Ok(longest)
}

/// Fails where these are more tokens than the base reads, or there is one that it does not know.
pub(crate) fn check_tokens(base: &Base, tokens: &[u32]) -> Result<(), TrainError> {
    let (most, vocab) = (base.config().max_positions, base.config().vocab_size);
    if tokens.len() > most {
        return Err(TrainError::TooLong { found: tokens.len(), most });
    }
    match tokens.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocab)) {
        Some(&found) => Err(TrainError::Token { found, vocab }),
        None => Ok(()),
    }
}
