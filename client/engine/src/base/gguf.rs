//! A GGUF file, as the decoder and the tokenizer that it holds.

use std::path::Path;

use formats::BaseFiles;
use formats::gguf::GgufHeader;

use crate::base::error::BaseError;
use crate::base::plan::Plan;

mod shape;
mod tokenizer;

/// Reads everything of a file but its weights.
pub(super) fn plan(path: &Path) -> Result<Plan, BaseError> {
    let GgufHeader { opened, metadata, tensors } = GgufHeader::read(path)?;
    let shape = shape::read(&metadata, &tensors)?;
    let entries = vec![shape.entries(path, tensors)?];
    let tokens = tokenizer::read(&metadata, shape.config.vocab_size)?;
    Ok(Plan { config: shape.config, tokens, files: BaseFiles::gguf(opened), may_be_tied: false, entries })
}
