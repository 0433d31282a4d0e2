//! Devices that have spent what they may, and go on asking.

use std::time::Instant;

use super::*;
use crate::records::DeviceRecord;
use shell::store::Batch;

const ENROLLED: u16 = 8_016;

fn named(i: u16) -> DeviceId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&i.to_be_bytes());
    DeviceId(id)
}

/// A task of which all devices but `left` have spent their participations.
async fn world(left: u16) -> (World, Driver, TaskId) {
    let world = World::new();
    let driver = world.open();
    let plan = plan(3);
    let task = driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    drop(driver);
    let store = Store::open(&world.folder.path().join("store")).unwrap();
    let record = DeviceRecord::new("phone".into(), identity(1).public(), 0, u64::MAX);
    let mut batch = Batch::new();
    for i in 0..ENROLLED {
        records::insert_device(&mut batch, named(i), &record).unwrap();
        if i >= left {
            records::put_participations(&mut batch, task, named(i), plan.privacy.participations).unwrap();
        }
    }
    store.commit(batch).await.unwrap();
    let driver = world.open_with(store);
    (world, driver, task)
}

#[tokio::test]
async fn spent_devices_are_counted_once_and_their_check_ins_cost_next_to_nothing() {
    let (_world, driver, task) = world(u16::from(COHORT)).await;
    let ask = |i| driver.handle(named(i), Request::CheckIn(CheckIn::default()));
    ask(ENROLLED - 1).await.unwrap();
    let begun = Instant::now();
    for i in 0..200 {
        let answer = ask(ENROLLED - 2 - i).await.unwrap();
        assert!(matches!(answer, Reply::Wait { .. }), "{answer:?}");
    }
    let each = begun.elapsed() / 200;
    println!("a check-in of a spent device beside {ENROLLED} others: {each:?}");
    assert!(each.as_micros() < 3_000, "{each:?}");
    assert_eq!(driver.show(task).await.unwrap().state, TaskState::Active);
}

#[tokio::test]
async fn a_revocation_that_leaves_too_few_is_noticed() {
    let (world, driver, task) = world(u16::from(COHORT)).await;
    driver.handle(named(ENROLLED - 1), Request::CheckIn(CheckIn::default())).await.unwrap();
    drop(driver);
    let store = Store::open(&world.folder.path().join("store")).unwrap();
    let driver = world.open_with(store.clone());
    driver.handle(named(ENROLLED - 1), Request::CheckIn(CheckIn::default())).await.unwrap();
    assert_eq!(driver.show(task).await.unwrap().state, TaskState::Active);
    records::revoke(&store, named(0), Batch::new()).unwrap();
    driver.known().revoked(named(0));
    driver.handle(named(ENROLLED - 1), Request::CheckIn(CheckIn::default())).await.unwrap();
    assert_eq!(driver.show(task).await.unwrap().state, TaskState::BudgetSpent);
}
