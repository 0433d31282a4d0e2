use std::fs;

use proto::admin::AdminRequest;
use proto::ids::{Digest, TaskId};
use ring::rand::SystemRandom;

use super::*;

const MILLIS: u64 = 1_700_000_000_000;

struct World {
    folder: tempfile::TempDir,
    store: Store,
    place: Place,
}

impl World {
    fn new() -> Self {
        Self::with(64 << 20)
    }

    fn with(most_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let place = Place {
            folder: folder.path().join("audit"),
            seed: folder.path().join("audit.seed"),
            head: folder.path().join("elsewhere").join("head"),
            most_bytes,
        };
        fs::create_dir(folder.path().join("elsewhere")).unwrap();
        Self { folder, store, place }
    }

    fn open(&self) -> Audit {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Audit, AuditError> {
        Audit::open(&self.place, self.store.clone(), &SystemRandom::new(), Timestamp(MILLIS))
    }

    fn key(&self) -> AuditKey {
        key(&self.place.seed, &SystemRandom::new()).unwrap()
    }

    fn kept(&self) -> Head {
        self.store.get(TREE, HEAD).unwrap().unwrap()
    }

    fn entries(&self) -> Vec<Entry> {
        let mut verifier = Verifier::new(self.key().public(), &[]).unwrap();
        let files = lines(&self.place.folder).unwrap();
        files.iter().flat_map(File::lines).map(|line| verifier.line(line).unwrap()).collect()
    }

    fn verify(&self, heads: &[Head]) -> Result<chain::Report, Fault> {
        let mut verifier = Verifier::new(self.key().public(), heads)?;
        for file in lines(&self.place.folder).unwrap() {
            for line in file.lines() {
                verifier.line(line)?;
            }
        }
        verifier.finish()
    }

    fn newest_file(&self) -> PathBuf {
        let names = fs::read_dir(&self.place.folder).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().unwrap()
    }
}

fn owl() -> Who {
    Who::Operator { name: "owl".parse().unwrap(), serial: Serial([1; 16]), role: Role::Operator }
}

fn stop(task: u8) -> What {
    What::of(&AdminRequest::StopTask(TaskId([task; 16]))).unwrap()
}

fn change(audit: &Audit, task: u8) {
    let intent = audit.intent(&owl(), &stop(task), Timestamp(MILLIS)).unwrap();
    audit.outcome(&intent, (Ok(()), With::new()), Timestamp(MILLIS + 1)).unwrap();
}

#[test]
fn a_change_is_there_before_and_after_it_and_a_restart_goes_on() {
    let world = World::new();
    let audit = world.open();
    change(&audit, 1);
    let intent = audit.intent(&owl(), &stop(2), Timestamp(MILLIS)).unwrap();
    audit.outcome(&intent, (Err("unknown task"), With::new()), Timestamp(MILLIS)).unwrap();
    audit.close(Timestamp(MILLIS));
    drop(audit);
    let audit = world.open();
    let said: Vec<_> =
        world.entries().into_iter().map(|entry| (entry.n, entry.what, entry.outcome, entry.of)).collect();
    let expected = [
        (1, "start", Outcome::Done, None),
        (2, "stop task", Outcome::Intent, None),
        (3, "stop task", Outcome::Done, Some(2)),
        (4, "stop task", Outcome::Intent, None),
        (5, "stop task", Outcome::Refused, Some(4)),
        (6, "stop", Outcome::Done, None),
        (7, "start", Outcome::Done, None),
    ];
    assert_eq!(said, expected.map(|(n, what, outcome, of)| (n, what.to_owned(), outcome, of)));
    let entry = &world.entries()[1];
    assert_eq!(
        (entry.who.as_str(), entry.role, entry.serial),
        ("operator owl", Some(Role::Operator), Some(Serial([1; 16])))
    );
    let report = world.verify(&[world.kept()]).unwrap();
    assert_eq!((report.last, report.heads_found, report.open.len()), (7, 1, 0));
    let published = fs::read_to_string(world.place.folder.join(KEY_FILE)).unwrap();
    assert_eq!(published.trim(), world.key().public().to_string());
    // What was said at the end, and at the start, is elsewhere too.
    assert_eq!(read_head(&world.place.head).unwrap().unwrap(), world.kept());
    let part = audit.read(3).unwrap();
    assert_eq!((part.last, part.lines.split(|byte| *byte == b'\n').count()), (7, 6));
    assert!(audit.read(8).unwrap().lines.is_empty() && audit.read(u64::MAX).unwrap().lines.is_empty());
}

#[test]
fn what_a_crash_left_open_is_said_to_be_unknown_at_the_next_start() {
    let world = World::new();
    let audit = world.open();
    let intent = audit.intent(&owl(), &stop(1), Timestamp(MILLIS)).unwrap();
    change(&audit, 2);
    drop((intent, audit));
    let entries = {
        let _audit = world.open();
        world.entries()
    };
    let unknown: Vec<_> = entries.iter().filter(|entry| entry.outcome == Outcome::Unknown).collect();
    assert_eq!(unknown.len(), 1);
    assert_eq!((unknown[0].of, unknown[0].who.as_str()), (Some(2), "operator owl"));
    let _again = world.open();
    assert!(world.verify(&[world.kept()]).unwrap().open.is_empty());
    assert_eq!(world.entries().iter().filter(|entry| entry.outcome == Outcome::Unknown).count(), 1);
}

#[test]
fn a_line_that_a_crash_tore_is_taken_away_wherever_it_was_torn() {
    let world = World::new();
    change(&world.open(), 1);
    let file = world.newest_file();
    let whole = fs::read(&file).unwrap();
    let line = whole.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    for torn in (1..line.len()).step_by(37) {
        fs::write(&file, [&whole[..], &line[..torn]].concat()).unwrap();
        drop(Folder::open(&world.place.folder, 64 << 20).unwrap());
        assert_eq!(fs::read(&file).unwrap(), whole, "{torn}");
    }
    drop(world.open());
    assert_eq!(world.verify(&[world.kept()]).unwrap().last, 4);
}

#[test]
fn on_a_full_disk_nothing_is_begun_and_what_was_begun_is_said_later() {
    let world = World::new();
    let audit = world.open();
    world.store.set_free_space_floor(u64::MAX);
    let refused = audit.intent(&owl(), &stop(1), Timestamp(MILLIS));
    assert!(matches!(refused, Err(AuditError::Store(StoreError::DiskFull { .. }))), "{refused:?}");
    assert_eq!(world.entries().len(), 1, "nothing was written");
    world.store.set_free_space_floor(1);
    let intent = audit.intent(&owl(), &stop(2), Timestamp(MILLIS)).unwrap();
    // Full between the change and its outcome: the entry is on disk, its head comes later.
    world.store.set_free_space_floor(u64::MAX);
    audit.outcome(&intent, (Ok(()), With::new()), Timestamp(MILLIS)).unwrap();
    assert_eq!((world.entries().len(), world.kept().n), (3, 2));
    world.store.set_free_space_floor(1);
    change(&audit, 3);
    assert_eq!(world.verify(&[world.kept()]).unwrap().last, 5);
}

#[test]
fn what_the_file_did_not_take_is_written_before_anything_else_when_it_takes_more() {
    let world = World::new();
    let audit = world.open();
    let intent = audit.intent(&owl(), &stop(1), Timestamp(MILLIS)).unwrap();
    // A file that is open for reading only takes no write.
    let file = world.newest_file();
    let only_read = fs::File::open(&file).unwrap();
    drop(audit.lock().folder.exchange(only_read));
    let failed = audit.outcome(&intent, (Ok(()), With::new()), Timestamp(MILLIS));
    assert!(matches!(failed, Err(AuditError::File(_))), "{failed:?}");
    assert_eq!(world.entries().len(), 2);
    // It opens the file anew, in case half a line is in it.
    change(&audit, 3);
    let said: Vec<_> = world.entries().into_iter().map(|entry| (entry.outcome, entry.of)).collect();
    let expected = [
        (Outcome::Done, None),
        (Outcome::Intent, None),
        (Outcome::Done, Some(2)),
        (Outcome::Intent, None),
        (Outcome::Done, Some(4)),
    ];
    assert_eq!(said, expected);
}

#[test]
fn an_older_log_is_found_at_the_start_and_by_whoever_kept_a_head() {
    let world = World::new();
    let audit = world.open();
    change(&audit, 1);
    let older = fs::read(world.newest_file()).unwrap();
    change(&audit, 2);
    audit.close(Timestamp(MILLIS));
    drop(audit);
    let (kept, elsewhere) = (world.kept(), read_head(&world.place.head).unwrap().unwrap());
    assert_eq!((kept.n, elsewhere), (6, kept));
    fs::write(world.newest_file(), older).unwrap();
    assert_eq!(world.verify(&[kept]), Err(Fault::Shorter { last: 3, head: 6 }));
    drop(world.open());
    let found = &world.entries()[3];
    assert_eq!((found.what.as_str(), found.with["head"].as_str()), (FOUND, "6"));
    assert_eq!(world.verify(&[]).unwrap().found, [4], "the log says it itself");
    // The numbers come again, and the entries are others.
    let audit = world.open();
    for task in 0..3 {
        change(&audit, task);
    }
    assert_eq!(world.verify(&[kept]), Err(Fault::Other(6)));
}

#[test]
fn a_whole_state_folder_that_was_put_back_is_found_by_the_head_elsewhere() {
    let world = World::new();
    let audit = world.open();
    change(&audit, 1);
    let (log, head) = (fs::read(world.newest_file()).unwrap(), world.kept());
    change(&audit, 2);
    audit.close(Timestamp(MILLIS));
    drop(audit);
    fs::write(world.newest_file(), log).unwrap();
    let mut batch = Batch::new();
    batch.put(TREE, HEAD, &head).unwrap();
    world.store.commit_blocking(&batch).unwrap();
    drop(world.open());
    assert_eq!(world.verify(&[]).unwrap().found, [4]);
}

#[test]
fn a_log_that_is_gone_begins_behind_the_head_and_does_not_hold() {
    let world = World::new();
    change(&world.open(), 1);
    fs::rename(&world.place.folder, world.folder.path().join("aside")).unwrap();
    drop(world.open());
    let entries = world.entries();
    assert_eq!((entries[0].n, entries[0].what.as_str()), (4, FOUND));
    assert_eq!(world.verify(&[]), Err(Fault::Beginning(4)));
}

#[test]
fn a_log_that_was_changed_is_not_gone_on_with() {
    let world = World::new();
    change(&world.open(), 1);
    let file = world.newest_file();
    let text = fs::read_to_string(&file).unwrap().replace("operator owl", "operator bat");
    fs::write(&file, text).unwrap();
    let error = world.try_open().unwrap_err().to_string();
    assert!(error.contains("entry 2 is not signed") && error.contains("move the folder away"), "{error}");
}

#[test]
fn a_log_that_grows_too_large_loses_its_oldest_entries_and_says_so() {
    let most = 16 << 10;
    let world = World::with(most);
    let audit = world.open();
    for task in 0..60 {
        change(&audit, task);
    }
    let files = lines(&world.place.folder).unwrap();
    assert!(files.len() >= 3 && files[0].first > 1, "{}", files.len());
    let bytes: usize = files.iter().flat_map(File::lines).map(|line| line.len() + 1).sum();
    assert!((bytes as u64) <= most + 2048, "{bytes}");
    let report = world.verify(&[world.kept()]).unwrap();
    assert_eq!((report.first, report.last), (files[0].first, world.kept().n));
    assert!(report.open.is_empty());
    drop(audit);
    drop(world.open());
    world.verify(&[world.kept()]).unwrap();
    // Parts that are read one after another are the whole.
    let audit = world.open();
    let (mut from, mut all) = (0, Vec::new());
    loop {
        let part = audit.read(from).unwrap();
        if part.lines.is_empty() {
            break;
        }
        all.extend_from_slice(&part.lines);
        from = serde_json::from_slice::<serde_json::Value>(
            part.lines.split(|byte| *byte == b'\n').rev().nth(1).unwrap(),
        )
        .unwrap()["entry"]["n"]
            .as_u64()
            .unwrap()
            + 1;
    }
    let on_disk: Vec<u8> = lines(&world.place.folder)
        .unwrap()
        .iter()
        .flat_map(File::lines)
        .flat_map(|line| [line, b"\n"].concat())
        .collect();
    assert_eq!(all, on_disk);
    assert_ne!(Digest::of(&all), Digest::of(&[]));
}
