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

/// What other programs load a base by, from wherever they are started: the hub's name where it lies in a folder of what was
/// fetched from there (`models--OWNER--NAME/snapshots/…`), else its absolute path.
///
/// Returns an error where the folder of this process is not known.
pub fn name_of_base(path: &Path) -> std::io::Result<String> {
    let absolute = std::path::absolute(path)?;
    let names: Vec<&str> = absolute.iter().filter_map(|name| name.to_str()).collect();
    let of_hub = names.windows(2).find_map(|pair| match pair {
        [repository, "snapshots"] => repository.strip_prefix("models--")?.split_once("--"),
        _ => None,
    });
    Ok(match of_hub {
        Some((owner, name)) => format!("{owner}/{name}"),
        None => absolute.to_string_lossy().into_owned(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_of_the_hub_has_its_name_there_and_any_other_its_place() {
        let name = |path: &str| name_of_base(Path::new(path)).unwrap();
        let cached =
            "/home/alex/.cache/huggingface/hub/models--HuggingFaceTB--SmolLM2-135M/snapshots/0123/x.gguf";
        assert_eq!(name(cached), "HuggingFaceTB/SmolLM2-135M");
        assert_eq!(name("/srv/models--a--b/other"), "/srv/models--a--b/other");
        let here = std::env::current_dir().unwrap().join("base");
        assert_eq!(Path::new(&name("base")), here);
    }
}
