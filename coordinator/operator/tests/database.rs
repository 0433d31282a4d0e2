//! A store moves from a state folder into a database and back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use shell::store::{Batch, Store};
use support::postgres;

/// Runs `nightshift` in a folder.
fn nightshift(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .arg("--dir")
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn configure(folder: &Path, address: Option<&str>) {
    let store = address.map_or(String::new(), |address| format!("[store]\naddress = {address:?}\n"));
    let state = folder.join("state");
    fs::write(folder.join("coordinator.toml"), format!("state_dir = {:?}\n{store}", state.to_str().unwrap()))
        .unwrap();
}

#[test]
fn a_store_that_moves_into_a_database_and_back_is_the_same_to_the_byte() {
    let Some(server) =
        postgres::shared("a_store_that_moves_into_a_database_and_back_is_the_same_to_the_byte")
    else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let (folder, address) = (root.path(), server.address(&server.database()));
    let place = folder.join("state/store");
    {
        let store = Store::open(&place).unwrap();
        for tree in ["tasks", "devices", "Z", "__sled__default"] {
            let mut batch = Batch::new();
            for key in 0..700_u64 {
                batch.put(tree, key, &(key, "line\n\ttab \u{e9}")).unwrap();
            }
            batch.put(tree, [255; 255], &"x".repeat(4_000)).unwrap();
            store.commit_blocking(&batch).unwrap();
        }
    }
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let does = |arguments: &[&str]| {
        let (code, said) = nightshift(folder, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    };
    configure(folder, None);
    does(&["store", "export", "--out", &file("first")]);

    configure(folder, Some(&address));
    // Not while the folder has one, and not from half a file: the database stays empty.
    let (code, said) = nightshift(folder, &["store", "import", "--from", &file("first")]);
    assert!(code == Some(3) && said.contains("holds a store already"), "{code:?} {said}");
    fs::rename(&place, folder.join("moved")).unwrap();
    let whole = fs::read(folder.join("first")).unwrap();
    fs::write(folder.join("half"), &whole[..whole.len() / 2]).unwrap();
    let (code, said) = nightshift(folder, &["store", "import", "--from", &file("half")]);
    assert!(code == Some(3) && said.contains("cut off"), "{code:?} {said}");
    let said = does(&["store", "import", "--from", &file("first")]);
    assert!(said.contains("2804 records") && said.contains(&address), "{said}");
    let (code, said) = nightshift(folder, &["store", "import", "--from", &file("first")]);
    assert!(code == Some(3) && said.contains("has records already"), "{code:?} {said}");
    does(&["store", "export", "--out", &file("second")]);
    assert!(fs::read(folder.join("second")).unwrap() == whole, "the database's export is another file");
    // Each record is read as what it should be, and these are none of a coordinator's.
    let (code, said) = nightshift(folder, &["store", "check"]);
    assert!(
        code == Some(4) && said.contains("2804 records") && said.contains("and of the database"),
        "{code:?} {said}"
    );

    configure(folder, None);
    let (code, said) = nightshift(folder, &["store", "export", "--out", &file("none")]);
    assert!(code == Some(3) && said.contains("is in a database"), "{code:?} {said}");
    does(&["store", "import", "--from", &file("second")]);
    does(&["store", "export", "--out", &file("third")]);
    assert!(fs::read(folder.join("third")).unwrap() == whole, "the folder's export is another file");
}

#[test]
fn the_doctor_looks_at_a_database_and_makes_nothing_in_it() {
    let Some(server) = postgres::shared("the_doctor_looks_at_a_database_and_makes_nothing_in_it") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let database = server.database();
    fs::create_dir(root.path().join("state")).unwrap();
    configure(root.path(), Some(&server.address(&database)));
    let (_, said) = nightshift(root.path(), &["doctor"]);
    assert!(said.contains("its database answers"), "{said}");
    let tables = server.sql(&database, "SELECT count(*) FROM pg_namespace WHERE nspname = 'nightshift'");
    assert_eq!(tables, ["0"]);
    configure(root.path(), Some(&server.address("nowhere")));
    let (_, said) = nightshift(root.path(), &["doctor"]);
    assert!(said.contains("make the database") && said.contains("see [store]"), "{said}");
}
