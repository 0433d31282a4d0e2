//! How long the parts of a session take, on one core and on all of them. With `unmask` as an argument only how long a
//! sum takes to open.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures: it reads the clock and prints"
)]

#[path = "../tests/support/world.rs"]
mod world;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use nightshift_aggregation::{
    Context, DeviceIndex, Evidence, IndexSet, Seed, Share, Sharing, Signature, UnmaskShares, Unmasking,
    prg::{CHUNK_COORDINATES, Mask},
    shamir::{self, Rebuilder},
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use rustix::time::{ClockId, clock_gettime};
use world::{World, context_of, sealed_for};

/// Coordinates of a vector.
const LEN: usize = 1 << 20;

/// Coordinates of a smaller one.
const SHORT: usize = 100_000;

/// The fastest of this many runs is printed: others disturb the rest.
const RUNS: u32 = 9;

fn main() {
    let pools = [1, 0].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    if std::env::args().any(|argument| argument == "unmask") {
        return unmask(&pools, 1000, 300, &[]);
    }
    println!("the fastest of {RUNS} runs, on 1 core and on {}", pools[1].current_num_threads());
    one_mask();
    for (what, masks) in [("100 devices", 100), ("1000 devices, 130 neighbours", 131)] {
        masks_of_a_device(&pools, what, masks);
    }
    share_and_rebuild(100, 67);
    share_and_rebuild(130, 31);
    share_and_rebuild(256, 129);
    decode(172, 129, 20);
    for devices in [100, 300, 1000] {
        evidence(devices);
    }
    unmask(&pools, 1000, 300, &[LEN]);
}

fn fastest(runs: u32, mut run: impl FnMut()) -> Duration {
    (0..runs).fold(Duration::MAX, |best, _| {
        let start = Instant::now();
        run();
        best.min(start.elapsed())
    })
}

/// The same work on one core and on all.
fn on_both<'a>(pools: &'a [ThreadPool; 2], runs: u32, mut run: impl FnMut() + Send + 'a) -> [Duration; 2] {
    pools.each_ref().map(|pool| pool.install(|| fastest(runs, &mut run)))
}

fn one_mask() {
    let mask = Mask::new(&Seed::from_bytes([1; 32]), &[2; 32], "bench");
    let mut vector = vec![0; LEN];
    let time = fastest(RUNS, || mask.add(0, black_box(&mut vector)));
    println!("one mask of 2^20 coordinates, added: {time:?}");
}

fn masks_of_a_device(pools: &[ThreadPool; 2], what: &str, count: u8) {
    let masks: Vec<Mask> =
        (0..count).map(|mask| Mask::new(&Seed::from_bytes([mask; 32]), &[2; 32], "bench")).collect();
    let mut vector = vec![0; LEN];
    let times = on_both(pools, RUNS, || {
        vector.par_chunks_mut(CHUNK_COORDINATES).enumerate().for_each(|(place, chunk)| {
            for mask in &masks {
                mask.add(place * CHUNK_COORDINATES, black_box(chunk));
            }
        });
    });
    println!("masking of a device, {what}, 2^20 coordinates ({count} masks): {times:?}");
}

fn share_and_rebuild(count: u16, threshold: u16) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let seed = Seed::from_bytes([3; 32]);
    let holders: Vec<DeviceIndex> = (0..count).map(DeviceIndex::from).collect();
    let share = fastest(RUNS, || {
        drop(black_box(shamir::split(&seed, threshold.into(), &holders, &mut rng)));
    });
    let shares = shamir::split(&seed, threshold.into(), &holders, &mut rng);
    let places = &holders[..usize::from(threshold)];
    let rebuild = fastest(RUNS, || {
        let rebuilder = Rebuilder::new(black_box(places));
        let used = shares.iter().take(threshold.into());
        drop(black_box(rebuilder.and_then(|rebuilder| rebuilder.rebuild(used))));
    });
    println!("Shamir, n = {count}, t = {threshold}: share {share:?}, rebuild {rebuild:?}");
}

fn decode(count: u16, threshold: u16, wrong: u16) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let seed = Seed::from_bytes([3; 32]);
    let holders: Vec<DeviceIndex> = (0..count).map(DeviceIndex::from).collect();
    let right = shamir::split(&seed, threshold.into(), &holders, &mut rng);
    let other = shamir::split(&seed, threshold.into(), &holders, &mut rng);
    let shares: Vec<_> = (0..count)
        .zip(right.iter().zip(&other))
        .map(|(place, (right, other))| {
            let share = if place < wrong { other } else { right };
            (DeviceIndex::from(place), share)
        })
        .collect();
    let time = fastest(RUNS, || drop(black_box(shamir::decode(&shares, threshold.into()))));
    println!("decoding {count} shares, t = {threshold}, {wrong} of them wrong: {time:?}");
}

/// What the signatures over sharers and survivors cost where a quorum signed the transcript and everybody survived.
fn evidence(devices: usize) {
    let ctx = Context { report_goal: devices / 2 + devices / 10, ..context_of(devices) };
    let world = World::new(devices, &ctx);
    let inbox = sealed_for(&world, 0.into());
    let agreed = || {
        let (shared, _) = world.share(0, world.roster.clone()).unwrap();
        let masking = shared.receive(world.all(), inbox.clone()).unwrap();
        let start = Instant::now();
        let (submitted, _) = masking.submit(&world.identities[0]).unwrap();
        let signed = start.elapsed();
        (submitted.agree(world.all(), &world.identities[0]).unwrap(), signed)
    };
    let sharing = Sharing::new(&ctx, &world.roster, world.all());
    let transcript = world.transcript(&world.all());
    let (quorum, mut signers) = (transcript.quorum(), IndexSet::new(devices));
    for place in 0..quorum {
        signers.insert(u16::try_from(place).unwrap()).unwrap();
    }
    let signatures: Vec<Signature> = world
        .identities
        .iter()
        .enumerate()
        .map(|(place, key)| {
            let over_transcript = place < quorum;
            let (domain, digest) = if over_transcript {
                ("consistency", transcript.digest())
            } else {
                ("sharing", sharing.digest())
            };
            key.sign(domain, &[&digest])
        })
        .collect();
    let evidence = Evidence { agreed: signers, signatures };
    let all: Vec<Signature> =
        world.identities.iter().map(|key| key.sign("sharing", &[&sharing.digest()])).collect();
    let server = fastest(RUNS, || {
        for (place, signature) in (0..).map(DeviceIndex::from).zip(&all) {
            sharing.verify(&world.roster, place, black_box(signature)).unwrap();
        }
    });
    let (mut verified, mut signed) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let ((state, _), one) = agreed();
        let start = Instant::now();
        drop(black_box(state.unmask(&evidence).unwrap()));
        (verified, signed) = (verified.min(start.elapsed()), signed.min(one));
    }
    let bytes = 64 * evidence.signatures.len() + devices.div_ceil(8);
    println!(
        "evidence of {devices} survivors, {quorum} of them by the transcript: a device sends 64 bytes more, signs in \
         {signed:?}, gets {bytes} bytes and verifies them in {verified:?}; the server verifies {devices} signatures \
         over the sharers in {server:?}, all on 1 core"
    );
}

/// What the server does when all answers are there, for so many devices of which some are missing: in wall time, which
/// whoever else uses the machine makes longer, and in the processor time of all threads together.
fn unmask(pools: &[ThreadPool; 2], devices: usize, missing: usize, longer: &[usize]) {
    let ctx = Context { len: LEN, report_goal: devices / 2, ..context_of(devices) };
    let world = World::new(devices, &ctx);
    let mut survivors = IndexSet::full(devices);
    for place in (0..missing).map(|step| step * devices / missing) {
        survivors.remove(u16::try_from(place).unwrap());
    }
    let answers = answers(&world, &survivors);
    let mut recovery = world.recovery(&survivors);
    let start = Instant::now();
    for answer in answers {
        recovery.accept(answer).unwrap();
    }
    let taken = start.elapsed();
    assert!(recovery.is_ready());
    println!("unmasking, {devices} devices, {missing} missing: answers taken, on 1 core: {taken:?}");
    let unmasking = recovery.clone().rebuild().unwrap();
    for pool in pools {
        pool.install(|| {
            let keys: Vec<Cost> =
                (0..5).map(|_| Cost::of(|| drop(black_box(recovery.clone().rebuild().unwrap())))).collect();
            println!("unmasking, on {}: seeds and pairwise keys: {}", threads(), Cost::median(keys));
            let masks = (0..5).map(|_| Cost::of(|| remove(&unmasking, SHORT))).collect();
            println!("unmasking, on {}: masks of {SHORT} coordinates: {}", threads(), Cost::median(masks));
            let whole = (0..5).map(|_| Cost::of(|| remove(&recovery.clone().rebuild().unwrap(), SHORT)));
            println!(
                "unmasking, on {}: all of it at {SHORT} coordinates: {}",
                threads(),
                Cost::median(whole.collect())
            );
            for len in longer {
                let cost = Cost::of(|| remove(&unmasking, *len));
                println!("unmasking, on {}: masks of {len} coordinates: {cost}", threads());
            }
        });
    }
}

fn threads() -> String {
    format!("{} threads", rayon::current_num_threads())
}

/// What some work took.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    processor: Duration,
}

impl Cost {
    fn of(work: impl FnOnce()) -> Self {
        let (wall, processor) = (Instant::now(), processor_time());
        work();
        Self { wall: wall.elapsed(), processor: processor_time().saturating_sub(processor) }
    }

    /// The medians of each.
    fn median(mut costs: Vec<Self>) -> Self {
        let mut middle = |key: fn(&Self) -> Duration| {
            costs.sort_by_key(key);
            key(&costs[costs.len() / 2])
        };
        Self { wall: middle(|cost| cost.wall), processor: middle(|cost| cost.processor) }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wall, processor } = self;
        write!(f, "{:.2} s, processor time {:.2} s", wall.as_secs_f64(), processor.as_secs_f64())
    }
}

/// Of this process, all threads together.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn remove(unmasking: &Unmasking, len: usize) {
    let chunk = 1 << 13;
    vec![0; len].par_chunks_mut(chunk).enumerate().for_each(|(place, coordinates)| {
        unmasking.unmask_chunk(place * chunk, coordinates).unwrap();
    });
}

/// What the survivors reveal, without the steps before: their shares are dealt again.
fn answers(world: &World, survivors: &IndexSet) -> Vec<UnmaskShares> {
    let dealt: Vec<(DeviceIndex, Vec<(DeviceIndex, Share)>)> = world
        .roster
        .graph()
        .places()
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|owner| (owner, world.deal(owner, survivors.contains(owner))))
        .collect();
    let mut answers: Vec<UnmaskShares> = survivors
        .iter()
        .map(|place| UnmaskShares { from: place.get(), self_mask: Vec::new(), key: Vec::new() })
        .collect();
    let position = |place: DeviceIndex| answers.binary_search_by_key(&place.get(), |answer| answer.from);
    let found: Vec<Vec<Option<usize>>> =
        dealt.iter().map(|(_, shares)| shares.iter().map(|(to, _)| position(*to).ok()).collect()).collect();
    for ((owner, shares), found) in dealt.into_iter().zip(found) {
        for ((_, share), at) in shares.into_iter().zip(found) {
            let Some(at) = at else { continue };
            let list =
                if survivors.contains(owner) { &mut answers[at].self_mask } else { &mut answers[at].key };
            list.push((owner.get(), share));
        }
    }
    answers
}
