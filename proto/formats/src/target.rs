//! What a folder holds before an adapter is written into it: nothing that came from somewhere else is written over unless
//! somebody says so, and nothing of an earlier export is left beside a new one to be taken for it.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use proto::files;
use proto::ids::{Digest, TaskId};
use proto::shown::shown;

use crate::manifest::{MANIFEST_FILE, Manifest, Origin, Release, SignedRelease, Version};

/// So many names of files say what is there.
const NAMED: usize = 4;

/// The largest manifest that is read.
const MOST_MANIFEST_BYTES: u64 = 1 << 20;

impl Origin {
    /// The task that an adapter came out of, where it came out of one.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Self::Unknown | Self::Personal(_) => None,
            Self::Version(version) => Some(version.task),
            Self::Release(SignedRelease { release, .. }) => Some(release.version.task),
        }
    }

    /// Whether `later` may take the place of this one without a word: a version of the same task, or the very same adapter
    /// of one person. What nobody knows the origin of is never replaced so.
    pub fn gives_way_to(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Version(_) | Self::Release(_), later) => self.task() == later.task(),
            (Self::Personal(earlier), Self::Personal(later)) => earlier == later,
            (Self::Personal(_), Self::Unknown | Self::Version(_) | Self::Release(_)) | (Self::Unknown, _) => {
                false
            }
        }
    }
}

/// What is in the folder, in words, that `gives_way` does not say may be written over; none where there is nothing.
pub fn held(folder: &Path, gives_way: impl FnOnce(&Origin) -> bool) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(Some("a file, and no folder".to_owned()));
        }
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<String>>>()?;
    names.sort();
    if names.is_empty() {
        return Ok(None);
    }
    if !names.iter().any(|name| name == MANIFEST_FILE) {
        let more = names.len().saturating_sub(NAMED);
        let named: Vec<String> = names.iter().take(NAMED).map(|name| shown(name).to_string()).collect();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        return Ok(Some(format!(
            "{}{more}, and no {MANIFEST_FILE} that says what they are",
            named.join(", ")
        )));
    }
    Ok(match manifest(folder) {
        Err(why) => Some(format!("files whose {MANIFEST_FILE} says nothing ({why})")),
        Ok(manifest) => (!gives_way(&manifest.origin)).then(|| in_words(&manifest.origin)),
    })
}

/// The files of an earlier export into this folder that `next` does not have: what that one's manifest names, as it wrote it.
/// To be asked before `next` is written, and removed after.
pub fn leftovers(folder: &Path, next: &Manifest) -> Vec<PathBuf> {
    let Ok(earlier) = manifest(folder) else { return Vec::new() };
    let gone = earlier.files.iter().filter(|(name, _)| !next.files.contains_key(*name) && is_plain(name));
    let of_it = gone.filter(|(name, digest)| hash(&folder.join(name)).is_ok_and(|found| found == **digest));
    of_it.map(|(name, _)| folder.join(name)).collect()
}

fn manifest(folder: &Path) -> Result<Manifest, String> {
    let bytes = files::read_regular(&folder.join(MANIFEST_FILE), MOST_MANIFEST_BYTES);
    let bytes = bytes.map_err(|error| error.to_string())?;
    Manifest::parse(&bytes).map_err(|error| error.to_string())
}

/// Whether a name is of a file in the folder itself, and not of the manifest.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part != MANIFEST_FILE)
}

fn hash(path: &Path) -> io::Result<Digest> {
    let (mut file, mut buffer) = (files::open_regular(path)?, vec![0; 1 << 16]);
    let mut hasher = ring::digest::Context::new(&ring::digest::SHA256);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    hasher.finish().as_ref().try_into().map(Digest).map_err(io::Error::other)
}

fn in_words(origin: &Origin) -> String {
    match origin {
        Origin::Unknown => "an adapter of which nobody says where it comes from".to_owned(),
        Origin::Personal(_) => "an adapter that one person trained for themself".to_owned(),
        Origin::Version(version)
        | Origin::Release(SignedRelease { release: Release { version, .. }, .. }) => {
            let Version { task, version, .. } = version;
            format!("version {version} of another task, {task}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Personal;

    fn version(task: u8, version: u32) -> Origin {
        let task = TaskId([task; 16]);
        Origin::Version(Version { task, version, plan: Digest([2; 32]), adapter: Digest([3; 32]) })
    }

    fn personal(steps: u32) -> Origin {
        Origin::Personal(Personal { seed: 1, steps, documents: 3, tokens: 4 })
    }

    fn write(folder: &Path, origin: Origin, files: &[(&str, &str)]) -> Manifest {
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), Digest::of(text.as_bytes())));
        let manifest = Manifest::new(Digest([1; 32]), origin, files);
        fs::write(folder.join(MANIFEST_FILE), manifest.to_bytes().unwrap()).unwrap();
        manifest
    }

    #[test]
    fn only_what_is_of_the_same_origin_gives_way() {
        assert!(version(7, 3).gives_way_to(&version(7, 4)) && version(7, 4).gives_way_to(&version(7, 3)));
        assert!(!version(7, 3).gives_way_to(&version(8, 4)));
        assert!(personal(2).gives_way_to(&personal(2)) && !personal(2).gives_way_to(&personal(3)));
        let all = [Origin::Unknown, version(7, 3), personal(2)];
        for (at, earlier) in all.iter().enumerate() {
            for (other, later) in all.iter().enumerate() {
                assert_eq!(earlier.gives_way_to(later), at == other && at > 0, "{earlier:?} {later:?}");
            }
        }
    }

    #[test]
    fn what_a_folder_holds_is_said() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("out");
        let said = |folder: &Path| held(folder, |origin| origin.gives_way_to(&version(7, 9))).unwrap();
        assert_eq!(said(&out), None);
        fs::create_dir(&out).unwrap();
        assert_eq!(said(&out), None);
        for name in ["b", "a", "c", "d", "e"] {
            fs::write(out.join(name), "mine").unwrap();
        }
        assert!(said(&out).unwrap().starts_with("a, b, c, d and 1 more, and no nightshift.json"));
        assert_eq!(said(&out.join("a")).unwrap(), "a file, and no folder");
        write(&out, version(7, 3), &[]);
        assert_eq!(said(&out), None);
        write(&out, version(8, 3), &[]);
        assert_eq!(said(&out).unwrap(), format!("version 3 of another task, {}", TaskId([8; 16])));
        write(&out, personal(2), &[]);
        assert!(said(&out).unwrap().contains("one person trained"));
        write(&out, Origin::Unknown, &[]);
        assert!(said(&out).unwrap().contains("nobody says"));
        fs::write(out.join(MANIFEST_FILE), "{").unwrap();
        assert!(said(&out).unwrap().contains("says nothing"));
    }

    #[test]
    fn files_of_another_form_are_left_over_where_they_are_as_they_were_written() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path();
        fs::write(out.join("notes.txt"), "mine").unwrap();
        let next =
            Manifest::new(Digest([1; 32]), version(7, 4), [("adapter.gguf".to_owned(), Digest([5; 32]))]);
        assert_eq!(leftovers(out, &next), [""; 0].map(PathBuf::from));
        write(out, version(7, 3), &[("a.json", "old"), ("b.json", "old too"), ("adapter.gguf", "x")]);
        fs::write(out.join("b.json"), "changed by its user").unwrap();
        assert_eq!(leftovers(out, &next), [out.join("a.json")]);
        // A manifest that names what is not in its folder takes nothing away there.
        let sub = out.join("sub");
        fs::create_dir(&sub).unwrap();
        let elsewhere = [("../notes.txt".to_owned(), Digest::of(b"mine"))];
        let manifest = Manifest::new(Digest([1; 32]), version(7, 3), elsewhere);
        fs::write(sub.join(MANIFEST_FILE), manifest.to_bytes().unwrap()).unwrap();
        assert_eq!(leftovers(&sub, &next), [""; 0].map(PathBuf::from));
    }
}
