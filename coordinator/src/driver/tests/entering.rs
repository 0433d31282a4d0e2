//! Who may be in a round, and that no version is lost because its last participations are charged.

use std::time::Duration;

use shell::store::Batch;

use super::*;
use crate::records::DeviceRecord;

/// One version of so many rounds, in which a device may take part once.
fn once(rounds: u32) -> Plan {
    let mut plan = plan(1);
    (plan.round.rounds, plan.round.min_rounds) = (rounds, rounds);
    plan.privacy.participations = 1;
    plan
}

/// A task of so many enrolled devices.
async fn with_devices(devices: u8, plan: &Plan) -> (World, Driver, TaskId) {
    let world = World::new();
    let store = Store::open(&world.folder.path().join("store")).unwrap();
    let mut batch = Batch::new();
    for number in 0..devices {
        let record = DeviceRecord::new("phone".into(), identity(number).public(), 0, u64::MAX);
        records::insert_device(&mut batch, device(number), &record).unwrap();
    }
    store.commit(batch).await.unwrap();
    let driver = world.open_with(store);
    let task = driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    (world, driver, task)
}

async fn first_sum(driver: &Driver, task: TaskId) {
    let round = Join::of(driver, task, 0).await.advertise(driver).await.share(driver).await;
    round.submit(driver).await.finish(driver).await;
    assert_eq!(driver.show(task).await.unwrap().gathering.map(|gathering| gathering.sums), Some(1));
}

async fn version(driver: &Driver, task: TaskId) -> u32 {
    for _ in 0..200 {
        let status = driver.show(task).await.unwrap();
        if status.version > 0 || status.state != TaskState::Active {
            return status.version;
        }
        sleep(Duration::from_millis(10)).await;
    }
    0
}

/// A device that was told a session advertises in it.
async fn advertises(round: &Join<()>, driver: &Driver, number: u8) -> Result<Reply, Rejection> {
    let alone =
        Join { context: round.context.clone(), plan: round.plan.clone(), first: number, devices: vec![()] };
    let (_, request) = alone.advertisements().remove(0);
    driver.handle(device(number), request).await
}

async fn is_told_that_it_is_over(driver: &Driver, number: u8) -> bool {
    let told = driver.handle(device(number), Request::CheckIn(CheckIn::default())).await.unwrap();
    let Reply::Wait { complete, .. } = told else { panic!("{told:?}") };
    complete
}

/// The round is under way whose devices are charged for the last time, and somebody asks.
#[tokio::test]
async fn a_task_does_not_end_while_its_last_sum_is_under_way() {
    for rounds in [1, 2] {
        let count = COHORT * u8::try_from(rounds).unwrap();
        let (_world, driver, task) = with_devices(count + 1, &once(rounds)).await;
        if rounds == 2 {
            first_sum(&driver, task).await;
        }
        let last = Join::of(&driver, task, count - COHORT).await.advertise(&driver).await;
        let last = last.share(&driver).await.submit(&driver).await;
        // Each device but one that is not in it is charged as often as it may be.
        assert!(!is_told_that_it_is_over(&driver, 0).await, "the version of which it is a part is to come");
        assert_eq!(driver.show(task).await.unwrap().state, TaskState::Active);
        last.finish(&driver).await;
        assert_eq!(version(&driver, task).await, 1, "of {rounds}");
        assert!(is_told_that_it_is_over(&driver, 0).await);
    }
}

/// A device is told a session by whom it was offered, and is in a sum already.
#[tokio::test]
async fn a_device_that_gave_is_in_no_other_round_of_the_version() {
    let (_world, driver, task) = with_devices(2 * COHORT, &once(2)).await;
    first_sum(&driver, task).await;
    let other = Join::of(&driver, task, COHORT).await;
    let refused = advertises(&other, &driver, COHORT - 1).await.unwrap_err();
    assert_eq!(refused, Rejection::ParticipationsSpent(1));
    other.advertise(&driver).await.share(&driver).await.submit(&driver).await.finish(&driver).await;
    let status = driver.show(task).await.unwrap();
    assert_eq!((status.version, status.versions[0].survivors), (1, 2 * u32::from(COHORT)));
}

/// The same while the other round is open, and of one that was never let join any.
#[tokio::test]
async fn whoever_was_not_let_join_a_round_is_not_in_it() {
    let (_world, driver, task) = with_devices(2 * COHORT + 1, &once(2)).await;
    let first = Join::of(&driver, task, 0).await;
    let second = Join::of(&driver, task, COHORT).await;
    let first = first.advertise(&driver).await;
    for stranger in [0, 2 * COHORT] {
        let refused = advertises(&second, &driver, stranger).await.unwrap_err();
        assert_eq!(refused, Rejection::UnknownSession, "{stranger}");
    }
    let second = second.advertise(&driver).await;
    first.share(&driver).await.submit(&driver).await.reveal_all(&driver).await;
    second.share(&driver).await.submit(&driver).await.finish(&driver).await;
    let status = driver.show(task).await.unwrap();
    assert_eq!((status.version, status.versions[0].survivors), (1, 2 * u32::from(COHORT)));
}
