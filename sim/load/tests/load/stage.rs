//! A coordinator of a test's own, its tokens, and the program.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use coordinator::config::Config;
use coordinator::driver::Driver;
use coordinator::pki::Identity;
use coordinator::server::{ADMIN_ADDRESS_FILE, Coordinator, Listeners, OPERATOR, ServerError};
use nightshift_load::report::Report;
use operator::client::AdminClient;
use proto::admin::{AdminReply, AdminRequest, TaskState, TaskStatus};
use proto::ids::TaskId;
use proto::plan::{Mode, Plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The longest that a test waits for anything.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A coordinator and a folder.
pub(crate) struct Stage {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) device: SocketAddr,
    metrics: SocketAddr,
    pub(crate) driver: Driver,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServerError>>,
    config: Config,
}

async fn listener(at: Option<SocketAddr>) -> TcpListener {
    let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    // Connections of the one before may still be closing.
    let mut tries = 0;
    loop {
        match TcpListener::bind(at).await {
            Ok(listener) => return listener,
            Err(error) => assert!(tries < 100, "{error}"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::of(|_| {}).await
    }

    /// With another configuration.
    pub(crate) async fn of(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config =
            Config { state_dir: folder.path().join("state"), drain_secs: 1, ..Config::default() };
        change(&mut config);
        Self::start(folder, config, None).await
    }

    async fn start(folder: tempfile::TempDir, config: Config, at: Option<SocketAddr>) -> Self {
        let listeners = Listeners { device: listener(at).await, admin: listener(None).await };
        let observed = listener(None).await;
        let metrics = observed.local_addr().unwrap();
        let coordinator = Coordinator::open(config.clone(), listeners).unwrap().observed(Some(observed));
        let ((device, _), stop) = (coordinator.addresses(), CancellationToken::new());
        let driver = coordinator.driver();
        let served = tokio::spawn(coordinator.serve(stop.clone()));
        Self { folder, device, metrics, driver, stop, served, config }
    }

    /// It ends, is away for a moment, and comes back where it was.
    pub(crate) async fn again(self, away: Duration) -> Self {
        let Self { folder, device, metrics: _, driver, stop, served, config } = self;
        stop.cancel();
        timeout(LONG, served).await.unwrap().unwrap().unwrap();
        drop(driver);
        tokio::time::sleep(away).await;
        Self::start(folder, config, Some(device)).await
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn call(&self, request: AdminRequest) -> AdminReply {
        let state = self.path("state");
        let address = fs::read_to_string(state.join(ADMIN_ADDRESS_FILE)).unwrap();
        let identity = Identity::load(&state, OPERATOR).unwrap();
        let mut client = AdminClient::connect(address.trim(), &identity).await.unwrap();
        client.call(request).await.unwrap()
    }

    /// A file of so many tokens.
    pub(crate) async fn tokens(&self, name: &str, count: usize) -> PathBuf {
        let mut text = "# tokens of a test\n".to_owned();
        for number in 0..count {
            let request = AdminRequest::IssueToken { label: format!("load {number}"), lifetime_secs: 3600 };
            let AdminReply::Token(token) = self.call(request).await else { panic!("no token") };
            text.push_str(&token);
            text.push('\n');
        }
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A task without noise, for a cohort of all of so many devices.
    pub(crate) async fn task(&self, devices: u32, versions: u32) -> TaskId {
        self.task_of_rounds((1, devices), versions).await
    }

    /// The same, where each version takes so many rounds of so many devices.
    pub(crate) async fn task_of_rounds(&self, (rounds, devices): (u32, u32), versions: u32) -> TaskId {
        let mut plan = Plan::example();
        plan.privacy.mode = Mode::Off;
        plan.privacy.participations = 1000;
        plan.round.versions = versions;
        plan.round.cohort = devices;
        // Of all of them, so that what comes of each is known.
        plan.round.report_goal = devices;
        (plan.round.rounds, plan.round.min_rounds) = (rounds, rounds);
        (plan.round.join_millis, plan.round.step_millis) = (30_000, 30_000);
        self.driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task
    }

    pub(crate) async fn show(&self, task: TaskId) -> TaskStatus {
        let AdminReply::Task(status) = self.call(AdminRequest::ShowTask(task)).await else {
            panic!("no task")
        };
        status
    }

    pub(crate) async fn until_version(&self, task: TaskId, version: u32) {
        let there = async {
            while self.show(task).await.version < version {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LONG, there).await.unwrap();
    }

    pub(crate) async fn until_complete(&self, task: TaskId) -> TaskStatus {
        let there = async {
            loop {
                let status = self.show(task).await;
                if status.state == TaskState::Complete {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LONG, there).await.unwrap()
    }

    async fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(self.metrics).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", self.metrics);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Bytes of messages of devices that the coordinator read.
    pub(crate) async fn received(&self) -> u64 {
        let text = self.scrape().await;
        let count = "nightshift_received_bytes_total{listener=\"devices\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(count));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }

    /// Seconds that the steps of all rounds took.
    pub(crate) async fn steps(&self) -> BTreeMap<String, f64> {
        let text = self.scrape().await;
        let of = |line: &str| {
            let rest = line.strip_prefix("nightshift_round_step_seconds_sum{step=\"")?;
            let (step, secs) = rest.split_once("\"} ")?;
            Some((step.to_owned(), secs.parse().unwrap()))
        };
        text.lines().filter_map(of).collect()
    }

    /// Questions of devices that the coordinator answered, by what they were and by the answer.
    pub(crate) async fn answered(&self) -> Answered {
        let text = self.scrape().await;
        let mut answered = BTreeMap::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("nightshift_device_requests_total{") else { continue };
            let (labels, value) = rest.split_once("} ").unwrap();
            let label = |name: &str| {
                let value = labels.split(&format!("{name}=\"")).nth(1).unwrap();
                value.split('"').next().unwrap().to_owned()
            };
            answered.insert((label("request"), label("answer")), value.parse().unwrap());
        }
        answered.retain(|_, count| *count > 0);
        answered
    }

    /// The program with these options, against this coordinator, with a report of this name.
    pub(crate) fn command(&self, options: &str, report: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim-load"));
        command.arg("--coordinator").arg(self.device.to_string());
        command.arg("--dir").arg(self.path("load")).arg("--report").arg(self.path(report));
        command.args(options.split_whitespace());
        command.env_remove("JOB_COMPLETION_INDEX").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The same, to its end.
    pub(crate) async fn load(&self, options: &str, tokens: Option<&Path>) -> (Output, Option<Report>) {
        let mut command = self.command(options, "report.json");
        if let Some(tokens) = tokens {
            command.arg("--token-file").arg(tokens);
        }
        let output = ended(command.spawn().unwrap()).await;
        (output, self.report("report.json"))
    }

    pub(crate) fn report(&self, name: &str) -> Option<Report> {
        let bytes = fs::read(self.path(name)).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }
}

/// What a process has printed when it has ended.
pub(crate) async fn ended(child: Child) -> Output {
    timeout(LONG, spawn_blocking(|| child.wait_with_output())).await.unwrap().unwrap().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Fails unless a report and the coordinator's metrics say the same of answered questions. What got no answer, because the load
/// ended or a connection broke, the coordinator may have answered, or seen to hang up.
pub(crate) fn agree(report: &Report, metrics: &Answered) {
    let (reported, counted) = (of_report(report), &report.counted);
    let mut more = 0;
    for (key, count) in metrics {
        let heard = reported.get(key).copied().unwrap_or(0);
        assert!(*count >= heard, "{key:?}: {count} counted, {heard} reported");
        more += count - heard;
    }
    let without = counted.unanswered_at_end + counted.failed_in_all();
    assert!(more <= without, "{without} got no answer: {metrics:?} counted, {reported:?} reported");
    let unknown: Vec<_> = reported.keys().filter(|key| !metrics.contains_key(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not counted: {metrics:?}");
}

/// Answered questions, by what they were and by the answer.
pub(crate) type Answered = BTreeMap<(String, String), u64>;

/// What a report says of answered questions, in the words of the coordinator's metrics. Enrollments are no questions of the
/// protocol.
fn of_report(report: &Report) -> Answered {
    let mut answered = BTreeMap::new();
    for (request, answers) in report.counted.before.iter().chain(&report.counted.requests) {
        for (answer, latency) in answers {
            let answer = match answer.as_str() {
                // These artifacts are of one part.
                "whole" => "chunk",
                "refused: unavailable" => "unavailable",
                refused if refused.starts_with("refused: ") => "refused",
                other => other,
            };
            let key = (request.clone(), answer.to_owned());
            *answered.entry(key).or_insert(0) += latency.count();
        }
    }
    answered.retain(|(request, _), _| request != "enroll");
    answered
}
