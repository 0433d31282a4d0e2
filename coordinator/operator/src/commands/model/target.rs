//! Whether a version may be written into a folder: not over what came from somewhere else, unless somebody says so.

use std::fs;
use std::path::Path;

use coordinator::cli::CliError;
use formats::{MANIFEST_FILE, Manifest, Origin, SignedRelease, Version};
use proto::files;
use proto::ids::TaskId;
use proto::shown::shown;

/// So many names of files say what is there.
const NAMED: usize = 4;

/// Fails where the folder holds anything but an earlier version of this task.
pub(super) fn check(folder: &Path, task: TaskId) -> Result<(), CliError> {
    match holds(folder, task) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(CliError::Input(format!(
            "{} holds {what}, and is left as it is; name another folder with --out, or say --force to write over it",
            folder.display()
        ))),
        Err(error) => Err(CliError::Store(format!("cannot read {}: {error}", folder.display()))),
    }
}

/// What is in the folder that is not of this task; none where there is nothing, or an earlier version of it.
fn holds(folder: &Path, task: TaskId) -> std::io::Result<Option<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Ok(Some("a file, and no folder".to_owned()));
        }
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<String>>>()?;
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
    let read = files::read(&folder.join(MANIFEST_FILE)).map_err(|error| error.to_string());
    let manifest = read.and_then(|bytes| Manifest::parse(&bytes).map_err(|error| error.to_string()));
    Ok(match manifest {
        Err(why) => Some(format!("files whose {MANIFEST_FILE} says nothing ({why})")),
        Ok(manifest) => of_another(&manifest.origin, task),
    })
}

/// What it is, where it is not of this task.
fn of_another(origin: &Origin, wanted: TaskId) -> Option<String> {
    match origin {
        Origin::Unknown => Some("an adapter of which nobody says where it comes from".to_owned()),
        Origin::Personal(_) => Some("an adapter that one person trained for themself".to_owned()),
        Origin::Version(version)
        | Origin::Release(SignedRelease { release: formats::Release { version, .. }, .. }) => {
            let Version { task, version, .. } = version;
            (*task != wanted).then(|| format!("version {version} of another task, {task}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use formats::Personal;
    use proto::ids::Digest;

    use super::*;

    fn manifest(folder: &Path, origin: Origin) {
        let bytes = Manifest::new(Digest([1; 32]), origin, []).to_bytes().unwrap();
        fs::write(folder.join(MANIFEST_FILE), bytes).unwrap();
    }

    #[test]
    fn a_folder_is_written_where_it_is_new_or_empty_or_of_the_task() {
        let folder = tempfile::tempdir().unwrap();
        let (task, out) = (TaskId([7; 16]), folder.path().join("out"));
        check(&out, task).unwrap();
        fs::create_dir(&out).unwrap();
        check(&out, task).unwrap();
        let version = Version { task, version: 3, plan: Digest([2; 32]), adapter: Digest([3; 32]) };
        manifest(&out, Origin::Version(version));
        check(&out, task).unwrap();
    }

    #[test]
    fn what_is_of_something_else_is_named_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let said = || check(out, TaskId([7; 16])).unwrap_err().to_string();
        for name in ["b", "a", "c", "d", "e"] {
            fs::write(out.join(name), "mine").unwrap();
        }
        assert!(said().contains("holds a, b, c, d and 1 more, and no nightshift.json"), "{}", said());
        let other =
            Version { task: TaskId([8; 16]), version: 3, plan: Digest([2; 32]), adapter: Digest([3; 32]) };
        manifest(out, Origin::Version(other));
        assert!(said().contains(&format!("version 3 of another task, {}", TaskId([8; 16]))), "{}", said());
        manifest(out, Origin::Personal(Personal { seed: 1, steps: 2, documents: 3, tokens: 4 }));
        assert!(said().contains("one person trained"), "{}", said());
        manifest(out, Origin::Unknown);
        assert!(said().contains("nobody says"), "{}", said());
        fs::write(out.join(MANIFEST_FILE), "{").unwrap();
        assert!(said().contains("says nothing"), "{}", said());
        assert!(said().contains("--force"));
        let file = out.join("a");
        let said = check(&file, TaskId([7; 16])).unwrap_err().to_string();
        assert!(said.contains("a file, and no folder"), "{said}");
    }
}
