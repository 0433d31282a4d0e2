//! Revocations in a second place: a state folder that is restored from a backup knows nothing of those since.
//!
//! A text file to which one line is added for each, `device <id>` or `operator <serial number>`: on disk before a revocation by
//! this coordinator's operators counts, and before one by an authority apart is heard of no more. At the start everything in it is revoked again.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use proto::files::{self, FileError};
use proto::ids::{DeviceId, Serial};

/// Who is shut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// A device.
    Device(DeviceId),
    /// A certificate of an operator.
    Operator(Serial),
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationsError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no folder for it.
    #[error("revocations names {}, and its folder is not there: make it, or name another file", .0.display())]
    Folder(PathBuf),
    /// A line is none of ours.
    #[error("{}, line {line}: expected `device` or `operator` and 32 hexadecimal digits, found {found:?}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is there.
        found: String,
    },
}

/// Fails where no file could be written in the place that the operator named, if one was named.
pub fn check_place(path: &Path) -> Result<(), RevocationsError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => Err(RevocationsError::Folder(path.to_owned())),
        Some(_) | None => Ok(()),
    }
}

/// The file, if the operator named one.
#[derive(Debug)]
pub struct Revocations {
    path: Option<PathBuf>,
    // One line at a time.
    writing: Mutex<()>,
}

impl Revocations {
    /// Reads the file, which may not be there yet; an empty path means that there is none.
    pub fn open(path: &Path) -> Result<(Self, Vec<Revoked>), RevocationsError> {
        let path = (!path.as_os_str().is_empty()).then(|| path.to_owned());
        let revoked = match &path {
            None => Vec::new(),
            Some(path) => match files::read(path) {
                Ok(bytes) => parse(&String::from_utf8_lossy(&bytes), path)?,
                Err(error) if error.is_absent() => Vec::new(),
                Err(error) => return Err(error.into()),
            },
        };
        Ok((Self { path, writing: Mutex::new(()) }, revoked))
    }

    /// Adds a line, unless it is there; it is on disk when this returns. Blocks.
    pub fn add(&self, revoked: Revoked) -> Result<(), FileError> {
        self.add_all(&[revoked])
    }

    /// Adds the lines that are not there; they are on disk when this returns. Blocks.
    pub fn add_all(&self, revoked: &[Revoked]) -> Result<(), FileError> {
        let Some(path) = &self.path else { return Ok(()) };
        // The lock guards no data, so a poisoned one is as good as another.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = matches!(path.metadata(), Err(error) if error.kind() == ErrorKind::NotFound);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(FileError::io("open", path))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(FileError::io("read", path))?;
        let text = String::from_utf8_lossy(&text);
        let there: BTreeSet<&str> = text.split_inclusive('\n').collect();
        let lines: BTreeSet<String> = revoked.iter().map(|one| one.line()).collect();
        let lines: String = lines.into_iter().filter(|line| !there.contains(line.as_str())).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let end = file.seek(SeekFrom::End(0)).map_err(FileError::io("seek in", path))?;
        let appended = append(&mut file, end, &lines);
        if appended.is_err() {
            // Half a line would make the next one unreadable.
            drop(file.set_len(end));
        }
        appended.map_err(FileError::io("append to", path))?;
        if is_new { files::sync_folder_of(path) } else { Ok(()) }
    }
}

/// Adds a line behind the end, on a line of its own, and syncs it.
fn append(file: &mut File, end: u64, line: &str) -> io::Result<()> {
    if end > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

impl Revoked {
    fn line(self) -> String {
        match self {
            Self::Device(id) => format!("device {id}\n"),
            Self::Operator(serial) => format!("operator {serial}\n"),
        }
    }

    fn of(line: &str) -> Option<Self> {
        match line.split_once(' ')? {
            ("device", id) => id.trim().parse().ok().map(Self::Device),
            ("operator", serial) => serial.trim().parse().ok().map(Self::Operator),
            _ => None,
        }
    }
}

/// A last line that was cut off by a crash is of a revocation that never counted.
fn parse(text: &str, path: &Path) -> Result<Vec<Revoked>, RevocationsError> {
    let mut revoked = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        match Revoked::of(line.trim_end()) {
            Some(one) => revoked.push(one),
            None if line.trim().is_empty() || line.starts_with('#') || is_cut(line) => {}
            None => {
                let found = line.trim_end().chars().take(80).collect();
                return Err(RevocationsError::Line { path: path.to_owned(), line: number, found });
            }
        }
    }
    Ok(revoked)
}

/// Whether a line is the beginning of one of ours, as a crash leaves it: a line may have been added behind it since.
fn is_cut(line: &str) -> bool {
    let line = line.trim_end();
    let digits = line.strip_prefix("device ").or_else(|| line.strip_prefix("operator "));
    let begins = |word: &str| word.starts_with(line);
    begins("device ")
        || begins("operator ")
        || digits
            .is_some_and(|digits| digits.len() < 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for good in [Path::new(""), Path::new("revoked.txt"), &folder.path().join("revoked.txt")] {
            check_place(good).unwrap();
        }
        let error = check_place(&folder.path().join("nowhere/revoked.txt")).unwrap_err().to_string();
        assert!(error.starts_with("revocations names ") && error.contains("nowhere/revoked.txt"), "{error}");
    }

    #[test]
    fn a_line_behind_one_that_was_cut_off_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked.txt");
        let (file, _) = Revocations::open(&path).unwrap();
        let (first, second) = (Revoked::Device(DeviceId([1; 16])), Revoked::Device(DeviceId([2; 16])));
        file.add(first).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        // By hand without a line's end, and cut off at each of its bytes.
        for end in 1..whole.len() {
            std::fs::write(&path, format!("{whole}{}", &whole[..end])).unwrap();
            file.add(second).unwrap();
            let revoked = Revocations::open(&path).unwrap().1;
            assert!(revoked.starts_with(&[first]) && revoked.ends_with(&[second]), "{end}: {revoked:?}");
        }
    }

    #[test]
    fn what_was_revoked_is_read_back_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked.txt");
        let (file, none) = Revocations::open(&path).unwrap();
        assert_eq!(none, []);
        let both = [Revoked::Device(DeviceId([1; 16])), Revoked::Operator(Serial([2; 16]))];
        for one in both {
            file.add(one).unwrap();
        }
        // It is there already.
        let whole = std::fs::read(&path).unwrap();
        file.add(both[0]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(Revocations::open(&path).unwrap().1, both);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# devices of the second floor\n{whole}device 0101")).unwrap();
        assert_eq!(Revocations::open(&path).unwrap().1, both);
        std::fs::write(&path, format!("{whole}phone 0101\n")).unwrap();
        let error = Revocations::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("phone 0101"), "{error}");
    }

    #[test]
    fn without_a_path_nothing_is_written() {
        let (file, none) = Revocations::open(Path::new("")).unwrap();
        assert_eq!(none, []);
        file.add(Revoked::Device(DeviceId([1; 16]))).unwrap();
    }
}
