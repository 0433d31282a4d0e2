//! Openings that are under way for as long as a test wants.

use aggregation::{SHARE_BYTES, Share};
use proto::message::Outcome;
use task::round::{Opened, Opening};
use tokio::task::JoinHandle;

use super::*;

/// Two active tasks; of the second, a round whose sum is due to be opened, and taken to be.
struct Held {
    driver: Driver,
    first: TaskId,
    task: TaskId,
    session: SessionId,
    opening: Opening,
    /// The answer that has not come.
    last: Request,
    world: World,
}

impl Held {
    /// With the shares of two of three devices, of which two are enough if they are right.
    async fn new(first_lies: bool) -> Self {
        let world = World::new();
        let driver = world.open();
        let first = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
        let task = driver.create_task(bat(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
        let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
        let round = round.submit(&driver).await;
        let session = SessionId(round.context.session.0);
        let mut answers = Vec::new();
        for mut shares in round.reveal(&driver).await {
            if first_lies && shares.from == 0 {
                let wrong = Share::from_bytes(&[0; SHARE_BYTES]).unwrap();
                shares.self_mask.iter_mut().for_each(|(_, share)| *share = wrong.clone());
            }
            answers.push(Request::Unmask { session, shares });
        }
        let last = answers.pop().unwrap();
        let mut opening = None;
        {
            // Not by the driver's own step, which would begin the opening.
            let mut hold = hold(&driver, task).await;
            for (i, answer) in (0..).zip(answers) {
                assert!(opening.is_none());
                hold.handle(device(i), answer, now(), &mut UnwrapErr(SysRng)).unwrap().unwrap();
                opening = hold.take_opening(now());
            }
        }
        let opening = opening.unwrap();
        assert_eq!(opening.session(), session);
        Self { driver, first, task, session, opening, last, world }
    }

    /// Brings back what came of the opening, from where that is done.
    async fn bring_back(
        self,
        open: impl FnOnce(Opening) -> Opened + Send + 'static,
    ) -> (Driver, TaskId, World) {
        let Self { driver, task, session, opening, world, .. } = self;
        let elsewhere = driver.clone();
        let cell = driver.tasks.find(task).unwrap();
        elsewhere.bring_back(cell, session, || open(opening)).await;
        driver.no_open_round().await;
        (driver, task, world)
    }
}

#[tokio::test]
async fn everybody_is_answered_while_a_sum_is_opened() {
    let held = Held::new(false).await;
    let work = held.driver.handle(device(9), Request::CheckIn(CheckIn::default())).await.unwrap();
    assert!(matches!(work, Reply::Assignment(published) if published.task == held.first));
    let late = held.driver.handle(device(2), held.last.clone()).await.unwrap();
    assert!(matches!(late, Reply::Wait { .. }), "{late:?}");
    assert_eq!(held.driver.show(held.task).await.unwrap().open_round, "unmask");
    let (driver, task, _world) = held.bring_back(Opening::run).await;
    assert_eq!(driver.show(task).await.unwrap().version, 1);
}

/// As many as there are threads that may block, and more.
#[tokio::test]
async fn who_waits_for_a_task_leaves_threads_for_its_step() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let held = hold(&driver, task).await;
    let ask = |_| {
        let driver = driver.clone();
        tokio::spawn(async move {
            let tasks = driver.tasks_of(device(0)).await?;
            let spent = driver.participations(vec![device(0)]).await?;
            Ok::<_, Rejection>((tasks, spent, driver.candidates(task).await?))
        })
    };
    let asking: Vec<_> = (0..1500).map(ask).collect();
    sleep(Duration::from_millis(200)).await;
    // Half of them hang up.
    asking.iter().step_by(2).for_each(JoinHandle::abort);
    let device = tokio::spawn({
        let driver = driver.clone();
        async move { driver.handle(device(0), Request::CheckIn(CheckIn::default())).await }
    });
    sleep(Duration::from_millis(50)).await;
    drop(held);
    let answer = timeout(Duration::from_secs(20), device).await.unwrap().unwrap();
    assert!(matches!(answer, Ok(Reply::Assignment(_))), "{answer:?}");
    for asked in asking.into_iter().skip(1).step_by(2) {
        let (tasks, spent, candidates) = asked.await.unwrap().unwrap();
        assert_eq!((tasks, spent, candidates.declined), (Vec::new(), vec![0], 0));
    }
}

#[tokio::test]
async fn an_answer_that_comes_meanwhile_opens_a_sum_that_a_wrong_one_kept_shut() {
    let held = Held::new(true).await;
    held.driver.handle(device(2), held.last.clone()).await.unwrap();
    let (driver, task, _world) = held.bring_back(Opening::run).await;
    assert_eq!(driver.show(task).await.unwrap().version, 1);
}

#[tokio::test]
async fn an_opening_that_breaks_off_ends_its_round_and_nothing_else() {
    let held = Held::new(false).await;
    let session = held.session;
    let (driver, task, _world) = held.bring_back(|_| panic!("a test")).await;
    let status = driver.show(task).await.unwrap();
    assert_eq!((status.version, status.last_abort), (0, Outcome::Stopped.to_string()));
    assert_eq!(status.rounds_charged, 1);
    assert_ne!(Join::all(&driver, task).await.context.session.0, session.0);
}

#[tokio::test]
async fn a_sum_that_was_opened_after_its_round_was_ended_is_dropped() {
    let held = Held::new(false).await;
    let stopped = held.driver.stop_task(held.task).await.unwrap();
    assert_eq!(stopped.last_abort, Outcome::Stopped.to_string());
    let (driver, task, _world) = held.bring_back(Opening::run).await;
    assert_eq!(driver.show(task).await.unwrap(), stopped);
}

#[tokio::test]
async fn the_deadline_waits_for_an_opening_and_then_ends_the_round() {
    let Held { driver, task, opening, world: _world, .. } = Held::new(true).await;
    let mut hold = hold(&driver, task).await;
    assert_eq!(hold.task().poll_timeout(), None);
    let late = now().plus_millis(3_600_000);
    hold.handle_timeout(late, &mut UnwrapErr(SysRng)).unwrap().unwrap();
    assert!(hold.take_opening(late).is_none());
    assert!(!hold.task().open_rounds().is_empty());
    hold.opened(opening.run(), late, &mut UnwrapErr(SysRng)).unwrap().unwrap();
    assert!(!hold.task().open_rounds().is_empty());
    // Answers may have come since it began, so there is one more, which is the last.
    let last = hold.take_opening(late).unwrap();
    hold.opened(last.run(), late, &mut UnwrapErr(SysRng)).unwrap().unwrap();
    assert!(hold.task().open_rounds().is_empty());
    assert_eq!(hold.task().status().last_abort, Outcome::NotRecovered.to_string());
}

#[tokio::test]
async fn a_seed_that_resists_is_not_tried_again_before_the_shares_to_spare_have_doubled() {
    let Held { driver, task, opening, world: _world, .. } = Held::new(true).await;
    let mut hold = hold(&driver, task).await;
    hold.opened(opening.run(), now(), &mut UnwrapErr(SysRng)).unwrap().unwrap();
    assert!(hold.take_opening(now()).is_none());
    assert!(!hold.task().open_rounds().is_empty());
    assert!(hold.task().poll_timeout().is_some());
}

#[tokio::test]
async fn draining_waits_for_an_opening() {
    let held = Held::new(false).await;
    let drained = held.driver.clone();
    let drain = drained.drain(Duration::from_secs(60));
    let ((driver, task, _world), ()) = tokio::join!(held.bring_back(Opening::run), drain);
    assert_eq!(driver.show(task).await.unwrap().version, 1);
}

#[tokio::test]
async fn what_came_of_an_opening_outlives_a_disk_that_takes_nothing_when_it_ends() {
    let held = Held::new(false).await;
    let store = held.driver.kept.store.clone();
    let cell = held.driver.tasks.find(held.task).unwrap();
    store.set_free_space_floor(u64::MAX);
    cell.trouble.begins(&DriverError::Broken("a test".to_owned()));
    let (driver, task, world) = held.bring_back(Opening::run).await;
    assert!(driver.trouble().is_some() && !driver.is_durable(task));
    store.set_free_space_floor(0);
    sleep(Duration::from_millis(AGAIN_MILLIS)).await;
    close_due(&driver).await;
    assert!(driver.trouble().is_none() && driver.is_durable(task));
    let status = driver.show(task).await.unwrap();
    assert_eq!(status.version, 1);
    drop((driver, store, cell));
    assert_eq!(durable(world.open().show(task).await.unwrap()), durable(status));
}
