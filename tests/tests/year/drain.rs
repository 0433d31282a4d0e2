//! A coordinator that is told to stop ends by its deadline, whatever its peers do, and has lost nothing.

use std::future::pending;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coordinator::pki::{Authority, Identity, Validity};
use coordinator::server::OPERATOR;
use h2::client::SendRequest;
use nightshift_tests::one_hot;
use operator::client::AdminClient;
use proto::admin::AdminRequest;
use rustix::process::{Pid, Signal, kill_process};
use shell::tls::{ClientIdentity, Connector, Trust, client_config};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::faults::NAMES;
use super::stage::{output, text};
use super::wait::wait_for;
use super::*;

/// What is stated in `deploy/coordinator.toml`: the end comes at most so long after `drain_secs`.
const AFTER: Duration = Duration::from_secs(5);

const LONG: Validity = Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 4_000_000_000 };

/// A coordinator with a task and a device that is enrolled.
struct Scene {
    stage: Stage,
    coordinator: Running,
    drain: Duration,
}

impl Scene {
    fn new(drain_secs: u64) -> Self {
        let stage = Stage::new();
        drop(stage.coordinator());
        configure(&stage.path("home"), &format!("drain_secs = {drain_secs}"));
        let coordinator = stage.coordinator();
        let one = ["--versions", "1", "--join-secs", "60", "--step-secs", "60"];
        stage.create_task(&[&one_hot::TASK[..], &one].concat());
        for (at, name) in NAMES.iter().take(4).enumerate() {
            stage.enroll(name, &stage::short_lines(at));
        }
        Self { stage, coordinator, drain: Duration::from_secs(drain_secs) }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.stage.ports.0)
    }

    /// The device of this number runs.
    fn device(&self, number: usize) -> Running {
        quick_device(&self.stage, NAMES[number], number, &self.address())
    }

    /// A connection whose certificate is good, up to the end of the TLS handshake.
    async fn tls(&self, device: u8) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
        let authority = Authority::open_or_create(&self.stage.path("home"), LONG).unwrap();
        let rng = ring::rand::SystemRandom::new();
        let keys = client::keys::DeviceKeys::open_or_create(&self.stage.path("peer"), &rng).unwrap();
        let request = keys.signing_request().unwrap();
        let chain = vec![authority.sign_device(&request, &[device; 16], LONG, &rng).unwrap()];
        let identity = ClientIdentity { chain, key: keys.tls_key() };
        let trust = Trust::Authority(authority.certificate().clone());
        let config = client_config(trust, Some(identity)).unwrap();
        let uri = format!("https://{}", self.address()).parse().unwrap();
        Connector::new(config, Duration::from_secs(10)).dial(&uri).await.unwrap()
    }

    /// Peers that do all that they can to keep their connections.
    async fn peers(&self) -> JoinSet<()> {
        let mut peers = JoinSet::new();
        // HTTP/2 that is idle, and asks all the time whether the other side is still there.
        let (sender, mut connection) = h2::client::handshake(self.tls(1).await).await.unwrap();
        let mut ping_pong = connection.ping_pong().unwrap();
        peers.spawn(async move {
            let pings = async {
                while ping_pong.ping(h2::Ping::opaque()).await.is_ok() {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            drop(tokio::join!(connection, pings));
            drop::<SendRequest<Bytes>>(sender);
        });
        // HTTP/2 that says so too, and hears nothing: no word of an end, and no ping of the coordinator's.
        let mut stubborn = self.tls(2).await;
        stubborn.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        peers.spawn(async move {
            while stubborn.write_all(b"\0\0\x08\x06\0\0\0\0\0nobody..").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        });
        // TLS and nothing after it.
        let shaken = self.tls(3).await;
        let silent = TcpStream::connect(self.address()).await.unwrap();
        let operator = Identity::load(&self.stage.path("home"), OPERATOR).unwrap();
        let address = format!("127.0.0.1:{}", self.stage.ports.1);
        let mut operator = AdminClient::connect(&address, &operator).await.unwrap();
        operator.call(AdminRequest::ShowHealth).await.unwrap();
        peers.spawn(async move {
            pending::<()>().await;
            drop((shaken, silent, operator));
        });
        peers
    }

    /// Tells it to stop.
    fn stop(&self) -> Instant {
        kill_process(Pid::from_child(&self.coordinator.0), Signal::TERM).unwrap();
        Instant::now()
    }

    /// Waits until it has: by which code, and after how long.
    async fn stopped(&mut self, told: Instant) -> (Option<i32>, Duration) {
        loop {
            if let Some(status) = self.coordinator.0.try_wait().unwrap() {
                return (status.code(), told.elapsed());
            }
            assert!(told.elapsed() < self.drain + 4 * AFTER, "it does not end: {}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Panics unless all is whole, and starts it again.
    fn starts_again(&mut self) {
        let checked = text(&output(self.stage.nightshift().args(["store", "check"])));
        assert!(checked.contains("all of it is whole"), "{checked}");
        self.coordinator = self.stage.coordinator();
        self.stage.operator(&["audit", "verify"]);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.stage.path("coordinator.log")).unwrap()
    }
}

/// The step of the open round, once there is one.
fn opened(stage: &Stage) -> String {
    wait_for("a round is open", || {
        let task = stage.task();
        Some(task["open_round"].as_str()?.to_owned()).filter(|open| !open.is_empty())
    })
}

/// Waits until the only version is there.
fn completed(stage: &Stage) {
    wait_for("the task is complete", || (stage.task()["state"] == "complete").then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_told_to_stop_ends_by_its_deadline_whatever_its_peers_do() {
    let mut scene = Scene::new(1);
    let mut peers = scene.peers().await;
    // In the open round, with a question that is held until the others come.
    let device = scene.device(0);
    assert_eq!(opened(&scene.stage), "advertise keys");
    assert!(peers.try_join_next().is_none(), "a peer was turned away");
    let told = scene.stop();
    let (code, took) = scene.stopped(told).await;
    println!("ended after {took:.1?}, with {:?} for open rounds", scene.drain);
    let log = scene.log();
    assert_eq!(code, Some(0), "{log}");
    assert!(took >= scene.drain && took <= scene.drain + AFTER, "{took:?}: {log}");
    for words in ["open rounds did not end in time", "stopped"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    peers.abort_all();

    // Nothing is lost: the device comes back by itself, and with the others the version is made.
    scene.starts_again();
    let others: Vec<Running> = (1..4).map(|number| scene.device(number)).collect();
    completed(&scene.stage);
    drop((device, others));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_without_an_open_round_waits_for_none() {
    let mut scene = Scene::new(60);
    let _peers = scene.peers().await;
    let told = scene.stop();
    let (code, took) = scene.stopped(told).await;
    println!("ended after {took:.1?}");
    assert_eq!(code, Some(0), "{}", scene.log());
    assert!(took <= AFTER, "{took:?}: {}", scene.log());
    scene.starts_again();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_that_is_open_when_it_is_told_to_stop_still_becomes_a_version() {
    let mut scene = Scene::new(60);
    let mut devices: Vec<Running> = (0..3).map(|number| scene.device(number)).collect();
    opened(&scene.stage);
    let told = scene.stop();
    wait_for("it stops", || scene.log().contains("stopping").then_some(()));
    devices.push(scene.device(3));
    let (code, took) = scene.stopped(told).await;
    println!("ended after {took:.1?}");
    assert_eq!(code, Some(0), "{}", scene.log());
    assert!(took < scene.drain, "{took:?}: {}", scene.log());
    drop(devices);
    scene.starts_again();
    assert_eq!(
        (&scene.stage.task()["state"], &scene.stage.task()["version"]),
        (&"complete".into(), &1.into())
    );
}
