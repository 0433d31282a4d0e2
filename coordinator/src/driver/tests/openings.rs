//! Openings that are under way for as long as a test wants.

use aggregation::{SHARE_BYTES, Share};
use proto::message::Outcome;
use task::round::{Opened, Opening};

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
        let mut openings = Vec::new();
        {
            // Not by the driver's own step, which would begin the opening.
            let mut state = driver.state.lock().await;
            for (i, answer) in (0..).zip(answers) {
                assert!(openings.is_empty());
                state.handle(device(i), answer, now(), &mut UnwrapErr(SysRng)).unwrap().unwrap();
                openings = state.take_openings(now());
            }
        }
        let (of, opening) = openings.pop().unwrap();
        assert_eq!((of, opening.session()), (task, session));
        Self { driver, first, task, session, opening, last, world }
    }

    /// Brings back what came of the opening, from where that is done.
    async fn bring_back(
        self,
        open: impl FnOnce(Opening) -> Opened + Send + 'static,
    ) -> (Driver, TaskId, World) {
        let Self { driver, task, session, opening, world, .. } = self;
        let elsewhere = driver.clone();
        spawn_blocking(move || elsewhere.bring_back(task, session, || open(opening))).await.unwrap();
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
    let mut state = driver.state.lock().await;
    assert_eq!(state.poll_timeout(), None);
    let late = now().plus_millis(3_600_000);
    state.handle_timeout(late, &mut UnwrapErr(SysRng)).unwrap().unwrap();
    assert!(state.take_openings(late).is_empty());
    assert_eq!(state.open_rounds(), 1);
    state.opened(task, opening.run(), late, &mut UnwrapErr(SysRng)).unwrap().unwrap();
    assert_eq!(state.open_rounds(), 1);
    // Answers may have come since it began, so there is one more, which is the last.
    let (_, last) = state.take_openings(late).pop().unwrap();
    state.opened(task, last.run(), late, &mut UnwrapErr(SysRng)).unwrap().unwrap();
    assert_eq!(state.open_rounds(), 0);
    assert_eq!(state.status(task).unwrap().last_abort, Outcome::NotRecovered.to_string());
}

#[tokio::test]
async fn a_seed_that_resists_is_not_tried_again_before_the_shares_to_spare_have_doubled() {
    let Held { driver, task, opening, world: _world, .. } = Held::new(true).await;
    let mut state = driver.state.lock().await;
    state.opened(task, opening.run(), now(), &mut UnwrapErr(SysRng)).unwrap().unwrap();
    assert!(state.take_openings(now()).is_empty());
    assert_eq!(state.open_rounds(), 1);
    assert!(state.poll_timeout().is_some());
}

#[tokio::test]
async fn draining_waits_for_an_opening() {
    let held = Held::new(false).await;
    let drained = held.driver.clone();
    let drain = drained.drain(Duration::from_secs(60));
    let ((driver, task, _world), ()) = tokio::join!(held.bring_back(Opening::run), drain);
    assert_eq!(driver.show(task).await.unwrap().version, 1);
}
