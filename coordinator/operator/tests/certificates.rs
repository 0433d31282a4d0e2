//! What a certificate gets that is revoked, has ended, or is another coordinator's; and how one is exchanged for another.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "processes are waited for, and time passes between them")]

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nightshift_operator::coordinator::driver::now;
use nightshift_operator::coordinator::pki::{Authority, Validity};
use proto::role::Role;
use ring::rand::SystemRandom;
use world::{World, errors};

#[path = "common/world.rs"]
mod world;

const HOUR: u64 = 3600;

/// Commands that ask the coordinator, one of each kind.
const ASK: [&[&str]; 20] = [
    &["task", "ls"],
    &["task", "show", "owl"],
    &["task", "stop", "owl"],
    &["task", "resume", "owl"],
    &["task", "watch", "owl"],
    &["device", "ls"],
    &["device", "show", "anna"],
    &["device", "revoke", "anna"],
    &["device", "token", "--label", "anna"],
    &["token", "ls"],
    &["token", "revoke", "anna"],
    &["privacy", "spent", "owl"],
    &["model", "ls", "--task", "owl"],
    &["model", "rollback", "owl", "1"],
    &["dashboard"],
    &["operator", "ls"],
    &["operator", "rotate"],
    &["audit", "tail", "--follow"],
    &["audit", "verify"],
    &["health"],
];

/// The next one.
fn hour() -> Validity {
    let now = now().as_secs();
    Validity { not_before_unix_secs: now - HOUR, not_after_unix_secs: now + HOUR }
}

fn assert_not_taken(world: &World, who: &str) {
    for command in ASK {
        let begun = Instant::now();
        let said = world.refused(who, command, 6);
        assert!(said.contains("does not take this operator's certificate"), "{command:?}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{command:?}");
    }
    let examined = world.run(who, &["doctor"]);
    let text = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert_eq!((examined.status.code(), text.contains("does not take this")), (Some(3), true), "{text}");
}

#[test]
fn whoever_is_revoked_is_refused_in_words_by_every_command() {
    let world = World::new();
    world.add("home", "bat", "admin");
    let serial = world.certificate("bat").0;
    assert_eq!(world.good("home", &["operator", "revoke", &serial]), format!("revoked {serial}\n"));
    assert_not_taken(&world, "bat");
    let again = world.good("home", &["operator", "revoke", &serial]);
    assert_eq!(again, format!("{serial} was revoked already\n"));
}

#[test]
fn a_certificate_that_has_ended_is_refused_in_words_by_every_command() {
    let world = World::new();
    let now = now().as_secs();
    let validity = Validity { not_before_unix_secs: now - 2 * HOUR, not_after_unix_secs: now - HOUR };
    let authority = Authority::open_or_create(&world.path("home"), validity).unwrap();
    let name = "bat".parse().unwrap();
    let late = authority.issue_admin((&name, Role::Admin), validity, &SystemRandom::new()).unwrap();
    let folder = world.path("late");
    late.save(&folder, "operator").unwrap();
    fs::copy(world.path("home").join("admin.address"), folder.join("admin.address")).unwrap();
    assert_not_taken(&world, "late");
}

#[test]
fn another_coordinator_is_not_the_one_of_the_folder_and_not_every_certificate_is_an_operator_s() {
    let (world, other) = (World::new(), World::new());
    world.add("home", "bat", "viewer");
    let address = |world: &World, who: &str| world.path(who).join("admin.address");
    fs::copy(address(&other, "home"), address(&world, "bat")).unwrap();
    let said = world.refused("bat", &["task", "ls"], 5);
    assert!(said.contains("is not the coordinator of this folder"), "{said}");
    assert!(!said.contains("is the coordinator running?"), "{said}");

    let authority = Authority::open_or_create(&world.path("home"), hour()).unwrap();
    let server = authority.issue_server(&[], hour(), &SystemRandom::new()).unwrap();
    server.save(&world.path("bat"), "operator").unwrap();
    let said = world.refused("bat", &["task", "ls"], 3);
    assert!(said.contains("operator.pem is no operator's certificate"), "{said}");
}

#[test]
fn rotations_in_one_folder_follow_one_another() {
    let world = World::new();
    let mut rotations: Vec<_> = (0..4)
        .map(|_| {
            let mut command = world.nightshift("home", &["operator", "rotate"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for rotation in &mut rotations {
        assert!(rotation.wait().unwrap().success());
    }
    // One that is good, which is the folder's.
    let serial = world.certificate("operator").0;
    let listed = world.good("home", &["operator", "ls"]);
    assert!(
        listed.lines().any(|line| line.starts_with(&serial) && line.contains("in this folder")),
        "{listed}"
    );
    assert_eq!(world.operators().len(), 5);
}

#[test]
fn whenever_a_rotation_is_killed_the_folder_operates() {
    let world = World::new();
    world.add("home", "bat", "viewer");
    for millis in 0..25 {
        let mut command = world.nightshift("bat", &["operator", "rotate"]);
        let mut rotation = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(millis * 2));
        drop(rotation.kill());
        rotation.wait().unwrap();
        world.good("bat", &["task", "ls"]);
    }
    world.good("bat", &["operator", "rotate"]);
    assert!(!world.path("bat").join("operator.next").exists());
}

#[test]
fn a_page_s_port_that_is_taken_is_a_port_in_use() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = world.refused("home", &["dashboard", "--port", &port], 5);
    assert!(said.contains("choose another `--port`"), "{said}");
}

#[test]
fn a_token_says_how_it_is_taken_back_and_a_label_is_something() {
    let world = World::new();
    let issued = world.run("home", &["device", "token", "--label", "anna"]);
    let told = errors(&issued);
    let id = told.split_once("`nightshift token revoke ").unwrap().1.split_once('`').unwrap().0.to_owned();
    assert_eq!(String::from_utf8(issued.stdout).unwrap().lines().count(), 1, "the token alone");
    assert_eq!(world.good("home", &["token", "revoke", &id]), format!("revoked {id}\n"));
    assert_eq!(world.good("home", &["token", "revoke", &id]), format!("{id} was revoked already\n"));
    for label in ["", "  "] {
        let said = world.refused("home", &["device", "token", "--label", label], 2);
        assert!(said.contains("cannot be empty"), "{said}");
    }
}
