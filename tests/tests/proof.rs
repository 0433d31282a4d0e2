//! What must never happen does not, in a million device-rounds with everything going wrong by a seed.
//!
//! A world ([`sim::world`]) of a few devices makes a few versions. In a version each device moves one number that is its own, so
//! every sum says who is in it and how often. Meanwhile requests and answers are lost, repeated, late and overtaken; devices
//! and the coordinator die before and after anything that they write, and start again from what is durable; disks are full;
//! clocks are set; and in some worlds somebody shows two devices two rosters, two sets of sharers or of survivors, or sends a
//! second, other request in a device's name. `proof/watch.rs` looks at every request that leaves a device and at everything
//! that becomes durable:
//!
//! - a device is in a sum exactly once or not at all, and in it where its survival was fixed and nowhere else;
//! - no round opens two sums: a device signs and answers once in a round, and of nobody both kinds of share leave;
//! - a device's charge, at the plan's cost, is in its ledger before a word of its input leaves, and stays there; the coordinator
//!   has counted every survivor before a sum is there;
//! - the noise in a sum is at least what was planned for its survivors;
//! - a version is never lost and never there twice, and nobody is told of one before it is durable;
//! - a sum is of the report goal at least: of nobody alone.
//!
//! `proof/broken.rs` breaks each of these, and the watch notices. What this does not show: `proof/runs.toml` lists what was
//! run; a fault that is drawn nowhere in `proof/weather.rs` was not there, cohorts are small, and numbers are few.
//!
//! `NIGHTSHIFT_PROOF_SEED` says with which seed to begin, `NIGHTSHIFT_PROOF_WORLDS` how many worlds to play,
//! `NIGHTSHIFT_PROOF_SECS` after how long to begin no other. A failure prints its seed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a long run says what it did, and how long it took")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use setting::Setting;
use watch::Tally;

#[path = "proof/broken.rs"]
mod broken;
#[path = "proof/liar.rs"]
mod liar;
#[path = "proof/setting.rs"]
mod setting;
#[path = "proof/watch.rs"]
mod watch;
#[path = "proof/weather.rs"]
mod weather;

/// Worlds without the variable: a quarter of a minute of two cores.
const WORLDS: u64 = 400;

/// Worlds are played by so many threads.
const THREADS: usize = 2;

/// Prints how to see a failure again.
struct OnPanic {
    seed: u64,
}

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let seed = self.seed;
            println!(
                "again with NIGHTSHIFT_PROOF_SEED={seed} NIGHTSHIFT_PROOF_WORLDS=1 cargo test -p nightshift-tests --test \
                 proof -- --nocapture nothing_that_must"
            );
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Plays the world of this seed to its end.
fn play(seed: u64) -> Tally {
    let on_panic = OnPanic { seed };
    let tally = Setting::of(seed).play();
    drop(on_panic);
    tally
}

#[test]
fn nothing_that_must_not_happen_does() {
    let first = number("NIGHTSHIFT_PROOF_SEED").unwrap_or(1);
    let worlds = number("NIGHTSHIFT_PROOF_WORLDS").unwrap_or(WORLDS);
    let longest = number("NIGHTSHIFT_PROOF_SECS").map_or(Duration::MAX, Duration::from_secs);
    let (began, next, tally) = (Instant::now(), AtomicU64::new(first), Mutex::new(Tally::default()));
    let goes_on = || began.elapsed() < longest;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                // What a world does at the same time, it does on this thread.
                let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                while goes_on() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + worlds {
                        break;
                    }
                    let came = alone.install(|| play(seed));
                    tally.lock().unwrap().add(&came);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    println!("seeds from {first}, {} s: {tally:#?}", began.elapsed().as_secs());
    // What is never reached is not tested.
    if tally.worlds >= WORLDS {
        let faults = tally.faults();
        assert!(faults.iter().all(|(_, times)| *times > tally.worlds / 20), "{faults:?}");
        assert!(2 * tally.sums > tally.worlds, "{tally:?}");
        assert!(8 * tally.sums_with_missing > tally.sums, "{tally:?}");
        // By the noise of all sums together: one of a thousand devices that adds none would show.
        let ratio = tally.noise / tally.planned_noise;
        let error = (2.0 / tally.planned_noise).sqrt();
        assert!(ratio > 1.0 - 6.0 * error, "{ratio} of the planned noise, give or take {error}");
    }
}
