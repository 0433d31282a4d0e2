//! A coordinator as `nightshift up` runs it, and operators' programs.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// `nightshift up` in `home` of a folder, killed when dropped.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) up: Option<Child>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self { folder: tempfile::tempdir().unwrap(), up: None };
        world.start(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        world
    }

    pub(crate) fn start(&mut self, more: &[&str]) {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn nightshift(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--dir").arg(self.path(who)).args(arguments);
        command
    }

    pub(crate) fn run(&self, who: &str, arguments: &[&str]) -> Output {
        self.nightshift(who, arguments).output().unwrap()
    }

    pub(crate) fn good(&self, who: &str, arguments: &[&str]) -> String {
        let output = self.run(who, arguments);
        assert!(output.status.success(), "{who} {arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is said where it is refused with this exit code.
    pub(crate) fn refused(&self, who: &str, arguments: &[&str], code: i32) -> String {
        let output = self.run(who, arguments);
        assert_eq!(output.status.code(), Some(code), "{who} {arguments:?}: {}", errors(&output));
        errors(&output)
    }

    pub(crate) fn add(&self, by: &str, name: &str, role: &str) {
        let out = self.path(name);
        let said = self.good(by, &["operator", "add", name, "--role", role, "--out", out.to_str().unwrap()]);
        assert!(said.contains(&format!("`{name}`, who is {role}")), "{said}");
    }

    pub(crate) fn operators(&self) -> Vec<Value> {
        let listed = self.good("home", &["operator", "ls", "--format", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        listed["operators"].as_array().unwrap().clone()
    }

    /// The good certificate of this name, and its role.
    pub(crate) fn certificate(&self, name: &str) -> (String, String) {
        let all = self.operators();
        let good: Vec<_> = all.iter().filter(|one| one["name"] == name && one["revoked"] == false).collect();
        assert_eq!(good.len(), 1, "{name}: {all:?}");
        (good[0]["serial"].as_str().unwrap().to_owned(), good[0]["role"].as_str().unwrap().to_owned())
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

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
