//! What a connected device costs a coordinator, in memory: measured, with the coordinator as a process of its own.
//!
//! ```text
//! cargo test --release -p nightshift-tests --test connections -- --ignored --nocapture
//! ```
//!
//! `NIGHTSHIFT_CONNECTED` changes how many devices connect, 10,000 of which need as many file descriptors on both sides.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a measurement waits, spawns and prints")]

use std::fs;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregation::IdentityPublic;
use bytes::Bytes;
use client::keys::DeviceKeys;
use coordinator::pki::{Authority, Validity};
use coordinator::records::{self, DeviceRecord};
use h2::client::SendRequest;
use prost::Message;
use proto::ids::DeviceId;
use proto::wire;
use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use shell::store::{Batch, Store};
use shell::tls::{ClientIdentity, Connector, Trust, client_config};
use tokio::sync::Semaphore;
use tower::Service;

use stage::Stage;

#[path = "common/stage.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod stage;

/// Handshakes at a time.
const AT_ONCE: usize = 64;

const LONG: Validity = Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 4_000_000_000 };

fn device(number: u32) -> DeviceId {
    let mut id = [0xdd; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    DeviceId(id)
}

/// Resident memory of a process, in bytes.
fn resident(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Enrolls devices in the folder of a coordinator that does not run, with one TLS key, and gives their certificates.
fn enrolled(stage: &Stage, devices: u32) -> (Vec<CertificateDer<'static>>, Trust, DeviceKeys) {
    let home = stage.path("home");
    let store = Store::open(&home.join("store")).unwrap();
    for begin in (0..devices).step_by(2000) {
        let mut batch = Batch::new();
        for number in begin..devices.min(begin + 2000) {
            let mut identity = [0xdd; 32];
            identity[..4].copy_from_slice(&number.to_be_bytes());
            let record = DeviceRecord::new("phone".into(), IdentityPublic(identity), 0, 4_000_000_000);
            records::insert_device(&mut batch, device(number), &record).unwrap();
        }
        store.commit_blocking(&batch).unwrap();
    }
    let authority = Authority::open_or_create(&home, LONG).unwrap();
    let rng = SystemRandom::new();
    let keys = DeviceKeys::open_or_create(&stage.path("keys"), &rng).unwrap();
    let request = keys.signing_request().unwrap();
    let sign = |number| authority.sign_device(&request, &device(number).0, LONG, &rng).unwrap();
    let certificates = (0..devices).map(sign).collect();
    (certificates, Trust::Authority(authority.certificate().clone()), keys)
}

/// One connection, with HTTP/2 begun on it.
async fn connect(address: String, trust: Trust, identity: ClientIdentity) -> SendRequest<Bytes> {
    let config = client_config(trust, Some(identity)).unwrap();
    let uri = format!("https://{address}").parse().unwrap();
    let stream = Connector::new(config, Duration::from_secs(60)).call(uri).await.unwrap().into_inner();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

/// Asks for work; returns when the answer begins.
async fn check_in(sender: SendRequest<Bytes>, address: &str) -> bool {
    let ask = wire::Request { kind: Some(wire::request::Kind::CheckIn(wire::CheckIn::default())) };
    let message = ask.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = Bytes::from([&[0], length.as_slice(), &message].concat());
    let request = http::Request::post(format!("https://{address}/nightshift.v1.Device/Send"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, mut stream) = sender.ready().await.unwrap().send_request(request, false).unwrap();
    stream.send_data(body, true).unwrap();
    answer.await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_a_connected_device_takes() {
    let devices = std::env::var("NIGHTSHIFT_CONNECTED").map_or(9_000, |text| text.parse().unwrap());
    let stage = Stage::new();
    drop(stage.coordinator());
    let (certificates, trust, keys) = enrolled(&stage, devices);
    let coordinator = stage.coordinator();
    let address = format!("localhost:{}", stage.ports.0);
    let before = resident(&coordinator.0);
    let (begun, turns) = (Instant::now(), Arc::new(Semaphore::new(AT_ONCE)));
    let mut connecting = Vec::new();
    for certificate in certificates {
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let identity = ClientIdentity { chain: vec![certificate], key: keys.tls_key() };
        let (address, trust) = (address.clone(), trust.clone());
        connecting.push(tokio::spawn(async move {
            let sender = connect(address, trust, identity).await;
            drop(turn);
            sender
        }));
    }
    let mut connected = Vec::new();
    for one in connecting {
        connected.push(one.await.unwrap());
    }
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = resident(&coordinator.0);
    let each = |after: u64| (after - before) / u64::from(devices);
    println!(
        "{devices} devices connected in {took:.1?}: {} MiB before, {} MiB after, {} bytes each",
        before >> 20,
        idle >> 20,
        each(idle)
    );
    let asking: Vec<_> = connected
        .iter()
        .map(|sender| {
            let (sender, address) = (sender.clone(), address.clone());
            tokio::spawn(async move { check_in(sender, &address).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let answered = asking.iter().filter(|one| one.is_finished()).count();
    let holding = resident(&coordinator.0);
    println!(
        "each holds a question, {answered} were answered already: {} MiB, {} bytes each",
        holding >> 20,
        each(holding)
    );
    assert!(connected.len() as u64 == u64::from(devices), "{}", connected.len());
}
