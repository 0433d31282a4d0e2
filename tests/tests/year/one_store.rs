//! One store is one process's: a second coordinator, and every command on the store, is refused with one true error and hurts
//! nothing; so is a coordinator that starts while such a command runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Output;

use super::stage::{output, text};
use super::wait::wait_for;
use super::*;

/// The code of a store or a disk that cannot be used.
const STORE: i32 = 4;

/// What is in a folder, but for what the engine of a store and the audit log write as time goes on.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with("store/") {
                all.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    all
}

/// Panics unless it was refused because of the store at this place, in one line.
fn assert_in_use(refused: &Output, store: &Path, what: &str) {
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(STORE), "{what}: {words}");
    let errors: Vec<&str> = words.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("{what}: {words}") };
    let expected = format!(
        "error: the store {} is in use: another process holds its lock file; stop that process first",
        store.display()
    );
    assert_eq!(error, expected, "{what}");
    assert!(refused.stdout.is_empty(), "{what}: {}", String::from_utf8_lossy(&refused.stdout));
}

/// `nightshift up` with a configuration of its own, other ports, and the state folder of the stage's coordinator.
fn second(stage: &Stage) -> Command {
    let other = stage.path("second");
    fs::create_dir_all(&other).unwrap();
    let home = stage.path("home");
    let config = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n",
        home.to_str().unwrap()
    );
    fs::write(other.join("coordinator.toml"), config).unwrap();
    let mut command = Command::new(stage.nightshift().get_program());
    command.arg("--dir").arg(&other).arg("up");
    command
}

#[test]
fn whoever_comes_to_a_store_in_use_is_told_so_and_hurts_nothing() {
    let stage = Stage::new();
    let coordinator = stage.coordinator();
    stage.create_task(&["--versions", "1", "--privacy", "off", "--rank", "1"]);
    stage.enroll("anna", &[]);
    let home = stage.path("home");
    let (store, before) = (home.join("store"), contents(&home));
    let archive = stage.path("archive");
    fs::write(&archive, "of another day").unwrap();
    let archive_text = archive.to_str().unwrap();

    assert_in_use(&output(&mut second(&stage)), &store, "a second coordinator");
    for command in [
        &["store", "check"][..],
        &["store", "export", "--out", archive_text],
        &["store", "import", "--from", archive_text],
    ] {
        assert_in_use(&output(stage.nightshift().args(command)), &store, &command.join(" "));
    }
    assert_eq!(contents(&home), before);
    assert_eq!(fs::read(&archive).unwrap(), b"of another day");

    // The first one has felt nothing, and all is whole when it has gone.
    assert_eq!(stage.task()["state"], "active");
    stage.operator(&["device", "token", "--label", "bela"]);
    drop(coordinator);
    let checked = text(&output(stage.nightshift().args(["store", "check"])));
    assert!(checked.contains("all of it is whole"), "{checked}");
}

#[test]
fn a_coordinator_that_starts_while_its_store_is_looked_at_or_made_waits_for_nobody_and_hurts_nothing() {
    let stage = Stage::new();
    drop(stage.coordinator());
    let home = stage.path("home");
    let store = home.join("store");
    {
        // As long as a command that reads it.
        let _reads = shell::store::Store::open(&store).unwrap();
        assert_in_use(&output(stage.nightshift().arg("up")), &store, "beside a command that reads");
    }
    let coordinator = stage.coordinator();
    stage.create_task(&["--versions", "1", "--privacy", "off", "--rank", "1"]);
    stage.enroll("anna", &[]);
    drop(coordinator);
    let archive = stage.path("archive");
    stage.operator(&["store", "export", "--out", archive.to_str().unwrap()]);
    let records = fs::read(&archive).unwrap();
    fs::remove_dir_all(&store).unwrap();

    // An import takes as long as its file takes to come.
    let pipe = stage.path("pipe");
    assert!(output(Command::new("mkfifo").arg(&pipe)).status.success());
    let mut command = stage.nightshift();
    command.args(["store", "import", "--from", pipe.to_str().unwrap()]);
    let imports = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let (first, rest) = records.split_at(records.len() / 2);
    writer.write_all(first).unwrap();
    wait_for("an import that is under way", || home.join("store.importing/db").exists().then_some(()));
    assert_in_use(&output(stage.nightshift().arg("up")), &store, "beside an import");
    let another = ["store", "import", "--from", archive.to_str().unwrap()];
    assert_in_use(&output(stage.nightshift().args(another)), &store, "another import");
    writer.write_all(rest).unwrap();
    drop(writer);
    text(&imports.wait_with_output().unwrap());

    let _coordinator = stage.coordinator();
    assert_eq!(stage.task()["state"], "active");
    assert!(stage.operator(&["device", "ls"]).contains("anna"));
}

#[test]
fn an_import_that_fails_leaves_no_store_where_there_was_none() {
    let stage = Stage::new();
    let (home, bad) = (stage.path("home"), stage.path("bad"));
    fs::write(&bad, "nightshift-store\t1\nnonsense\n").unwrap();
    let refused = output(stage.nightshift().args(["store", "import", "--from", bad.to_str().unwrap()]));
    assert_eq!(refused.status.code(), Some(3), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(!home.join("store").exists() && !home.join("store.importing").exists());
}
