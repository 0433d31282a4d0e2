use aggregation::{
    Advertised, Agreed, Context, Credential, IdentityKey, IndexSet, Masking, Roster, Shared, Submitted,
    UnmaskShares, packing,
};
use proto::admin::TaskState;
use proto::ids::SessionId;
use proto::message::{CheckIn, Published, input_digest};
use proto::plan::{
    Mode, Plan, PrivacyPlan, RefreshPlan, RoundPlan, model_digest, rotation_seed, vector_from_bytes,
};
use task::spool::InMemory;
use tokio::time::sleep;

use super::trouble::AGAIN_MILLIS;
use super::*;
use crate::records;

mod apart;
mod entering;
mod full_disk;
mod held;
mod openings;
mod roll_back;
mod rounds;
mod spent;
mod traces;

const COHORT: u8 = 3;

/// What of a status is durable: devices are counted anew after a start.
fn durable(status: TaskStatus) -> TaskStatus {
    TaskStatus { funnel: None, last_funnel: None, ..status }
}

#[tokio::test]
async fn one_hot_updates_make_their_mean_and_a_restart_keeps_it() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    let round = round.submit(&driver).await;
    let before = driver.show(task).await.unwrap();
    assert_eq!((before.version, before.rounds_charged), (0, 1));
    round.finish(&driver).await;

    let status = driver.show(task).await.unwrap();
    assert_eq!((status.state, status.version), (TaskState::Complete, 1));
    let adapter = fetch(&driver, status.adapter).await;
    for (index, x) in adapter.iter().enumerate() {
        let expected = if index < usize::from(COHORT) { 1.0 / f32::from(COHORT) } else { 0.0 };
        assert!((x - expected).abs() < 0.01, "{adapter:?}");
    }
    drop(driver);

    let driver = world.open();
    assert_eq!(durable(driver.show(task).await.unwrap()), durable(status.clone()));
    let wait = driver.handle(DeviceId([0; 16]), Request::CheckIn(CheckIn::default())).await.unwrap();
    assert!(matches!(wait, Reply::Wait { latest, complete: true, .. } if latest[0].version == 1));
}

#[tokio::test]
async fn a_task_that_is_over_lets_its_parameters_go_and_is_told_of_as_before() {
    let world = World::new();
    let driver = world.open();
    for (versions, finishes) in [(1, true), (2, false)] {
        let task = driver.create_task(plan(versions).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
        let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
        round.submit(&driver).await.finish(&driver).await;
        let before = driver.show(task).await.unwrap();
        if !finishes {
            assert!(!hold(&driver, task).await.task().adapter().is_empty());
            driver.stop_task(task).await.unwrap();
        }
        let hold = hold(&driver, task).await;
        assert!(hold.task().adapter().is_empty() && hold.task().optimizer().to_vector().is_empty());
        drop(hold);
        let after = driver.show(task).await.unwrap();
        assert!(after.state.is_over());
        assert_eq!(TaskStatus { state: before.state, ..after.clone() }, before);
        assert!(!fetch(&driver, after.adapter).await.is_empty());
        let told = driver.handle(device(0), Request::CheckIn(CheckIn::default())).await.unwrap();
        assert!(matches!(told, Reply::Wait { complete: true, .. }), "{told:?}");
    }
}

#[tokio::test]
async fn what_an_epoch_left_is_given_out_and_a_restart_keeps_it() {
    let world = World::new();
    let driver = world.open();
    let refresh = Some(RefreshPlan { every: 1, accumulated_rank: 1, shipped_rank: 1 });
    let plan = Plan { refresh, ..plan(2) };
    let task = driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    let round = round.submit(&driver).await;
    round.finish(&driver).await;

    let status = driver.show(task).await.unwrap();
    let digest = status.versions[0].folded.unwrap();
    assert!(fetch(&driver, status.adapter).await.iter().all(|x| x.abs() < f32::MIN_POSITIVE));
    let folded = plan.folded_at(1, Some(&fetch(&driver, digest).await)).unwrap();
    for (index, x) in folded.pairs()[0].b.iter().enumerate() {
        let expected = if index < usize::from(COHORT) { 1.0 / f32::from(COHORT) } else { 0.0 };
        assert!((x - expected).abs() < 0.01, "{index}: {x}");
    }
    drop(driver);

    let driver = world.open();
    assert_eq!(durable(driver.show(task).await.unwrap()), durable(status.clone()));
    let given = driver.handle(DeviceId([0; 16]), Request::CheckIn(CheckIn::default())).await.unwrap();
    let Reply::Assignment(published) = given else { panic!("{given:?}") };
    assert_eq!((published.version, published.folded), (1, Some(digest)));
    assert!(driver.fetch(digest, 0).await.is_ok());
}

#[tokio::test]
async fn a_crash_after_the_survivors_are_fixed_charges_and_never_opens_that_round_again() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    let round = round.submit(&driver).await;
    let (session, first) = (round.context.session, round.context.round);
    drop(driver);

    let driver = world.open();
    let status = driver.show(task).await.unwrap();
    assert_eq!((status.state, status.version), (TaskState::Active, 0));
    assert_eq!((status.rounds_charged, status.open_round.as_str()), (1, ""));
    let agree = Request::Agree { session: SessionId(session.0), signature: aggregation::Signature([0; 64]) };
    assert_eq!(driver.handle(DeviceId([0; 16]), agree).await.unwrap_err(), Rejection::UnknownSession);
    let again = Join::all(&driver, task).await;
    assert_eq!(again.context.round, first + 1);
    drop(driver);
    let store = Store::open(&world.folder.path().join("store")).unwrap();
    assert_eq!(records::survivors(&store, task, first).unwrap().len(), usize::from(COHORT));
}

#[tokio::test]
async fn who_is_given_work_hears_of_its_charges_in_all_tasks() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    round.submit(&driver).await;
    let other = Plan { name: "another".into(), ..plan(1) };
    let other = driver.create_task(other.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    driver.stop_task(task).await.unwrap();
    drop(driver);

    // Of a task that was stopped too, after a restart; and who was never charged hears of nothing.
    let driver = world.open();
    let asked = async |device| {
        let reply = driver.handle(device, Request::CheckIn(CheckIn::default())).await.unwrap();
        let Reply::Assignment(assignment) = reply else { panic!("{reply:?}") };
        (assignment.published.task, assignment.charges)
    };
    let (given, charges) = asked(device(0)).await;
    assert_eq!((given, charges.len()), (other, 1));
    assert_eq!((charges[0].published.task, charges[0].rounds), (task, 1));
    assert!(driver.fetch(charges[0].published.plan, 0).await.is_ok(), "what it cost can be asked for");
    assert_eq!(asked(device(77)).await, (other, Vec::new()));
}

#[tokio::test]
async fn a_round_that_was_only_opened_keeps_its_number_for_itself() {
    let world = World::new();
    let driver = world.open();
    let task = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let first = Join::all(&driver, task).await.context.round;
    drop(driver);
    assert_eq!(Join::all(&world.open(), task).await.context.round, first + 1);
}

#[tokio::test]
async fn only_what_belongs_to_a_task_is_given_out() {
    let world = World::new();
    let driver = world.open();
    let status = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap();
    assert!(driver.fetch(status.plan, 0).await.is_ok());
    assert_eq!(driver.fetch(status.plan, 1 << 40).await, Err(Rejection::UnknownArtifact));
    // The optimiser's state is an artefact too: here an empty one.
    assert_eq!(driver.fetch(Digest::of(&[]), 0).await, Err(Rejection::UnknownArtifact));
}

#[tokio::test]
async fn without_a_task_a_device_waits_and_the_first_active_task_is_served() {
    let world = World::new();
    let driver = world.open();
    let device = DeviceId([0; 16]);
    let wait = driver.handle(device, Request::CheckIn(CheckIn::default())).await.unwrap();
    assert!(matches!(wait, Reply::Wait { latest, complete: false, .. } if latest.is_empty()));
    let first = driver.create_task(plan(1).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let second = driver.create_task(bat(2).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let given = driver.handle(device, Request::CheckIn(CheckIn::default())).await.unwrap();
    assert!(matches!(given, Reply::Assignment(work) if work.task == first));
    driver.stop_task(first).await.unwrap();
    let given = driver.handle(device, Request::CheckIn(CheckIn::default())).await.unwrap();
    assert!(matches!(given, Reply::Assignment(work) if work.task == second));
}

#[tokio::test]
async fn no_two_tasks_that_go_on_have_one_name() {
    let world = World::new();
    let driver = world.open();
    let first = driver.create_task(plan(2).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let refused = driver.create_task(plan(3).to_bytes().unwrap(), Vec::new()).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("task {first} is called `owl` too")), "{refused}");
    assert_eq!(driver.list().await.len(), 1);
    driver.stop_task(first).await.unwrap();
    driver.create_task(plan(3).to_bytes().unwrap(), Vec::new()).await.unwrap();
}

#[tokio::test]
async fn tasks_take_turns() {
    let world = World::new();
    let driver = world.open();
    let first = driver.create_task(plan(3).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let second = driver.create_task(bat(3).to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let mut given = Vec::new();
    for rounds in 0..3 {
        let reply = driver.handle(DeviceId([0; 16]), Request::CheckIn(CheckIn::default())).await.unwrap();
        let Reply::Assignment(work) = reply else { panic!("{reply:?}") };
        given.push(work.task);
        if rounds == 2 {
            break;
        }
        let round = Join::all(&driver, work.task).await.advertise(&driver).await.share(&driver).await;
        round.submit(&driver).await.finish(&driver).await;
    }
    assert_eq!(given, [first, second, first]);
}

#[tokio::test]
async fn after_a_failure_every_call_is_refused() {
    let world = World::new();
    let driver = world.open();
    driver.fail(&DriverError::Broken("a test".to_owned()));
    driver.failed().await;
    let refused = driver.handle(DeviceId([0; 16]), Request::CheckIn(CheckIn::default())).await;
    assert!(matches!(refused, Err(Rejection::Unavailable(_))));
}

/// A folder, and an authority that enrols whom it likes.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Driver {
        self.open_with(Store::open(&self.folder.path().join("store")).unwrap())
    }

    fn open_with(&self, store: Store) -> Driver {
        self.open_spooling(store, Arc::new(InMemory))
    }

    fn open_spooling(&self, store: Store, spooler: Arc<dyn Spooler>) -> Driver {
        let artifacts = Artifacts::open(&self.folder.path().join("artefacts")).unwrap();
        Driver::open(store, artifacts, authority().public(), spooler).unwrap()
    }
}

/// A round of [`COHORT`] devices, as far as they have come: `T` is what each of them holds.
struct Join<T> {
    context: Context,
    plan: Plan,
    /// The first of them.
    first: u8,
    devices: Vec<T>,
}

impl Join<()> {
    async fn all(driver: &Driver, task: TaskId) -> Self {
        Self::of(driver, task, 0).await
    }

    async fn of(driver: &Driver, task: TaskId, first: u8) -> Self {
        let status = driver.show(task).await.unwrap();
        let plan = plan(status.versions_wanted);
        let mut offers = Vec::new();
        for i in first..first + COHORT {
            offers.push(
                driver
                    .handle(
                        device(i),
                        Request::Join { task, version: status.version, class: None, log_seen: 0 },
                    )
                    .await
                    .unwrap(),
            );
        }
        let Reply::Offer { session, round, .. } = offers[0] else { panic!("{offers:?}") };
        let bytes = driver.fetch(status.plan, 0).await.unwrap().bytes;
        let mechanism = plan.mechanism().unwrap();
        let published = Published {
            folded: status.versions.last().and_then(|version| version.folded),
            task,
            version: status.version,
            plan: status.plan,
            adapter: status.adapter,
            clip_norm: plan.privacy.clip_norm,
        };
        let context = Context {
            session: aggregation::SessionId(session.0),
            task: aggregation::TaskId(task.0),
            round,
            model_digest: aggregation::ModelDigest(model_digest(&plan, &published, None).0),
            plan_digest: aggregation::PlanDigest(Digest::of(&bytes).0),
            len: mechanism.contribution_len(),
            ring_bits: mechanism.ring_bits(),
            report_goal: usize::from(COHORT),
            cohort: plan.round.cohort as usize,
            corrupt: plan.corrupt_devices(),
            missing_fraction_permille: plan.round.missing_permille,
            log: None,
        };
        Self { context, plan, first, devices: vec![(); usize::from(COHORT)] }
    }

    /// What each of them sends first, in order.
    fn advertisements(&self) -> Vec<(Advertised, Request)> {
        let one = |i| {
            let credential = Credential::issue(&authority(), [i; 16], identity(i).public(), u64::MAX);
            let (state, advertisement) =
                Advertised::new(self.context.clone(), &identity(i), credential, &mut UnwrapErr(SysRng));
            let session = SessionId(self.context.session.0);
            (state, Request::Advertise { session, advertisement: Box::new(advertisement) })
        };
        (self.first..self.first + COHORT).map(one).collect()
    }

    async fn advertise(self, driver: &Driver) -> Join<(Advertised, Request)> {
        let devices = self.advertisements();
        for (i, (_, request)) in (self.first..).zip(&devices) {
            driver.handle(device(i), request.clone()).await.unwrap();
        }
        Join { context: self.context, plan: self.plan, first: self.first, devices }
    }
}

impl Join<(Advertised, Request)> {
    async fn share(self, driver: &Driver) -> Join<Masking> {
        let mut sharing: Vec<(Shared, Request)> = Vec::new();
        for (i, (state, request)) in (self.first..).zip(self.devices) {
            let Reply::Roster { entries: roster, .. } = driver.handle(device(i), request).await.unwrap()
            else {
                panic!()
            };
            let roster = Roster::new(roster).unwrap();
            let (now, public) = (now().as_secs(), authority().public());
            let (state, shares) = state.share(roster, &public, now, 3, &mut UnwrapErr(SysRng)).unwrap();
            let request = Request::ShareKeys { session: SessionId(self.context.session.0), shares };
            driver.handle(device(i), request.clone()).await.unwrap();
            sharing.push((state, request));
        }
        let mut devices = Vec::new();
        for (i, (state, request)) in (self.first..).zip(sharing) {
            let reply = driver.handle(device(i), request).await.unwrap();
            let Reply::Inbox { sharers, shares } = reply else { panic!() };
            devices.push(state.receive(sharers, shares).unwrap());
        }
        Join { context: self.context, plan: self.plan, first: self.first, devices }
    }
}

impl Join<Masking> {
    /// Device i contributes 1 in coordinate i. Afterwards the survivors are fixed.
    async fn submit(self, driver: &Driver) -> Join<(Submitted, Request)> {
        let session = SessionId(self.context.session.0);
        let mut devices = Vec::new();
        for (i, masking) in (self.first..).zip(self.devices) {
            let mut update = vec![0.0; self.plan.adapter.trained_len()];
            update[usize::from(i)] = 1.0;
            let (mechanism, seed) = (self.plan.mechanism().unwrap(), rotation_seed(&session));
            let rng = &mut UnwrapErr(SysRng);
            let mut input = mechanism.encode(&update, &[], &seed, rng).unwrap().into_ring();
            masking.mask(&mut input).unwrap();
            let packed = packing::pack(&input, self.context.ring_bits);
            let digest = input_digest(&[Digest::of(&packed)]);
            driver.handle(device(i), Request::MaskedChunk { session, offset: 0, packed }).await.unwrap();
            let (submitted, sharing) = masking.submit(&identity(i)).unwrap();
            devices.push((submitted, Request::MaskedDone { session, digest, sharing }));
        }
        for (i, (_, done)) in (self.first..).zip(&devices) {
            driver.handle(device(i), done.clone()).await.unwrap();
        }
        Join { context: self.context, plan: self.plan, first: self.first, devices }
    }
}

impl Join<(Submitted, Request)> {
    /// What each device would reveal, once all have signed.
    async fn reveal(self, driver: &Driver) -> Vec<UnmaskShares> {
        let session = SessionId(self.context.session.0);
        let mut agreed: Vec<(Agreed, Request)> = Vec::new();
        for (i, (submitted, done)) in (self.first..).zip(self.devices) {
            let reply = driver.handle(device(i), done).await.unwrap();
            let Reply::Survivors(survivors) = reply else { panic!("{reply:?}") };
            assert_eq!(survivors, IndexSet::full(usize::from(COHORT)));
            let (state, signature) = submitted.agree(survivors, &identity(i)).unwrap();
            let request = Request::Agree { session, signature };
            driver.handle(device(i), request.clone()).await.unwrap();
            agreed.push((state, request));
        }
        let mut revealed = Vec::new();
        for (i, (state, request)) in (self.first..).zip(agreed) {
            let reply = driver.handle(device(i), request).await.unwrap();
            let Reply::Evidence(evidence) = reply else { panic!("{reply:?}") };
            revealed.push(state.unmask(&evidence).unwrap());
        }
        revealed
    }

    async fn finish(self, driver: &Driver) {
        self.reveal_all(driver).await;
        driver.no_open_round().await;
    }

    async fn reveal_all(self, driver: &Driver) {
        let (session, first) = (SessionId(self.context.session.0), self.first);
        for (i, shares) in (first..).zip(self.reveal(driver).await) {
            driver.handle(device(i), Request::Unmask { session, shares }).await.unwrap();
        }
    }
}

/// As all timers do at once.
async fn close_due(driver: &Driver) {
    for cell in driver.tasks.all().iter() {
        driver.close_due(cell).await;
    }
}

async fn hold(driver: &Driver, task: TaskId) -> Hold {
    driver.tasks.find(task).unwrap().hold().await
}

async fn fetch(driver: &Driver, digest: Digest) -> Vec<f32> {
    vector_from_bytes(&driver.fetch(digest, 0).await.unwrap().bytes).unwrap()
}

fn device(i: u8) -> DeviceId {
    DeviceId([i; 16])
}

fn identity(i: u8) -> IdentityKey {
    IdentityKey::from_seed(&[i; 32])
}

fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[200; 32])
}

/// The same under another name.
fn bat(versions: u32) -> Plan {
    Plan { name: "bat".to_owned(), ..plan(versions) }
}

fn plan(versions: u32) -> Plan {
    let mut plan = Plan::example();
    plan.name = "owl".into();
    plan.privacy = PrivacyPlan { mode: Mode::Off, noise_multiplier: 0.0, ..plan.privacy };
    let goal = COHORT.into();
    let wait = 60_000;
    plan.round = RoundPlan {
        versions,
        cohort: goal,
        report_goal: goal,
        join_millis: wait,
        step_millis: wait,
        grace_millis: 0,
        rounds: 1,
        min_rounds: 1,
        missing_permille: 300,
    };
    plan
}
