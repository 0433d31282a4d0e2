//! A folder that holds keys and state is its owner's alone, or is refused.
//!
//! Files within are of mode 0600 where they are secret, but a folder that others may write lets them put other files in
//! their place, and one that others may enter shows the names, sizes and times of all that is not secret. So a folder
//! that is ours and open to others is closed, and one that is another user's is refused: its owner can open it again.
//!
//! Only the folder itself is looked at. Those above it were there for other purposes, and who may write them may take
//! anything away. A link is followed, and what it leads to is looked at, unless the link is another user's, who could
//! make it lead elsewhere tomorrow.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{FileError, create_folder};

/// A folder that was open to others and no longer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The folder.
    pub path: PathBuf,
    /// The permission bits that it had.
    pub mode: u32,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, mode } = self;
        write!(
            f,
            "the folder {} was open to others (mode {mode:04o}) and is closed now (mode 0700)",
            path.display()
        )
    }
}

/// Makes the folder and those above it where they are new, and closes it where others may read, write or enter it; says
/// whether it had to. Where the system knows no users, it only makes it.
///
/// Fails when the folder, or a link to it, is another user's, when it cannot be closed, and when it is open and holds
/// things but none called as one of `ours`: then it was given for other purposes, and is not ours to close.
pub fn own_folder(path: &Path, ours: &[&str]) -> Result<Option<Closed>, FileError> {
    create_folder(path)?;
    close(path, ours)
}

#[cfg(not(unix))]
fn close(_path: &Path, _ours: &[&str]) -> Result<Option<Closed>, FileError> {
    Ok(None)
}

#[cfg(unix)]
fn close(path: &Path, ours: &[&str]) -> Result<Option<Closed>, FileError> {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let inspect = || FileError::io("inspect", path);
    let mode = |metadata: &fs::Metadata| metadata.permissions().mode() & 0o7777;
    let user = rustix::process::geteuid().as_raw();
    let link = fs::symlink_metadata(path).map_err(inspect())?;
    let folder = File::open(path).map_err(FileError::io("open", path))?;
    let found = folder.metadata().map_err(inspect())?;
    let verdict = judge(
        user,
        Found {
            owner: found.uid(),
            mode: mode(&found),
            link_owner: link.file_type().is_symlink().then(|| link.uid()),
        },
    );
    match verdict {
        Verdict::Closed => Ok(None),
        Verdict::Foreign { owner } => {
            Err(FileError::Foreign { path: path.to_owned(), mode: mode(&found), owner, user })
        }
        Verdict::Open => {
            let mut entries = fs::read_dir(path).map_err(FileError::io("list", path))?.peekable();
            let empty = entries.peek().is_none();
            let named = |name: &&str| path.join(name).symlink_metadata().is_ok();
            if !empty && !ours.iter().any(named) {
                return Err(FileError::Shared { path: path.to_owned(), mode: mode(&found) });
            }
            // By the handle that was looked at, so that nothing else is closed in its place.
            let closed = folder.set_permissions(Permissions::from_mode(0o700));
            let now = folder.metadata().map_err(inspect())?;
            if mode(&now) & 0o077 != 0 {
                let why = closed.err().map_or("the file system keeps no modes".to_owned(), |e| e.to_string());
                return Err(FileError::Open { path: path.to_owned(), mode: mode(&now), why });
            }
            Ok(Some(Closed { path: path.to_owned(), mode: mode(&found) }))
        }
    }
}

/// What a folder is, as the system says it.
#[cfg(unix)]
#[derive(Clone, Copy)]
struct Found {
    owner: u32,
    mode: u32,
    /// Where the path is a link, whose that is.
    link_owner: Option<u32>,
}

#[cfg(unix)]
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Its owner's alone.
    Closed,
    /// Ours, and others may read, write or enter it.
    Open,
    /// Another user's.
    Foreign { owner: u32 },
}

/// What a folder is to `user`. A link may also be the system's, by which distributions move folders.
#[cfg(unix)]
fn judge(user: u32, found: Found) -> Verdict {
    match found {
        Found { link_owner: Some(owner), .. } if owner != user && owner != 0 => Verdict::Foreign { owner },
        Found { owner, .. } if owner != user => Verdict::Foreign { owner },
        Found { mode, .. } if mode & 0o077 != 0 => Verdict::Open,
        Found { .. } => Verdict::Closed,
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn open_folder(parent: &Path, mode: u32) -> PathBuf {
        let path = parent.join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_new_folder_is_its_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("above/state");
        assert_eq!(own_folder(&path, &[]).unwrap(), None);
        assert_eq!(mode(&path), 0o700);
        assert_eq!(own_folder(&path, &[]).unwrap(), None, "it is closed already");
    }

    #[test]
    fn a_state_folder_that_others_may_enter_is_closed_and_said() {
        for wide in [0o755, 0o770, 0o701, 0o2775] {
            let parent = tempfile::tempdir().unwrap();
            let path = open_folder(parent.path(), wide);
            fs::write(path.join("ledger"), "").unwrap();
            let closed = own_folder(&path, &["ledger", "keys"]).unwrap().unwrap();
            assert_eq!((closed.path.as_path(), closed.mode), (path.as_path(), wide));
            assert_eq!(mode(&path) & 0o777, 0o700);
            let said = closed.to_string();
            assert!(said.contains("state") && said.contains(&format!("{wide:04o}")), "{said}");
        }
    }

    #[test]
    fn the_folder_above_stays_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        own_folder(&open_folder(parent.path(), 0o755), &[]).unwrap().unwrap();
        assert_eq!(mode(parent.path()), 0o755);
    }

    #[test]
    fn a_folder_that_was_given_for_other_purposes_is_refused_and_not_closed() {
        let parent = tempfile::tempdir().unwrap();
        let path = open_folder(parent.path(), 0o755);
        fs::write(path.join("letter.txt"), "").unwrap();
        let error = own_folder(&path, &["ledger", "keys"]).unwrap_err();
        assert!(matches!(error, FileError::Shared { mode: 0o755, .. }), "{error}");
        assert!(error.to_string().contains("chmod 700"), "{error}");
        assert_eq!(mode(&path), 0o755);
    }

    #[test]
    fn a_link_is_followed_and_its_end_closed() {
        let parent = tempfile::tempdir().unwrap();
        let path = open_folder(parent.path(), 0o750);
        let link = parent.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(own_folder(&link, &[]).unwrap().is_some());
        assert_eq!(mode(&path), 0o700);
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    }

    #[test]
    fn the_folder_or_the_link_of_another_user_is_foreign() {
        let found = |owner, mode, link_owner| Found { owner, mode, link_owner };
        assert_eq!(judge(7, found(7, 0o700, None)), Verdict::Closed);
        assert_eq!(judge(7, found(7, 0o1700, Some(7))), Verdict::Closed);
        assert_eq!(judge(7, found(7, 0o700, Some(0))), Verdict::Closed);
        assert_eq!(judge(7, found(7, 0o710, Some(7))), Verdict::Open);
        assert_eq!(judge(7, found(0, 0o700, None)), Verdict::Foreign { owner: 0 });
        assert_eq!(judge(0, found(8, 0o777, None)), Verdict::Foreign { owner: 8 });
        assert_eq!(judge(7, found(7, 0o700, Some(8))), Verdict::Foreign { owner: 8 });
    }

    #[test]
    fn the_folder_of_another_user_is_refused_by_name_mode_and_owner() {
        // Everybody may read it, so it can be looked at, and it is root's: for root there is no such folder.
        let user = rustix::process::geteuid().as_raw();
        let error = FileError::Foreign { path: "/var/lib/x".into(), mode: 0o755, owner: 0, user: 7 };
        let said = error.to_string();
        for part in ["/var/lib/x", "0755", "user 0", "user 7", "chown -R 7"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        if user != 0 {
            let error = own_folder(Path::new("/"), &[]).unwrap_err();
            assert!(matches!(error, FileError::Foreign { owner: 0, .. }), "{error}");
        }
    }
}
