//! How long the devices of one task wait while the sum of another is opened: check-ins at one driver, as many a
//! second as come from outside whether or not they are answered, from the first answer of the last step on until
//! the version is published.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program that measures: it reads the clock, prints, and ends at what it does not expect"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nightshift_coordinator::artifacts::Artifacts;
use nightshift_coordinator::driver::Driver;
use proto::ids::DeviceId;
use proto::message::Reply;
use proto::plan::{Plan, RoundPlan};
use shell::store::Store;
use task::spool::InMemory;

use stage::{OFFERED, Scenario, Stage, authority, check_in_during, plan, print};

#[path = "opening/stage.rs"]
mod stage;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("{OFFERED} check-ins of another task a second, on {} cores", rayon::current_num_threads());
    runtime.block_on(async {
        // 129 shares rebuild a seed here; the wrong ones come right before there are as many.
        let lies = Scenario {
            what: "256 devices, 12 reveal wrong shares",
            devices: 256,
            coordinates: 1000,
            missing: 0,
            wrong: 117..129,
        };
        let large = Scenario {
            what: "1000 devices, 300 missing, 100 k coordinates",
            devices: 1000,
            coordinates: 100_000,
            missing: 300,
            wrong: 0..0,
        };
        for scenario in [lies, large] {
            measure(&scenario).await;
        }
    });
}

async fn measure(scenario: &Scenario) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let artifacts = Artifacts::open(&folder.path().join("artefacts")).unwrap();
    let driver = Driver::open(store, artifacts, authority().public(), Arc::new(InMemory)).unwrap();
    // The first task is whose work everybody who checks in gets.
    let other = Plan { name: "other".to_owned(), ..plan(10, 1000) };
    let other = driver.create_task(other.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let (plan, task) = {
        let plan = plan(scenario.devices, scenario.coordinates);
        let plan = Plan {
            round: RoundPlan { report_goal: (scenario.devices - scenario.missing).into(), ..plan.round },
            ..plan
        };
        let bytes = plan.to_bytes().unwrap();
        (plan, driver.create_task(bytes, Vec::new()).await.unwrap().task)
    };

    let device = [DeviceId([0xdd; 16])];
    let is_others =
        move |reply: &Reply| matches!(reply, Reply::Assignment(work) if work.published.task == other);
    let idling = tokio::time::sleep(Duration::from_secs(2));
    let ((), idle) = check_in_during(&driver, &device, is_others, idling).await;
    print("nothing else happens", &idle);
    let start = Instant::now();
    let stage = Stage::new(&driver, task, &plan, scenario.devices).await;
    let revealed = stage.play_to_the_last_step(scenario).await;
    println!("{}: {:.0?} until the last step", scenario.what, start.elapsed());
    let ((), opened) = check_in_during(&driver, &device, is_others, stage.unmask(revealed)).await;
    print(scenario.what, &opened);
    assert_eq!(driver.show(task).await.unwrap().version, 1);
}
