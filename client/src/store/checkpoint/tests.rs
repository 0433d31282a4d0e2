use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::Outcome;

use super::*;

fn published(task: u8, version: u32) -> Published {
    let digest = Digest([2; 32]);
    Published {
        task: TaskId([task; 16]),
        version,
        plan: digest,
        adapter: digest,
        folded: None,
        clip_norm: 1.0,
    }
}

/// Bytes that nobody would take for those of a cipher.
fn clear() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(b"all that was trained".repeat(20))
}

fn kept(folder: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::below(folder);
    checkpoint.keep(&published(1, 4), &clear()).unwrap();
    checkpoint
}

fn is_gone(checkpoint: &Checkpoint) -> bool {
    !checkpoint.file.exists() && !checkpoint.key.exists()
}

#[test]
fn a_checkpoint_on_disk_comes_back_and_shows_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = kept(folder.path());
    let file = fs::read(&checkpoint.file).unwrap();
    assert!(!file.windows(8).any(|window| clear().windows(8).any(|part| part == window)));
    assert_eq!(*checkpoint.open(&published(1, 4)).unwrap(), clear().as_slice());
}

#[cfg(unix)]
#[test]
fn a_checkpoint_and_its_key_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let checkpoint = kept(folder.path());
    for path in [&checkpoint.file, &checkpoint.key] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // And a key that others may read is none any more.
    fs::set_permissions(&checkpoint.key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(checkpoint.open(&published(1, 4)).is_none());
    assert!(is_gone(&checkpoint));
}

#[test]
fn a_training_has_one_key_and_the_next_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = kept(folder.path());
    let (key, file) = (fs::read(&checkpoint.key).unwrap(), fs::read(&checkpoint.file).unwrap());
    checkpoint.keep(&published(1, 4), &clear()).unwrap();
    assert_eq!(fs::read(&checkpoint.key).unwrap(), key);
    assert_ne!(fs::read(&checkpoint.file).unwrap(), file, "no sealing is like another");
    checkpoint.delete("it is over");
    checkpoint.keep(&published(1, 4), &clear()).unwrap();
    assert_ne!(fs::read(&checkpoint.key).unwrap(), key);
    // What was found of the first one does not open any more.
    fs::write(&checkpoint.file, file).unwrap();
    assert!(checkpoint.open(&published(1, 4)).is_none());
}

#[test]
fn a_checkpoint_that_does_not_open_is_deleted_with_its_key() {
    type Spoil = fn(&Checkpoint);
    let spoils: [Spoil; 5] = [
        |checkpoint| fs::write(&checkpoint.key, [9; KEY_BYTES]).unwrap(),
        |checkpoint| fs::write(&checkpoint.key, [9; 5]).unwrap(),
        |checkpoint| fs::remove_file(&checkpoint.key).unwrap(),
        |checkpoint| fs::write(&checkpoint.file, clear().as_slice()).unwrap(),
        |checkpoint| {
            let mut file = fs::read(&checkpoint.file).unwrap();
            *file.last_mut().unwrap() ^= 1;
            fs::write(&checkpoint.file, file).unwrap();
        },
    ];
    for (i, spoil) in spoils.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = kept(folder.path());
        spoil(&checkpoint);
        assert!(checkpoint.open(&published(1, 4)).is_none(), "spoil {i}");
        assert!(is_gone(&checkpoint), "spoil {i}");
        // The next training has a checkpoint again.
        checkpoint.keep(&published(1, 4), &clear()).unwrap();
        assert!(checkpoint.open(&published(1, 4)).is_some());
    }
}

#[test]
fn a_clear_checkpoint_of_an_older_version_is_deleted_at_the_start_and_a_sealed_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = kept(folder.path());
    checkpoint.clean_up();
    assert!(checkpoint.open(&published(1, 4)).is_some());
    fs::write(&checkpoint.file, clear().as_slice()).unwrap();
    checkpoint.clean_up();
    assert!(is_gone(&checkpoint));
    // Nor is one left of a version older still that a crash interrupted.
    let aside = folder.path().join("training.checkpoint.aside");
    fs::write(&aside, clear().as_slice()).unwrap();
    checkpoint.clean_up();
    assert!(!aside.exists());
}

#[test]
fn a_checkpoint_of_another_task_or_version_is_deleted_when_that_becomes_the_work() {
    for (work, stays) in [(published(1, 4), true), (published(1, 5), false), (published(2, 4), false)] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = kept(folder.path());
        checkpoint.keep_only(&work);
        assert_eq!(is_gone(&checkpoint), !stays);
        Checkpoint::below(folder.path()).keep_only(&work);
    }
}

#[test]
fn to_delete_a_checkpoint_that_is_not_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::below(folder.path());
    checkpoint.delete("it is over");
    checkpoint.clean_up();
    checkpoint.keep_only(&published(1, 4));
    assert!(checkpoint.open(&published(1, 4)).is_none());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_declined_or_rejected_training_is_over_and_one_that_rests_or_waits_is_not() {
    let task = TaskId([1; 16]);
    let over = [
        Ended::Breach(Breach::Task(task)),
        Ended::Rejected(Rejection::NotEnrolled),
        Ended::Rejected(Rejection::UnknownTask),
        Ended::Rejected(Rejection::Stale { found: 4, current: 5 }),
        Ended::Rejected(Rejection::ParticipationsSpent(3)),
    ];
    for ended in over {
        assert!(is_over(&ended), "{ended}");
    }
    let on = [
        Ended::Breach(Breach::Resting { most: 1, until: Timestamp(7) }),
        Ended::Rejected(Rejection::UnknownArtifact),
        Ended::Round(Outcome::Stopped),
        Ended::NotTrained("it was interrupted".to_owned()),
    ];
    for ended in on {
        assert!(!is_over(&ended), "{ended}");
    }
}
