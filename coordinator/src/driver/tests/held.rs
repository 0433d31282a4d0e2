//! Questions that are held until a round goes on.

use std::time::Duration;

use proto::message::{DeclineReason, Outcome};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;

/// As long as a test waits for what should come at once.
const SOON: Duration = Duration::from_secs(10);

fn ask(driver: &Driver, i: u8, request: Request) -> JoinHandle<Result<Reply, Rejection>> {
    let driver = driver.clone();
    tokio::spawn(async move { driver.answer(device(i), request, LONGEST_HELD).await })
}

async fn told(asked: JoinHandle<Result<Reply, Rejection>>) -> Result<Reply, Rejection> {
    timeout(SOON, asked).await.unwrap().unwrap()
}

/// All but the last of a round's devices, which advertised and are held; and what the last has to say.
async fn held(driver: &Driver, task: TaskId) -> (Vec<JoinHandle<Result<Reply, Rejection>>>, Request) {
    let mut requests: Vec<Request> =
        Join::all(driver, task).await.advertisements().into_iter().map(|(_, request)| request).collect();
    let last = requests.pop().unwrap();
    let asked: Vec<_> = (0..).zip(requests).map(|(i, request)| ask(driver, i, request)).collect();
    sleep(Duration::from_millis(300)).await;
    assert!(asked.iter().all(|asked| !asked.is_finished()), "nobody is told to ask again");
    (asked, last)
}

fn counted(driver: &Driver) -> String {
    let (mut registry, mut counted) = (prometheus_client::registry::Registry::default(), String::new());
    driver.metrics().register(&mut registry);
    prometheus_client::encoding::text::encode(&mut counted, &registry).unwrap();
    counted
}

#[tokio::test]
async fn who_waits_for_others_is_answered_when_the_last_of_them_came() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let (mut asked, last) = held(&driver, task).await;
    asked.push(ask(&driver, COHORT - 1, last));
    for asked in asked {
        let reply = told(asked).await.unwrap();
        assert!(
            matches!(&reply, Reply::Roster { entries, .. } if entries.len() == usize::from(COHORT)),
            "{reply:?}"
        );
    }
    // Each is counted by what it was given, and not by what it would have been told before.
    let counted = counted(&driver);
    let of = |answer| format!("request=\"advertise\",answer=\"{answer}\"}} ");
    assert!(counted.contains(&format!("{}{COHORT}\n", of("roster"))), "{counted}");
    assert!(!counted.contains(&of("wait")), "{counted}");
}

#[tokio::test]
async fn who_hangs_up_before_its_answer_is_counted_as_that() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let (asked, _) = held(&driver, task).await;
    for asked in asked {
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
    }
    let counted = counted(&driver);
    let hung_up = format!("request=\"advertise\",answer=\"hung_up\"}} {}\n", COHORT - 1);
    assert!(counted.contains(&hung_up), "{counted}");
    assert!(counted.contains("nightshift_held_questions 0"), "{counted}");
}

#[tokio::test]
async fn who_came_too_late_waits_for_the_round_to_end() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(2).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    let late = ask(&driver, COHORT, Request::Join { task, version: 0, class: None, log_seen: 0 });
    round.submit(&driver).await.finish(&driver).await;
    assert_eq!(told(late).await.unwrap_err(), Rejection::Stale { found: 0, current: 1 });
}

#[tokio::test]
async fn who_waits_is_told_when_the_coordinator_ends() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let (asked, _) = held(&driver, task).await;
    driver.drain(Duration::ZERO).await;
    for asked in asked {
        assert!(matches!(told(asked).await, Ok(Reply::Over(Outcome::Stopped))));
    }
}

#[tokio::test]
async fn nobody_is_held_for_ever_and_what_needs_no_others_not_at_all() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let (_, first) = Join::all(&driver, task).await.advertisements().remove(0);
    let begun = Instant::now();
    let reply = driver.answer(device(0), first, Duration::from_millis(400)).await.unwrap();
    assert!(matches!(reply, Reply::Wait { retry: Window { most_millis: 250, .. }, .. }), "{reply:?}");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());

    let begun = Instant::now();
    driver.answer(device(0), Request::CheckIn(CheckIn::default()), LONGEST_HELD).await.unwrap();
    let decline = Request::Decline { task, reason: DeclineReason::Noise };
    driver.answer(device(9), decline, LONGEST_HELD).await.unwrap();
    assert!(begun.elapsed() < SOON);
}

/// The answer to a device that asks for work.
fn asks(driver: &Driver, i: u8) -> JoinHandle<Result<Reply, Rejection>> {
    ask(driver, i, Request::CheckIn(CheckIn::default()))
}

#[tokio::test]
async fn who_finds_no_place_is_given_one_when_another_leaves_its_own() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    for i in 0..COHORT {
        let given = told(asks(&driver, i)).await.unwrap();
        assert!(matches!(given, Reply::Assignment(_)), "{given:?}");
    }
    let waits = asks(&driver, COHORT);
    sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished(), "a cohort has all places");
    let reason = DeclineReason::Memory;
    driver.handle(device(0), Request::Decline { task, reason }).await.unwrap();
    let given = told(waits).await.unwrap();
    assert!(matches!(given, Reply::Assignment(_)), "{given:?}");
}

#[tokio::test]
async fn a_window_begins_with_the_question_and_not_with_an_answer_that_was_held() {
    let world = World::new();
    let driver = world.open();
    let window = |reply: Reply| {
        let Reply::Wait { retry, .. } = reply else { panic!("{reply:?}") };
        retry
    };
    let asks = || Request::CheckIn(CheckIn::default());
    let at_once = window(driver.handle(device(0), asks()).await.unwrap());
    let held = Duration::from_millis(1_500);
    let after = window(driver.answer(device(0), asks(), held).await.unwrap());
    let nearer = at_once.most_millis - after.most_millis;
    assert!((1_500..3_000).contains(&nearer), "{nearer}");
    assert_eq!(at_once.least_millis - after.least_millis, nearer);
    // Held longer than its earliest moment, it may ask at once.
    let answer = Reply::Wait { retry: at_once, latest: Vec::new(), complete: false };
    assert_eq!(
        window(Awaits::Place.after(answer, LONGEST_HELD_MILLIS)),
        Window { least_millis: 0, most_millis: 25_000 }
    );
}

#[tokio::test]
async fn a_round_of_one_task_wakes_nobody_who_waits_for_another() {
    let world = World::new();
    let driver = world.open();
    let create = async |name: &str| {
        let plan = Plan { name: name.into(), ..plan(1) }.to_bytes().unwrap();
        driver.create_task(plan, Vec::new()).await.unwrap().task
    };
    let (one, other) = (create("one").await, create("other").await);
    let (asked, last) = held(&driver, one).await;
    let of_other = driver.tasks.find(other).unwrap();
    let (steps, places) = (of_other.steps(), driver.tasks.phases.places.subscribe());
    let mut of_one = driver.tasks.find(one).unwrap().steps();
    of_one.borrow_and_update();
    drop(ask(&driver, COHORT - 1, last));
    for asked in asked {
        told(asked).await.unwrap();
    }
    assert!(of_one.has_changed().unwrap());
    assert!(!steps.has_changed().unwrap() && !places.has_changed().unwrap());
}

#[tokio::test]
async fn who_finds_no_task_is_given_the_next_that_is_created() {
    let world = World::new();
    let driver = world.open();
    let waits = asks(&driver, 0);
    sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished());
    driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap();
    let given = told(waits).await.unwrap();
    assert!(matches!(given, Reply::Assignment(_)), "{given:?}");
}

#[tokio::test]
async fn who_declined_a_task_is_offered_another_and_not_that_one_again() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let declined = || Request::CheckIn(CheckIn { only_keeps: false, declined: vec![task] });
    let wait = driver.handle(device(0), declined()).await.unwrap();
    assert!(matches!(wait, Reply::Wait { complete: false, .. }), "{wait:?}");
    let other = Plan { name: "another".into(), ..plan(1) }.to_bytes().unwrap();
    let other = driver.create_task(other, Vec::new()).await.unwrap().task;
    let given = driver.handle(device(0), declined()).await.unwrap();
    assert!(matches!(&given, Reply::Assignment(given) if given.published.task == other), "{given:?}");
}

#[tokio::test]
async fn who_only_keeps_versions_is_answered_at_once_and_leaves_its_place() {
    let world = World::new();
    let driver = world.open();
    driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap();
    for i in 0..COHORT {
        told(asks(&driver, i)).await.unwrap();
    }
    let keeps = Request::CheckIn(CheckIn { only_keeps: true, declined: Vec::new() });
    let wait = timeout(SOON, driver.answer(device(0), keeps, LONGEST_HELD)).await.unwrap().unwrap();
    assert!(matches!(&wait, Reply::Wait { latest, .. } if latest.len() == 1), "{wait:?}");
    let given = told(asks(&driver, COHORT)).await.unwrap();
    assert!(matches!(given, Reply::Assignment(_)), "{given:?}");
}
