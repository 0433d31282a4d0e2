//! The way back to an earlier version, what operators are told of the devices, and a check of what is on disk then.

use super::*;
use crate::offline;

async fn round(driver: &Driver, task: TaskId) {
    let round = Join::all(driver, task).await.advertise(driver).await.share(driver).await;
    round.submit(driver).await.finish(driver).await;
}

fn why<T: std::fmt::Debug>(answer: Result<T, Rejection>) -> String {
    answer.unwrap_err().to_string()
}

#[tokio::test]
async fn the_next_version_has_earlier_parameters_again_and_a_restart_keeps_it() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(5).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    round(&driver, task).await;
    round(&driver, task).await;
    let before = driver.show(task).await.unwrap();
    let one = before.versions[0].adapter;
    assert_ne!(one, before.adapter);
    assert!(why(driver.roll_back(task, 3).await).contains("has versions 0 to 2, not 3"));
    assert!(
        why(driver.roll_back(task, 2).await)
            .contains("version 2, the newest, has the parameters of version 2")
    );

    // Devices that have begun are not interrupted.
    let begun = Join::all(&driver, task).await.advertise(&driver).await;
    assert!(why(driver.roll_back(task, 1).await).contains("round 3 is under way"));
    begun.share(&driver).await.submit(&driver).await.finish(&driver).await;

    // Those that only wait for others train from the version that comes.
    let waiting = Join::all(&driver, task).await;
    let status = driver.roll_back(task, 1).await.unwrap();
    assert_eq!(
        (status.version, status.adapter, status.last_abort.as_str()),
        (4, one, "stopped by the coordinator")
    );
    let made = status.versions.last().unwrap();
    assert_eq!((made.restores, made.rolled_back, made.survivors, made.round), (Some(1), true, 0, 4));
    assert_eq!(status.rounds_charged, 3, "nobody is charged for it");
    let (_, request) = waiting.advertisements().remove(0);
    assert!(driver.handle(device(0), request).await.is_err());
    let given = driver.handle(device(0), Request::CheckIn).await.unwrap();
    assert!(
        matches!(given, Reply::Assignment(given) if given.published.version == 4 && given.before.is_none())
    );
    drop(driver);

    let driver = world.open();
    assert_eq!(durable(driver.show(task).await.unwrap()).versions, status.versions);
    assert!(
        why(driver.roll_back(task, 1).await)
            .contains("version 4, the newest, has the parameters of version 1")
    );
    // The base again, which is the last version that the plan wants.
    let over = driver.roll_back(task, 0).await.unwrap();
    assert_eq!((over.state, over.version), (TaskState::Complete, 5));
    assert!(fetch(&driver, over.adapter).await.iter().all(|x| x.abs() < f32::MIN_POSITIVE));
    assert!(why(driver.roll_back(task, 1).await).contains("the task is over"));
    drop(driver);

    let report = offline::check(world.folder.path()).unwrap();
    assert_eq!((report.faults, report.tasks, report.orphans), (Vec::new(), 1, 0));
}

#[tokio::test]
async fn the_funnel_of_a_version_goes_on_to_the_next_and_candidates_are_those_who_may() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(3).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let funnel = driver.show(task).await.unwrap().funnel.unwrap();
    assert_eq!((funnel.version, funnel.whole, funnel.offered), (0, true, 0));
    for i in 0..COHORT + 2 {
        driver.handle(device(i), Request::CheckIn).await.unwrap();
    }
    let decline = Request::Decline { task, reason: proto::message::DeclineReason::Noise };
    driver.handle(device(COHORT), decline).await.unwrap();
    round(&driver, task).await;
    let status = driver.show(task).await.unwrap();
    let (now, last) = (status.funnel.unwrap(), status.last_funnel.unwrap());
    assert_eq!((now.version, now.offered), (1, 0));
    assert_eq!((last.offered, last.assigned, last.trained), (5, 5, 3));
    assert_eq!((last.joined, last.submitted, last.counted, last.missing), (3, 3, 3, 0));
    let declined = status.declined[0];
    assert!(declined.devices == 1 && declined.first_unix_millis > 0);

    let enrolled: Vec<DeviceId> = (0..COHORT + 2).map(device).collect();
    let candidates = driver.candidates(task, &enrolled).await.unwrap();
    assert_eq!((candidates.enrolled, candidates.able, candidates.declined), (5, 5, 1));
    assert_eq!(candidates.least, u32::from(COHORT));
    assert_eq!(driver.participations(&enrolled).await, [1, 1, 1, 0, 0]);
    let (took_part, declines) = (driver.tasks_of(device(0)).await, driver.tasks_of(device(COHORT)).await);
    assert_eq!((took_part[0].participations, took_part[0].declined), (1, None));
    assert_eq!((declines[0].participations, declines[0].declined), (0, Some(declined.reason)));
    assert!(driver.tasks_of(device(COHORT + 1)).await.is_empty());
}

#[tokio::test]
async fn a_check_names_what_is_missing_damaged_or_nobody_s() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(3).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    round(&driver, task).await;
    let status = driver.show(task).await.unwrap();
    drop(driver);
    let folder = world.folder.path().join(offline::ARTIFACTS);
    std::fs::write(folder.join("ab".repeat(32)), b"left").unwrap();
    let adapter = folder.join(status.adapter.to_string());
    let bytes = std::fs::read(&adapter).unwrap();
    std::fs::write(&adapter, b"other").unwrap();
    let report = offline::check(world.folder.path()).unwrap();
    assert_eq!((report.orphans, report.orphan_bytes, report.tasks), (1, 4, 0));
    assert!(report.faults[0].contains("is damaged: its bytes hash to"), "{:?}", report.faults);
    assert!(report.faults[1].starts_with(&format!("task {task} does not start")), "{:?}", report.faults);
    std::fs::write(&adapter, bytes).unwrap();

    let store = Store::open(&world.folder.path().join(offline::STORE)).unwrap();
    let mut batch = shell::store::Batch::new();
    batch.put("devices", [1; 16], &"no device").unwrap();
    batch.put("later", 1, &7).unwrap();
    store.commit_blocking(&batch).unwrap();
    drop(store);
    let report = offline::check(world.folder.path()).unwrap();
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert!(report.faults[0].starts_with("record in tree devices, key 0101"), "{:?}", report.faults);
    assert_eq!(report.unknown_trees, [("later".to_owned(), 1)]);
}
