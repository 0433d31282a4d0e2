//! The files of a base, as a coordinator serves them to devices that lack it.

use std::collections::BTreeSet;

use crate::ids::Digest;

/// The most files that a served base has: the largest ones published have some two hundred shards.
pub const MAX_BASE_FILES: usize = 512;

/// The longest name of a file, in bytes.
const MAX_NAME_BYTES: usize = 200;

/// One file of a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseFile {
    /// Its name, which [`is_file_name`].
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes, by which it is fetched.
    pub digest: Digest,
}

/// Whether a name is one that a file may be written under: letters, digits, `.`, `_` and `-`, and no dot in front.
pub fn is_file_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.starts_with('.') && name.bytes().all(is_plain)
}

/// Why these are not the files of a base, if they are not: none or too many, a name that is no file's or that two have,
/// or more bytes than can be counted.
pub fn check_files(files: &[BaseFile]) -> Result<(), String> {
    if files.is_empty() || files.len() > MAX_BASE_FILES {
        return Err(format!("a base has from 1 to {MAX_BASE_FILES} files, found {}", files.len()));
    }
    if let Some(file) = files.iter().find(|file| !is_file_name(&file.name)) {
        return Err(format!("`{}` is not the name of a file", file.name.escape_default()));
    }
    // Some file systems do not tell capitals apart.
    let mut names = BTreeSet::new();
    if let Some(twin) = files.iter().find(|file| !names.insert(file.name.to_lowercase())) {
        return Err(format!("two files have the name `{}`", twin.name));
    }
    if let Some(file) = files.iter().find(|file| file.bytes == 0) {
        return Err(format!("`{}` has no bytes", file.name));
    }
    let total = files.iter().try_fold(0_u64, |total, file| total.checked_add(file.bytes));
    total.map(|_| ()).ok_or_else(|| "its files have too many bytes to be counted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> BaseFile {
        BaseFile { name: name.to_owned(), bytes: 1, digest: Digest([1; 32]) }
    }

    #[test]
    fn names_that_lead_elsewhere_are_no_names_of_files() {
        for name in ["config.json", "model-00001-of-00002.safetensors", "a_B.gguf"] {
            assert!(is_file_name(name), "{name}");
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "C:x", "a\0", "ä", "a b", long.as_str()] {
            assert!(!is_file_name(name), "{name}");
        }
    }

    #[test]
    fn a_base_has_files_each_of_its_own_name() {
        assert!(check_files(&[file("a"), file("b")]).is_ok());
        assert!(check_files(&[]).is_err());
        assert!(check_files(&[file("a"), file("A")]).unwrap_err().contains("two files"));
        assert!(check_files(&[BaseFile { bytes: 0, ..file("a") }]).unwrap_err().contains("no bytes"));
        assert!(check_files(&[file("../a")]).unwrap_err().contains("`../a`"));
        let huge = BaseFile { bytes: u64::MAX, ..file("a") };
        assert!(check_files(&[huge, file("b")]).unwrap_err().contains("too many bytes"));
        let many: Vec<BaseFile> = (0..=MAX_BASE_FILES).map(|at| file(&format!("f{at}"))).collect();
        assert!(check_files(&many).is_err());
    }
}
