//! Files that must be whole or absent: written aside, synced, renamed into
//! place, and the folder synced. Secret ones are readable by their owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

pub use own_folder::{Closed, own_folder};

mod own_folder;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A secret file can be read by others than its owner.
    #[error("{} holds a secret but has mode {mode:04o}; run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A folder for keys and state, or a link to it, is another user's.
    #[error(
        "the folder {} (mode {mode:04o}), or a link to it, belongs to user {owner} and this program runs as user \
         {user}; name a folder of its own, or run `chown -R {user} {}`",
        path.display(),
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// A folder for keys and state is open to others and does not let itself be closed.
    #[error(
        "the folder {} is open to others (mode {mode:04o}) and cannot be closed: {why}; run `chmod 700 {}`, or name \
         a folder on a file system that keeps modes",
        path.display(),
        path.display()
    )]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What the operating system said.
        why: String,
    },
    /// A folder for keys and state is open to others and holds what is not this program's.
    #[error(
        "the folder {} is open to others (mode {mode:04o}) and holds other things than this program's; name a folder \
         of its own, or close this one by `chmod 700 {}`",
        path.display(),
        path.display()
    )]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl FileError {
    /// Whether the file is simply not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// What the operating system said of what was tried.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Its owner only: mode 0600.
    Owner,
    /// Whoever the folder lets in: mode 0644.
    Anyone,
}

/// Replaces the file at `path` by `bytes`; after a crash the old or the new
/// one is there, never a part. Fails when the disk does.
pub fn write(path: &Path, bytes: &[u8], audience: Audience) -> Result<(), FileError> {
    write_with(path, audience, |file| file.write_all(bytes).map_err(FileError::io("write", path)))
}

/// [`write()`] for what is not in memory as a whole: `fill` writes it, and where
/// that fails, the file is as it was.
pub fn write_with<E: From<FileError>>(
    path: &Path,
    audience: Audience,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".aside");
    let aside = PathBuf::from(aside);
    // A leftover of a crash may have other permissions: never reuse it.
    match fs::remove_file(&aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(FileError::io("remove", &aside)(error).into()),
    }
    let mut file = create(&aside, audience).map_err(FileError::io("create", &aside))?;
    let filled = fill(&mut file);
    let filled = filled.and_then(|()| Ok(file.sync_all().map_err(FileError::io("write", &aside))?));
    if let Err(error) = filled {
        // What was begun is of no use; the next write would remove it too.
        drop(fs::remove_file(&aside));
        return Err(error);
    }
    if let Err(error) = fs::rename(&aside, path) {
        drop(fs::remove_file(&aside));
        return Err(FileError::io("rename into place", path)(error).into());
    }
    Ok(sync_folder_of(path)?)
}

/// Reads a secret file; fails when others than its owner may read it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut file = open_regular(path).map_err(FileError::io("open", path))?;
    refuse_exposed(path, &file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    Ok(bytes)
}

/// Opens a file for reading, where it is one or a link to one; fails at once for a named pipe, a device or a socket,
/// which would keep the program waiting, or never end.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Before it is opened, because to open a pipe is to wait for its other end.
    refuse_irregular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    refuse_irregular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a file of another's whole, as [`open_regular`] opens it; fails where it has more than `most_bytes`.
pub fn read_regular(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open_regular(path)?.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > most_bytes {
        let reason =
            format!("it has more than {most_bytes} bytes, which is the most that is read of such a file");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

fn refuse_irregular(metadata: &fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    #[cfg(unix)]
    let what = {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            "a named pipe"
        } else if kind.is_socket() {
            "a socket"
        } else if kind.is_dir() {
            "a folder"
        } else {
            "a device"
        }
    };
    #[cfg(not(unix))]
    let what = if kind.is_dir() { "a folder" } else { "a device" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, and not a regular file")))
}

/// Reads a file that is no secret.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::io("read", path))
}

/// Makes the folder and those above it, readable by their owner only where
/// they are new.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path).map_err(FileError::io("create the folder", path))
}

/// Makes the names in a folder durable.
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(FileError::io("sync the folder", path))
}

/// Makes the name of a file durable, by syncing the folder that holds it.
pub fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_folder(folder),
        Some(_) | None => sync_folder(Path::new(".")),
    }
}

fn create(path: &Path, audience: Audience) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match audience {
            Audience::Owner => 0o600,
            Audience::Anyone => 0o644,
        });
    }
    options.open(path)
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, file: &File) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;

    let metadata = file.metadata().map_err(FileError::io("inspect", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    let for_others = mode & 0o077;
    if for_others == 0 { Ok(()) } else { Err(FileError::Exposed { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn refuse_exposed(_path: &Path, _file: &File) -> Result<(), FileError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let said = |path: &Path| read_regular(path, 4).unwrap_err().to_string();
        assert_eq!(said(&pipe), "it is a named pipe, and not a regular file");
        assert_eq!(said(folder.path()), "it is a folder, and not a regular file");
        assert_eq!(said(Path::new("/dev/zero")), "it is a device, and not a regular file");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"four").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_regular(&link, 4).unwrap(), b"four");
        assert!(read_regular(&link, 3).unwrap_err().to_string().starts_with("it has more than 3 bytes"));
    }

    #[test]
    fn a_secret_is_written_for_its_owner_only_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        write(&path, b"first", Audience::Owner).unwrap();
        write(&path, b"second", Audience::Owner).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(read_secret(&path).unwrap(), b"second");
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        write(&path, b"open", Audience::Anyone).unwrap();
        let error = read_secret(&path).unwrap_err();
        assert!(matches!(error, FileError::Exposed { mode: 0o644, .. }));
        assert!(error.to_string().contains("chmod 600"));
    }

    #[test]
    fn a_write_that_fails_half_way_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write(&path, b"whole", Audience::Anyone).unwrap();
        let failed: Result<(), FileError> = write_with(&path, Audience::Anyone, |file| {
            file.write_all(b"half").unwrap();
            Err(FileError::io("write", &path)(io::Error::other("the disk is full")))
        });
        assert!(failed.unwrap_err().to_string().ends_with("weights: the disk is full"));
        assert_eq!(read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_take_its_place_leaves_nothing_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        let failed = write(&path, b"whole", Audience::Anyone).unwrap_err().to_string();
        assert!(failed.starts_with("cannot rename into place"), "{failed}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_leftover_aside_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        fs::write(folder.path().join("seed.aside"), b"half").unwrap();
        write(&path, b"whole", Audience::Owner).unwrap();
        assert_eq!(read_secret(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
