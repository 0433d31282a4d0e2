//! Processes that are killed at every step of a round: no charge is lost, on the device or on the coordinator.
//!
//! SIGKILL takes a process, not the machine: what it wrote and did not sync is still in the page cache. So these
//! tests see a charge that is written too late or in parts, and not one that is not synced; the sync is for a
//! loss of power.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "IO shell: the tests serve, wait, and kill at random moments")]
#![expect(clippy::print_stdout, reason = "what was killed, and by which seed, is to be read")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use relay::{Held, Message, publishes};
use world::{AGENTS, World};

#[path = "kill/books.rs"]
mod books;
#[path = "kill/relay.rs"]
mod relay;
#[path = "kill/seen.rs"]
mod seen;
#[path = "kill/soak.rs"]
mod soak;
#[path = "common/stage.rs"]
mod stage;
#[path = "kill/whole.rs"]
mod whole;
#[path = "kill/world.rs"]
mod world;

/// Whom the tests of devices kill.
const ANNA: &str = AGENTS[0];

/// A long time for something that takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// Where a device is killed, and what its ledger must then say of the round.
struct Step {
    name: &'static str,
    at: fn(&Message<'_>) -> bool,
    charged: bool,
    signed: bool,
    /// Nothing where the others may have opened the sum without it.
    answered: Option<bool>,
}

const DEVICE_STEPS: [Step; 9] = [
    Step {
        name: "nobody told it yet to submit",
        at: |m| m.answers("inbox"),
        charged: false,
        signed: false,
        answered: Some(false),
    },
    Step {
        name: "its first chunk has left",
        at: |m| m.asks("masked chunk"),
        charged: true,
        signed: false,
        answered: Some(false),
    },
    Step {
        name: "its first chunk has come",
        at: chunk_has_come,
        charged: true,
        signed: false,
        answered: Some(false),
    },
    Step {
        name: "its whole input has left",
        at: |m| m.asks("masked done"),
        charged: true,
        signed: true,
        answered: Some(false),
    },
    Step {
        name: "the survivors are fixed",
        at: |m| m.answers("survivors"),
        charged: true,
        signed: true,
        answered: Some(false),
    },
    Step {
        name: "its signature has left",
        at: |m| m.asks("agree"),
        charged: true,
        signed: true,
        answered: Some(false),
    },
    Step {
        name: "a quorum has signed",
        at: |m| m.answers("evidence"),
        charged: true,
        signed: true,
        answered: Some(false),
    },
    Step {
        name: "its shares have left",
        at: |m| m.asks("unmask"),
        charged: true,
        signed: true,
        answered: Some(true),
    },
    Step { name: "the sum is published", at: publishes, charged: true, signed: true, answered: None },
];

fn chunk_has_come(message: &Message<'_>) -> bool {
    message.request.name() == "masked chunk" && message.answers("received")
}

#[test]
fn a_device_that_is_killed_has_charged_whatever_left_it() {
    let mut world = World::new(&["--step-secs", "4", "--grace-secs", "1"]);
    for other in &AGENTS[1..] {
        world.start(other);
    }
    let anna = world.id(ANNA);
    for Step { name, at, charged, signed, answered } in DEVICE_STEPS {
        let step = world.relay.hold(move |m| m.device == anna && at(m));
        world.start(ANNA);
        let held = step.come(name);
        let round = held.round.unwrap();
        let ledger = world.kill(ANNA);
        assert_eq!(ledger.has_charged(round), charged, "{name}: {ledger:#?}");
        assert_eq!(ledger.has_signed(round), signed, "{name}: {ledger:#?}");
        let has_answered = ledger.has_answered(round);
        assert_eq!(has_answered, answered.unwrap_or(has_answered), "{name}: {ledger:#?}");
        // What had left it goes on to the coordinator.
        drop(held);
    }
    // It is killed while, or as soon as, a record is written; whether that came to be is open.
    let before: [fn(&Message<'_>) -> bool; 2] = [|m| m.answers("inbox"), |m| m.answers("survivors")];
    for (at, written) in [(before[0], true), (before[0], false), (before[1], true), (before[0], true)] {
        let step = world.relay.hold(move |m| m.device == anna && at(m));
        world.start(ANNA);
        let held = step.come("the answer before a record");
        let path = world.stage.path(ANNA).join("ledger");
        let length = bytes(&path);
        drop(held);
        if written {
            until("the ledger grows", || bytes(&path) > length);
        }
        world.kill(ANNA);
    }
    let last = world.relay.hold(move |m| m.device == anna && publishes(m));
    world.start(ANNA);
    drop(last.come("a round after all that"));
    world.kill_all();
}

/// Where the coordinator is killed, and what its books must then say of the round.
struct Moment {
    name: &'static str,
    request: &'static str,
    /// The answer that is held back; without it, the request is.
    answer: Option<&'static str>,
    /// How many devices' messages of this kind there are then in one round.
    devices: usize,
    fixed: bool,
    published: bool,
}

impl Moment {
    const fn asks(name: &'static str, request: &'static str, devices: usize, fixed: bool) -> Self {
        Self { name, request, answer: None, devices, fixed, published: false }
    }

    const fn answers(name: &'static str, request: &'static str, answer: &'static str, fixed: bool) -> Self {
        Self { name, request, answer: Some(answer), devices: 1, fixed, published: false }
    }

    /// Catches it in the first round after this one that comes so far.
    fn catches(&self, after: u64) -> impl FnMut(&Message<'_>) -> bool + Send + 'static {
        let (request, answer, wanted) = (self.request, self.answer, self.devices);
        let mut came = BTreeSet::new();
        move |message| {
            let is_it = message.request.name() == request
                && answer.map_or(message.reply.is_none(), |answer| message.answers(answer));
            is_it && message.round > Some(after) && {
                came.insert((message.round, message.device));
                came.iter().filter(|(round, _)| *round == message.round).count() == wanted
            }
        }
    }
}

/// Something that the coordinator writes and can be seen from without.
enum Write<'a> {
    /// The first byte in this file.
    Begins(&'a Path),
    /// One more file in this folder, with its own name.
    Ends(&'a Path),
}

impl Write<'_> {
    fn modified(&self) -> Option<SystemTime> {
        match self {
            Self::Begins(file) => Some(fs::metadata(file).unwrap().modified().unwrap()),
            Self::Ends(_) => None,
        }
    }

    fn files(&self) -> usize {
        match self {
            Self::Begins(_) => 0,
            Self::Ends(folder) => fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_none())
                .count(),
        }
    }
}

/// Waits for it in a round that was opened after the coordinator started.
fn hold(world: &World, moment: &Moment) -> Held {
    world.relay.hold(moment.catches(world.books().last_round)).come(moment.name)
}

const MOMENTS: [Moment; 8] = [
    Moment::answers("a chunk has come", "masked chunk", "received", false),
    Moment::asks("a third input is on its way", "masked done", 3, false),
    Moment::answers("the survivors are fixed", "masked done", "survivors", true),
    Moment::asks("the last signature is on its way", "agree", AGENTS.len(), true),
    Moment::answers("a quorum has signed", "agree", "evidence", true),
    Moment::asks("the first shares are on their way", "unmask", 1, true),
    // The answer to the first shares is held until the sum is opened.
    Moment::asks("the second shares are on their way", "unmask", 2, true),
    Moment { published: true, ..Moment::answers("the sum is published", "unmask", "over", true) },
];

#[test]
fn a_coordinator_that_is_killed_has_charged_whom_it_sums_and_keeps_what_it_published() {
    // All four are alive, so nothing but the end of a step is waited for, and no step ends by its time.
    let mut world = World::new(&["--step-secs", "60", "--grace-secs", "60"]);
    for agent in AGENTS {
        world.start(agent);
    }
    for moment in &MOMENTS {
        let held = hold(&world, moment);
        let round = held.round.unwrap();
        let before = world.books().clone();
        let books = world.kill_coordinator();
        let name = moment.name;
        assert_eq!(books.survivors.contains_key(&round), moment.fixed, "{name}: {books:#?}");
        assert_eq!(books.has_published(round), moment.published, "{name}: {books:#?}");
        for device in books.survivors.get(&round).into_iter().flatten() {
            assert!(books.participations(*device) > before.participations(*device), "{name}: {books:#?}");
        }
        drop(held);
        world.start_coordinator();
    }
    // Survivors and charges are written at once; a version is there whole, or not at all.
    let last = Moment::asks("the last input is on its way", "masked done", AGENTS.len(), false);
    let opening = Moment::asks("shares are on their way", "unmask", 1, true);
    let home = world.stage.path("home");
    let (store, artifacts) = (home.join("store").join("db"), home.join("artefacts"));
    let writes = [
        (&last, Write::Begins(&store)),
        (&opening, Write::Ends(&artifacts)),
        (&opening, Write::Begins(&store)),
    ];
    // A kill hits the middle of a write in more than half of all cases.
    for (moment, write) in writes.iter().cycle().take(4 * writes.len()) {
        let before = write.files();
        let held = hold(&world, moment);
        let then = write.modified();
        drop(held);
        until("the coordinator writes", || write.files() > before || write.modified() > then);
        world.kill_coordinator();
        world.start_coordinator();
    }
    world.see_a_version();
    world.kill_all();
}

/// Kills a random process at a random message, `NIGHTSHIFT_KILLS` times (10), by `NIGHTSHIFT_KILL_SEED` (1). The
/// processes run as fast as they can, so a seed gives the same choices and not the same run.
#[test]
fn whoever_is_killed_whenever_no_charge_is_lost() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (kills, seed) = (number("NIGHTSHIFT_KILLS", 10), number("NIGHTSHIFT_KILL_SEED", 1));
    println!("{kills} kills by seed {seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut world = World::new(&["--step-secs", "3", "--grace-secs", "1"]);
    for agent in AGENTS {
        world.start(agent);
    }
    for _ in 0..kills {
        let victim = AGENTS.get(below(&mut rng, AGENTS.len() + 1)).copied();
        let device = victim.map(|agent| world.id(agent));
        let mut left = 1 + below(&mut rng, 30);
        let one_of_them = world.relay.hold(move |message| {
            let theirs = device.is_none_or(|device| device == message.device);
            left -= usize::from(theirs);
            theirs && left == 0
        });
        // Who rests sends nothing, and is killed in its sleep.
        let held = one_of_them.within(Duration::from_secs(4));
        if below(&mut rng, 2) == 0 {
            drop(held);
            pause(&mut rng, 10);
        }
        if let Some(agent) = victim {
            world.kill(agent);
            world.start(agent);
        } else {
            world.kill_coordinator();
            world.start_coordinator();
        }
    }
    // As by a loss of power; and it goes on.
    world.kill_all();
    world.start_coordinator();
    for agent in AGENTS {
        world.start(agent);
    }
    world.see_a_version();
    world.kill_all();
}

fn below(rng: &mut impl Rng, limit: usize) -> usize {
    rng.next_u32() as usize % limit
}

/// A random moment: no test waits for anything by this.
fn pause(rng: &mut impl Rng, limit_millis: usize) {
    thread::sleep(Duration::from_micros(below(rng, 1000 * limit_millis) as u64));
}

/// Looks again and again, so that what follows comes as soon as can be.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < SOON, "waited {SOON:?} until {what}");
        thread::yield_now();
    }
}

fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
