//! Checks of tokens against a base's vocabulary and longest sequence.

use crate::base::Base;
use crate::error::TrainError;
use crate::model::batch::Sequence;
use crate::model::blocks::Blocks;

/// The length of the longest block, in tokens; fails if there is no block, or if one does not fit the base.
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

/// Fails if there are more tokens than the base's longest sequence has, or one is outside its vocabulary.
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
