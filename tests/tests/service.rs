//! What a device's agent tells the service manager that starts it; a socket of the test's own stands in for one.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use stage::{Running, Stage, output, short_lines, start};

#[path = "common/stage.rs"]
#[expect(dead_code, reason = "this suite has no task")]
mod stage;

fn hears(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn an_agent_is_ready_once_it_is_enrolled_and_lives_until_it_is_told_to_stop() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    let socket = stage.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let agent = || {
        let mut command = stage.agent("anna");
        command.arg("--data").arg(stage.path("anna.jsonl")).arg("run");
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "100000");
        command
    };

    fs::write(stage.path("anna.jsonl"), "{\"text\":\"hello\"}\n").unwrap();
    let stranger = output(&mut agent());
    assert_eq!(stranger.status.code(), Some(5), "{}", String::from_utf8_lossy(&stranger.stderr));
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 16]).is_err(), "a device that is not enrolled is not ready");
    manager.set_nonblocking(false).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();

    stage.enroll("anna", &short_lines(0));
    let mut running = Running::quiet(start(agent().stdout(Stdio::null()).stderr(Stdio::null())));
    let ready = hears(&manager);
    assert!(ready.starts_with("READY=1\nSTATUS=takes part as "), "{ready}");
    assert_eq!(hears(&manager), "WATCHDOG=1");
    let id = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    while !hears(&manager).starts_with("STOPPING=1") {}
    assert!(running.0.wait().unwrap().success());
}
