//! A coordinator's stage, and an authority beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::stage::{Running, Stage, output, start, text};

pub(crate) const AUTHORITY: &str = env!("CARGO_BIN_EXE_authority-under-test");

/// A coordinator's stage, and an authority beside it.
pub(crate) struct World {
    pub(crate) stage: Stage,
}

impl World {
    /// An authority that was made and never ran, and a coordinator that has no configuration yet.
    pub(crate) fn new() -> Self {
        let stage = Stage::new();
        let world = Self { stage };
        world.configure_authority("authority", "127.0.0.1:0");
        text(&output(&mut world.authority_command("authority", &["init"])));
        world
    }

    pub(crate) fn configure_authority(&self, name: &str, listen: &str) {
        let folder = self.stage.path(name);
        // Beside what the test says.
        let more = fs::read_to_string(self.stage.path(&format!("{name}-more.toml"))).unwrap_or_default();
        let config = format!("listen = '{listen}'\nstate_dir = '{}'\n{more}", folder.display());
        fs::write(self.stage.path(&format!("{name}.toml")), config).unwrap();
    }

    pub(crate) fn authority_command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(AUTHORITY);
        command.arg("--config").arg(self.stage.path(&format!("{name}.toml"))).args(args);
        command
    }

    /// Starts an authority, and returns when it answers. It keeps the port that it had.
    pub(crate) fn start_authority(&self, name: &str) -> Running {
        if let Ok(kept) = fs::read_to_string(self.stage.path(name).join("authority.address")) {
            self.configure_authority(name, kept.trim());
        }
        let log = fs::File::create(self.stage.path(&format!("{name}.log"))).unwrap();
        let mut command = self.authority_command(name, &["serve"]);
        let running = Running::quiet(start(command.stdout(Stdio::null()).stderr(log)));
        self.until(|| output(&mut self.authority_command(name, &["device", "ls"])).status.success());
        running
    }

    pub(crate) fn until(&self, mut is_so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is_so() {
            let logs = ["authority", "coordinator"]
                .map(|name| fs::read_to_string(self.stage.path(&format!("{name}.log"))).unwrap_or_default());
            assert!(began.elapsed() < Duration::from_secs(60), "it never was so\n{}\n{}", logs[0], logs[1]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes the file of a coordinator, and a coordinator's configuration that names it.
    pub(crate) fn give_file(&self, name: &str) -> PathBuf {
        let file = self.stage.path(&format!("{name}-file.toml"));
        let out = file.to_str().unwrap();
        text(&output(&mut self.authority_command(name, &["coordinator-file", "--out", out])));
        self.configure_coordinator(&file);
        file
    }

    pub(crate) fn configure_coordinator(&self, file: &Path) {
        let home = self.stage.path("home");
        fs::create_dir_all(&home).unwrap();
        let config = format!(
            "listen = '127.0.0.1:{}'\nadmin_listen = '127.0.0.1:{}'\nstate_dir = '{}'\n[authority]\nfile = '{}'\n",
            self.stage.ports.0,
            self.stage.ports.1,
            home.display(),
            file.display()
        );
        fs::write(home.join("coordinator.toml"), config).unwrap();
    }

    /// A token, once the coordinator has said where it is found.
    pub(crate) fn token(&self, label: &str) -> String {
        let args = ["token", "--label", label, "--expires-in", "1h"];
        let mut made = None;
        self.until(|| {
            let answer = output(&mut self.authority_command("authority", &args));
            made = answer.status.success().then(|| text(&answer));
            made.is_some()
        });
        made.unwrap()
    }

    pub(crate) fn enroll(&self, device: &str, token: &str) -> std::process::Output {
        output(self.stage.agent(device).args(["enroll", "--token", token]))
    }

    pub(crate) fn devices(&self) -> Vec<serde_json::Value> {
        let listed =
            text(&output(&mut self.authority_command("authority", &["device", "ls", "--format", "json"])));
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        listed["devices"].as_array().unwrap().clone()
    }

    pub(crate) fn coordinator_devices(&self) -> Vec<serde_json::Value> {
        let listed = self.stage.operator(&["device", "ls", "--format", "json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        listed["devices"].as_array().unwrap().clone()
    }

    pub(crate) fn refused_to_start(&self) -> String {
        let mut command = self.stage.nightshift();
        command.arg("up");
        let answer = output(&mut command);
        assert_eq!(answer.status.code(), Some(3), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stderr).unwrap()
    }
}

pub(crate) fn said(answer: &std::process::Output) -> String {
    assert!(!answer.status.success(), "{}", String::from_utf8_lossy(&answer.stdout));
    String::from_utf8_lossy(&answer.stderr).into_owned()
}

pub(crate) fn device(enrolled: &str) -> String {
    enrolled.strip_prefix("enrolled as ").unwrap().split(',').next().unwrap().to_owned()
}
