//! A day of a coordinator in less than a minute, over TLS, by a clock that the test puts ahead: tokens, devices, certificates
//! and tasks come and go, and what is over takes no memory, no file and no connection.
//!
//! The clock is the one by which the coordinator says what is due and what has ended. TLS goes by the system's, which takes
//! certificates that begin a day before they are made: so a day is the longest that can be lived through here.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "IO shell: a server runs beside its devices")]
#![expect(clippy::print_stdout, reason = "what was measured is to be read")]

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aggregation::IdentityKey;
use client::keys::DeviceKeys;
use client::transport::{Transport, TransportError};
use client::{Device, Finished, Proxy, Settings};
use coordinator::config::{Certificates, Config};
use coordinator::driver::put_ahead;
use coordinator::offline;
use coordinator::pki::{Authority, Identity, Validity};
use coordinator::server::{Coordinator, Listeners, OPERATOR, ServerError};
use nightshift_tests::one_hot::{self, Free, OneHot};
use operator::client::AdminClient;
use proto::adapter::Module;
use proto::admin::{AdminReply, AdminRequest, DeviceQuery, TaskState, TaskStatus, TokenState};
use proto::convert::{Enrollment, Renewal};
use proto::ids::{DeviceId, Digest, TaskId};
use proto::message::{CheckIn, Rejection, Reply, Request};
use proto::plan::{Mode, Plan};
use proto::token::BootstrapToken;
use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use shell::tls::{ClientIdentity, Trust};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

const HOURS: u64 = 24;

/// From here on nothing may grow: what is made once is made.
const WARM: u64 = 12;

/// Devices at one time, beside those that train.
const DEVICES: usize = 6;

/// Devices of a round.
const COHORT: usize = 3;

const LONG: Validity = Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 4_000_000_000 };

fn minutes(minutes: u64) {
    put_ahead(Duration::from_secs(60 * minutes));
}

/// A device that enrolls, renews and asks, and does not train.
struct Light {
    keys: DeviceKeys,
    device: DeviceId,
    transport: Transport,
}

impl Light {
    fn request(keys: &DeviceKeys) -> String {
        shell::pem::encode("CERTIFICATE REQUEST", &keys.signing_request().unwrap())
    }

    fn identity(keys: &DeviceKeys) -> IdentityKey {
        IdentityKey::from_seed(keys.identity_seed().unwrap())
    }

    fn connects_by(&mut self, certificate_pem: &str) {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap();
        let identity = ClientIdentity { chain: vec![certificate], key: self.keys.tls_key() };
        self.transport = self.transport.showing(Some(identity)).unwrap();
    }

    /// Whether the coordinator takes it.
    async fn is_taken(&mut self) -> bool {
        let asks = Request::CheckIn(CheckIn { only_keeps: true, declined: Vec::new() });
        match self.transport.send(&asks).await {
            Ok(Reply::Wait { .. }) => true,
            Err(TransportError::Rejected(Rejection::NotEnrolled)) => false,
            other => panic!("{other:?}"),
        }
    }

    async fn renew(&mut self) {
        let renewal = Renewal::new(self.device, Self::request(&self.keys), &Self::identity(&self.keys));
        let renewed = self.transport.renew(&renewal).await.unwrap();
        self.connects_by(&renewed.certificate_pem);
    }
}

/// What the process and the state folder hold.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: u64,
    files: usize,
    store: u64,
    artifacts: u64,
    audit: u64,
}

fn bytes_below(folder: &Path) -> u64 {
    let mut all = 0;
    for entry in fs::read_dir(folder).unwrap() {
        // The store writes and removes files of its own meanwhile.
        let Ok(metadata) = entry.as_ref().unwrap().metadata() else { continue };
        let is_ballast = entry.as_ref().unwrap().file_name() == "ballast";
        all += match metadata.is_dir() {
            true => bytes_below(&entry.unwrap().path()),
            false if is_ballast => 0,
            false => metadata.len(),
        };
    }
    all
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

struct Day {
    folder: tempfile::TempDir,
    address: String,
    trust: Trust,
    admin: AdminClient,
    devices: VecDeque<Light>,
    /// How many of each came so far.
    enrolled: usize,
    created: usize,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl Day {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        sim::demo::write_base(&folder.path().join("base")).unwrap();
        let home = folder.path().join("home");
        let certificates = Certificates { device_hours: 1, ..Certificates::default() };
        let config = Config { state_dir: home.clone(), drain_secs: 1, certificates, ..Config::default() };
        let listener = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners { device: listener().await, admin: listener().await };
        let coordinator = Coordinator::open(config, listeners).unwrap();
        let (devices, operators) = coordinator.addresses();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(coordinator.serve(stop.clone()));
        let identity = Identity::load(&home, OPERATOR).unwrap();
        let admin = AdminClient::connect(&operators.to_string(), &identity).await.unwrap();
        let trust = Trust::Authority(Authority::open_or_create(&home, LONG).unwrap().certificate().clone());
        let (address, enrolled, created) = (devices.to_string(), 0, 0);
        Self { folder, address, trust, admin, devices: VecDeque::new(), enrolled, created, stop, serving }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    async fn ask(&mut self, request: AdminRequest) -> AdminReply {
        self.admin.call(request).await.unwrap()
    }

    async fn token(&mut self) -> BootstrapToken {
        self.enrolled += 1;
        let label = format!("device {}", self.enrolled);
        let asked = AdminRequest::IssueToken { label, lifetime_secs: 1_800 };
        let AdminReply::Token(text) = self.ask(asked).await else { panic!("no token") };
        text.parse().unwrap()
    }

    /// A folder of its own for each device.
    fn place(&self) -> PathBuf {
        self.folder.path().join(format!("device-{}", self.enrolled))
    }

    async fn enroll(&mut self) {
        let token = self.token().await;
        let keys = DeviceKeys::open_or_create(&self.place(), &SystemRandom::new()).unwrap();
        let mut transport = Transport::new(&self.address, self.trust.clone(), None, Proxy::none()).unwrap();
        let enrollment = Enrollment::new(&token.key(), Light::request(&keys), &Light::identity(&keys));
        let enrolled = transport.enroll(&enrollment).await.unwrap();
        // Whoever lost the answer has it again; with the same token nobody else is enrolled.
        assert_eq!(transport.enroll(&enrollment).await.unwrap().device, enrolled.device);
        let elsewhere = self.folder.path().join("somebody else");
        let others = DeviceKeys::open_or_create(&elsewhere, &SystemRandom::new()).unwrap();
        let other = Enrollment::new(&token.key(), Light::request(&others), &Light::identity(&others));
        assert!(transport.enroll(&other).await.is_err());
        let mut light = Light { keys, device: enrolled.device, transport };
        light.connects_by(&enrolled.certificate_pem);
        assert!(light.is_taken().await);
        self.devices.push_back(light);
        fs::remove_dir_all(self.place()).unwrap();
    }

    async fn create(&mut self, plan: &Plan) -> TaskId {
        self.created += 1;
        let plan = Plan { name: format!("task {}", self.created), ..plan.clone() };
        let asked = AdminRequest::CreateTask { plan: plan.to_bytes().unwrap(), frozen: Vec::new() };
        let AdminReply::Task(created) = self.ask(asked).await else { panic!("no task") };
        created.task
    }

    async fn show(&mut self, task: TaskId) -> TaskStatus {
        let AdminReply::Task(status) = self.ask(AdminRequest::ShowTask(task)).await else {
            panic!("no task")
        };
        status
    }

    /// A task of one version that is made, by devices that come for it and go.
    async fn complete(&mut self, plan: &Plan) {
        let task = self.create(plan).await;
        let mut running = JoinSet::new();
        let mut gone = Vec::new();
        for number in 0..COHORT {
            let token = self.token().await;
            let (place, base) = (self.place(), self.folder.path().join("base"));
            gone.push(place.clone());
            running.spawn(async move {
                let device = Device::open(&place).unwrap();
                let name = device.enroll(&token, None).await.unwrap();
                let settings = Settings { once: true, ..one_hot::settings(None) };
                let trainer = OneHot::new(&base, number).unwrap();
                let finished = device.run(trainer, Free, settings, CancellationToken::new()).await.unwrap();
                assert!(matches!(finished, Finished::Contributed(_) | Finished::NoMoreWork), "{finished:?}");
                name
            });
        }
        for name in running.join_all().await {
            self.ask(AdminRequest::RevokeDevice(name)).await;
        }
        for place in gone {
            fs::remove_dir_all(place).unwrap();
        }
        let status = self.show(task).await;
        assert_eq!((status.state, status.version), (TaskState::Complete, 1), "{status:?}");
    }

    /// Devices come until there are as many as there should be.
    async fn fill(&mut self) {
        while self.devices.len() < DEVICES {
            self.enroll().await;
        }
    }

    /// An hour of the coordinator's clock, less a minute.
    async fn hour(&mut self, (large, small): (&Plan, &Plan), completes: bool, busy: u32) {
        // Two devices come for two that go.
        self.fill().await;
        let unused = self.token().await;
        let revoked = self.token().await;
        let AdminReply::TokenList(tokens) = self.ask(AdminRequest::ListTokens).await else { panic!("none") };
        let label = format!("device {}", self.enrolled);
        let newest = tokens.iter().find(|token| token.label == label).unwrap().token;
        self.ask(AdminRequest::RevokeToken(newest)).await;
        // One task is made, and one is stopped while devices ask.
        if completes {
            self.complete(small).await;
        }
        for _ in 0..busy {
            let stopped = self.create(large).await;
            for light in &mut self.devices {
                assert!(light.is_taken().await);
            }
            let AdminReply::Task(status) = self.ask(AdminRequest::StopTask(stopped)).await else {
                panic!("no task")
            };
            assert_eq!(status.state, TaskState::Stopped);
        }
        minutes(31);
        for token in [unused, revoked] {
            let keys = DeviceKeys::open_or_create(&self.place(), &SystemRandom::new()).unwrap();
            let mut transport =
                Transport::new(&self.address, self.trust.clone(), None, Proxy::none()).unwrap();
            let late = Enrollment::new(&token.key(), Light::request(&keys), &Light::identity(&keys));
            assert!(transport.enroll(&late).await.is_err(), "by a token that is over");
            fs::remove_dir_all(self.place()).unwrap();
        }
        // All but the oldest renew; that one's certificate ends, and then it renews after all.
        for rest in [24, 4] {
            for light in self.devices.iter_mut().skip(1) {
                light.renew().await;
                assert!(light.is_taken().await);
            }
            minutes(rest);
        }
        let mut oldest = self.devices.pop_front().unwrap();
        assert!(!oldest.is_taken().await, "its certificate has ended");
        oldest.transport = oldest.transport.showing(None).unwrap();
        oldest.renew().await;
        assert!(oldest.is_taken().await);
        let gone = self.devices.pop_front().unwrap();
        for mut light in [oldest, gone] {
            self.ask(AdminRequest::RevokeDevice(light.device)).await;
            assert!(!light.is_taken().await, "it was revoked");
        }
    }

    fn held(&self) -> Held {
        let below = |name: &str| bytes_below(&self.home().join(name));
        Held {
            memory: resident(),
            files: fs::read_dir("/proc/self/fd").unwrap().count(),
            store: below("store"),
            artifacts: below("artefacts"),
            audit: below("audit"),
        }
    }

    async fn end(mut self) {
        let AdminReply::Devices { devices, .. } =
            self.ask(AdminRequest::ListDevices(DeviceQuery::default())).await
        else {
            panic!("no devices")
        };
        let enrolled = devices.iter().filter(|device| !device.revoked).count();
        assert_eq!(enrolled, self.devices.len());
        let AdminReply::TokenList(tokens) = self.ask(AdminRequest::ListTokens).await else { panic!("none") };
        let now = coordinator::driver::now().as_secs();
        assert!(tokens.iter().all(|token| token.state(now) != TokenState::Open), "{tokens:?}");
        let AdminReply::Tasks(tasks) = self.ask(AdminRequest::ListTasks).await else { panic!("no tasks") };
        assert!(tasks.len() == self.created && tasks.iter().all(|task| task.state.is_over()));
        let home = self.home();
        self.stop.cancel();
        drop((self.devices, self.admin));
        self.serving.await.unwrap().unwrap();
        assert_eq!(fs::read_dir(home.join("spool")).unwrap().count(), 0);
        let report = offline::check(&home).unwrap();
        assert!(report.faults.is_empty(), "{report:#?}");
        assert_eq!(usize::try_from(report.tasks).unwrap(), self.created);
    }
}

/// A task of a million numbers, that nobody trains.
fn large() -> Plan {
    let mut plan = Plan::example();
    plan.base = Digest([7; 32]);
    plan.adapter.modules = vec![Module { name: "layer".into(), inputs: 4096, outputs: 4096 }];
    plan.adapter.rank = 256;
    plan.privacy.mode = Mode::Off;
    plan.with_recommended_scale().unwrap()
}

fn small(base: &Path) -> Plan {
    let base = engine::Base::open(base).unwrap();
    let mut plan = Plan { base: base.digest(), ..Plan::example() };
    plan.adapter.modules = base.modules(&[engine::Projection::Q]);
    plan.privacy.mode = Mode::Off;
    let cohort = u32::try_from(COHORT).unwrap();
    (plan.round.cohort, plan.round.report_goal, plan.round.versions) = (cohort, cohort, 1);
    (plan.round.join_millis, plan.round.step_millis) = (60_000, 60_000);
    plan.with_recommended_scale().unwrap()
}

/// Lives through the hours; a task is made in each of these, and so many are stopped in each hour.
async fn live(completes: impl Fn(u64) -> bool, busy: u32) {
    let begun = Instant::now();
    let mut day = Day::new().await;
    let (large, small) = (large(), small(&day.folder.path().join("base")));
    let mut warm = None;
    // So that the certificate of the oldest, which holds for an hour, ends within the first one.
    day.fill().await;
    minutes(2);
    for hour in 1..=HOURS {
        day.hour((&large, &small), completes(hour), busy).await;
        if hour == WARM {
            warm = Some(day.held());
        }
    }
    let (warm, last) = (warm.unwrap(), day.held());
    println!(
        "{HOURS} hours in {:.1?}: {} tokens, {} tasks\nafter {WARM} hours {warm:?}\nat the end     {last:?}",
        begun.elapsed(),
        day.enrolled,
        day.created
    );
    // What tasks of a million numbers would keep is 192 MiB at the least; what an allocator holds on to is a fraction of it.
    assert!(last.memory <= warm.memory + 64 * MIB, "{warm:?} {last:?}");
    assert!(last.files <= warm.files + 16, "{warm:?} {last:?}");
    assert!(last.store <= 16 * MIB && last.artifacts <= 16 * MIB && last.audit <= MIB, "{last:?}");
    day.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_takes_nothing_after_a_day_of_tokens_devices_and_tasks() {
    live(|hour| hour % 6 == 1, 4).await;
}

/// The same with a task that is made, and ten that are stopped, in each hour. `CONTRIBUTING.md` has the command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes"]
async fn what_is_over_takes_nothing_after_a_busy_day() {
    live(|_| true, 10).await;
}
