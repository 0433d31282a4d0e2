//! Reading the small files of `/proc` and `/sys`.

use std::fs;
use std::path::{Path, PathBuf};

/// The text of a file without the blanks around it, if it can be read.
pub(super) fn word(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A number in a file of its own: `None` without the file, an error where it holds something else.
pub(super) fn number(root: &Path, path: &Path) -> Result<Option<f64>, String> {
    let Some(text) = word(path) else { return Ok(None) };
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.map(Some).ok_or_else(|| not_a_number(&named(root, path), &text))
}

/// What to say of text that should be a number.
pub(super) fn not_a_number(name: &str, text: &str) -> String {
    let beginning: String = text.chars().take(20).collect();
    format!("{name} says {beginning:?}, which is no number")
}

/// What lies in a folder and has a name that begins so, in the order of names.
pub(super) fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(folder) else { return Vec::new() };
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    let mut paths: Vec<PathBuf> = list.filter_map(|entry| Some(entry.ok()?.path())).filter(named).collect();
    paths.sort();
    paths
}

/// A path as it is named on a real machine, where `root` is `/`.
pub(super) fn named(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).map_or_else(|_| path.display().to_string(), |rest| format!("/{}", rest.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with these files, each a path and its text.
    pub(in super::super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), files);
        root
    }

    /// Writes, or writes over, files in such a folder.
    pub(in super::super) fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn what_is_no_number_is_named_with_its_text() {
        let root = tree(&[("sys/a", "12\n"), ("sys/b", "full\u{7}\n"), ("sys/c", "NaN")]);
        let read = |name: &str| number(root.path(), &root.path().join(name));
        assert_eq!(read("sys/a"), Ok(Some(12.0)));
        assert_eq!(read("sys/nothing"), Ok(None));
        assert_eq!(read("sys/b"), Err("/sys/b says \"full\\u{7}\", which is no number".to_owned()));
        assert!(read("sys/c").is_err());
    }
}
