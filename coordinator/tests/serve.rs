//! `nightshift-coordinator` as a system runs it: exit codes and messages of a start that fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

#[test]
fn a_second_coordinator_on_the_same_store_is_refused_with_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let configure = |name: &str| -> PathBuf {
        let config = folder.path().join(name);
        let text = format!(
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n",
            folder.path().to_str().unwrap()
        );
        fs::write(&config, text).unwrap();
        config
    };
    let _first = Running::start(&configure("coordinator.toml"));
    // The same folder under another configuration: the ports do not collide, the store does.
    let second = run(coordinator(&configure("second.toml")));
    assert_eq!(second.status.code(), Some(4), "{}", stderr(&second));
    assert!(stderr(&second).contains(folder.path().join("store").to_str().unwrap()));
    assert!(stderr(&second).contains("in use"));
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = folder.path().join("coordinator.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"{address}\"\nstate_dir = {:?}\n",
        folder.path().join("state").to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let output = run(coordinator(&config));
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains(&format!("{address} is in use")), "{}", stderr(&output));
    assert!(stderr(&output).contains("`admin_listen`"));
    assert!(!folder.path().join("state").exists());
}

#[test]
fn a_wrong_configuration_is_an_input_error() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("coordinator.toml");
    fs::write(&config, "listem = 1").unwrap();
    let output = run(coordinator(&config));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("listem"));
    assert_eq!(run(Command::new(env!("CARGO_BIN_EXE_nightshift-coordinator"))).status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn a_server_whose_stderr_nobody_reads_any_more_stops_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("coordinator.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\ndrain_secs = 0\n",
        folder.path().join("state").to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let mut server = Running::start(&config);
    drop(server.stderr.take());
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// A coordinator that serves, killed when dropped.
struct Running {
    child: Child,
    stderr: Option<Lines<BufReader<ChildStderr>>>,
}

impl Running {
    /// Starts it and waits until it holds its store.
    fn start(config: &Path) -> Self {
        let mut child = coordinator(config).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("for operators")), "it did not start");
        Self { child, stderr: Some(lines) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn coordinator(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-coordinator"));
    command.arg("--config").arg(config);
    command
}

fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn logs_for_programs_are_objects_with_fields_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("coordinator.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\nlog_format = \"json\"\nstate_dir \
         = {:?}\n",
        folder.path().to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let mut child = coordinator(&config).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut messages = Vec::new();
    while messages.last().map(String::as_str) != Some("serving") {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(
            line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string(),
            "{line}"
        );
        messages.push(line["fields"]["message"].as_str().unwrap().to_owned());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for what in ["for devices", "for operators", "for whoever asks for metrics"] {
        assert!(
            messages.iter().any(|message| message.starts_with("listening on") && message.ends_with(what)),
            "{what}"
        );
    }
}
