//! A version of several rounds: what is on disk of it before it is there.

use std::collections::BTreeSet;

use super::*;
use crate::offline;

/// Versions of two or three rounds.
fn of_rounds(versions: u32, rounds: u32) -> Plan {
    let plan = plan(versions);
    Plan { round: RoundPlan { rounds, min_rounds: 2, ..plan.round.clone() }, ..plan }
}

/// As many devices as rounds beside each other take here.
fn enroll(driver: &Driver) {
    (0..3 * COHORT).for_each(|i| driver.known().enrolled(device(i)));
}

async fn create(driver: &Driver, plan: &Plan) -> TaskId {
    enroll(driver);
    driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task
}

async fn round(driver: &Driver, task: TaskId, first: u8) {
    let round = Join::of(driver, task, first).await.advertise(driver).await.share(driver).await;
    round.submit(driver).await.finish(driver).await;
}

async fn sums(driver: &Driver, task: TaskId) -> (u32, u32) {
    let gathering = driver.show(task).await.unwrap().gathering.unwrap();
    (gathering.sums, gathering.devices)
}

async fn is_given_work(driver: &Driver, device: DeviceId) -> bool {
    let told = driver.handle(device, Request::CheckIn(CheckIn::default())).await.unwrap();
    matches!(told, Reply::Assignment(_))
}

#[tokio::test]
async fn nobody_is_charged_for_a_version_for_which_too_few_are_enrolled() {
    let world = World::new();
    let driver = world.open();
    let plan = of_rounds(1, 2).to_bytes().unwrap();
    let task = driver.create_task(plan, Vec::new()).await.unwrap().task;
    let least = driver.candidates(task).await.unwrap().least;
    // All of one round, and all but one of the version.
    for i in 0..u8::try_from(least).unwrap() - 1 {
        driver.known().enrolled(device(i));
        assert!(!is_given_work(&driver, device(i)).await, "{i}");
    }
    driver.known().enrolled(device(u8::try_from(least).unwrap()));
    assert!(is_given_work(&driver, device(0)).await);
    // Where one round makes a version it is charged only when it is full.
    let world = World::new();
    let driver = world.open();
    driver.create_task(self::plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap();
    assert!(is_given_work(&driver, device(0)).await);
}

#[tokio::test]
async fn a_sum_that_is_there_outlives_a_restart_and_nobody_gives_twice() {
    let world = World::new();
    let driver = world.open();
    let task = create(&driver, &of_rounds(1, 2)).await;
    round(&driver, task, 0).await;
    assert_eq!(
        (sums(&driver, task).await, driver.show(task).await.unwrap().version),
        ((1, COHORT.into()), 0)
    );
    drop(driver);

    let report = offline::check(world.folder.path()).unwrap();
    assert_eq!((report.faults, report.orphans), (Vec::new(), 0));
    let driver = world.open();
    enroll(&driver);
    assert_eq!(sums(&driver, task).await, (1, COHORT.into()));
    // Who is in it has nothing to train until the version is there.
    assert!(!is_given_work(&driver, device(0)).await);
    let join = Request::Join { task, version: 0, class: None, log_seen: 0 };
    let refused = driver.handle(device(0), join).await.unwrap_err().to_string();
    assert!(refused.contains("is in a sum of the version that is being made"), "{refused}");
    assert!(is_given_work(&driver, device(COHORT)).await);

    round(&driver, task, COHORT).await;
    let status = driver.show(task).await.unwrap();
    assert_eq!((status.version, status.gathering), (1, None));
    let made = &status.versions[0];
    assert_eq!((made.rounds, made.survivors, made.cohort), (2, 2 * u32::from(COHORT), 2 * u32::from(COHORT)));
    let adapter = fetch(&driver, status.adapter).await;
    for (index, x) in adapter.iter().enumerate() {
        let expected = if index < 2 * usize::from(COHORT) { 0.5 / f32::from(COHORT) } else { 0.0 };
        assert!((x - expected).abs() < 0.01, "{index}: {x}");
    }
    drop(driver);
    let report = offline::check(world.folder.path()).unwrap();
    assert_eq!((report.faults, report.orphans), (Vec::new(), 0), "its sums are not needed any more");
}

#[tokio::test]
async fn rounds_are_beside_each_other_and_the_last_one_to_end_makes_the_version() {
    let world = World::new();
    let driver = world.open();
    let task = create(&driver, &of_rounds(2, 3)).await;
    let mut begun = Vec::new();
    for first in [0, COHORT, 2 * COHORT] {
        begun.push(Join::of(&driver, task, first).await.advertise(&driver).await);
    }
    let sessions: BTreeSet<_> = begun.iter().map(|round| round.context.session.0).collect();
    assert_eq!(sessions.len(), 3);
    assert_eq!(driver.show(task).await.unwrap().gathering.unwrap().open, 3);
    for round in begun {
        assert_eq!(driver.show(task).await.unwrap().version, 0);
        round.share(&driver).await.submit(&driver).await.reveal_all(&driver).await;
    }
    driver.no_open_round().await;
    let status = driver.show(task).await.unwrap();
    assert_eq!((status.version, status.versions[0].rounds, status.rounds_charged), (1, 3, 3));
}

#[tokio::test]
async fn sums_that_no_version_comes_of_are_let_go() {
    let world = World::new();
    let driver = world.open();
    let task = create(&driver, &of_rounds(4, 2)).await;
    for first in [0, COHORT, 0] {
        round(&driver, task, first).await;
    }
    let before = driver.show(task).await.unwrap();
    assert_eq!((before.version, sums(&driver, task).await.0), (1, 1));
    // An operator goes back while a sum of the next version is there.
    let after = driver.roll_back(task, 0).await.unwrap();
    assert_eq!((after.version, after.gathering.unwrap().sums), (2, 0));
    assert!(is_given_work(&driver, device(0)).await, "who was in it may take part again");
    round(&driver, task, 0).await;
    driver.stop_task(task).await.unwrap();
    drop(driver);
    let report = offline::check(world.folder.path()).unwrap();
    assert_eq!((report.faults, report.orphans), (Vec::new(), 0));
}

#[tokio::test]
async fn a_sum_that_is_damaged_on_the_disk_is_lost_and_the_task_goes_on() {
    let world = World::new();
    let driver = world.open();
    let task = create(&driver, &of_rounds(1, 2)).await;
    round(&driver, task, 0).await;
    let gathered = hold(&driver, task).await.header().gathered.unwrap();
    drop(driver);
    let path = world.folder.path().join("artefacts").join(gathered.to_string());
    std::fs::write(&path, b"not what it was").unwrap();
    let driver = world.open();
    assert_eq!(sums(&driver, task).await, (0, 0));
    for first in [0, COHORT] {
        round(&driver, task, first).await;
    }
    assert_eq!(driver.show(task).await.unwrap().version, 1);
}
