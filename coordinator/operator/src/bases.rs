//! Where the bases lie of which this operator made tasks, so that what is pulled names its base as other programs load it.
//!
//! It is kept in the operator's folder, and told to nobody: a path says something of the operator's machine.

use std::collections::BTreeMap;
use std::path::Path;

use formats::name_of_base;
use proto::files::{self, Audience, FileError};
use proto::ids::Digest;

const FILE: &str = "bases.json";

/// Remembers where a base is, by its digest.
pub(crate) fn remember(dir: &Path, base: Digest, path: &Path) -> Result<(), FileError> {
    let name = name_of_base(path).map_err(FileError::io("find", path))?;
    let mut known = read(dir);
    if known.insert(base, name.clone()) == Some(name) {
        return Ok(());
    }
    let json = serde_json::to_vec_pretty(&known).unwrap_or_default();
    files::write(&dir.join(FILE), &json, Audience::Owner)
}

/// What a base is loaded by, if this operator made a task of it.
pub(crate) fn name(dir: &Path, base: Digest) -> Option<String> {
    read(dir).remove(&base)
}

/// What is remembered; a file that is not there or cannot be read is nothing, for it is made again with the next task.
fn read(dir: &Path) -> BTreeMap<Digest, String> {
    let bytes = files::read(&dir.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_remembered_by_its_digest_and_the_last_place_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Digest([1; 32]), Digest([2; 32]));
        assert_eq!(name(dir.path(), one), None);
        remember(dir.path(), one, Path::new("/srv/a")).unwrap();
        remember(dir.path(), two, Path::new("/srv/models--o--n/snapshots/1")).unwrap();
        remember(dir.path(), one, Path::new("/srv/b")).unwrap();
        assert_eq!(name(dir.path(), one).as_deref(), Some("/srv/b"));
        assert_eq!(name(dir.path(), two).as_deref(), Some("o/n"));
        std::fs::write(dir.path().join(FILE), "damaged").unwrap();
        assert_eq!(name(dir.path(), one), None);
    }
}
