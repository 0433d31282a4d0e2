//! How long a round takes: devices and a coordinator on loopback, over TLS with certificates of both sides, a trainer
//! that takes no time.
//!
//! ```text
//! cargo test --release -p nightshift-tests --test door -- --ignored --nocapture a_round_of_ten
//! ```
//!
//! `NIGHTSHIFT_ROUND_DEVICES` and `NIGHTSHIFT_ROUND_VERSIONS` change how many there are.

use std::time::{Duration, Instant};

use proto::adapter::Module;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;

fn number(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Changes every number, and counts nothing.
#[derive(Clone)]
struct AtOnce {
    base: Digest,
    layers: Vec<String>,
}

impl Trainer for AtOnce {
    fn bases(&self) -> Vec<Digest> {
        vec![self.base]
    }

    fn layers(&self, _: Digest) -> Vec<String> {
        self.layers.clone()
    }

    fn training_bytes(&self, _: Digest, _: usize, _: usize, _: usize) -> u64 {
        0
    }

    fn train(&self, job: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError> {
        let before = job.work.training().map_err(|error| TrainerError::new(error.to_string()))?;
        let after: Vec<f32> = before.trained.iter().map(|x| x + 0.001).collect();
        Ok(TrainingEnd::Trained(Update::between(&before.trained, &after, 1.0, 1).unwrap()))
    }
}

/// A plan of a little over a million numbers.
fn large_plan(devices: u32, versions: u32) -> Plan {
    let mut plan = Plan::example();
    plan.base = Digest([7; 32]);
    let module = |i| Module { name: format!("layer.{i}"), inputs: 4096, outputs: 4096 };
    plan.adapter.modules = (0..4).map(module).collect();
    plan.adapter.rank = 64;
    plan.privacy.mode = Mode::Off;
    (plan.round.cohort, plan.round.report_goal, plan.round.versions) = (devices, devices, versions);
    (plan.round.join_millis, plan.round.step_millis) = (60_000, 60_000);
    plan.privacy.participations = versions;
    plan
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a measurement"]
async fn a_round_of_ten_devices_and_a_million_numbers() {
    let devices = number("NIGHTSHIFT_ROUND_DEVICES", 10);
    let versions = number("NIGHTSHIFT_ROUND_VERSIONS", 5);
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

    let plan = large_plan(devices, versions);
    let numbers = plan.adapter.initial(&plan.initial_seed, None).len();
    let layers = plan.adapter.modules.iter().map(|module| module.name.clone()).collect();
    let trainer = AtOnce { base: plan.base, layers };
    let mut running = JoinSet::new();
    for at in 0..devices {
        let (home, token) =
            (folder.path().join(format!("device-{at}")), token(&mut admin, at as usize).await);
        let (trainer, stop) = (trainer.clone(), stop.clone());
        running.spawn(async move {
            let device = Device::open(&home).unwrap();
            device.enroll(&token.parse().unwrap(), None).await.unwrap();
            let policy = Policy { participations_a_day: 1000, ..policy() };
            let settings = Settings { once: false, policy, ..settings() };
            device.run(trainer, Machine::Free, settings, stop).await.unwrap()
        });
    }
    let request = AdminRequest::CreateTask { plan: plan.to_bytes().unwrap(), frozen: Vec::new() };
    let AdminReply::Task(created) = admin.call(request).await.unwrap() else { panic!("no task") };
    let (mut seen, mut begun, mut opened) = (0, Instant::now(), false);
    let given_up = Instant::now() + Duration::from_secs(300);
    while seen < versions {
        assert!(Instant::now() < given_up, "version {seen} of {versions}");
        let AdminReply::Task(status) = admin.call(AdminRequest::ShowTask(created.task)).await.unwrap() else {
            panic!("no task")
        };
        if !opened && !status.open_round.is_empty() {
            (begun, opened) = (Instant::now(), true);
        }
        if status.version > seen {
            println!(
                "version {}: {:?} since its round was seen open; {devices} devices, {numbers} numbers",
                status.version,
                begun.elapsed()
            );
            (seen, begun, opened) = (status.version, Instant::now(), false);
        }
        sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    serving.await.unwrap().unwrap();
}
