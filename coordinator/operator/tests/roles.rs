//! Who may do what at a coordinator, and what is written down of it, by the programs as operators run them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// `nightshift up` in `home` of a folder, killed when dropped.
struct World {
    folder: tempfile::TempDir,
    up: Option<Child>,
}

impl World {
    fn new() -> Self {
        let mut world = Self { folder: tempfile::tempdir().unwrap(), up: None };
        world.start(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        world
    }

    fn start(&mut self, more: &[&str]) {
        let mut command = self.nightshift("home", &["up", "--format", "json"]);
        let mut child = command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut text) = (BufReader::new(child.stdout.take().unwrap()), String::new());
        while !text.ends_with("}\n") {
            if out.read_line(&mut text).unwrap() == 0 {
                let mut errors = String::new();
                child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
                panic!("nightshift up did not start: {errors}");
            }
        }
        self.up = Some(child);
    }

    /// As a crash ends it.
    fn kill(&mut self) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn nightshift(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--dir").arg(self.path(who)).args(arguments);
        command
    }

    fn run(&self, who: &str, arguments: &[&str]) -> Output {
        self.nightshift(who, arguments).output().unwrap()
    }

    fn good(&self, who: &str, arguments: &[&str]) -> String {
        let output = self.run(who, arguments);
        assert!(output.status.success(), "{who} {arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is said where it is refused with this exit code.
    fn refused(&self, who: &str, arguments: &[&str], code: i32) -> String {
        let output = self.run(who, arguments);
        assert_eq!(output.status.code(), Some(code), "{who} {arguments:?}: {}", errors(&output));
        errors(&output)
    }

    fn add(&self, by: &str, name: &str, role: &str) {
        let out = self.path(name);
        let said = self.good(by, &["operator", "add", name, "--role", role, "--out", out.to_str().unwrap()]);
        assert!(said.contains(&format!("`{name}`, who is {role}")), "{said}");
    }

    fn operators(&self) -> Vec<Value> {
        let listed = self.good("home", &["operator", "ls", "--format", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        listed["operators"].as_array().unwrap().clone()
    }

    /// The good certificate of this name, and its role.
    fn certificate(&self, name: &str) -> (String, String) {
        let all = self.operators();
        let good: Vec<_> = all.iter().filter(|one| one["name"] == name && one["revoked"] == false).collect();
        assert_eq!(good.len(), 1, "{name}: {all:?}");
        (good[0]["serial"].as_str().unwrap().to_owned(), good[0]["role"].as_str().unwrap().to_owned())
    }

    fn log_folder(&self) -> PathBuf {
        self.path("home").join("audit")
    }

    fn log_file(&self) -> PathBuf {
        let names = fs::read_dir(self.log_folder()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(up) = &mut self.up {
            drop(up.kill());
            drop(up.wait());
        }
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
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
    assert!(!out.join("operator.pem").exists(), "nothing is left of what was refused");
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
    assert!(!world.run("fox", &["task", "ls"]).status.success());
    world.good("mouse", &["operator", "revoke", &world.certificate("mouse").0]);
    assert!(!world.run("mouse", &["task", "ls"]).status.success());
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
    let last = serde_json::from_str::<Value>(&json).unwrap()["entry"]["n"].as_u64().unwrap();
    assert_eq!(last, tail.lines().count() as u64, "{tail}");

    let said = world.good("home", &["audit", "verify"]);
    assert!(said.contains(&format!("holds: entries 1 to {last}")) && said.contains("1 heads"), "{said}");
    let seen = world.path("home").join("audit.head");
    assert!(seen.exists());
    let log = world.log_folder();
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
    world.kill();
    world.start(&[]);
    let said = world.good("home", &["audit", "verify"]);
    assert!(said.contains("2 heads"), "{said}");

    world.kill();
    let whole = fs::read_to_string(world.log_file()).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for (touched, words) in [
        (whole.replacen("phone", "phony", 1), "is not signed by the key"),
        (lines[1..].concat(), "the log begins with entry 2"),
        ([&lines[..2], &lines[3..]].concat().concat(), "entry 3 is expected, and entry 4 is there"),
        (lines[..lines.len() - 1].concat(), "the end is missing"),
    ] {
        fs::write(world.log_file(), touched).unwrap();
        let said = world.refused("home", &["audit", "verify", text(&log)], 4);
        assert!(said.contains(words), "{words}: {said}");
    }
    // The last of them is what a restore from a backup leaves, and the coordinator says so itself.
    world.start(&[]);
    let tail = world.good("home", &["audit", "tail"]);
    assert!(tail.contains("coordinator: found a later head"), "{tail}");
    let said = world.refused("home", &["audit", "verify"], 4);
    assert!(said.contains("does not hold") || said.contains("says itself"), "{said}");

    // Changed within, it is not gone on with.
    world.kill();
    fs::write(world.log_file(), whole.replacen("phone", "phony", 1)).unwrap();
    let output = world.run("home", &["up"]);
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
    assert!(errors(&output).contains("move the folder away"), "{}", errors(&output));
}
