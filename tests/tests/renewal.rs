//! Devices whose certificate ends soon, or has ended, with a coordinator over TLS.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a server runs beside the devices, and a clock says when")]

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use client::keys::DeviceKeys;
use client::store::Note;
use client::{Certificate, Control, Device, DeviceMonitor, Error, Finished, Settings, Trainer, TrainerError};
use client::{TrainingEnd, TrainingJob};
use coordinator::config::Config;
use coordinator::pki::{Authority, Identity, Validity};
use coordinator::server::{Coordinator, Listeners, OPERATOR, ServerError};
use operator::client::AdminClient;
use proto::admin::{AdminReply, AdminRequest, DeviceQuery};
use proto::ids::{DeviceId, Digest};
use ring::rand::SystemRandom;
use session::conditions::{Condition, Conditions, Snapshot};
use session::policy::Policy;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DAY: u64 = 24 * 3600;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// There is no task, so nobody trains.
#[derive(Clone, Copy)]
struct Idle;

impl Trainer for Idle {
    fn bases(&self) -> Vec<Digest> {
        vec![Digest([1; 32])]
    }

    fn layers(&self, _: Digest) -> Vec<String> {
        Vec::new()
    }

    fn training_bytes(&self, _: Digest, _: usize, _: usize, _: usize) -> u64 {
        0
    }

    fn train(&self, _: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError> {
        Err(TrainerError::new("nothing to train".to_owned()))
    }
}

impl DeviceMonitor for Idle {
    fn look(&self) -> Snapshot {
        Snapshot::default()
    }
}

fn settings() -> Settings {
    Settings {
        coordinator: None,
        policy: Policy::default(),
        conditions: Conditions { assume: [Condition::Unmetered].into(), ..Conditions::default() },
        override_conditions: false,
        once: false,
    }
}

/// A coordinator that serves, and one device that it enrolled.
struct World {
    folder: tempfile::TempDir,
    admin: AdminClient,
    device: DeviceId,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl World {
    async fn new() -> Self {
        Self::at("127.0.0.1:0").await
    }

    async fn at(address: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("coordinator");
        let config = Config { state_dir: home.clone(), drain_secs: 1, ..Config::default() };
        let listener = async || TcpListener::bind(address).await.unwrap();
        let listeners = Listeners { device: listener().await, admin: listener().await };
        let coordinator = Coordinator::open(config, listeners).unwrap();
        let (_, admin) = coordinator.addresses();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(coordinator.serve(stop.clone()));
        let identity = Identity::load(&home, OPERATOR).unwrap();
        let mut admin = AdminClient::connect(&admin.to_string(), &identity).await.unwrap();
        let request = AdminRequest::IssueToken { label: "anna".into(), lifetime_secs: 600 };
        let AdminReply::Token(token) = admin.call(request).await.unwrap() else { panic!("no token") };
        let device = Device::open(&folder.path().join("device")).unwrap();
        let device = device.enroll(&token.parse().unwrap(), None).await.unwrap();
        Self { folder, admin, device, stop, serving }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("device")
    }

    /// Makes what the device believes of its certificate another.
    fn believes(&self, issued_unix_secs: u64, expires_unix_secs: u64) {
        let device = Device::open(&self.home()).unwrap();
        let mut enrolled: serde_json::Value = device.store().get("enrolled").unwrap().unwrap();
        enrolled["issued_unix_secs"] = issued_unix_secs.into();
        enrolled["expires_unix_secs"] = expires_unix_secs.into();
        device.store().put("enrolled", &enrolled).unwrap();
    }

    /// An authority of which the files are in this folder, or are made there.
    fn authority(&self, folder: &str) -> Authority {
        let now = unix_secs();
        let validity = Validity { not_before_unix_secs: now - DAY, not_after_unix_secs: now + DAY };
        Authority::open_or_create(&self.folder.path().join(folder), validity).unwrap()
    }

    /// Gives the device a certificate of that authority, which ended so many days ago, or is good.
    fn certify(&self, authority: &Authority, ended_days_ago: Option<u64>) {
        let now = unix_secs();
        let not_after_unix_secs = ended_days_ago.map_or(now + DAY, |days| now - days * DAY);
        let validity = Validity { not_before_unix_secs: now - 40 * DAY, not_after_unix_secs };
        let rng = SystemRandom::new();
        let keys = DeviceKeys::open_or_create(&self.home().join("keys"), &rng).unwrap();
        let request = keys.signing_request().unwrap();
        let ended = authority.sign_device(&request, &self.device.0, validity, &rng).unwrap();
        let device = Device::open(&self.home()).unwrap();
        device.store().put("certificate", &BASE64_STANDARD.encode(&ended)).unwrap();
    }

    /// Runs the device until something went wrong, and says what.
    async fn trouble(&self) -> String {
        let device = Device::open(&self.home()).unwrap();
        let (control, stop) = (device.control(), CancellationToken::new());
        let running = tokio::spawn(device.run(Idle, Idle, settings(), stop.clone()));
        let said = async {
            loop {
                let problem = control.now().last_problem;
                // A connection that breaks before the other side's reason has come says less.
                if let Some(problem) = problem.filter(|problem| problem.what.contains("; ")) {
                    return problem.what;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, said).await.unwrap();
        stop.cancel();
        assert_eq!(running.await.unwrap().unwrap(), Finished::Stopped);
        said
    }

    /// Runs the device until its certificate lasts a whole life again and it has asked for work by it.
    async fn run(&self) -> (Certificate, Vec<Note>) {
        let device = Device::open(&self.home()).unwrap();
        let (control, stop) = (device.control(), CancellationToken::new());
        let running = tokio::spawn(device.run(Idle, Idle, settings(), stop.clone()));
        let renewed = tokio::time::timeout(PATIENCE, renewed(&control)).await.unwrap();
        stop.cancel();
        let finished: Result<Finished, Error> = running.await.unwrap();
        assert_eq!(finished.unwrap(), Finished::Stopped);
        let notes = control.journal().unwrap();
        assert!(notes.iter().any(|note| note.event == "renewed"), "{notes:?}");
        (renewed, notes)
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

async fn renewed(control: &Control) -> Certificate {
    loop {
        let least = (unix_secs() + 29 * DAY) * 1000;
        let waits = control.now().state.starts_with("waiting") && control.now().next_check_in.is_some();
        if let Some(certificate) = control.status().certificate.filter(|it| waits && it.ends > least) {
            return certificate;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_renews_when_more_than_half_of_its_certificates_life_is_over() {
    let mut world = World::new().await;
    let now = unix_secs();
    world.believes(now - 20 * DAY, now + 10 * DAY);
    let (certificate, _) = world.run().await;
    assert!(certificate.renewal_due > (now + 14 * DAY) * 1000, "{certificate:?}");
    assert!(certificate.renewal_due < (now + 21 * DAY) * 1000, "{certificate:?}");
    let listed = world.admin.call(AdminRequest::ListDevices(DeviceQuery::default())).await.unwrap();
    let AdminReply::Devices { devices, .. } = listed else { panic!("no devices") };
    assert_eq!(devices[0].expires_unix_secs * 1000, certificate.ends);
    world.end().await;
}

/// Over IPv6, by the address alone: what tokens and certificates say, what is dialed, and what an operator dials.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_of_a_coordinator_on_ipv6_enrolls_asks_and_renews() {
    if TcpListener::bind("[::1]:0").await.is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let world = World::at("[::1]:0").await;
    world.believes(0, unix_secs() + 10 * DAY);
    world.run().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_an_earlier_program_enrolled_renews_at_once() {
    let world = World::new().await;
    world.believes(0, unix_secs() + 10 * DAY);
    world.run().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_lay_in_a_drawer_until_its_certificate_had_ended_comes_back_by_itself() {
    let world = World::new().await;
    world.certify(&world.authority("coordinator"), Some(10));
    world.believes(unix_secs() - 40 * DAY, unix_secs() - 10 * DAY);
    world.run().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_clock_is_behind_hears_from_the_coordinator_that_its_certificate_has_ended() {
    let world = World::new().await;
    world.certify(&world.authority("coordinator"), Some(10));
    world.believes(unix_secs(), unix_secs() + 5 * DAY);
    let (_, notes) = world.run().await;
    let is_said = |note: &Note| note.what.contains("certificate has ended; it is renewed");
    assert!(notes.iter().any(is_said), "{notes:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sides_that_do_not_know_each_other_any_more_say_what_to_do() {
    let world = World::new().await;
    let other = world.authority("another-coordinator");
    world.certify(&other, None);
    let said = world.trouble().await;
    assert!(said.contains("does not take this device's certificate"), "{said}");

    let device = Device::open(&world.home()).unwrap();
    device.store().put("authority-certificate", &BASE64_STANDARD.encode(other.certificate())).unwrap();
    drop(device);
    let said = world.trouble().await;
    assert!(said.contains("not the coordinator with which this device enrolled"), "{said}");
    world.end().await;
}
