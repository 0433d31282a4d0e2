//! A disk that takes nothing for a while, and records that are damaged.

use super::*;
use crate::records::DeviceRecord;
use shell::store::{Batch, Key};

/// A world whose disk can be full.
fn world() -> (World, Store, Driver) {
    let world = World::new();
    let store = Store::open(&world.folder.path().join("store")).unwrap();
    let driver = world.open_with(store.clone());
    (world, store, driver)
}

fn fill(store: &Store) {
    store.set_free_space_floor(u64::MAX);
}

fn free(store: &Store) {
    store.set_free_space_floor(0);
}

/// Until it is looked again whether the disk takes something.
async fn a_second() {
    sleep(Duration::from_millis(AGAIN_MILLIS)).await;
}

fn is_told_to_wait(answer: &Result<Reply, Rejection>) -> bool {
    matches!(answer, Ok(Reply::Wait { retry: Window { least_millis: TROUBLED_MILLIS, .. }, latest, complete: false }) if latest.is_empty())
}

#[tokio::test]
async fn a_full_disk_reveals_nothing_and_a_round_goes_on_when_there_is_room() {
    let (world, store, driver) = world();
    let task = driver.create_task(plan(2).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    fill(&store);
    let round = round.submit(&driver).await;
    // The survivors are not durable, so nobody is told of them.
    for (i, (_, done)) in (0..).zip(&round.devices) {
        assert!(is_told_to_wait(&driver.handle(device(i), done.clone()).await));
    }
    assert!(records::survivors(&store, task, round.context.round).unwrap().is_empty());
    // What is only read goes on, and who would write is told why not.
    let status = driver.show(task).await.unwrap();
    assert!(driver.fetch(status.plan, 0).await.is_ok());
    let check_in = driver.handle(device(9), Request::CheckIn(CheckIn::default())).await;
    assert!(is_told_to_wait(&check_in), "{check_in:?}");
    let refused = driver.create_task(bat(1).to_bytes().unwrap(), Vec::new()).await.unwrap_err();
    assert!(refused.to_string().contains("make room on that disk"), "{refused}");
    assert!(driver.trouble().unwrap().0.contains("bytes free"));
    close_due(&driver).await;
    assert!(!*driver.failed.borrow());

    // It looks again by itself, once a second.
    free(&store);
    a_second().await;
    close_due(&driver).await;
    assert_eq!(driver.trouble(), None);
    assert_eq!(records::survivors(&store, task, round.context.round).unwrap().len(), usize::from(COHORT));
    let session = SessionId(round.context.session.0);
    let mut revealed = round.reveal(&driver).await;
    // And full again when the version is to be committed.
    let last = revealed.pop().unwrap();
    for (i, shares) in (0..).zip(revealed) {
        driver.handle(device(i), Request::Unmask { session, shares }).await.unwrap();
    }
    fill(&store);
    driver.handle(device(COHORT - 1), Request::Unmask { session, shares: last }).await.unwrap();
    let mut under_way = driver.under_way.subscribe();
    under_way.wait_for(|openings| *openings == 0).await.unwrap();
    assert!(driver.trouble().is_some());
    free(&store);
    a_second().await;
    close_due(&driver).await;
    let status = driver.show(task).await.unwrap();
    assert_eq!((status.version, status.rounds_charged), (1, 1));
    drop((driver, store));
    assert_eq!(durable(world.open().show(task).await.unwrap()), durable(status));
}

#[tokio::test]
async fn a_start_on_a_full_disk_serves_what_is_read() {
    let (world, store, driver) = world();
    let status = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap();
    drop(driver);
    fill(&store);
    let driver = world.open_with(store);
    assert_eq!(durable(driver.show(status.task).await.unwrap()), durable(status.clone()));
    // Nothing is to be written yet, so a device is given its work.
    let check_in = driver.handle(device(1), Request::CheckIn(CheckIn::default())).await.unwrap();
    assert!(matches!(check_in, Reply::Assignment(_)), "{check_in:?}");
}

#[tokio::test]
async fn a_damaged_record_shuts_out_whose_it_is_and_nobody_else() {
    let (_world, store, _driver) = world();
    let record = DeviceRecord::new("phone".into(), identity(1).public(), 0, u64::MAX);
    let mut batch = Batch::new();
    for i in 1..=2 {
        records::insert_device(&mut batch, device(i), &record).unwrap();
    }
    // Whole as a record, and no device.
    batch.insert("devices", device(3).0, &"no device").unwrap();
    store.commit(batch).await.unwrap();
    assert_eq!(records::device(&store, device(3)).unwrap(), None);
    assert_eq!(records::device(&store, device(1)).unwrap(), Some(record));
    assert_eq!(records::devices(&store).unwrap().len(), 2);
}

#[tokio::test]
async fn a_device_whose_count_is_damaged_takes_part_in_the_task_no_more() {
    let (world, store, driver) = world();
    let plan = plan(2);
    let task = driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    drop(driver);
    let mut batch = Batch::new();
    batch.put("participations", Key::from(task.0).and_bytes(&device(1).0), &"no number").unwrap();
    store.commit(batch).await.unwrap();
    let driver = world.open_with(store);
    let others = driver.handle(device(2), Request::CheckIn(CheckIn::default())).await.unwrap();
    assert!(matches!(others, Reply::Assignment(_)), "{others:?}");
    let join = Request::Join { task, version: 0, class: None, log_seen: 0 };
    let spent = Err(Rejection::ParticipationsSpent(plan.privacy.participations));
    assert_eq!(driver.handle(device(1), join).await.map(|reply| reply.name()), spent);
}
