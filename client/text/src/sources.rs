//! The files below what the user named, in a fixed order.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Reading, TextError, UnreadReason};

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A JSON object a line.
    Lines,
    /// JSON objects one after the other, or a list of them.
    Values,
    /// A table: a row a line, of cells with this byte between them, below a line of the columns' names.
    Table {
        /// A comma or a tab.
        delimiter: u8,
    },
    /// Text.
    Text,
    /// Named by the user under another ending: what its first byte says.
    Unknown,
}

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) shape: Shape,
    /// Whether the user named the file itself, so that it must be readable.
    pub(super) named: bool,
}

/// The files of `paths`, in the order given; a folder's are in order of their names, its folders among them.
///
/// In a folder, hidden files and folders are passed over; links, files of other kinds and what cannot be listed are
/// noted in `reading`. A link is not followed, because what it leads to was not named; so nothing is read twice or
/// forever. Fails for a path that was named itself and cannot be read.
pub(super) fn files(paths: &[PathBuf], reading: &mut Reading) -> Result<Vec<Source>, TextError> {
    let mut found = Vec::new();
    for path in paths {
        let fail = |source| TextError::Read { path: path.clone(), source };
        let kind = fs::metadata(path).map_err(fail)?;
        if kind.is_dir() {
            let listed = list(path).map_err(fail)?;
            walk(listed, reading, &mut found);
        } else if kind.is_file() {
            match kind_of(path) {
                Kind::Read(shape) => found.push(Source { path: path.clone(), shape, named: true }),
                Kind::Other => found.push(Source { path: path.clone(), shape: Shape::Unknown, named: true }),
                Kind::Left(reason) => reading.leave(path.clone(), reason),
            }
        } else {
            return Err(TextError::NotAFile { path: path.clone() });
        }
    }
    Ok(found)
}

/// What is in a folder, the last name first.
fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| !path.file_name().is_some_and(is_hidden));
    paths.sort_by(|left, right| right.file_name().cmp(&left.file_name()));
    Ok(paths)
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Takes from the end of `stack` until nothing is left.
fn walk(mut stack: Vec<PathBuf>, reading: &mut Reading, found: &mut Vec<Source>) {
    while let Some(path) = stack.pop() {
        let kind = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) => {
                reading.leave(path, UnreadReason::Refused(error.kind()));
                continue;
            }
        };
        if kind.is_symlink() {
            reading.leave(path, UnreadReason::Link);
        } else if kind.is_dir() {
            match list(&path) {
                Ok(listed) => stack.extend(listed),
                Err(error) => reading.leave(path, UnreadReason::Refused(error.kind())),
            }
        } else if !kind.is_file() {
            reading.leave(path, UnreadReason::NotAFile);
        } else {
            match kind_of(&path) {
                Kind::Read(shape) => found.push(Source { path, shape, named: false }),
                Kind::Other => reading.leave(path, UnreadReason::OtherKind),
                Kind::Left(reason) => reading.leave(path, reason),
            }
        }
    }
}

/// What a file's name says of it.
enum Kind {
    /// It is read so.
    Read(Shape),
    /// Nothing that is known.
    Other,
    /// It cannot be read, for this reason.
    Left(UnreadReason),
}

fn kind_of(path: &Path) -> Kind {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let Some((_, extension)) = name.rsplit_once('.') else { return Kind::Other };
    match extension {
        "jsonl" | "ndjson" => Kind::Read(Shape::Lines),
        "json" => Kind::Read(Shape::Values),
        "csv" => Kind::Read(Shape::Table { delimiter: b',' }),
        "tsv" => Kind::Read(Shape::Table { delimiter: b'\t' }),
        "txt" | "text" | "md" | "markdown" => Kind::Read(Shape::Text),
        "parquet" => Kind::Left(UnreadReason::Parquet),
        "zst" | "xz" | "bz2" | "lz4" | "zip" | "7z" | "rar" | "tar" | "tgz" => {
            Kind::Left(UnreadReason::Packed)
        }
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[PathBuf], root: &Path) -> (Vec<String>, Reading) {
        let mut reading = Reading::default();
        let found = files(paths, &mut reading).unwrap();
        let name = |source: Source| source.path.strip_prefix(root).unwrap().display().to_string();
        (found.into_iter().map(name).collect(), reading)
    }

    #[test]
    fn a_folder_is_walked_in_order_and_what_is_not_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["b/deep", ".git", "c.d"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let written = [
            "z.TXT",
            "a.jsonl",
            "b/two.md",
            "b/deep/one.json",
            "b.txt",
            "photo.png",
            "README",
            ".hidden.txt",
            ".git/x.txt",
            "c.d/y.ndjson",
            "d.csv",
            "e.jsonl.gz",
            "f.parquet",
            "g.zip",
        ];
        for file in written {
            fs::write(root.path().join(file), "x").unwrap();
        }
        let (found, reading) = names(&[root.path().to_owned()], root.path());
        let expected = [
            "a.jsonl",
            "b/deep/one.json",
            "b/two.md",
            "b.txt",
            "c.d/y.ndjson",
            "d.csv",
            "e.jsonl.gz",
            "z.TXT",
        ];
        assert_eq!(found, expected);
        let named = &reading.unread[&UnreadReason::OtherKind].named;
        assert_eq!(*named, [root.path().join("README"), root.path().join("photo.png")]);
        assert_eq!((reading.unread_files(), reading.unread[&UnreadReason::Parquet].count), (4, 1));
        let (found, _) = names(&[root.path().join("photo.png"), root.path().join("a.jsonl")], root.path());
        assert_eq!(found, ["photo.png", "a.jsonl"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_a_folder_is_not_followed_and_one_that_is_named_is() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("in")).unwrap();
        fs::write(root.path().join("outside.txt"), "x").unwrap();
        symlink(root.path(), root.path().join("in/loop")).unwrap();
        symlink(root.path().join("outside.txt"), root.path().join("in/link.txt")).unwrap();
        symlink(root.path().join("in"), root.path().join("in/self")).unwrap();
        let (found, reading) = names(&[root.path().join("in")], root.path());
        assert!(found.is_empty());
        assert_eq!(reading.unread[&UnreadReason::Link].count, 3);
        assert_eq!(names(&[root.path().join("in/link.txt")], root.path()).0, ["in/link.txt"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_is_never_opened() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.txt");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (found, reading) = names(&[root.path().to_owned()], root.path());
        assert_eq!((found.len(), reading.unread[&UnreadReason::NotAFile].count), (0, 1));
        let error = files(std::slice::from_ref(&path), &mut Reading::default()).unwrap_err().to_string();
        assert_eq!(error, format!("cannot read {}: it is neither a file nor a folder", path.display()));
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_that_names_it() {
        let error = files(&[PathBuf::from("nowhere/a.txt")], &mut Reading::default()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read nowhere/a.txt: "), "{error}");
    }
}
