//! A round whose devices are played, and check-ins at one driver that come from outside whether or not they are
//! answered. It uses nothing but what devices and operators ask of a driver, so that it measures older versions too.

use std::time::{Duration, Instant};

use aggregation::{
    Advertised, Context, Credential, Draw, IdentityKey, MAX_COMPLETE, Roster, SHARE_BYTES, Share,
    UnmaskShares, packing,
};
use nightshift_coordinator::driver::{Driver, now};
use proto::ids::{DeviceId, Digest, SessionId, TaskId};
use proto::message::{CHUNK_COORDINATES, CheckIn, Outcome, Published, Reply, Request, input_digest};
use proto::plan::{Mode, Plan, PrivacyPlan, RoundPlan, model_digest};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

/// Check-ins a second.
pub(crate) const OFFERED: u32 = 500;

/// Longer than any step takes, in milliseconds.
const STEP_MILLIS: u64 = 600_000;

/// One round.
pub(crate) struct Scenario {
    pub(crate) what: &'static str,
    pub(crate) devices: u16,
    /// Coordinates of an input, about.
    pub(crate) coordinates: u32,
    /// Devices that vanish after they shared.
    pub(crate) missing: u16,
    /// Places of the devices that reveal random numbers instead of their shares.
    pub(crate) wrong: std::ops::Range<u16>,
}

/// Devices by their numbers, which are their places too: what each holds at one step of the protocol.
type Devices<S> = Vec<(u16, S)>;

/// What all devices of a round know, and the driver that they ask.
pub(crate) struct Stage {
    driver: Driver,
    context: Context,
    session: SessionId,
}

/// How long each check-in waited, the shortest wait first, and how long all of it took.
pub(crate) struct Waits {
    took: Duration,
    /// Answered before it was over.
    answered: usize,
    each: Vec<Duration>,
}

/// Lets devices check in, each when it is its time and not when the one before is answered.
///
/// Each of the `devices` in turn; what it hears must be as `is_right` says.
pub(crate) async fn check_in_during<T>(
    driver: &Driver,
    devices: &[DeviceId],
    is_right: impl Fn(&Reply) -> bool + Send + Sync + Copy + 'static,
    during: impl Future<Output = T>,
) -> (T, Waits) {
    let (over, mut is_over) = oneshot::channel::<()>();
    let driver = driver.clone();
    let devices: Vec<DeviceId> = devices.to_vec();
    let mut devices = devices.into_iter().cycle();
    let start = Instant::now();
    let asking = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_secs(1) / OFFERED);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut asked = Vec::new();
        while is_over.try_recv().is_err() {
            let due: Instant = ticks.tick().await.into_std();
            let (driver, device) = (driver.clone(), devices.next().unwrap());
            asked.push(tokio::spawn(async move {
                let reply = driver.handle(device, Request::CheckIn(CheckIn::default())).await.unwrap();
                assert!(is_right(&reply), "{reply:?}");
                (Instant::now(), due.elapsed())
            }));
        }
        let mut answers = Vec::new();
        for asked in asked {
            answers.push(asked.await.unwrap());
        }
        answers
    });
    let result = during.await;
    let end = Instant::now();
    over.send(()).unwrap();
    let answers = asking.await.unwrap();
    let mut each: Vec<Duration> = answers.iter().map(|(_, wait)| *wait).collect();
    each.sort_unstable();
    let answered = answers.iter().filter(|(at, _)| *at <= end).count();
    (result, Waits { took: end - start, answered, each })
}

pub(crate) fn print(what: &str, Waits { took, answered, each }: &Waits) {
    let at = |percent: usize| each[(each.len() - 1) * percent / 100];
    let rate = *answered as f64 / took.as_secs_f64();
    println!(
        "{what}: {took:.2?}, {rate:.0} check-ins/s, p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        at(50),
        at(99),
        at(100)
    );
}

impl Stage {
    /// A round that everybody joins.
    pub(crate) async fn new(driver: &Driver, task: TaskId, plan: &Plan, devices: u16) -> Self {
        let mut offers = Vec::new();
        for number in 0..devices {
            let join = Request::Join { task, version: 0, class: None, log_seen: 0 };
            offers.push(driver.handle(id(number), join).await.unwrap());
        }
        let Reply::Offer { session, round, .. } = offers[0] else { panic!("no round is offered") };
        let status = driver.show(task).await.unwrap();
        let mechanism = plan.mechanism().unwrap();
        let published = Published {
            folded: None,
            task,
            version: 0,
            plan: status.plan,
            adapter: status.adapter,
            clip_norm: plan.privacy.clip_norm,
        };
        let context = Context {
            session: aggregation::SessionId(session.0),
            task: aggregation::TaskId(task.0),
            round,
            model_digest: aggregation::ModelDigest(model_digest(plan, &published, None).0),
            plan_digest: aggregation::PlanDigest(status.plan.0),
            len: mechanism.contribution_len(),
            ring_bits: mechanism.ring_bits(),
            report_goal: plan.round.report_goal as usize,
            cohort: plan.round.cohort as usize,
            corrupt: plan.corrupt_devices(),
            missing_fraction_permille: plan.round.missing_permille,
            log: None,
        };
        Self { driver: driver.clone(), context, session }
    }

    /// What each survivor reveals, in the order of their places.
    pub(crate) async fn play_to_the_last_step(&self, scenario: &Scenario) -> Devices<UnmaskShares> {
        let (context, session) = (&self.context, self.session);
        let numbers = (0..scenario.devices).map(|number| (number, ())).collect();
        let (devices, requests) = each(numbers, |number, ()| {
            let identity = identity(number);
            let credential = Credential::issue(&authority(), id(number).0, identity.public(), u64::MAX);
            let (state, advertisement) =
                Advertised::new(context.clone(), &identity, credential, &mut rng(number));
            (state, Request::Advertise { session, advertisement: Box::new(advertisement) })
        });
        let Reply::Roster { entries, .. } = self.ask_all(&requests).await else { panic!("no roster") };
        let (devices, roster) = if usize::from(scenario.devices) <= MAX_COMPLETE {
            (devices, Roster::new(entries).unwrap())
        } else {
            let draw = Draw::new(context, entries, 0).unwrap();
            let (devices, requests) = each(devices, |_, mut state| {
                let nonce = state.reveal(&draw).unwrap();
                (state, Request::Draw { session, nonce })
            });
            let Reply::Drawn(nonces) = self.ask_all(&requests).await else { panic!("no nonces") };
            (devices, draw.finish(&nonces).unwrap())
        };
        let (public, now_secs) = (authority().public(), now().as_secs());
        let (mut devices, requests) = each(devices, |number, state| {
            let mut rng = rng(number + scenario.devices);
            let goal = context.report_goal;
            let (state, shares) = state.share(roster.clone(), &public, now_secs, goal, &mut rng).unwrap();
            (state, Request::ShareKeys { session, shares })
        });
        self.ask_all(&requests).await;

        // Spread over the places, which a ring shuffles once more.
        let (all, missing) = (u32::from(scenario.devices), u32::from(scenario.missing));
        devices.retain(|(number, _)| u32::from(*number) * missing % all >= missing);
        let mut inboxes = Vec::new();
        for (number, state) in devices {
            let reply = self.ask(number, requests[usize::from(number)].1.clone()).await;
            let Reply::Inbox { sharers, shares } = reply else { panic!("no inbox") };
            inboxes.push((number, (state, sharers, shares)));
        }
        let (mut submitted, mut done) = (Vec::new(), Vec::new());
        while !inboxes.is_empty() {
            // A few at a time: so many inputs are in memory.
            let some = inboxes.drain(..inboxes.len().min(64)).collect();
            let (devices, chunks) = each(some, |number, (state, sharers, shares)| {
                let masking = state.receive(sharers, shares).unwrap();
                let chunk = |begin: usize| {
                    let mut input = vec![0; CHUNK_COORDINATES.min(context.len - begin)];
                    masking.mask_chunk(begin, &mut input).unwrap();
                    packing::pack(&input, context.ring_bits)
                };
                let chunks: Vec<Vec<u8>> = (0..context.len).step_by(CHUNK_COORDINATES).map(chunk).collect();
                let (submitted, sharing) = masking.submit(&identity(number)).unwrap();
                (submitted, (chunks, sharing))
            });
            submitted.extend(devices);
            for (number, (chunks, sharing)) in chunks {
                let digest =
                    input_digest(&chunks.iter().map(|packed| Digest::of(packed)).collect::<Vec<_>>());
                for (packed, offset) in chunks.into_iter().zip((0_u64..).step_by(CHUNK_COORDINATES)) {
                    self.ask(number, Request::MaskedChunk { session, offset, packed }).await;
                }
                done.push((number, Request::MaskedDone { session, digest, sharing }));
            }
        }
        let Reply::Survivors(survivors) = self.ask_all(&done).await else { panic!("no survivors") };
        let (devices, requests) = each(submitted, |number, state| {
            let (state, signature) = state.agree(survivors.clone(), &identity(number)).unwrap();
            (state, Request::Agree { session, signature })
        });
        let Reply::Evidence(evidence) = self.ask_all(&requests).await else { panic!("no evidence") };
        let (mut revealed, _) = each(devices, |_, state| (state.unmask(&evidence).unwrap(), ()));
        for (number, shares) in revealed.iter_mut().filter(|(number, _)| scenario.wrong.contains(number)) {
            let mut rng = rng(*number);
            for (_, share) in shares.self_mask.iter_mut().chain(&mut shares.key) {
                *share = random_share(&mut rng);
            }
        }
        revealed
    }

    /// The last step, until everybody hears that the version is published.
    pub(crate) async fn unmask(&self, revealed: Devices<UnmaskShares>) {
        let session = self.session;
        for (number, shares) in &revealed {
            self.ask(*number, Request::Unmask { session, shares: shares.clone() }).await;
        }
        let (number, shares) = revealed.into_iter().next().unwrap();
        let last = Request::Unmask { session, shares };
        loop {
            let reply = self.ask(number, last.clone()).await;
            if let Reply::Over(outcome) = reply {
                return assert_eq!(outcome, Outcome::Published);
            }
            assert!(matches!(reply, Reply::Wait { .. }));
            // As a device does that is told to wait.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every device asks, then the first one again: what all of them would hear.
    async fn ask_all(&self, requests: &Devices<Request>) -> Reply {
        for (number, request) in requests {
            self.ask(*number, request.clone()).await;
        }
        let (number, request) = &requests[0];
        self.ask(*number, request.clone()).await
    }

    async fn ask(&self, number: u16, request: Request) -> Reply {
        self.driver.handle(id(number), request).await.unwrap()
    }
}

/// Lets every device do a part of the protocol, on all cores.
fn each<A: Send, B: Send, C: Send>(
    devices: Devices<A>,
    part: impl Fn(u16, A) -> (B, C) + Sync,
) -> (Devices<B>, Devices<C>) {
    let part = |(number, state)| {
        let (state, out) = part(number, state);
        ((number, state), (number, out))
    };
    devices.into_par_iter().map(part).unzip()
}

pub(crate) fn plan(devices: u16, coordinates: u32) -> Plan {
    let mut plan = Plan::example();
    plan.adapter.modules[0].outputs = coordinates;
    plan.privacy = PrivacyPlan { mode: Mode::Off, noise_multiplier: 0.0, ..plan.privacy };
    plan.round = RoundPlan {
        versions: 2,
        cohort: devices.into(),
        report_goal: devices.into(),
        join_millis: STEP_MILLIS,
        step_millis: STEP_MILLIS,
        grace_millis: 0,
        rounds: 1,
        min_rounds: 1,
        missing_permille: 300,
    };
    plan
}

pub(crate) fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[200; 32])
}

fn identity(number: u16) -> IdentityKey {
    IdentityKey::from_seed(&seed(number))
}

fn rng(number: u16) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(seed(number))
}

fn seed(number: u16) -> [u8; 32] {
    let mut seed = [1; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    seed
}

/// In the order of the numbers.
pub(crate) fn id(number: u16) -> DeviceId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    DeviceId(id)
}

fn random_share(rng: &mut ChaCha20Rng) -> Share {
    let mut bytes = [0; SHARE_BYTES];
    for word in bytes.as_chunks_mut::<8>().0 {
        // Below the prime.
        *word = (rng.next_u64() >> 4).to_le_bytes();
    }
    Share::from_bytes(&bytes).unwrap()
}
