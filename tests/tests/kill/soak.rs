//! Kills by the hundred: with devices whose training takes no time, a sum says who is in it, and a round is over in less
//! than a second.

use std::process::{Child, Stdio};

use proto::admin::TaskState;

use super::stage::{output, start, text};
use super::*;

/// Kills in the form that is always run.
const FEW: u64 = 30;

/// Kills in the long form, where `NIGHTSHIFT_KILLS` says no other number.
const MANY: u64 = 1_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// When a process is killed, drawn by the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The coordinator at a step of a round.
    Step(usize),
    /// The coordinator while it writes.
    Write(usize),
    /// The coordinator at some message, or right after it.
    Message,
    /// The coordinator while an operator's change is under way.
    Change,
    /// The coordinator, and once more while it starts.
    Start,
    /// A device at some message.
    Device,
}

impl Kind {
    fn draw(rng: &mut impl Rng) -> Self {
        match below(rng, 100) {
            0..45 => Self::Step(below(rng, MOMENTS.len())),
            45..60 => Self::Write(below(rng, 3)),
            60..70 => Self::Message,
            70..80 => Self::Change,
            80..88 => Self::Start,
            _ => Self::Device,
        }
    }
}

/// What was killed and what came of it meanwhile.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    at_steps: u64,
    in_writes: u64,
    in_changes: u64,
    in_starts: u64,
    devices: u64,
    /// Changes that were confirmed before the kill.
    confirmed: u64,
}

/// Kills, by one seed.
struct Soak {
    world: World,
    rng: ChaCha20Rng,
    tally: Tally,
    /// Labels of the tokens that the coordinator said it made.
    tokens: Vec<String>,
    asked: u64,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let versions = ["--versions", "100000", "--join-secs", "4", "--step-secs", "4", "--grace-secs", "1"];
        let mut world = World::quick(&versions);
        for agent in AGENTS {
            world.start(agent);
        }
        let (rng, tally) = (ChaCha20Rng::seed_from_u64(seed), Tally::default());
        Self { world, rng, tally, tokens: Vec::new(), asked: 0 }
    }

    fn kill(&mut self, kind: Kind) {
        match kind {
            Kind::Step(i) => {
                let held = self.held(MOMENTS[i].catches(self.world.books().last_round));
                self.tally.at_steps += u64::from(held.is_some());
                self.kill_coordinator();
                drop(held);
            }
            Kind::Write(i) => self.kill_in_a_write(i),
            Kind::Message => {
                let mut left = 1 + below(&mut self.rng, 60);
                let held = self.held(move |_| {
                    left -= 1;
                    left == 0
                });
                if below(&mut self.rng, 2) == 0 {
                    drop(held);
                    pause(&mut self.rng, 10);
                }
                self.kill_coordinator();
            }
            Kind::Change => {
                self.asked += 1;
                let label = format!("token {}", self.asked);
                let mut command = self.world.stage.nightshift();
                command.args(["device", "token", "--label", &label]);
                let asks: Child = start(command.stdout(Stdio::null()).stderr(Stdio::null()));
                // Most of that is until it is connected.
                pause(&mut self.rng, 120);
                self.kill_coordinator();
                self.tally.in_changes += 1;
                if asks.wait_with_output().unwrap().status.success() {
                    self.tally.confirmed += 1;
                    self.tokens.push(label);
                }
            }
            Kind::Start => {
                self.kill_coordinator();
                let rng = &mut self.rng;
                self.world.kill_a_start(|| pause(rng, 150));
                self.tally.kills += 1;
                self.tally.in_starts += 1;
            }
            Kind::Device => {
                let agent = AGENTS[below(&mut self.rng, AGENTS.len())];
                let device = self.world.id(agent);
                let mut left = 1 + below(&mut self.rng, 15);
                drop(self.held(move |message| {
                    left -= usize::from(message.device == device);
                    left == 0
                }));
                self.world.kill(agent);
                self.world.start(agent);
                self.tally.kills += 1;
                self.tally.devices += 1;
                return;
            }
        }
        self.world.start_coordinator();
        if kind == Kind::Change {
            self.check_tokens();
        }
    }

    fn kill_coordinator(&mut self) {
        self.world.kill_coordinator();
        self.tally.kills += 1;
    }

    /// The message that `catches` says yes to, if it comes soon: who rests sends nothing.
    fn held(&self, catches: impl FnMut(&Message<'_>) -> bool + Send + 'static) -> Option<Held> {
        self.world.relay.hold(catches).within(Duration::from_secs(8))
    }

    fn kill_in_a_write(&mut self, which: usize) {
        let last = Moment::asks("the last input is on its way", "masked done", AGENTS.len(), false);
        let opening = Moment::asks("shares are on their way", "unmask", 1, true);
        let home = self.world.stage.path("home");
        let (store, artifacts) = (home.join("store").join("db"), home.join("artefacts"));
        let (moment, write) = match which {
            0 => (last, Write::Begins(&store)),
            1 => (opening, Write::Ends(&artifacts)),
            _ => (opening, Write::Begins(&store)),
        };
        let before = write.files();
        if let Some(held) = self.held(moment.catches(self.world.books().last_round)) {
            let then = write.modified();
            drop(held);
            let (begin, few) = (Instant::now(), Duration::from_secs(2));
            while begin.elapsed() < few && write.files() == before && write.modified() == then {
                thread::yield_now();
            }
            self.tally.in_writes += u64::from(begin.elapsed() < few);
        }
        self.kill_coordinator();
    }

    /// Whatever was confirmed is there.
    fn check_tokens(&self) {
        let listed = self.world.stage.operator(&["token", "ls", "--format", "json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let labels: Vec<&str> = listed["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|token| token["label"].as_str().unwrap())
            .collect();
        for token in &self.tokens {
            let times = labels.iter().filter(|label| *label == token).count();
            assert_eq!(times, 1, "`{token}` was confirmed: {labels:?}");
        }
    }

    /// By the programs that an operator has.
    fn check_as_an_operator(&mut self) {
        self.world.kill_coordinator();
        self.tally.kills += 1;
        let checked = output(self.world.stage.nightshift().args(["store", "check"]));
        assert!(text(&checked).contains("all of it is whole"), "{checked:?}");
        self.world.start_coordinator();
        self.world.stage.operator(&["audit", "verify"]);
    }
}

fn soak(kills: u64, seed: u64) {
    println!("{kills} kills by seed {seed}");
    let begun = Instant::now();
    let mut soak = Soak::new(seed);
    let mut operators = 100;
    while soak.tally.kills < kills {
        let kind = Kind::draw(&mut soak.rng);
        soak.kill(kind);
        if soak.tally.kills >= operators {
            operators += 100;
            soak.check_as_an_operator();
            println!(
                "{:.0?}: {:?}, version {}",
                begun.elapsed(),
                soak.tally,
                soak.world.books().versions.len()
            );
        }
    }
    soak.check_as_an_operator();
    // And it goes on.
    soak.world.see_a_version();
    soak.world.kill_all();
    let (tally, books, took) = (&soak.tally, soak.world.books(), begun.elapsed());
    println!(
        "seed {seed}: {tally:?}; {} versions of {} rounds, {} charged, in {took:.0?}, {:.2} s a kill",
        books.versions.len(),
        books.last_round,
        books.rounds_charged,
        took.as_secs_f64() / tally.kills as f64
    );
    assert!(tally.at_steps * 5 > tally.kills, "hardly any kill was at a step: {tally:?}");
    assert!(!books.versions.is_empty(), "{books:?}");
}

#[test]
fn whatever_is_killed_no_version_is_lost_or_there_twice_and_nothing_is_charged_that_is_not_counted() {
    soak(FEW, number("NIGHTSHIFT_KILL_SEED", 1));
}

/// The same by the thousand, for an hour: `CONTRIBUTING.md` has the command.
#[test]
#[ignore = "an hour"]
fn a_thousand_kills() {
    soak(number("NIGHTSHIFT_KILLS", MANY), number("NIGHTSHIFT_KILL_SEED", 1));
}

/// Kills the coordinator at these steps of each of ten versions, in a cohort that is everybody.
fn complete_although_killed(steps_of: impl Fn(usize) -> Vec<&'static Moment>) {
    let waits = ["--versions", "10", "--join-secs", "60", "--step-secs", "60", "--grace-secs", "60"];
    let mut world = World::quick(&waits);
    let begun = Instant::now();
    for agent in AGENTS {
        world.start(agent);
    }
    let mut kills = 0;
    for version in 0..10 {
        for moment in steps_of(version) {
            assert_eq!(world.books().versions.len(), version, "before {}", moment.name);
            let held = hold(&world, moment);
            let books = world.kill_coordinator();
            assert_eq!(books.has_published(held.round.unwrap()), moment.published, "{}", moment.name);
            drop(held);
            world.start_coordinator();
            kills += 1;
        }
        if world.books().versions.len() == version {
            // It ends by itself.
            drop(hold(&world, &MOMENTS[MOMENTS.len() - 1]));
            world.kill_coordinator();
            world.start_coordinator();
            kills += 1;
        }
    }
    world.kill_all();
    let books = world.books();
    println!("{kills} kills in {:.0?}, {} rounds for 10 versions", begun.elapsed(), books.last_round);
    assert_eq!((books.versions.len(), books.state), (10, TaskState::Complete), "{books:#?}");
    let everybody = books.versions.iter().all(|version| version.survivors as usize == AGENTS.len());
    assert!(everybody, "{books:#?}");
}

#[test]
fn a_task_of_everybody_completes_although_its_coordinator_is_killed_in_each_version() {
    complete_although_killed(|version| vec![&MOMENTS[version % MOMENTS.len()]]);
}

/// At every step of every version: `CONTRIBUTING.md` has the command.
#[test]
#[ignore = "minutes"]
fn a_task_of_everybody_completes_although_its_coordinator_is_killed_at_each_step_of_each_version() {
    complete_although_killed(|_| MOMENTS.iter().collect());
}
