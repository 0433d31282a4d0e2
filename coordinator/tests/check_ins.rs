//! What check-ins cost at a driver: without TLS and without gRPC, as calls of functions of one process.
//!
//! ```text
//! cargo test -p nightshift-coordinator --test check_ins -- --ignored --nocapture --test-threads 1
//! ```
//!
//! `NIGHTSHIFT_CHECK_IN_DEVICES` changes how many devices are enrolled, `NIGHTSHIFT_CHECK_IN_COORDINATES` how long the
//! vector is whose sum is opened meanwhile. To compare with an older version, this file and `benches` are copied into a
//! worktree of it.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement reads the clock, spawns, prints, and fails by panicking"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::authority::witnesses::Witnesses;
use nightshift_coordinator::artifacts::Artifacts;
use nightshift_coordinator::audit::{self, Audit};
use nightshift_coordinator::driver::{Driver, now};
use nightshift_coordinator::enroller::Enroller;
use nightshift_coordinator::enrollment::Registry;
use nightshift_coordinator::kept_log::KeptLog;
use nightshift_coordinator::last_seen::LastSeen;
use nightshift_coordinator::operators::Operators;
use nightshift_coordinator::outside::Hooks;
use nightshift_coordinator::pki::{Authority, EnrollmentKey, Validity};
use nightshift_coordinator::records::{self, DeviceRecord};
use nightshift_coordinator::revocations::Revocations;
use proto::ids::DeviceId;
use proto::message::{CheckIn, DeclineReason, Reply, Request};
use proto::plan::Plan;
use proto::training::ServerOptimizer;
use ring::rand::SystemRandom;
use shell::store::{Batch, Store};
use stage::{OFFERED, Scenario, Stage, authority, check_in_during, id, plan, print};
use task::spool::FolderSpooler;
use tokio::sync::oneshot;

#[path = "../benches/opening/stage.rs"]
mod stage;

/// Callers at one time.
const CALLERS: u32 = 64;

const FOR: Duration = Duration::from_secs(10);

/// Records in one transaction.
const AT_ONCE: u32 = 2_000;

fn number(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

fn device(number: u32) -> DeviceId {
    let mut id = [0xee; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    DeviceId(id)
}

fn store_of(folder: &Path, devices: u32) -> Store {
    let store = Store::open(&folder.join("store")).unwrap();
    for begin in (0..devices).step_by(AT_ONCE as usize) {
        let mut batch = Batch::new();
        for number in begin..devices.min(begin + AT_ONCE) {
            let mut key = [0xee; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            let record = DeviceRecord::new("phone".into(), aggregation::IdentityPublic(key), 0, u64::MAX);
            records::insert_device(&mut batch, device(number), &record).unwrap();
        }
        store.commit_blocking(&batch).unwrap();
    }
    store
}

fn driver_of(folder: &Path, store: Store) -> Driver {
    let artifacts = Artifacts::open(&folder.join("artefacts")).unwrap();
    let spooler = FolderSpooler::new(&folder.join("spool")).unwrap();
    Driver::open(store, artifacts, authority().public(), Arc::new(spooler)).unwrap()
}

/// As the service asks for each call of a device: is it enrolled, and what is there for it?
fn registry_of(folder: &Path, store: &Store, driver: &Driver) -> Registry {
    let validity = Validity { not_before_unix_secs: 0, not_after_unix_secs: 4_000_000_000 };
    let audit = audit::Place {
        folder: folder.join("audit"),
        seed: folder.join("audit.seed"),
        head: std::path::PathBuf::new(),
        most_bytes: 64 << 20,
    };
    let enrollment_key =
        EnrollmentKey::open_or_create(&folder.join("enrolment.seed"), &SystemRandom::new()).unwrap();
    let log = Arc::new(KeptLog::open(store.clone(), enrollment_key.public()).unwrap());
    Registry {
        witnesses: Arc::new(Witnesses::open(&[], 0, (&enrollment_key.public(), &log)).unwrap()),
        log,
        enroller: Enroller::Here(enrollment_key),
        store: store.clone(),
        authority: Authority::open_or_create(folder, validity).unwrap(),
        address: "localhost:7443".to_owned(),
        device_secs: 1,
        renewal_grace_secs: 1,
        operators: Arc::new(Operators::open(store.clone()).unwrap()),
        operator_secs: 1,
        revocations: Revocations::open(Path::new("")).unwrap().0,
        driver: driver.clone(),
        audit: Audit::open(&audit, store.clone(), &SystemRandom::new(), now()).unwrap(),
        seen: LastSeen::default(),
        hooks: Hooks::none(),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn check_ins_a_second_beside_a_hundred_thousand_devices() {
    let devices = number("NIGHTSHIFT_CHECK_IN_DEVICES", 100_000);
    let folder = tempfile::tempdir().unwrap();
    let store = store_of(folder.path(), devices);
    let begun = Instant::now();
    let driver = driver_of(folder.path(), store.clone());
    let registry = Arc::new(registry_of(folder.path(), &store, &driver));
    println!("opened with {devices} devices in {:.1?}", begun.elapsed());
    for tasks in [1, 10] {
        while driver.list().await.len() < tasks {
            let name = format!("task {}", driver.list().await.len());
            let plan = Plan { name, ..plan(10, 1000) };
            driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap();
        }
        let (answered, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (driver, registry, answered) =
                    (driver.clone(), Arc::clone(&registry), Arc::clone(&answered));
                tokio::spawn(async move {
                    // No two callers come as the same device, and each comes as many.
                    let mut number = caller;
                    while begun.elapsed() < FOR {
                        number = (number + 7919 * CALLERS) % devices;
                        registry.check(device(number)).unwrap();
                        let reply = driver
                            .handle(device(number), Request::CheckIn(CheckIn::default()))
                            .await
                            .unwrap();
                        // Most find no place.
                        let is_answered = matches!(reply, Reply::Assignment(_) | Reply::Wait { .. });
                        assert!(is_answered, "{reply:?}");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        let rate = answered.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        println!("{tasks} tasks, {devices} devices, {CALLERS} callers: {rate:.0} check-ins/s");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn check_ins_for_one_task_while_a_large_sum_of_another_is_opened_and_committed() {
    let coordinates = number("NIGHTSHIFT_CHECK_IN_COORDINATES", 16_000_000);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let driver = driver_of(folder.path(), store);
    let scenario =
        Scenario { what: "the sum of the large task", devices: 4, coordinates, missing: 0, wrong: 0..0 };
    let large = {
        let plan = plan(scenario.devices, scenario.coordinates);
        // With two moments beside the adapter, all of which are written.
        let server = ServerOptimizer::FedAdam { rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 0.001 };
        Plan { server, ..plan }.with_recommended_scale().unwrap()
    };
    let task = driver.create_task(large.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let other = Plan { name: "other".to_owned(), ..plan(10, 1000) };
    let other = driver.create_task(other.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    // Those that declined the other task come to the large one first.
    let (free, bound) = ([id(60_000)], [id(60_001)]);
    let decline = Request::Decline { task: other, reason: DeclineReason::Noise };
    driver.handle(bound[0], decline).await.unwrap();
    println!("{OFFERED} check-ins a second, {coordinates} coordinates");
    let anything = |reply: &Reply| matches!(reply, Reply::Assignment(_) | Reply::Wait { .. });
    let both = [free, bound].concat();
    let stage = Stage::new(&driver, task, &large, scenario.devices).await;
    let playing = stage.play_to_the_last_step(&scenario);
    let (revealed, played) = check_in_during(&driver, &both, anything, playing).await;
    print("until the last step (devices compute beside it)", &played);
    let idling = tokio::time::sleep(Duration::from_secs(2));
    let ((), idle) = check_in_during(&driver, &both, anything, idling).await;
    print("nothing else happens", &idle);
    let (over, is_over) = oneshot::channel::<()>();
    let begun = Instant::now();
    let opening = async {
        stage.unmask(revealed).await;
        drop(over);
        begun.elapsed()
    };
    let meanwhile = async { assert!(is_over.await.is_err()) };
    let ((opened, free), ((), bound)) = tokio::join!(
        check_in_during(&driver, &free, anything, opening),
        check_in_during(&driver, &bound, anything, meanwhile)
    );
    println!("{} opened and committed in {opened:.1?}", scenario.what);
    print("who comes to the other task first", &free);
    print("who comes to the large task first", &bound);
    assert_eq!(driver.show(task).await.unwrap().version, 1);
}
