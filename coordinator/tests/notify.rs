//! What `nightshift-coordinator` tells the service manager that starts it; a socket of the test's own stands in for one.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn hears(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn it_is_ready_when_its_ports_are_bound_lives_while_it_serves_and_stops_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let config = folder.path().join("coordinator.toml");
    let state = folder.path().join("state");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n",
        state.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-coordinator"));
    command.arg("--config").arg(&config).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "100000");
    let mut coordinator = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());

    let ready = hears(&manager);
    let says = ready.strip_prefix("READY=1\nSTATUS=listens on ").unwrap();
    let (devices, _) = says.split_once(" for devices").unwrap();
    TcpStream::connect(devices).unwrap();
    assert_eq!(hears(&manager), "WATCHDOG=1");
    assert_eq!(hears(&manager), "WATCHDOG=1");

    let id = coordinator.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    while !hears(&manager).starts_with("STOPPING=1") {}
    assert!(coordinator.0.wait().unwrap().success());
}

#[test]
fn a_manager_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("coordinator.toml");
    let state = folder.path().join("state");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n",
        state.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-coordinator"));
    let output = command.arg("--config").arg(&config).env("NOTIFY_SOCKET", "elsewhere").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("NOTIFY_SOCKET") && said.contains("elsewhere"), "{said}");
}
