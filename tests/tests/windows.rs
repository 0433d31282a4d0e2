//! A day of a device: it waits for its machine, trains, is preempted, goes on, contributes, installs, and does what its
//! user says meanwhile. A coordinator and devices in one process, over TLS.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a server runs beside the devices, and time is looked at")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{Control, Device, DeviceMonitor, Now, Settings};
use client::{Trainer, TrainerError, TrainingEnd, TrainingJob};
use coordinator::config::Config;
use coordinator::pki::Identity;
use coordinator::server::{Coordinator, Listeners, OPERATOR};
use operator::client::AdminClient;
use proto::admin::{AdminReply, AdminRequest};
use proto::ids::{Digest, Timestamp};
use proto::plan::{Mode, Plan};
use session::conditions::{Conditions, Power, Reading, Snapshot};
use session::policy::Policy;
use session::update::Update;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Devices beside the one whose day it is.
const OTHERS: usize = 2;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine that its test uses.
#[derive(Clone)]
struct Machine {
    seen: Arc<Mutex<Snapshot>>,
    changes: Arc<Notify>,
}

impl Machine {
    fn idle() -> Self {
        let seen = Snapshot {
            power: Reading::of(Power { external: true, battery_percent: Some(90.0) }, "test"),
            idle: Reading::of(Duration::from_secs(3600), "test"),
            metered: Reading::of(false, "test"),
            cool_celsius: Reading::of(40.0, "test"),
            busy_percent: Reading::of(1.0, "test"),
            power_saver: Reading::of(false, "test"),
            ..Snapshot::default()
        };
        Self { seen: Arc::new(Mutex::new(seen)), changes: Arc::default() }
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.seen.lock().unwrap());
        self.changes.notify_one();
    }

    fn used_for(&self, secs: u64) {
        self.change(|seen| seen.idle = Reading::of(Duration::from_secs(secs), "test"));
    }
}

impl DeviceMonitor for Machine {
    fn look(&self) -> Snapshot {
        self.seen.lock().unwrap().clone()
    }

    fn changes(&self) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.changes))
    }
}

/// Takes as many steps of ten milliseconds as it is told, unless it must leave; goes on where it left.
#[derive(Clone)]
struct Slow {
    steps: u32,
    done: Arc<AtomicU32>,
    begun: Arc<AtomicU32>,
    left: Arc<Mutex<Option<Instant>>>,
}

impl Slow {
    fn new(steps: u32) -> Self {
        Self { steps, done: Arc::default(), begun: Arc::default(), left: Arc::default() }
    }
}

impl Trainer for Slow {
    fn bases(&self) -> Vec<Digest> {
        vec![reference_base().digest()]
    }

    fn layers(&self, _: Digest) -> Vec<String> {
        reference_base().modules(&engine::Projection::ALL).into_iter().map(|module| module.name).collect()
    }

    fn training_bytes(&self, _: Digest, _: usize, _: usize, _: usize) -> u64 {
        1
    }

    fn train(&self, job: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        while self.done.load(Ordering::SeqCst) < self.steps {
            if job.must_leave() {
                *self.left.lock().unwrap() = Some(Instant::now());
                return Ok(TrainingEnd::NotTrained("it was interrupted".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
            self.done.fetch_add(1, Ordering::SeqCst);
        }
        let before = job.work.training().map_err(|error| TrainerError::new(error.to_string()))?;
        let after: Vec<f32> = before.trained.iter().map(|x| x + 0.01).collect();
        Ok(TrainingEnd::Trained(Update::between(&before.trained, &after, 1.0, 1).unwrap()))
    }
}

fn reference_base() -> engine::Base {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/engine/tests/reference/base");
    engine::Base::open(&path).unwrap()
}

fn settings() -> Settings {
    Settings {
        coordinator: None,
        policy: Policy {
            smallest_cohort: 3,
            smallest_report_goal: 3,
            smallest_corrupt_permille: 0,
            smallest_corrupt: 0,
            allow_without_noise: true,
            ..Policy::default()
        },
        conditions: Conditions {
            dwell_secs: 0,
            rest_minutes: 0,
            least_free_disk_mib: 1,
            check_secs: 1,
            ..Conditions::default()
        },
        override_conditions: false,
        once: false,
    }
}

/// A plan of one version for three devices, each of which has so long for a step.
fn plan(step_millis: u64) -> Plan {
    let base = reference_base();
    let mut plan = Plan { base: base.digest(), ..Plan::example() };
    plan.adapter.modules = base.modules(&[engine::Projection::Q]);
    plan.privacy.mode = Mode::Off;
    (plan.round.cohort, plan.round.report_goal, plan.round.versions) = (3, 3, 1);
    (plan.round.join_millis, plan.round.step_millis) = (60_000, step_millis);
    plan.training.sequence_len = 8;
    plan
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A coordinator with one task, and folders of devices that are enrolled at it.
struct Federation {
    folder: tempfile::TempDir,
    task: proto::ids::TaskId,
    stop: CancellationToken,
    admin: AdminClient,
}

impl Federation {
    async fn begin(step_millis: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("coordinator");
        let config = Config { state_dir: home.clone(), drain_secs: 1, ..Config::default() };
        let listeners = Listeners { device: listener().await, admin: listener().await };
        let coordinator = Coordinator::open(config, listeners).unwrap();
        let (_, admin) = coordinator.addresses();
        let stop = CancellationToken::new();
        tokio::spawn(coordinator.serve(stop.clone()));
        let identity = Identity::load(&home, OPERATOR).unwrap();
        let mut admin = AdminClient::connect(&admin.to_string(), &identity).await.unwrap();
        let request =
            AdminRequest::CreateTask { plan: plan(step_millis).to_bytes().unwrap(), frozen: Vec::new() };
        let AdminReply::Task(created) = admin.call(request).await.unwrap() else { panic!("no task") };
        for at in 0..=OTHERS {
            let request = AdminRequest::IssueToken { label: format!("device {at}"), lifetime_secs: 600 };
            let AdminReply::Token(token) = admin.call(request).await.unwrap() else { panic!("no token") };
            let device = Device::open(&folder.path().join(format!("device-{at}"))).unwrap();
            device.enroll(&token.parse().unwrap(), None).await.unwrap();
        }
        Self { folder, task: created.task, stop, admin }
    }

    fn home(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("device-{at}"))
    }

    /// Runs a device, and gives what tells and asks it.
    fn run(&self, at: usize, trainer: &Slow, machine: &Machine) -> Control {
        self.run_opened(Device::open(&self.home(at)).unwrap(), trainer, machine)
    }

    fn run_opened(&self, device: Device, trainer: &Slow, machine: &Machine) -> Control {
        let control = device.control();
        tokio::spawn(device.run(trainer.clone(), machine.clone(), settings(), self.stop.clone()));
        control
    }
}

/// Waits until the device does what is looked for.
async fn until(control: &Control, what: &str, holds: impl Fn(&Now) -> bool) -> Now {
    let mut now = control.subscribe();
    let found = tokio::time::timeout(PATIENCE, now.wait_for(|now| holds(now))).await;
    found.unwrap_or_else(|_| panic!("{what}: {:?}", control.now())).unwrap().clone()
}

async fn has(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_day_in_which_a_user_comes_back_ends_with_a_contribution_and_the_next_version() {
    let federation = Federation::begin(60_000).await;
    let (machine, trainer) = (Machine::idle(), Slow::new(100));
    machine.used_for(0);
    let device = federation.run(0, &trainer, &machine);

    // Somebody works: nothing is trained, and version 0, of which nothing was learned, is of no use to them.
    let now = until(&device, "waits", |now| now.state == "waiting for a window").await;
    assert!(!now.may_train && now.may_transfer && now.window == "closed", "{now:?}");
    let blocking: Vec<_> = now.conditions.iter().filter(|row| row.blocking).collect();
    assert_eq!((blocking.len(), blocking[0].value.as_str()), (1, "in use"));
    assert!(device.status().installed.is_empty());
    assert_eq!(trainer.begun.load(Ordering::SeqCst), 0);

    // They leave: it trains.
    machine.used_for(3600);
    until(&device, "trains", |now| now.state == "training" && now.window == "open").await;
    has("a few steps", || trainer.done.load(Ordering::SeqCst) > 3).await;

    // They come back: it is told to leave within a second, and nothing of what was trained is lost.
    let back = Instant::now();
    machine.used_for(0);
    let now = until(&device, "preempted", |now| now.state == "waiting for a window").await;
    let left = trainer.left.lock().unwrap().unwrap().duration_since(back);
    assert!(left < Duration::from_secs(1), "{left:?}");
    let preemption = now.last_preemption.unwrap();
    assert!(preemption.why.contains("idle is in use"), "{preemption:?}");
    let done = trainer.done.load(Ordering::SeqCst);
    assert!(done < trainer.steps);

    // They pause it and leave.
    device.pause(None).unwrap();
    machine.used_for(3600);
    let now = until(&device, "paused", |now| now.paused_until == Some(u64::MAX)).await;
    assert!(!now.may_train && !now.may_transfer);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(trainer.begun.load(Ordering::SeqCst), 1);
    device.resume().unwrap();

    // It goes on where it was, and contributes with the others, who have been idle all day.
    has("goes on", || trainer.begun.load(Ordering::SeqCst) == 2).await;
    let others: Vec<Control> =
        (1..=OTHERS).map(|at| federation.run(at, &Slow::new(1), &Machine::idle())).collect();
    for device in others.iter().chain([&device]) {
        let mut kept = device.subscribe();
        let installed = async {
            while device.status().installed.iter().all(|installed| installed.version == 0) {
                kept.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, installed).await.unwrap();
    }
    assert_eq!(
        device.entries().iter().filter(|entry| matches!(entry, client::store::Entry::Charge { .. })).count(),
        1
    );
    let events: Vec<String> = device.journal().unwrap().into_iter().map(|note| note.event).collect();
    let expected = [
        "enrolled",
        "trains",
        "preempted",
        "interrupted",
        "paused",
        "resumed",
        "trains",
        "trained",
        "contributes",
        "installed",
    ];
    assert_eq!(events, expected);

    // They have had enough of the task: what is on disk of it goes, and that is shown.
    let forgotten = device.forget(federation.task).await.unwrap();
    assert!(forgotten.deleted.iter().any(|path| path.ends_with("1/shipped.f32")), "{forgotten:?}");
    assert!(forgotten.deleted.iter().all(|path| !path.exists()));
    assert!(forgotten.ledger_records >= 1);
    let status = device.status();
    assert!(status.installed.is_empty() && status.forgotten.contains(&federation.task));
    assert!(device.rejoin(federation.task).await.unwrap());
    federation.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_device_on_a_metered_network_says_nothing_and_a_pause_outlives_a_restart() {
    let federation = Federation::begin(60_000).await;
    let (machine, trainer) = (Machine::idle(), Slow::new(1));
    machine.change(|seen| seen.metered = Reading::of(true, "test"));
    let device = federation.run(0, &trainer, &machine);
    let now = until(&device, "waits", |now| now.state == "waiting for the network").await;
    assert!(!now.may_transfer && now.window == "open", "{now:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(device.now().transferred_today, 0);
    machine.change(|seen| seen.metered = Reading::of(false, "test"));
    until(&device, "asks", |now| now.transferred_today > 0).await;
    federation.stop.cancel();

    let folder = tempfile::tempdir().unwrap();
    let open = || Device::open(folder.path()).unwrap();
    open().control().pause(Some(Timestamp(u64::MAX - 1))).unwrap();
    assert_eq!(open().control().now().paused_until, Some(u64::MAX - 1));
    open().control().resume().unwrap();
    assert_eq!(open().control().now().paused_until, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_is_waited_for_and_nothing_that_was_trained_is_lost() {
    let federation = Federation::begin(3_000).await;
    let (machine, trainer) = (Machine::idle(), Slow::new(1));
    let opened = Device::open(&federation.home(0)).unwrap();
    let must_be_free = opened.store().free_space_floor();
    let device = federation.run_opened(opened, &trainer, &machine);
    until(&device, "trained", |now| now.state == "waiting for others to join the round").await;

    // The disk is full when the others come: the round goes on without this device, which charges nothing.
    must_be_free(u64::MAX);
    for at in 1..=OTHERS {
        federation.run(at, &Slow::new(1), &Machine::idle());
    }
    let now =
        until(&device, "full", |now| now.state.starts_with("waiting until its state can be written: ")).await;
    assert!(now.state.contains("bytes free"), "{now:?}");
    let problem = now.last_problem.unwrap().what;
    assert!(problem.contains("nothing is trained or charged"), "{problem}");
    assert!(device.pause(None).is_err() && device.forget(federation.task).await.is_err());
    let charges = || {
        let of = |entry: &&client::store::Entry| matches!(entry, client::store::Entry::Charge { .. });
        device.entries().iter().filter(of).count()
    };
    assert_eq!(charges(), 0);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let events = || device.journal().unwrap().into_iter().map(|note| note.event).collect::<Vec<_>>();
    assert_eq!(events(), ["enrolled", "trains", "trained", "problem"], "it is said once");

    // There is room again: it contributes what it trained, and is charged once.
    must_be_free(0);
    let mut kept = device.subscribe();
    let installed = async {
        while device.status().installed.iter().all(|installed| installed.version == 0) {
            kept.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, installed).await.unwrap();
    assert_eq!((charges(), trainer.begun.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(events()[4], "written");
    federation.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_device_that_is_revoked_knows_it_and_since_when() {
    let mut federation = Federation::begin(60_000).await;
    let (machine, trainer) = (Machine::idle(), Slow::new(1));
    let device = federation.run(0, &trainer, &machine);
    until(&device, "trained", |now| now.state == "waiting for others to join the round").await;
    assert_eq!(device.status().turned_away, None);
    let answered = device.now().answered.unwrap();
    assert!(answered.ahead_millis.unwrap().abs() < 5_000, "{answered:?}");

    let name = device.status().device.unwrap();
    federation.admin.call(AdminRequest::RevokeDevice(name)).await.unwrap();
    let begun = Instant::now();
    while device.status().turned_away.is_none() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", device.now());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let known = device.status().turned_away.clone().unwrap();
    assert!(known.why.contains("revoked"), "{known:?}");
    federation.stop.cancel();
    // Whoever asks a device holds its folder.
    drop(device);

    // It is known without an agent that runs, and somebody who asks is told the same.
    let opened = loop {
        if let Ok(device) = Device::open(&federation.home(0)) {
            break device;
        }
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(opened.status().unwrap().turned_away, Some(known));
}
