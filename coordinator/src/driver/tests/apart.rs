//! A step of one task that is held up holds up nobody else.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

use aggregation::DeviceIndex;
use task::spool::Spool;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::cell::LONG_STEP;
use super::super::check_in::LONGEST_WAIT;
use super::*;

/// As long as a test waits for what should come at once.
const SOON: Duration = Duration::from_secs(10);

/// A disk on which nothing is spooled while it is closed.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = closed;
        self.opened.notify_all();
    }

    fn waiting(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        while state.0 {
            state = self.opened.wait(state).unwrap();
        }
        state.1 -= 1;
    }
}

/// Whatever becomes of a test, nobody waits for ever at its end.
struct Closed(Arc<Gate>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[derive(Debug)]
struct Behind(Arc<Gate>);

#[derive(Debug)]
struct SpoolBehind(Arc<Gate>, Box<dyn Spool>);

impl Spooler for Behind {
    fn open(&self, session: SessionId) -> io::Result<Box<dyn Spool>> {
        Ok(Box::new(SpoolBehind(Arc::clone(&self.0), InMemory.open(session)?)))
    }
}

impl Spool for SpoolBehind {
    fn write(&mut self, index: DeviceIndex, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.pass();
        self.1.write(index, at, bytes)
    }

    fn read(&mut self, index: DeviceIndex, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.1.read(index, at, bytes)
    }

    fn remove(&mut self, index: DeviceIndex) {
        self.1.remove(index);
    }
}

/// A task of which a step does not end, as long as `closed` is there.
struct HeldUp {
    driver: Driver,
    task: TaskId,
    /// Who brought the step about.
    asked: JoinHandle<Result<Reply, Rejection>>,
    /// What another device of the round would send.
    next: Request,
    closed: Closed,
    _world: World,
}

impl HeldUp {
    /// After so many rounds that went well.
    async fn new(rounds: u32) -> Self {
        let (world, gate) = (World::new(), Arc::new(Gate::default()));
        let store = Store::open(&world.folder.path().join("store")).unwrap();
        let driver = world.open_spooling(store, Arc::new(Behind(Arc::clone(&gate))));
        let task = driver.create_task(plan(5).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
        for _ in 0..rounds {
            let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
            round.submit(&driver).await.finish(&driver).await;
        }
        let context = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await.context;
        let session = SessionId(context.session.0);
        let packed = packing::pack(&vec![0; context.len], context.ring_bits);
        let next = Request::MaskedChunk { session, offset: 0, packed };
        gate.set(true);
        let asked = ask(&driver, device(0), next.clone());
        while gate.waiting() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        Self { driver, task, asked, next, closed: Closed(gate), _world: world }
    }
}

fn ask(driver: &Driver, device: DeviceId, request: Request) -> JoinHandle<Result<Reply, Rejection>> {
    let driver = driver.clone();
    tokio::spawn(async move { driver.handle(device, request).await })
}

/// What comes without the step that is held up.
async fn soon<T>(answer: impl Future<Output = T>) -> T {
    timeout(SOON, answer).await.expect("it waits for a step of another task")
}

#[tokio::test]
async fn a_step_that_is_held_up_holds_up_no_other_task_and_nothing_that_is_read() {
    let HeldUp { driver, task, asked, next, closed, _world } = HeldUp::new(0).await;
    let late = ask(&driver, device(1), next);
    let other = soon(driver.create_task(bat(2).to_bytes().unwrap(), Vec::new())).await.unwrap();
    // The one that is held up would be first.
    let given = soon(driver.handle(device(9), Request::CheckIn(CheckIn::default()))).await.unwrap();
    assert!(matches!(&given, Reply::Assignment(work) if work.published.task == other.task), "{given:?}");
    let status = soon(driver.show(task)).await.unwrap();
    assert_eq!((status.open_round.as_str(), status.version), ("masked input", 0));
    assert_eq!(soon(driver.list()).await.len(), 2);
    assert_eq!(soon(driver.spent(task)).await.unwrap().rounds_charged, 0);
    assert_eq!(driver.base(task).unwrap(), plan(1).base);
    for digest in [status.plan, status.adapter, other.plan] {
        assert!(soon(driver.fetch(digest, 0)).await.is_ok());
    }
    soon(async { Join::all(&driver, other.task).await.advertise(&driver).await.share(&driver).await }).await;
    assert_eq!(soon(driver.show(other.task)).await.unwrap().open_round, "masked input");
    let stopped = soon(driver.stop_task(other.task)).await.unwrap();
    assert_eq!(stopped.state, TaskState::Stopped);
    // Its own devices wait for it, as for any step before theirs.
    assert!(!asked.is_finished() && !late.is_finished());
    drop(closed);
    for asked in [asked, late] {
        let reply = soon(asked).await.unwrap().unwrap();
        assert!(matches!(reply, Reply::Received), "{reply:?}");
    }
}

#[tokio::test]
async fn whom_only_a_task_that_is_held_up_could_answer_waits_a_while_for_it() {
    let HeldUp { driver, task, asked, closed, _world, .. } = HeldUp::new(0).await;
    let given = ask(&driver, device(9), Request::CheckIn(CheckIn::default()));
    sleep(4 * LONG_STEP).await;
    assert!(!given.is_finished());
    drop(closed);
    soon(asked).await.unwrap().unwrap();
    let given = soon(given).await.unwrap().unwrap();
    // Its places are all taken: that is its answer.
    let Reply::Wait { latest, complete: false, .. } = given else { panic!("{given:?}") };
    assert_eq!(latest.first().map(|published| published.task), Some(task));
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_task_that_is_held_up() {
    let HeldUp { driver, closed: _closed, _world, .. } = HeldUp::new(0).await;
    // One that is over has news, and no work.
    let over = driver.create_task(bat(2).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    driver.stop_task(over).await.unwrap();
    let told = timeout(2 * LONGEST_WAIT, driver.handle(device(9), Request::CheckIn(CheckIn::default())))
        .await
        .unwrap();
    assert!(
        matches!(
            told,
            Ok(Reply::Wait {
                retry: Window { least_millis: 1_000, most_millis: 1_000 },
                complete: false,
                ..
            })
        ),
        "{told:?}"
    );
}

#[tokio::test]
async fn after_a_step_that_broke_off_nobody_goes_on_with_what_it_left() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let cell = driver.tasks.find(task).unwrap();
    let broken: Result<(), _> = driver.step(Arc::clone(&cell), |_| panic!("a test")).await;
    assert!(matches!(broken, Err(Rejection::Unavailable(_))));
    // Before the failure was marked, too.
    driver.failed.send_replace(false);
    let refused = driver.handle(device(0), Request::CheckIn(CheckIn::default())).await;
    assert!(matches!(refused, Err(Rejection::Unavailable(_))), "{refused:?}");
    soon(driver.failed()).await;
    assert_eq!(driver.show(task).await.unwrap().version, 0);
}

#[tokio::test]
async fn a_device_hears_of_its_charges_in_a_task_that_is_held_up() {
    let HeldUp { driver, task, closed: _closed, _world, .. } = HeldUp::new(2).await;
    let other = soon(driver.create_task(bat(2).to_bytes().unwrap(), Vec::new())).await.unwrap().task;
    let given = soon(driver.handle(device(0), Request::CheckIn(CheckIn::default()))).await.unwrap();
    let Reply::Assignment(work) = given else { panic!("{given:?}") };
    assert_eq!(work.published.task, other);
    let [charged] = work.charges[..] else { panic!("{:?}", work.charges) };
    assert_eq!((charged.published.task, charged.published.version, charged.rounds), (task, 2, 2));
}

#[tokio::test]
async fn the_deadline_of_a_task_does_not_wait_for_a_step_of_another() {
    let HeldUp { driver, closed: _closed, _world, .. } = HeldUp::new(0).await;
    let timers = tokio::spawn({
        let driver = driver.clone();
        async move { driver.run_timers().await }
    });
    let mut short = bat(1);
    short.round.join_millis = 1_000;
    let task = driver.create_task(short.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    driver.handle(device(0), Request::Join { task, version: 0, class: None, log_seen: 0 }).await.unwrap();
    soon(async {
        while driver.show(task).await.unwrap().last_abort.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    timers.abort();
}

#[tokio::test]
async fn a_drain_ends_although_a_step_does_not_and_ends_the_rounds_of_the_other_tasks() {
    let HeldUp { driver, task, closed: _closed, _world, .. } = HeldUp::new(0).await;
    let other = driver.create_task(bat(2).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    Join::all(&driver, other).await.advertise(&driver).await;
    assert_ne!(driver.show(other).await.unwrap().open_round, "");
    soon(driver.drain(Duration::ZERO)).await;
    assert_eq!(driver.show(other).await.unwrap().open_round, "");
    assert_eq!(driver.show(task).await.unwrap().open_round, "masked input");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rounds_of_several_tasks_at_a_time_beside_check_ins_all_come_to_their_versions() {
    let world = World::new();
    let driver = world.open();
    let mut rounds = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let plan = Plan { name: name.to_owned(), ..plan(1) };
        let task = driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
        let driver = driver.clone();
        rounds.push(tokio::spawn(async move {
            let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
            let round = round.submit(&driver).await;
            let session = SessionId(round.context.session.0);
            for (i, shares) in (0..).zip(round.reveal(&driver).await) {
                driver.handle(device(i), Request::Unmask { session, shares }).await.unwrap();
            }
        }));
    }
    let asking: Vec<_> = (0..8)
        .map(|i| {
            let driver = driver.clone();
            tokio::spawn(async move {
                let mut answers = 0;
                while driver.list().await.iter().any(|task| task.state == TaskState::Active) {
                    driver.handle(device(100 + i), Request::CheckIn(CheckIn::default())).await.unwrap();
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    for round in rounds {
        timeout(6 * SOON, round).await.unwrap().unwrap();
    }
    for asking in asking {
        assert!(timeout(6 * SOON, asking).await.unwrap().unwrap() > 0);
    }
    driver.no_open_round().await;
    let all: Vec<TaskStatus> = driver.list().await.into_iter().map(durable).collect();
    assert!(all.iter().all(|task| (task.state, task.version) == (TaskState::Complete, 1)), "{all:?}");
    drop(driver);
    let restored: Vec<TaskStatus> = world.open().list().await.into_iter().map(durable).collect();
    assert_eq!(restored, all);
}
