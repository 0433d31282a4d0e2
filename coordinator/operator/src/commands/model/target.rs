//! Whether a version may be written into a folder: not over what came from somewhere else, unless somebody says so.

use std::path::Path;

use coordinator::cli::CliError;
use formats::held;
use proto::ids::TaskId;

/// Fails where the folder holds anything but an earlier version of this task.
pub(super) fn check(folder: &Path, task: TaskId) -> Result<(), CliError> {
    match held(folder, |origin| origin.task() == Some(task)) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(CliError::Input(format!(
            "{} holds {what}, and is left as it is; name another folder with --out, or say --force to write over it",
            folder.display()
        ))),
        Err(error) => Err(CliError::Store(format!("cannot read {}: {error}", folder.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use formats::{MANIFEST_FILE, Manifest, Origin, Personal, Version};
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
