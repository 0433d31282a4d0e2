//! Exactly once: in round `r` device `i` contributes a one in a coordinate of its own, and every sum that is published
//! has a one for each device whose survival was fixed, and a zero for every other.
//!
//! A device that counts twice shows as a 2, one that is lost as a 0, a mask that stays as noise. The requests of a round
//! are lost, repeated, delayed and overtaken in either direction, devices vanish and start again, and the coordinator
//! crashes, all by one seed. `NIGHTSHIFT_CANARY_ROUNDS` says how many rounds are opened, `NIGHTSHIFT_CANARY_SEED` where
//! the seeds begin; a failure prints its own.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a failure prints its seed")]

use std::thread;

use world::{Tally, World};

#[path = "canary/device.rs"]
mod device;
#[path = "canary/world.rs"]
mod world;

/// Rounds without the variable: some six seconds of two cores.
const ROUNDS: u64 = 2_000;

/// Rounds of one federation.
const ROUNDS_A_WORLD: u64 = 6;

/// Worlds are played by so many threads.
const THREADS: u64 = 2;

/// Prints how to see a failure again.
struct OnPanic {
    seed: u64,
}

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let seed = self.seed;
            println!("again with NIGHTSHIFT_CANARY_SEED={seed} NIGHTSHIFT_CANARY_ROUNDS={ROUNDS_A_WORLD}");
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Plays every world of this thread.
fn play(first: u64, worlds: u64, thread: u64) -> Tally {
    let mut tally = Tally::default();
    for seed in (first..first + worlds)
        .skip(usize::try_from(thread).unwrap())
        .step_by(usize::try_from(THREADS).unwrap())
    {
        let on_panic = OnPanic { seed };
        tally.add(&World::new(seed).play(ROUNDS_A_WORLD));
        drop(on_panic);
    }
    tally
}

#[test]
fn every_survivor_is_in_the_sum_exactly_once_and_nobody_else() {
    let rounds = number("NIGHTSHIFT_CANARY_ROUNDS", ROUNDS);
    let seed = number("NIGHTSHIFT_CANARY_SEED", 1);
    let worlds = rounds.div_ceil(ROUNDS_A_WORLD);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let players: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || play(seed, worlds, thread))).collect();
        for player in players {
            tally.add(&player.join().unwrap());
        }
    });
    println!("{tally:#?}");
    assert_eq!(tally.opened, worlds * ROUNDS_A_WORLD);
    // What is never reached is not tested: rounds that end well, and every fault.
    if rounds >= ROUNDS {
        assert!(3 * tally.published > tally.opened, "{tally:?}");
        assert!(tally.published_with_missing * 8 > tally.published, "{tally:?}");
        let faults =
            [tally.lost, tally.repeated, tally.stale, tally.vanished, tally.restarted, tally.crashes];
        assert!(faults.iter().all(|count| *count > rounds / 200), "{tally:?}");
        assert!(tally.several_chunks > 0, "{tally:?}");
    }
}
