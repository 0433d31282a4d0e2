//! Speed of the mechanism for a million coordinates, on one core:
//! `cargo bench -p nightshift-privacy`. Prints the least of several runs.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark reads the clock, prints, and stops at the first error"
)]

use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use nightshift_privacy::{ClipNorm, Mechanism, MechanismParams, MetricParams, NoiseMultiplier, PrivacyMode};
use rand_core::SeedableRng;

const COORDINATES: usize = 1 << 20;
const RUNS: u32 = 7;

fn main() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let seed = [3; 32];
    let update: Vec<f32> = (0u16..).take(997).map(|k| f32::from(k) - 498.0).collect();
    let update: Vec<f32> = update.into_iter().cycle().take(COORDINATES).collect();

    for (name, mode, cohort, noise_multiplier) in [
        ("encode without noise", PrivacyMode::Off, 100, 0.0),
        ("encode, one integer a block", PrivacyMode::Distributed, 1000, 2.0),
        ("encode, many integers a block", PrivacyMode::Distributed, 100, 4.0),
    ] {
        let mechanism = mechanism(mode, cohort, noise_multiplier);
        let first = time(1, || {
            mechanism.encode(&update, &[], &seed, &mut rng).expect("the update is finite");
        });
        let took = time(RUNS, || {
            mechanism.encode(&update, &[], &seed, &mut rng).expect("the update is finite");
        });
        let variance = mechanism.device_variance();
        println!("{name}: {took:?}, the first {first:?} (device variance {variance:.3e})");
    }

    for (name, noise_multiplier, scale_up) in [
        ("noise, table of integers", 0.1, 1.0),
        ("noise, blocks", 4.0, 1.0),
        ("noise, wide blocks", 4.0, 256.0),
    ] {
        let mechanism = central(noise_multiplier, scale_up);
        let mut sum = vec![0; COORDINATES];
        mechanism.add_central_noise(&mut sum, &mut rng);
        let took = time(RUNS, || mechanism.add_central_noise(&mut sum, &mut rng));
        let variance = mechanism.guaranteed_variance();
        println!("{name}: {took:?} (variance {variance:.3e})");
        let took = time(RUNS, || {
            mechanism.decode(&sum, 100, &seed).expect("the sum is in the ring");
        });
        println!("decode: {took:?}");
    }
}

fn mechanism(mode: PrivacyMode, cohort: usize, noise_multiplier: f64) -> Mechanism {
    Mechanism::new(MechanismParams {
        mode,
        clip_norm: ClipNorm::new(1.0).expect("1 is positive"),
        noise_multiplier: NoiseMultiplier::new(noise_multiplier).expect("it is not negative"),
        scale: 4096.0,
        coordinates: COORDINATES,
        cohort,
        report_goal: cohort,
        corrupt: 0,
        metrics: MetricParams::NONE,
    })
    .expect("the parameters are those of the design")
}

fn central(noise_multiplier: f64, scale_up: f64) -> Mechanism {
    let params = mechanism(PrivacyMode::Central, 100, noise_multiplier).params().clone();
    Mechanism::new(MechanismParams { scale: params.scale * scale_up, ..params })
        .expect("the ring has room for a larger scale")
}

/// The least duration of `runs` calls.
fn time(runs: u32, mut call: impl FnMut()) -> Duration {
    let once = |_| {
        let start = Instant::now();
        call();
        start.elapsed()
    };
    (0..runs).map(once).min().unwrap_or_default()
}
