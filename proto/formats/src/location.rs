//! Which kind of base a path is.

use std::path::{Path, PathBuf};

use super::{folder, gguf};
use crate::base::error::BaseError;
use crate::base::plan::Plan;

/// Reads everything of a base but its weights.
pub(super) fn open(path: &Path) -> Result<Plan, BaseError> {
    match gguf_file(path)? {
        Some(file) => gguf::plan(&file),
        None => folder::plan(path),
    }
}

/// The GGUF file that is meant: `path`, or the only one in a folder without a `config.json`.
fn gguf_file(path: &Path) -> Result<Option<PathBuf>, BaseError> {
    let is_gguf =
        |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if is_gguf(path) && !path.is_dir() {
        return Ok(Some(path.to_owned()));
    }
    if path.is_file() {
        return Err(BaseError::Kind(path.to_owned()));
    }
    if path.join("config.json").exists() {
        return Ok(None);
    }
    // A folder that cannot be read has no config either, which is then said.
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = files.filter(|file| is_gguf(file) && file.is_file()).collect();
    match files.len() {
        0 | 1 => Ok(files.pop()),
        count => Err(BaseError::Several { path: path.to_owned(), count }),
    }
}
