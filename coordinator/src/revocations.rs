//! Revocations in a second place: a state folder that is restored from a backup knows nothing of those since.
//!
//! A text file to which one line is added for each, `device <id>` or `operator <serial number>`, on disk before the
//! revocation counts. At the start everything in it is revoked again.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
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

    /// Adds a line; it is on disk when this returns. Blocks.
    pub fn add(&self, revoked: Revoked) -> Result<(), FileError> {
        let Some(path) = &self.path else { return Ok(()) };
        // The lock guards no data, so a poisoned one is as good as another.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = matches!(path.metadata(), Err(error) if error.kind() == ErrorKind::NotFound);
        let mut file =
            OpenOptions::new().create(true).append(true).open(path).map_err(FileError::io("open", path))?;
        file.write_all(revoked.line().as_bytes()).map_err(FileError::io("write", path))?;
        file.sync_all().map_err(FileError::io("sync", path))?;
        if is_new { files::sync_folder_of(path) } else { Ok(()) }
    }
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

/// A last line that was cut off by a crash was of a revocation that never counted.
fn parse(text: &str, path: &Path) -> Result<Vec<Revoked>, RevocationsError> {
    let mut revoked = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        match Revoked::of(line.trim_end()) {
            Some(one) => revoked.push(one),
            None if line.trim().is_empty() || line.starts_with('#') || !line.ends_with('\n') => {}
            None => {
                let found = line.trim_end().chars().take(80).collect();
                return Err(RevocationsError::Line { path: path.to_owned(), line: number, found });
            }
        }
    }
    Ok(revoked)
}

#[cfg(test)]
mod tests {
    use super::*;

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
