//! Who may do what at a coordinator, and what is written down of it, by the programs as operators run them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use world::{World, errors};

#[path = "common/world.rs"]
mod world;

/// As a crash ends it.
fn kill(world: &mut World) {
    let mut up = world.up.take().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn log_folder(world: &World) -> PathBuf {
    world.path("home").join("audit")
}

fn log_file(world: &World) -> PathBuf {
    let names = fs::read_dir(log_folder(world)).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().unwrap()
}

#[test]
fn each_role_may_what_it_may_and_nobody_raises_himself() {
    let world = World::new();
    for (name, role) in [("bat", "viewer"), ("fox", "operator"), ("owl", "admin")] {
        world.add("home", name, role);
        assert_eq!(world.certificate(name).1, role);
    }
    let task = "ab".repeat(16);
    // A viewer reads.
    for reads in [&["task", "ls"][..], &["device", "ls"], &["health"], &["operator", "ls"]] {
        world.good("bat", reads);
    }
    let out = world.path("more");
    let add = ["operator", "add", "bat2", "--role", "admin", "--out", text(&out)];
    let owls = world.certificate("owl").0;
    for (asks, needs) in [
        (&["device", "token", "--label", "phone"][..], "an operator"),
        (&["device", "revoke", &task], "an operator"),
        (&["audit", "tail"], "an admin"),
        (&["audit", "verify"], "an admin"),
        (&["operator", "revoke", &owls], "an admin"),
        (&add, "an admin"),
    ] {
        let said = world.refused("bat", asks, 6);
        assert!(said.contains(&format!("it needs {needs}, and `bat` is a viewer")), "{said}");
    }
    // Who runs tasks lets devices in, and makes nobody.
    world.good("fox", &["device", "token", "--label", "phone"]);
    for asks in [&["operator", "revoke", &owls][..], &add, &["audit", "tail"]] {
        let said = world.refused("fox", asks, 6);
        assert!(said.contains("it needs an admin, and `fox` is an operator"), "{said}");
    }
    assert!(!out.exists(), "nothing is left of what was refused");
    // A new key keeps the role, and the old one is worthless.
    let before = world.certificate("bat").0;
    world.good("bat", &["operator", "rotate"]);
    let (after, role) = world.certificate("bat");
    assert_eq!((before == after, role.as_str()), (false, "viewer"));
    world.refused("bat", &["device", "token", "--label", "phone"], 6);
    // A name has one role.
    let again = world.path("again");
    let said = world.refused("owl", &["operator", "add", "bat", "--role", "admin", "--out", text(&again)], 6);
    assert!(said.contains("`bat` operates already, as viewer"), "{said}");
    // By whoever is an admin, and not only by the coordinator's own.
    world.add("owl", "mouse", "viewer");
    world.good("owl", &["operator", "revoke", &world.certificate("fox").0]);
    assert!(world.refused("fox", &["task", "ls"], 6).contains("was revoked"));
    world.good("mouse", &["operator", "revoke", &world.certificate("mouse").0]);
    assert!(world.refused("mouse", &["task", "ls"], 6).contains("was revoked"));
}

#[test]
fn the_last_admin_is_not_revoked_by_mistake() {
    let world = World::new();
    world.add("home", "owl", "admin");
    world.add("home", "bat", "viewer");
    let (own, _) = world.certificate("operator");
    world.good("home", &["operator", "revoke", &world.certificate("owl").0]);
    let said = world.refused("home", &["operator", "revoke", &own], 6);
    assert!(said.contains("the last certificate of an admin") && said.contains("operator rotate"), "{said}");
    // To replace it is no mistake.
    world.good("home", &["operator", "rotate"]);
    assert_ne!(world.certificate("operator").0, own);
}

#[test]
fn what_was_changed_is_written_down_and_a_log_that_was_touched_does_not_hold() {
    let mut world = World::new();
    world.add("home", "bat", "viewer");
    let token = world.good("home", &["device", "token", "--label", "anna\u{1b}[2J"]);
    world.refused("bat", &["device", "token", "--label", "phone"], 6);
    world.refused("home", &["device", "revoke", &"ab".repeat(16)], 6);
    let tail = world.good("home", &["audit", "tail", "-n", "100"]);
    for part in [
        "operator operator (admin): add operator name=bat",
        r"operator operator (admin): issue token label=anna\u{1b}[2J lifetime_secs=",
        "operator bat (viewer): issue token label=phone",
        ": refused: role",
        ": refused of 9: unacceptable",
    ] {
        assert!(tail.contains(part), "{part}: {tail}");
    }
    assert!(!tail.contains(token.trim()), "a token is a secret");
    assert_eq!(world.good("home", &["audit", "tail", "-n", "2"]).lines().count(), 2);
    let json = world.good("home", &["audit", "tail", "-n", "1", "--format", "json"]);
    let json = serde_json::from_str::<Value>(&json).unwrap();
    assert_eq!(json["schema"], "nightshift.audit-entry/1");
    let last = json["entry"]["n"].as_u64().unwrap();
    assert_eq!(last, tail.lines().count() as u64, "{tail}");

    let said = world.good("home", &["audit", "verify"]);
    assert!(said.contains(&format!("holds: entries 1 to {last}")) && said.contains("1 head, of"), "{said}");
    let seen = world.path("home").join("audit.head");
    assert!(seen.exists());
    let log = log_folder(&world);
    world.good("home", &["audit", "verify", text(&log)]);
    // Somebody who kept nothing believes the folder, and is told so.
    let output = world.run("nobody", &["audit", "verify", text(&log)]);
    assert!(
        output.status.success() && errors(&output).contains("its folder was believed"),
        "{}",
        errors(&output)
    );
    world.good("nobody", &["audit", "verify", text(&log), "--head", text(&seen)]);

    // A crash loses nothing of it.
    kill(&mut world);
    world.start(&[]);
    let said = world.good("home", &["audit", "verify"]);
    assert!(said.contains("2 heads"), "{said}");

    kill(&mut world);
    let whole = fs::read_to_string(log_file(&world)).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for (touched, words) in [
        (whole.replacen("phone", "phony", 1), "is not signed by the key"),
        (lines[1..].concat(), "the log begins with entry 2"),
        ([&lines[..2], &lines[3..]].concat().concat(), "entry 3 is expected, and entry 4 is there"),
        (lines[..lines.len() - 1].concat(), "the end is missing"),
    ] {
        fs::write(log_file(&world), touched).unwrap();
        let said = world.refused("home", &["audit", "verify", text(&log)], 4);
        assert!(said.contains(words), "{words}: {said}");
    }
    // The last of them is what a restore from a backup leaves, and the coordinator says so itself.
    world.start(&[]);
    let tail = world.good("home", &["audit", "tail"]);
    assert!(tail.contains("coordinator: found a later head"), "{tail}");
    let output = world.run("home", &["audit", "verify"]);
    let (said, printed) = (errors(&output), String::from_utf8(output.stdout).unwrap());
    assert_eq!((output.status.code(), printed.as_str()), (Some(4), ""), "nothing of it holds");
    assert!(said.contains("does not hold") || said.contains("says itself"), "{said}");

    // Changed within, it is not gone on with.
    kill(&mut world);
    fs::write(log_file(&world), whole.replacen("phone", "phony", 1)).unwrap();
    let output = world.run("home", &["up"]);
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
    assert!(errors(&output).contains("move the folder away"), "{}", errors(&output));
}

#[test]
fn a_log_that_was_emptied_does_not_hold_and_its_entries_follow_one_another_in_time() {
    let mut world = World::new();
    world.add("home", "bat", "viewer");
    let times = |world: &World| {
        let tail = world.good("home", &["audit", "tail", "-n", "100", "--format", "json"]);
        let entries = tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        entries.map(|line| line["entry"]["at_unix_millis"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let first = times(&world);
    assert!(first.is_sorted(), "{first:?}");
    world.good("home", &["audit", "verify"]);

    kill(&mut world);
    let folder = log_folder(&world);
    fs::remove_file(log_file(&world)).unwrap();
    let said = world.refused("home", &["audit", "verify", text(&folder)], 4);
    assert!(said.contains("the log has no entry, but a head that was kept elsewhere is of entry"), "{said}");
    let said = world.refused("nobody", &["audit", "verify", text(&folder)], 3);
    assert!(said.contains("holds no file of an audit log"), "{said}");

    world.start(&[]);
    let since = times(&world);
    assert!(since.is_sorted() && since.first() >= first.last(), "{first:?} {since:?}");
    let output = world.run("home", &["audit", "verify"]);
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(4), b"".as_slice()),
        "{}",
        errors(&output)
    );
    assert!(errors(&output).contains("were taken away, or lost"), "{}", errors(&output));
    assert!(world.good("home", &["audit", "tail"]).contains("found a later head"));
}
