//! What peers may hold of a coordinator who are not its devices, or are and misbehave: memory, connections, time. Each
//! attack runs against a coordinator of its own, as a process, beside a device that works.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "IO shell: the tests measure how long calls take")]
#![expect(clippy::print_stdout, reason = "what was measured is to be read")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregation::IdentityKey;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use client::enrollment;
use client::keys::DeviceKeys;
use client::store::DeviceStore;
use client::transport::{Transport, TransportError, pinned_authority};
use coordinator::pki::{Authority, Validity};
use h2::client::SendRequest;
use http::Request as HttpRequest;
use proto::convert::Enrollment;
use proto::ids::Digest;
use proto::message::{CheckIn, Rejection, Request};
use proto::token::BootstrapToken;
use ring::rand::SystemRandom;
use session::policy::Policy;
use shell::tls::{ClientIdentity, Connector, Trust, client_config};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tower::Service;

use stage::{Running, Stage, output, short_lines, text};

#[path = "common/stage.rs"]
mod stage;

const MIB: u64 = 1 << 20;

const LONG: Validity = Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 4_000_000_000 };

/// Resident memory of a process, in bytes.
fn resident(process: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Open files of a process.
fn open_files(process: &Child) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count()
}

/// A coordinator with one device that is enrolled.
struct Scene {
    stage: Stage,
    coordinator: Running,
    token: BootstrapToken,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let coordinator = stage.coordinator();
        stage.enroll("anna", &short_lines(0));
        let token = stage.operator(&["device", "token", "--label", "nobody"]).parse().unwrap();
        Self { stage, coordinator, token }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.stage.ports.0)
    }

    /// The working device's connection.
    fn anna(&self) -> Transport {
        let folder = self.stage.path("anna");
        let memory = DeviceStore::open(&folder).unwrap();
        enrollment::load(
            &folder,
            &memory,
            (None, &client::Proxy::none()),
            vec![Digest([0; 32])],
            Policy::default(),
        )
        .unwrap()
        .transport
    }

    /// A connection of somebody without a certificate, as far as HTTP/2.
    async fn stranger(&self) -> SendRequest<Bytes> {
        let authority =
            pinned_authority(&self.address(), self.token.pin(), client::Proxy::none()).await.unwrap();
        let config = client_config(Trust::Authority(authority), None).unwrap();
        let uri = format!("https://{}", self.address()).parse().unwrap();
        let stream = Connector::new(config, Duration::from_secs(10)).call(uri).await.unwrap().into_inner();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        sender
    }
}

/// Beginnings of messages of a mebibyte less one byte, each in a call of its own, as fast as the other side takes them.
async fn unfinished_calls(mut sender: SendRequest<Bytes>, path: &str, calls: usize) -> usize {
    let mut begun = 0;
    let mut streams = Vec::new();
    for _ in 0..calls {
        let Ok(Ok(ready)) = timeout(Duration::from_secs(2), sender.clone().ready()).await else { break };
        sender = ready;
        let request = HttpRequest::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let Ok((response, mut body)) = sender.send_request(request, false) else { break };
        let mut bytes = vec![0; (1 << 20) + 4];
        bytes[1..5].copy_from_slice(&(1_u32 << 20).to_be_bytes());
        drop(body.send_data(bytes.into(), false));
        streams.push((response, body));
        begun += 1;
    }
    sleep(Duration::from_secs(2)).await;
    begun
}

/// What is answered at once: a check-in that takes no work.
fn call() -> Request {
    Request::CheckIn(CheckIn { only_keeps: true, declined: Vec::new() })
}

/// Check-ins of a device, one after the other, until `work` is over: how long each took, in order of length.
async fn felt_by<T>(device: &mut Transport, work: impl Future<Output = T>) -> (T, Vec<Duration>) {
    let mut took = Vec::new();
    let calls = async {
        loop {
            let begun = Instant::now();
            device.send(&call()).await.unwrap();
            took.push(begun.elapsed());
            sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        never = calls => never,
    };
    took.sort_unstable();
    (done, took)
}

fn say(what: &str, took: &[Duration]) -> Duration {
    let p99 = took[(took.len() * 99 / 100).min(took.len() - 1)];
    println!(
        "{what}; a device's {} calls meanwhile: median {:?}, p99 {p99:?}",
        took.len(),
        took[took.len() / 2]
    );
    p99
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_calls_of_strangers_hold_no_memory() {
    let scene = Scene::new();
    let mut anna = scene.anna();
    anna.send(&call()).await.unwrap();
    let before = resident(&scene.coordinator.0);
    for path in ["/nightshift.v1.Device/Enroll", "/nightshift.v1.Device/Send"] {
        let attack = async {
            let mut begun = 0;
            for _ in 0..4 {
                begun += unfinished_calls(scene.stranger().await, path, 1500).await;
            }
            begun
        };
        let (begun, took) = felt_by(&mut anna, attack).await;
        let held = resident(&scene.coordinator.0).saturating_sub(before);
        let p99 = say(&format!("{begun} calls of {path} begun, {} KiB held", held / 1024), &took);
        assert!(held < 4 * MIB, "{held}");
        assert!(p99 < Duration::from_millis(500));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_holds_a_few_messages_and_no_more() {
    let scene = Scene::new();
    let mut anna = scene.anna();
    anna.send(&call()).await.unwrap();
    // A certificate is enough: nobody asks for the device's record before a message is whole.
    let rng = SystemRandom::new();
    let keys = DeviceKeys::open_or_create(&scene.stage.path("keys"), &rng).unwrap();
    let authority = Authority::open_or_create(&scene.stage.path("home"), LONG).unwrap();
    let request = keys.signing_request().unwrap();
    let certificate = authority.sign_device(&request, &[7; 16], LONG, &rng).unwrap();
    let trust = Trust::Authority(authority.certificate().clone());
    let identity = ClientIdentity { chain: vec![certificate], key: keys.tls_key() };
    let config = client_config(trust, Some(identity)).unwrap();
    let before = resident(&scene.coordinator.0);
    let attack = async {
        let mut begun = Vec::new();
        for _ in 0..8 {
            let uri = format!("https://{}", scene.address()).parse().unwrap();
            let connected = Connector::new(Arc::clone(&config), Duration::from_secs(10)).call(uri).await;
            let (sender, connection) = h2::client::handshake(connected.unwrap().into_inner()).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            begun.push(tokio::spawn(unfinished_calls(sender, "/nightshift.v1.Device/Send", 100)));
        }
        let mut total = 0;
        for calls in begun {
            total += calls.await.unwrap();
        }
        (total, resident(&scene.coordinator.0).saturating_sub(before))
    };
    let ((begun, held), took) = felt_by(&mut anna, attack).await;
    let p99 = say(&format!("{begun} calls of one device begun, {} KiB held", held / 1024), &took);
    // Two connections of four calls.
    assert!(held < 12 * MIB, "{held}");
    assert!(p99 < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_nobody_out() {
    let scene = Scene::new();
    let mut silent = Vec::new();
    // As many as this process may have open.
    for _ in 0..700 {
        silent.push(TcpStream::connect(scene.address()).await.unwrap());
    }
    let tokens: Vec<String> = (0..4)
        .map(|i| scene.stage.operator(&["device", "token", "--label", &format!("device {i}")]))
        .collect();
    let begun = Instant::now();
    for (i, token) in tokens.iter().enumerate() {
        let device = format!("device-{i}");
        text(&output(scene.stage.agent(&device).args(["enroll", "--token", token])));
    }
    println!("4 of 4 enrolled beside 700 silent connections in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10));
    sleep(Duration::from_secs(3)).await;
    // Nobody else is connected.
    let open = open_files(&scene.coordinator.0);
    println!("{open} files open after them");
    assert!(open < 64, "{open}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_strangers_are_gone_within_thirty_seconds() {
    let scene = Scene::new();
    let begun = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(scene.stranger().await);
    }
    let crowd = open_files(&scene.coordinator.0);
    sleep(Duration::from_secs(30).saturating_sub(begun.elapsed())).await;
    let left = open_files(&scene.coordinator.0);
    println!("{crowd} files open while 100 strangers came, {left} half a minute after the first");
    // 64 of them at most, and what the process has open for itself.
    assert!(crowd < 64 + 64 && left < 64, "{crowd}, {left}");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_never_stops_asking_is_slowed_down_and_others_are_not() {
    let scene = Scene::new();
    let (mut anna, mut bela) = (scene.anna(), {
        scene.stage.enroll("bela", &short_lines(1));
        let folder = scene.stage.path("bela");
        let memory = DeviceStore::open(&folder).unwrap();
        enrollment::load(
            &folder,
            &memory,
            (None, &client::Proxy::none()),
            vec![Digest([0; 32])],
            Policy::default(),
        )
        .unwrap()
        .transport
    });
    anna.send(&call()).await.unwrap();
    let attack = async {
        let (begun, mut answered) = (Instant::now(), 0_u32);
        while begun.elapsed() < Duration::from_secs(15) {
            bela.send(&call()).await.unwrap();
            answered += 1;
        }
        answered
    };
    let (answered, took) = felt_by(&mut anna, attack).await;
    let p99 = say(&format!("{answered} check-ins of one device in 15 s"), &took);
    // What it may at once, and a hundred a second.
    assert!(answered <= 1024 + 1600, "{answered}");
    assert!(p99 < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_fields_at_enrollment_are_refused_and_cost_no_token() {
    let scene = Scene::new();
    let authority =
        pinned_authority(&scene.address(), scene.token.pin(), client::Proxy::none()).await.unwrap();
    let mut transport =
        Transport::new(&scene.address(), Trust::Authority(authority), None, client::Proxy::none()).unwrap();
    let key = IdentityKey::from_seed(&[1; 32]);
    let keys = DeviceKeys::open_or_create(&scene.stage.path("keys"), &SystemRandom::new()).unwrap();
    let request = BASE64_STANDARD.encode(keys.signing_request().unwrap());
    let request =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{request}\n-----END CERTIFICATE REQUEST-----\n");
    let whole = Enrollment::new(&scene.token.key(), request, &key);
    let mut wrong = whole.clone();
    wrong.identity.0 = [0; 32];
    assert!(refusal(transport.enroll(&wrong).await).contains("low order"));
    let mut wrong = whole.clone();
    wrong.identity = IdentityKey::from_seed(&[2; 32]).public();
    assert!(refusal(transport.enroll(&wrong).await).contains("did not sign"));
    transport.enroll(&whole).await.unwrap();
}

fn refusal<T>(answer: Result<T, TransportError>) -> String {
    match answer {
        Err(TransportError::Rejected(rejection @ Rejection::Unacceptable { .. })) => rejection.to_string(),
        Err(other) => other.to_string(),
        Ok(_) => "none".to_owned(),
    }
}

#[test]
fn a_coordinator_with_few_descriptors_finishes_its_rounds() {
    let stage = Stage::new();
    let mut command = Command::new("sh");
    let nightshift = stage.nightshift();
    let program = nightshift.get_program().to_owned();
    command.arg("-c").arg("ulimit -n 256 && exec \"$0\" \"$@\"").arg(program).args(nightshift.get_args());
    let coordinator = stage.coordinator_by(command);
    stage.create_task(&["--versions", "1", "--privacy", "off", "--clip", "4"]);
    let devices = ["anna", "bela", "cem", "dora"];
    for (i, device) in devices.iter().enumerate() {
        stage.enroll(device, &short_lines(i));
    }
    // More connections than the coordinator has descriptors, all through the round.
    let crowd = stage.ports.0;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let crowd = std::thread::spawn(move || {
        let mut silent = std::collections::VecDeque::new();
        while stopped.try_recv().is_err() {
            if let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", crowd)) {
                silent.push_back(stream);
            }
            if silent.len() > 400 {
                silent.pop_front();
            }
        }
    });
    let agents: Vec<Running> = devices.iter().map(|device| stage.run(device, &["--once"])).collect();
    stage.operator(&["task", "watch", "owl"]);
    stop.send(()).unwrap();
    crowd.join().unwrap();
    let task = stage.task();
    assert_eq!((task["state"].as_str(), task["version"].as_u64()), (Some("complete"), Some(1)));
    let log = log_of(&stage.path("coordinator.log"));
    assert!(log.contains("limits.connections, which is lowered"), "{log}");
    drop((agents, coordinator));
}

fn log_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
