//! Whether a path is a Hugging Face folder or a GGUF file.

use std::path::{Path, PathBuf};

use crate::error::FormatError;
use crate::folder;

/// A base on a disk, by the form that it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseLocation {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}

/// Whether a path ends in `.gguf`, in whatever case.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The base that is meant by `path`: a GGUF file, a folder with a `config.json`, or the only GGUF file of a folder without
/// one.
///
/// Returns an error for a file of another kind, and for a folder with several GGUF files and no `config.json`. Whether
/// there is anything at `path` is not checked.
pub fn locate(path: &Path) -> Result<BaseLocation, FormatError> {
    if is_gguf(path) && !path.is_dir() {
        return Ok(BaseLocation::Gguf(path.to_owned()));
    }
    if path.is_file() {
        return Err(FormatError::Kind(path.to_owned()));
    }
    if path.join(folder::CONFIG).exists() {
        return Ok(BaseLocation::Folder(path.to_owned()));
    }
    // A folder that cannot be read has no config either, which its reader then says.
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = files.filter(|file| is_gguf(file) && file.is_file()).collect();
    match (files.pop(), files.len()) {
        (None, _) => Ok(BaseLocation::Folder(path.to_owned())),
        (Some(file), 0) => Ok(BaseLocation::Gguf(file)),
        (Some(_), others) => Err(FormatError::Several { path: path.to_owned(), count: others + 1 }),
    }
}
