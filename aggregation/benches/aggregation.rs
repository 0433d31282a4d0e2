//! How long the parts of a session take, on one core.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program that measures: it reads the clock and prints"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aggregation::{
    DeviceIndex, Seed,
    prg::{CHUNK_COORDINATES, Mask},
    shamir::{self, Rebuilder},
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Coordinates of a vector.
const LEN: usize = 1 << 20;

/// The fastest of this many runs is printed: others disturb the rest.
const RUNS: u32 = 15;

fn main() {
    one_mask();
    masks_of_a_device(99);
    share_and_rebuild(100, 67);
    share_and_rebuild(256, 129);
    decode(172, 129, 20);
}

fn fastest(mut run: impl FnMut()) -> Duration {
    (0..RUNS).fold(Duration::MAX, |best, _| {
        let start = Instant::now();
        run();
        best.min(start.elapsed())
    })
}

fn one_mask() {
    let mask = Mask::new(&Seed::from_bytes([1; 32]), &[2; 32], "bench");
    let mut vector = vec![0; LEN];
    let time = fastest(|| mask.add(0, black_box(&mut vector)));
    println!("one mask of 2^20 coordinates, added: {time:?}");
}

fn masks_of_a_device(count: u8) {
    let masks: Vec<Mask> =
        (0..=count).map(|mask| Mask::new(&Seed::from_bytes([mask; 32]), &[2; 32], "bench")).collect();
    let mut vector = vec![0; LEN];
    let time = fastest(|| {
        for (place, chunk) in vector.chunks_mut(CHUNK_COORDINATES).enumerate() {
            for mask in &masks {
                mask.add(place * CHUNK_COORDINATES, black_box(chunk));
            }
        }
    });
    println!("{} masks of 2^20 coordinates, added in chunks: {time:?}", masks.len());
}

fn share_and_rebuild(count: u16, threshold: u16) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let seed = Seed::from_bytes([3; 32]);
    let share = fastest(|| {
        drop(black_box(shamir::split(&seed, threshold.into(), &places, &mut rng)));
    });
    let shares = shamir::split(&seed, threshold.into(), &places, &mut rng);
    let places: Vec<DeviceIndex> = (0..threshold).map(DeviceIndex::from).collect();
    let rebuild = fastest(|| {
        let rebuilder = Rebuilder::new(black_box(&places));
        let used = shares.iter().take(threshold.into());
        drop(black_box(rebuilder.and_then(|rebuilder| rebuilder.rebuild(used))));
    });
    println!("Shamir, n = {count}, t = {threshold}: share {share:?}, rebuild {rebuild:?}");
}

fn decode(count: u16, threshold: u16, wrong: u16) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let seed = Seed::from_bytes([3; 32]);
    let right = shamir::split(&seed, threshold.into(), &places, &mut rng);
    let other = shamir::split(&seed, threshold.into(), &places, &mut rng);
    let shares: Vec<_> = (0..count)
        .zip(right.iter().zip(&other))
        .map(|(place, (right, other))| {
            let share = if place < wrong { other } else { right };
            (DeviceIndex::from(place), share)
        })
        .collect();
    let time = fastest(|| drop(black_box(shamir::decode(&shares, threshold.into()))));
    println!("decoding {count} shares, t = {threshold}, {wrong} of them wrong: {time:?}");
}
