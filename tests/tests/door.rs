//! The door of a device, as a host program opens it: a coordinator and devices in one process, over TLS.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a server runs beside the devices")]

// The examples name the libraries as a program of somebody else's does.
extern crate client as nightshift_client;
extern crate operator as nightshift_operator;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use client::{Device, DeviceMonitor, Error, ErrorKind, Finished, Settings};
use client::{Trainer, TrainerError, TrainingEnd, TrainingJob};
use coordinator::config::Config;
use coordinator::pki::Identity;
use coordinator::server::{Coordinator, Listeners, OPERATOR};
use operator::client::AdminClient;
use proto::admin::{AdminReply, AdminRequest, TaskState};
use proto::ids::Digest;
use proto::plan::{Mode, Plan};
use session::conditions::{Condition, Conditions, Power, Reading, Snapshot};
use session::policy::Policy;
use session::update::Update;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[expect(dead_code, unreachable_pub, reason = "a program, which is a module here")]
#[path = "../../client/examples/lend_idle_time.rs"]
mod lend_idle_time;
#[expect(dead_code, unreachable_pub, reason = "a program, which is a module here")]
#[path = "../../coordinator/operator/examples/tasks.rs"]
mod tasks;

#[path = "door/round.rs"]
mod round;

/// Devices with a trainer of this test's, beside the one of the example.
const DEVICES: usize = 9;

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/engine/tests/reference/base")
}

/// Learns the same from everybody, and counts how often.
#[derive(Clone)]
struct Constant {
    base: Digest,
    trainings: Arc<AtomicU32>,
}

impl Trainer for Constant {
    fn bases(&self) -> Vec<Digest> {
        vec![self.base]
    }

    fn layers(&self, _: Digest) -> Vec<String> {
        let base = engine::Base::open(&base()).unwrap();
        base.modules(&engine::Projection::ALL).into_iter().map(|module| module.name).collect()
    }

    fn training_bytes(&self, _: Digest, trained: usize, batch: usize, length: usize) -> u64 {
        (trained + batch * length) as u64
    }

    fn train(&self, job: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError> {
        self.trainings.fetch_add(1, Ordering::Relaxed);
        assert!(!job.must_leave());
        let before = job.work.training().map_err(|error| TrainerError::new(error.to_string()))?;
        let after: Vec<f32> = before.trained.iter().map(|x| x + 0.01).collect();
        Ok(TrainingEnd::Trained(Update::between(&before.trained, &after, 1.0, 1).unwrap()))
    }
}

/// A machine that is free, or one on which somebody works.
#[derive(Clone, Copy)]
enum Machine {
    Free,
    Busy,
}

impl DeviceMonitor for Machine {
    fn look(&self) -> Snapshot {
        let busy = match self {
            Self::Free => 0.0,
            Self::Busy => 99.0,
        };
        Snapshot {
            power: Reading::of(Power { external: true, battery_percent: None }, "test"),
            cool_celsius: Reading::of(40.0, "test"),
            busy_percent: Reading::of(busy, "test"),
            power_saver: Reading::of(false, "test"),
            ..Snapshot::default()
        }
    }
}

fn policy() -> Policy {
    Policy {
        smallest_cohort: 3,
        smallest_report_goal: 3,
        smallest_corrupt_permille: 0,
        smallest_corrupt: 0,
        allow_without_noise: true,
        ..Policy::default()
    }
}

fn settings() -> Settings {
    let assume = [Condition::Idle, Condition::Unmetered].into();
    Settings {
        coordinator: None,
        policy: policy(),
        conditions: Conditions { assume, dwell_secs: 0, ..Conditions::default() },
        override_conditions: false,
        once: true,
    }
}

/// A plan of two versions for the devices of this test and the example's.
fn plan(base: &engine::Base) -> Plan {
    let mut plan = Plan { base: base.digest(), ..Plan::example() };
    plan.adapter.modules = base.modules(&[engine::Projection::Q]);
    plan.privacy.mode = Mode::Off;
    let cohort = u32::try_from(DEVICES + 1).unwrap();
    (plan.round.cohort, plan.round.report_goal, plan.round.versions) = (cohort, cohort, 1);
    (plan.round.join_millis, plan.round.step_millis) = (60_000, 60_000);
    plan.training.sequence_len = 8;
    plan
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn token(admin: &mut AdminClient, label: usize) -> String {
    let request = AdminRequest::IssueToken { label: format!("device {label}"), lifetime_secs: 600 };
    let reply = admin.call(request).await.unwrap();
    let AdminReply::Token(text) = reply else { panic!("{reply:?}") };
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn host_programs_enroll_contribute_and_hold_the_version_that_they_made() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("coordinator");
    let config = Config { state_dir: home.clone(), drain_secs: 1, ..Config::default() };
    let listeners = Listeners { device: listener().await, admin: listener().await };
    let coordinator = Coordinator::open(config, listeners).unwrap();
    let (_, admin) = coordinator.addresses();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(coordinator.serve(stop.clone()));
    let identity = Identity::load(&home, OPERATOR).unwrap();
    let mut admin = AdminClient::connect(&admin.to_string(), &identity).await.unwrap();

    let trained_on = engine::Base::open(&base()).unwrap();
    let request =
        AdminRequest::CreateTask { plan: plan(&trained_on).to_bytes().unwrap(), frozen: Vec::new() };
    let AdminReply::Task(created) = admin.call(request).await.unwrap() else { panic!("no task") };

    let trainer = Constant { base: trained_on.digest(), trainings: Arc::default() };
    let mut devices = tokio::task::JoinSet::new();
    for at in 0..DEVICES {
        let (home, token) = (folder.path().join(format!("device-{at}")), token(&mut admin, at).await);
        let trainer = trainer.clone();
        devices.spawn(async move {
            let device = Device::open(&home).unwrap();
            let name = device.enroll(&token.parse().unwrap(), None).await.unwrap();
            assert_eq!(device.status().unwrap().device, Some(name));
            let finished = device.run(trainer, Machine::Free, settings(), CancellationToken::new()).await;
            (home, finished.unwrap())
        });
    }
    let notes = folder.path().join("notes.txt");
    let lines: Vec<String> = (3..40).map(|i| format!("w{i} w{} w{}\n\n", i + 7, 60 - i)).collect();
    std::fs::write(&notes, lines.concat()).unwrap();
    let token = token(&mut admin, DEVICES).await;
    let example = folder.path().join("example");
    let lent = lend_idle_time::lend(&example, &base(), notes, Some(&token), policy()).await.unwrap();

    let mut finished = vec![(example, lent)];
    while let Some(done) = devices.join_next().await {
        finished.push(done.unwrap());
    }
    for (home, finished) in finished {
        let Finished::Contributed(published) = finished else { panic!("{}: {finished}", home.display()) };
        assert_eq!((published.task, published.version), (created.task, 1));
        let device = Device::open(&home).unwrap();
        assert_eq!(device.installed(), [published]);
        assert_eq!(device.store().spending().in_total(), 1);
    }
    assert_eq!(usize::try_from(trainer.trainings.load(Ordering::Relaxed)).unwrap(), DEVICES);

    let seen = tasks::tasks(&home).await.unwrap();
    assert_eq!(
        seen.iter().map(|task| (task.version, task.state)).collect::<Vec<_>>(),
        [(1, TaskState::Complete)]
    );
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_device_cannot_do_has_a_kind_that_says_whose_business_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = Constant { base: Digest([1; 32]), trainings: Arc::default() };
    let run =
        |device: Device| device.run(trainer.clone(), Machine::Busy, settings(), CancellationToken::new());
    let error: Error = run(Device::open(folder.path()).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Coordinator, "{error}");
    let held = Device::open(folder.path()).unwrap();
    let error = Device::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    drop(held);
}
