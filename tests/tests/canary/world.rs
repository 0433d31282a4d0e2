//! Devices, a coordinator, and a network that loses, repeats, delays and reorders, all by one seed.

use std::collections::BTreeSet;

use aggregation::{Context, IdentityKey};
use proto::ids::{DeviceId, SessionId, Timestamp};
use proto::message::{CHUNK_COORDINATES, Outcome, Rejection, Reply, Request};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use task::round::{Effect, Round, RoundParams};
use task::spool::{InMemory, Spooler};

use super::device::{Device, Turn};

/// More messages than this are not on the way at once: the oldest is lost.
const MOST_ON_THE_WAY: usize = 64;

/// What happened in one or many worlds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) published: u64,
    /// Sums that were opened although devices that shared their seeds were not in them.
    pub(crate) published_with_missing: u64,
    /// Rounds whose inputs have more than one chunk.
    pub(crate) several_chunks: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// Messages that nobody waited for any more when they came.
    pub(crate) stale: u64,
    pub(crate) vanished: u64,
    pub(crate) restarted: u64,
    pub(crate) crashes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.published += other.published;
        self.published_with_missing += other.published_with_missing;
        self.several_chunks += other.several_chunks;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.stale += other.stale;
        self.vanished += other.vanished;
        self.restarted += other.restarted;
        self.crashes += other.crashes;
    }
}

/// How often things go wrong, in ten thousand.
struct Weather {
    lost: u32,
    repeated: u32,
    vanish: u32,
    restart: u32,
    crash: u32,
}

/// A message on its way, of a device's call of this number.
#[derive(Clone)]
struct Flight {
    place: usize,
    call: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Request(Request),
    Answer(Result<Reply, Rejection>),
}

/// A device and its open call.
struct Node {
    device: Device,
    /// The call that it waits for.
    call: Option<u64>,
    /// It asks nothing before then.
    pause: Timestamp,
    /// The last round that it joined.
    joined: u64,
    gone: bool,
}

/// The open round as the coordinator has it, and what became of it.
struct Open {
    round: Round,
    context: Context,
    fixed: Option<BTreeSet<DeviceId>>,
    charged: BTreeSet<DeviceId>,
    published: bool,
}

pub(crate) struct World {
    rng: ChaCha20Rng,
    clock: Timestamp,
    weather: Weather,
    params: RoundParams,
    nodes: Vec<Node>,
    flights: Vec<Flight>,
    calls: u64,
    open: Option<Open>,
    tally: Tally,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let authority = IdentityKey::from_seed(&[200; 32]);
        // The work of a round grows with the square of its devices, so most worlds are small.
        let most = if below(&mut rng, 10) == 0 { 12 } else { 4 };
        let devices = 2 + below(&mut rng, most - 1);
        let node = |place| Node {
            device: Device::new(place, seed, &authority),
            call: None,
            pause: Timestamp(0),
            joined: 0,
            gone: false,
        };
        let nodes = (0..devices).map(node).collect();
        let params = params(devices, &authority, &mut rng);
        let weather = Weather {
            lost: pick(&mut rng, [0, 300, 1000]),
            repeated: pick(&mut rng, [0, 500, 1500]),
            vanish: pick(&mut rng, [0, 30, 120]),
            restart: pick(&mut rng, [0, 20, 60]),
            crash: pick(&mut rng, [0, 0, 30]),
        };
        let (clock, tally) = (Timestamp(1_700_000_000_000), Tally::default());
        let (flights, calls, open) = (Vec::new(), 0, None);
        Self { rng, clock, weather, params, nodes, flights, calls, open, tally }
    }

    /// Opens so many rounds, one after the other, and plays each to its end.
    pub(crate) fn play(mut self, rounds: u64) -> Tally {
        loop {
            let over = self.open.as_ref().is_none_or(|open| open.round.outcome().is_some());
            // Some hear of the end, and some only that the round is gone.
            if over && self.chance(2500) {
                if self.tally.opened == rounds {
                    return self.tally;
                }
                self.open_round();
            }
            self.step();
        }
    }

    fn open_round(&mut self) {
        self.tally.opened += 1;
        self.params.context.round = self.tally.opened;
        self.rng.fill_bytes(&mut self.params.context.session.0);
        let context = self.params.context.clone();
        self.tally.several_chunks += u64::from(context.len > CHUNK_COORDINATES);
        let spool = InMemory.open(SessionId(context.session.0)).unwrap();
        let round = Round::new(self.params.clone(), spool, self.clock);
        let (fixed, charged) = (None, BTreeSet::new());
        self.open = Some(Open { round, context, fixed, charged, published: false });
        for place in 0..self.nodes.len() {
            let back = self.chance(7000);
            self.nodes[place].gone &= !back;
        }
    }

    /// One thing that happens.
    fn step(&mut self) {
        self.clock = self.clock.plus_millis(below(&mut self.rng, 21) as u64);
        if self.nothing_is_on() || self.chance(30) {
            // Everybody waits, or all are late.
            let pauses = self.nodes.iter().filter(|node| !node.gone && node.call.is_none()).map(|n| n.pause);
            let due = self.open.as_ref().and_then(|open| open.round.poll_timeout());
            if let Some(due) = pauses.filter(|pause| *pause > self.clock).chain(due).min() {
                self.clock = self.clock.max(due);
            }
            self.pass_time();
        }
        if self.flights.is_empty() || self.chance(4500) {
            let place = below(&mut self.rng, self.nodes.len());
            self.act(place);
        } else {
            let flight = below(&mut self.rng, self.flights.len());
            let flight = self.flights.swap_remove(flight);
            self.deliver(flight);
        }
    }

    /// Whether nothing is on its way and every device waits for a while.
    fn nothing_is_on(&self) -> bool {
        let joinable = self.open.as_ref().filter(|open| open.round.is_joinable());
        let joins = |node: &Node| joinable.is_some_and(|open| node.joined < open.context.round);
        let waits =
            |node: &Node| node.gone || node.pause > self.clock || (node.device.is_out() && !joins(node));
        self.flights.is_empty() && self.nodes.iter().all(waits)
    }

    fn act(&mut self, place: usize) {
        if self.nodes[place].gone {
            return;
        }
        if self.chance(self.weather.vanish) {
            self.tally.vanished += 1;
            self.nodes[place].gone = true;
            return self.forget(place);
        }
        if self.chance(self.weather.restart) {
            self.tally.restarted += 1;
            return self.forget(place);
        }
        if self.nodes[place].device.is_out() {
            return self.join(place);
        }
        let node = &mut self.nodes[place];
        if let Some(call) = node.call {
            // A call that is lost is given up, and sometimes one that is only slow.
            let lost = !self.flights.iter().any(|flight| flight.call == call);
            if lost || self.chance(300) {
                self.nodes[place].call = None;
            }
            return;
        }
        if node.pause > self.clock {
            return;
        }
        if let Some(request) = node.device.request() {
            self.calls += 1;
            node.call = Some(self.calls);
            self.send(Flight { place, call: self.calls, content: Content::Request(request) });
        }
    }

    fn forget(&mut self, place: usize) {
        self.nodes[place].device.forget();
        self.nodes[place].call = None;
        self.nodes[place].pause = self.clock;
    }

    /// Once in every round, and, if it has lost its keys, perhaps a second time.
    fn join(&mut self, place: usize) {
        let again = self.chance(1000);
        let Some(open) = self.open.as_ref().filter(|open| open.round.is_joinable()) else { return };
        let node = &mut self.nodes[place];
        let first = node.joined < open.context.round;
        if first || again && node.device.forgot_in(&open.context) {
            node.joined = open.context.round;
            node.device.join(&open.context, coordinate(place, &open.context));
        }
    }

    fn send(&mut self, flight: Flight) {
        if self.flights.len() == MOST_ON_THE_WAY {
            self.flights.remove(0);
            self.tally.lost += 1;
        }
        self.flights.push(flight);
    }

    fn deliver(&mut self, flight: Flight) {
        if self.chance(self.weather.lost) {
            self.tally.lost += 1;
            return;
        }
        let Flight { place, call, content } = flight.clone();
        let current = self.nodes[place].call == Some(call);
        self.tally.stale += u64::from(!current);
        match content {
            Content::Request(request) => {
                if self.chance(self.weather.repeated) {
                    self.tally.repeated += 1;
                    self.send(flight);
                }
                let answer = self.serve(place, request);
                self.send(Flight { place, call, content: Content::Answer(answer) });
                if self.chance(self.weather.crash) {
                    self.crash();
                }
            }
            Content::Answer(answer) if current => {
                let node = &mut self.nodes[place];
                node.call = None;
                let turn = node.device.take(answer, self.clock.as_secs());
                let poll = if turn == Turn::Waits { self.params.poll_millis } else { 0 };
                node.pause = self.clock.plus_millis(poll);
            }
            Content::Answer(_) => {}
        }
    }

    /// The coordinator's answer: requests of another session than the open one's are of a round that is gone.
    fn serve(&mut self, place: usize, request: Request) -> Result<Reply, Rejection> {
        let (id, clock) = (self.nodes[place].device.id, self.clock);
        let of_session = |open: &&mut Open| request.session() == Some(open.round.session());
        let Some(open) = self.open.as_mut().filter(of_session) else { return Err(Rejection::UnknownSession) };
        let answer = open.round.handle(id, request, clock);
        self.perform();
        answer
    }

    fn pass_time(&mut self) {
        if let Some(open) = &mut self.open {
            open.round.handle_timeout(self.clock);
        }
        self.perform();
    }

    /// The open round is gone; its number is not used again.
    fn crash(&mut self) {
        if self.open.take().is_some_and(|open| open.round.outcome().is_none()) {
            self.tally.crashes += 1;
        }
    }

    fn perform(&mut self) {
        let Some(open) = &mut self.open else { return };
        open.round.open_in_place(self.clock);
        while let Some(effect) = open.round.poll_effect() {
            match effect {
                Effect::Exclude { device, why } => panic!("{device} is excluded: {why}"),
                Effect::FixSurvivors { survivors } => {
                    let set: BTreeSet<DeviceId> = survivors.iter().copied().collect();
                    assert_eq!(set.len(), survivors.len(), "{survivors:?}");
                    assert_eq!(open.fixed.replace(set), None, "survivors are fixed twice");
                }
                Effect::Charge { devices } => open.charged.extend(devices),
                Effect::Publish { sum, survivors, cohort, .. } => {
                    assert!(!open.published, "published twice");
                    open.published = true;
                    self.tally.published += 1;
                    self.tally.published_with_missing += u64::from(survivors < cohort);
                    check(open, &sum, survivors, &self.nodes);
                }
                Effect::End(outcome) => assert_eq!(open.published, outcome == Outcome::Published),
            }
        }
    }

    /// Draws nothing where nothing can happen.
    fn chance(&mut self, of_ten_thousand: u32) -> bool {
        of_ten_thousand > 0 && self.rng.next_u32() % 10_000 < of_ten_thousand
    }
}

/// Panics unless the sum has a one for each device whose survival was fixed, and nothing else.
fn check(open: &Open, sum: &[u32], survivors: usize, nodes: &[Node]) {
    let fixed = open.fixed.as_ref().expect("survivors are fixed before a sum is opened");
    assert_eq!(fixed.len(), survivors);
    assert!(fixed.is_subset(&open.charged), "{fixed:?} are in the sum, {:?} are charged", open.charged);
    let mut expected = vec![0; open.context.len];
    for (place, node) in nodes.iter().enumerate() {
        expected[coordinate(place, &open.context)] = u32::from(fixed.contains(&node.device.id));
    }
    if sum != expected {
        let wrong: Vec<_> = sum
            .iter()
            .zip(&expected)
            .enumerate()
            .filter(|(_, (found, wanted))| found != wanted)
            .take(20)
            .collect();
        panic!("coordinate, (found, expected): {wrong:?}");
    }
}

/// The coordinate of a device: from both ends, so that every chunk has some.
fn coordinate(place: usize, context: &Context) -> usize {
    let far = context.len > CHUNK_COORDINATES && place % 2 == 1;
    if far { context.len - 1 - place } else { place }
}

/// What every round of a world has in common.
fn params(devices: usize, authority: &IdentityKey, rng: &mut impl Rng) -> RoundParams {
    let cohort = if below(rng, 4) == 0 { devices.max(3) - 1 } else { devices };
    let corrupt = aggregation::corrupt_devices(cohort, pick(rng, [0, 50, 100]));
    let least = aggregation::quorum(cohort, corrupt).max(2);
    let more = cohort.saturating_sub(least) + 1;
    let report_goal = least + below(rng, more).min(below(rng, more));
    let several = below(rng, 60) == 0;
    let step = |rng: &mut _, each: [u64; 3]| devices as u64 * pick(rng, each);
    RoundParams {
        context: Context {
            session: aggregation::SessionId([0; 32]),
            task: aggregation::TaskId([1; 16]),
            round: 0,
            model_digest: aggregation::ModelDigest([2; 32]),
            plan_digest: aggregation::PlanDigest([3; 32]),
            len: if several { CHUNK_COORDINATES + 1 + below(rng, 40) + devices } else { devices },
            ring_bits: 7 + rng.next_u32() % 26,
            report_goal,
            cohort,
            corrupt,
            missing_fraction_permille: 300,
            log: None,
        },
        cohort,
        report_goal,
        authority: authority.public(),
        log: None,
        join_millis: step(rng, [200, 400, 800]),
        step_millis: step(rng, [300, 600, 1200]),
        grace_millis: step(rng, [0, 50, 300]),
        poll_millis: 40,
    }
}

/// A number below `bound`, close enough to uniform for an order of events.
fn below(rng: &mut impl Rng, bound: usize) -> usize {
    rng.next_u32() as usize % bound
}

fn pick<T: Copy>(rng: &mut impl Rng, of: [T; 3]) -> T {
    of[below(rng, 3)]
}
