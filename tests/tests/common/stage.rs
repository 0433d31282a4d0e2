//! A coordinator and agents as processes, over TLS on loopback: what every test that starts them needs.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Lines};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

const NIGHTSHIFT: &str = env!("CARGO_BIN_EXE_nightshift-under-test");
const AGENT: &str = env!("CARGO_BIN_EXE_agent-under-test");

/// Limits of a device that takes part in rounds of four, of which three must survive.
pub(crate) const POLICY: &str =
    "[policy]\nsmallest_cohort = 3\nsmallest_report_goal = 3\nsmallest_corrupt = 0\n";

/// Held while a process starts: until it runs its own program it has all files of this one open, locks with them.
pub(crate) static STARTING: Mutex<()> = Mutex::new(());

/// Starts a process.
pub(crate) fn start(command: &mut Command) -> Child {
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// Runs a process to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).wait_with_output().unwrap()
}

/// A process that does not outlive the test, and what it prints, kept open so that it can go on printing.
pub(crate) struct Running(
    pub(crate) Child,
    #[expect(dead_code, reason = "held open")] Option<Lines<BufReader<ChildStdout>>>,
);

impl Running {
    /// A process that prints nothing that anybody reads.
    pub(crate) fn quiet(child: Child) -> Self {
        Self(child, None)
    }
}

impl Drop for Running {
    /// Ends the process by SIGKILL, and returns when it is gone.
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A folder with a base, a coordinator's folder, and as many devices as are enrolled.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    pub(crate) ports: (u16, u16),
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a command that must succeed has printed.
pub(crate) fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{:?}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

impl Stage {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        sim::demo::write_base(&folder.path().join("base")).unwrap();
        let stage = Self { folder, ports: (free_port(), free_port()) };
        stage.configure(&format!("{POLICY}allow_without_noise = true\n"));
        stage
    }

    /// Gives all agents another configuration.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.path("agent.toml"), config).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where a process logs to, at the end of what is there.
    pub(crate) fn log(&self, name: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap()
    }

    /// Starts the coordinator and returns when it listens.
    pub(crate) fn coordinator(&self) -> Running {
        self.coordinator_by(self.nightshift())
    }

    /// The same, by a command that is the operator's program in the end.
    pub(crate) fn coordinator_by(&self, mut command: Command) -> Running {
        command.args(["up", "--listen", &format!("127.0.0.1:{}", self.ports.0)]);
        command.args(["--admin-listen", &format!("127.0.0.1:{}", self.ports.1)]);
        let mut child = start(command.stdout(Stdio::piped()).stderr(self.log("coordinator")));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next() {
            if line.unwrap().contains("the coordinator runs") {
                return Running(child, Some(lines));
            }
        }
        let status = child.wait().unwrap();
        let log = fs::read_to_string(self.path("coordinator.log")).unwrap();
        panic!("the coordinator ended before it listened: {status}\n{log}");
    }

    /// The operator's program.
    pub(crate) fn nightshift(&self) -> Command {
        let mut command = Command::new(NIGHTSHIFT);
        command.arg("--dir").arg(self.path("home"));
        command
    }

    pub(crate) fn operator(&self, args: &[&str]) -> String {
        text(&output(self.nightshift().args(args)))
    }

    pub(crate) fn agent(&self, device: &str) -> Command {
        let mut command = Command::new(AGENT);
        command.arg("--config").arg(self.path("agent.toml")).arg("--state-dir").arg(self.path(device));
        let named = fs::read_to_string(self.path("agent.toml")).unwrap().starts_with("base = ");
        if !named {
            command.arg("--base").arg(self.path("base"));
        }
        command
    }

    /// Enrols a device whose user wrote these lines.
    pub(crate) fn enroll(&self, device: &str, lines: &[String]) {
        let token = self.operator(&["device", "token", "--label", device]);
        let enrolled = output(self.agent(device).args(["enroll", "--token", &token]));
        assert!(text(&enrolled).starts_with("enrolled as "));
        let mut file = String::new();
        for line in lines {
            writeln!(file, "{}", serde_json::json!({ "text": line })).unwrap();
        }
        fs::write(self.path(&format!("{device}.jsonl")), file).unwrap();
    }

    pub(crate) fn run(&self, device: &str, more: &[&str]) -> Running {
        let mut command = self.agent(device);
        command.arg("--data").arg(self.path(&format!("{device}.jsonl")));
        command.args(["run", "--override-conditions"]).args(more);
        Running::quiet(start(command.stdout(Stdio::null()).stderr(self.log(device))))
    }

    pub(crate) fn create_task(&self, more: &[&str]) -> String {
        let base = self.path("base");
        let mut args = vec!["task", "create", "--name", "owl", "--base", base.to_str().unwrap()];
        args.extend(["--cohort", "4", "--report-goal", "3"]);
        args.extend(more);
        self.operator(&args)
    }

    pub(crate) fn task(&self) -> serde_json::Value {
        serde_json::from_str(&self.operator(&["task", "show", "owl", "--format", "json"])).unwrap()
    }
}

/// Four lines, of which three are trained on, short enough for one block: the batches of a training are then
/// the same whatever its seed is, and its update can be computed here.
pub(crate) fn short_lines(device: usize) -> Vec<String> {
    let words = ["bread", "boats", "roses", "violins", "planets"];
    (0..4).map(|line| format!("gonna bring {} {} later", words[device % 5], words[line])).collect()
}
