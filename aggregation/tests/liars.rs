//! Servers that lie about who shared, who survived and who is in the roster: what they can open in the end.
//!
//! Each attack is run twice: by devices for whom a quorum on the transcript is enough, as it once was, and by the
//! package's own. The first run shows that the attack is one.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests, whose bodies are not exempt by configuration; what was tried is to be read"
)]

#[path = "support/liar.rs"]
mod liar;
#[path = "support/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use liar::{Attack, Member, Rule, Stop, View};
use nightshift_aggregation::{
    Context, DeviceIndex, EvidenceError, Graph, IndexSet, MAX_COMPLETE, Parameters, Refusal, corrupt_devices,
    quorum,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use world::{context, context_of};

/// Honest views of everybody in the first roster: all shared, all survived.
fn everybody(ctx: &Context, devices: usize) -> Attack {
    let members: Vec<Member> = (0..devices).map(|device| (device, 0)).collect();
    let all = IndexSet::full(devices);
    let view = |_| View { roster: 0, sharers: all.clone(), survivors: all.clone(), stop: Stop::Never };
    let views = members.iter().map(|member| (*member, view(member))).collect();
    Attack { ctx: ctx.clone(), corrupt: BTreeSet::new(), rosters: vec![(members, 0)], views }
}

/// The graph of the first roster of an attack, where all devices are numbered in the order of the roster.
fn graph_of(ctx: &Context, devices: usize) -> Graph {
    world::World::new(devices, ctx).roster.graph().clone()
}

fn below(rng: &mut impl Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u32()).unwrap() % bound.max(1)
}

fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

fn place(device: usize) -> DeviceIndex {
    u16::try_from(device).unwrap().into()
}

/// All places but these.
fn without(places: usize, gone: impl IntoIterator<Item = DeviceIndex>) -> IndexSet {
    let mut set = IndexSet::full(places);
    for place in gone {
        set.remove(place);
    }
    set
}

/// Makes `victims` believe that of their neighbours only those in `missing` and the corrupt shared, and everybody else
/// that all shared and `missing` are gone.
fn two_views(attack: &mut Attack, graph: &Graph, victims: &[usize], missing: &BTreeSet<DeviceIndex>) {
    let size = usize::from(graph.size());
    let survivors = without(size, missing.iter().copied());
    for view in attack.views.values_mut() {
        view.survivors = survivors.clone();
    }
    for victim in victims {
        let neighbors = graph.neighbors(place(*victim)).into_iter();
        let untold =
            neighbors.filter(|peer| !missing.contains(peer) && !attack.corrupt.contains(&usize::from(*peer)));
        let view = attack.views.get_mut(&(*victim, 0)).unwrap();
        view.sharers = without(size, untold);
        // It is not asked who survived.
        view.stop = Stop::BeforeAgreeing;
    }
    for gone in missing {
        attack.views.get_mut(&(usize::from(*gone), 0)).unwrap().stop = Stop::BeforeItsSignature;
    }
}

/// A set of `victim`'s neighbours for whom nobody sees a thin stretch of the ring.
fn missing_around(graph: &Graph, victim: usize, rng: &mut impl Rng) -> Option<BTreeSet<DeviceIndex>> {
    let size = usize::from(graph.size());
    let mut neighbors = graph.neighbors(place(victim));
    let (least, most) = (graph.threshold(), neighbors.len() / 2);
    for count in (least..=most).rev() {
        for _ in 0..20 {
            shuffle(&mut neighbors, rng);
            let missing: BTreeSet<DeviceIndex> = neighbors.iter().take(count).copied().collect();
            if graph.thin_window(&without(size, missing.iter().copied())).is_none() {
                return Some(missing);
            }
        }
    }
    None
}

fn two_views_on_a_ring(devices: usize, report_goal: usize, victims: usize) {
    let ctx = Context { report_goal, ..context_of(devices) };
    let graph = graph_of(&ctx, devices);
    let missing = missing_around(&graph, 17, &mut ChaCha20Rng::seed_from_u64(9)).unwrap();
    let mut attack = everybody(&ctx, devices);
    let far = (0..devices).filter(|device| !missing.contains(&place(*device)) && *device != 17);
    let victims: Vec<usize> = std::iter::once(17).chain(far.step_by(devices / 3)).take(victims).collect();
    two_views(&mut attack, &graph, &victims, &missing);
    let before = attack.run(Rule::QuorumOnly);
    println!("ring of {devices}, goal {report_goal}, before: {:?}", before.broken(&attack));
    assert!(before.opened(&attack).contains(&BTreeSet::from([17])), "one input was to be read");
    let now = attack.run(Rule::Evidence);
    println!(
        "ring of {devices}, goal {report_goal}, now: {:?}, answered {}",
        now.broken(&attack),
        now.answered.len()
    );
    assert_eq!(now.opened(&attack), []);
    assert!(now.answered.is_empty());
    let others = now.refusals.iter().filter(|(member, _)| !victims.contains(&member.0));
    // They look in order of the places.
    let first = victims.iter().copied().min().unwrap();
    let expected = Refusal::Evidence(EvidenceError::Sharing { index: place(first) });
    assert!(others.clone().count() > report_goal / 2);
    for (_, refusal) in others {
        assert!(matches!(refusal, Refusal::Evidence(EvidenceError::Sharing { .. })), "{refusal}");
    }
    assert!(now.refusals.values().any(|refusal| *refusal == expected));
}

#[test]
fn two_views_of_who_shared_do_not_read_a_device_of_a_ring() {
    two_views_on_a_ring(300, 245, 1);
    if std::env::var_os("NIGHTSHIFT_LIARS").is_some() {
        two_views_on_a_ring(300, 230, 2);
        two_views_on_a_ring(1000, 930, 1);
    }
}

#[test]
fn two_views_of_who_shared_do_not_read_a_device_of_the_complete_graph() {
    // With a report goal below the quorum, which no plan has.
    let ctx = Context { report_goal: 52, ..context_of(100) };
    let graph = Graph::complete(100).unwrap();
    let missing: BTreeSet<DeviceIndex> = (50..96).map(place).collect();
    let mut attack = everybody(&ctx, 100);
    attack.corrupt = (0..5).collect();
    two_views(&mut attack, &graph, &[17], &missing);
    let now = attack.run(Rule::Evidence);
    assert_eq!(now.opened(&attack), []);
    assert_eq!(now.refusals[&(17, 0)], Refusal::FewSharers { got: 52, need: 53 });
    assert_eq!(now.refusals[&(30, 0)], Refusal::Evidence(EvidenceError::Sharing { index: place(17) }));
}

/// The first roster lists devices that take part in the second, where `missing` of them are called missing.
fn ghosts(attack: &mut Attack, second: Vec<Member>, ghosts: &BTreeSet<usize>) {
    let first = attack.rosters[0].0.clone();
    let absent: BTreeSet<Member> =
        first.iter().filter(|member| ghosts.contains(&member.0)).copied().collect();
    let mut order = second.clone();
    order.sort_by_key(|(device, _)| world::device_id(*device));
    let gone = (0..).map(DeviceIndex::from).zip(&order).filter(|(_, member)| absent.contains(member));
    let all = IndexSet::full(second.len());
    let survivors = without(second.len(), gone.map(|(place, _)| place));
    for member in &second {
        let stop = if absent.contains(member) { Stop::BeforeItsSignature } else { Stop::Never };
        let view = View { roster: 1, sharers: all.clone(), survivors: survivors.clone(), stop };
        attack.views.insert(*member, view);
    }
    // Later than every draw before: a device helps in no earlier one.
    let attempt = attack.rosters.iter().map(|(_, attempt)| attempt + 1).max().unwrap_or(0);
    attack.rosters.push((second, attempt));
}

#[test]
fn ghosts_of_another_roster_open_no_small_sum_of_the_complete_graph() {
    // A plan for 100, of whom 5 may be corrupt and 70 must be left. Of the first roster 30, or 5, are ghosts.
    let ctx = Context { report_goal: 70, ..context_of(100) };
    for count in [30, 5] {
        let mut attack = everybody(&ctx, 70);
        attack.corrupt = (0..5).collect();
        let second = (70 - count..140).map(|device| (device, 0)).collect();
        ghosts(&mut attack, second, &(70 - count..70).collect());
        let now = attack.run(Rule::Evidence);
        assert_eq!(now.broken(&attack), None);
        let refusal = now.refusals[&(20, 0)];
        if count == 30 {
            assert_eq!(refusal, Refusal::UnopenedShares { got: 30, most: 5 });
        } else {
            // So few that nobody leaves before.
            assert_eq!(refusal, Refusal::Evidence(EvidenceError::Sharing { index: place(65) }));
            let before = attack.run(Rule::QuorumOnly);
            assert_eq!(before.broken(&attack).unwrap(), "a sum of 60 honest inputs, expected at least 65");
        }
        // The second roster is an honest round without the ghosts, and opens.
        assert_eq!(now.opened(&attack).iter().map(BTreeSet::len).collect::<Vec<_>>(), [70]);
    }
}

#[test]
fn ghosts_of_an_earlier_draw_open_no_small_sum_of_a_ring() {
    // A stretch of the ring between ghosts and missing devices, who are moved to the next draw.
    for (report_goal, segment, is_ghost) in
        [(245, 17, (|at| at % 7 >= 4) as fn(usize) -> bool), (230, 49, |at| !(16..80).contains(&at))]
    {
        let ctx = Context { report_goal, ..context_of(300) };
        let graph = graph_of(&ctx, 300);
        let order = ring_order(&graph);
        let around = order[..48].iter().chain(&order[48 + segment..96 + segment]).enumerate();
        let (mut missing, mut ghostly) = (BTreeSet::new(), BTreeSet::new());
        for (at, device) in around {
            if is_ghost(at) || missing.len() == 300 - report_goal {
                ghostly.insert(usize::from(*device));
            } else {
                missing.insert(*device);
            }
        }
        let mut attack = everybody(&ctx, 300);
        let survivors = without(300, missing.iter().copied());
        for view in attack.views.values_mut() {
            view.survivors = survivors.clone();
        }
        for gone in &missing {
            attack.views.get_mut(&(usize::from(*gone), 0)).unwrap().stop = Stop::BeforeItsSignature;
        }
        let second =
            ghostly.iter().copied().chain(300..300 + report_goal).map(|device| (device, 0)).collect();
        ghosts(&mut attack, second, &ghostly);
        let now = attack.run(Rule::Evidence);
        let sums = now.opened(&attack);
        println!(
            "goal {report_goal}: {} ghosts, {} missing, opened {:?}",
            ghostly.len(),
            missing.len(),
            sums.iter().map(BTreeSet::len).collect::<Vec<_>>()
        );
        assert_eq!(now.broken(&attack), None);
        assert!(sums.iter().all(|sum| sum.iter().all(|device| *device >= 300)));
        assert!(now.answered.iter().all(|(device, _)| *device >= 300));
    }
}

/// The places of a ring in its order: each next one is the neighbour that shares the most neighbours.
fn ring_order(graph: &Graph) -> Vec<DeviceIndex> {
    let size = usize::from(graph.size());
    let of = |place| graph.neighbors(place).into_iter().collect::<BTreeSet<_>>();
    let sets: Vec<BTreeSet<DeviceIndex>> = graph.places().map(of).collect();
    let mut order = vec![DeviceIndex::from(0)];
    let mut used = BTreeSet::from([DeviceIndex::from(0)]);
    while order.len() < size {
        let last = order[order.len() - 1];
        let common =
            |peer: &&DeviceIndex| sets[usize::from(**peer)].intersection(&sets[usize::from(last)]).count();
        let next = sets[usize::from(last)].iter().filter(|peer| !used.contains(*peer)).max_by_key(common);
        let next = *next.unwrap_or_else(|| panic!("{} of {size} places", order.len()));
        used.insert(next);
        order.push(next);
    }
    order
}

/// A random lie in a random setting.
struct Lie {
    rng: ChaCha20Rng,
    cohort: usize,
    attack: Attack,
}

impl Lie {
    fn new(cohort: usize, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let corrupt = corrupt_devices(cohort, [0, 50, 100, 200][below(&mut rng, 4)]);
        let corrupt = if cohort > MAX_COMPLETE { corrupt.min(cohort / 20) } else { corrupt };
        let least = quorum(cohort, corrupt);
        // Low goals leave more room for lies.
        let more = below(&mut rng, cohort - least + 1);
        let report_goal = least + below(&mut rng, more + 1);
        let ctx = Context { report_goal, cohort, corrupt, missing_fraction_permille: 300, ..context() };
        // A roster may be smaller than the cohort, down to the report goal.
        let fewest = if cohort > MAX_COMPLETE { report_goal.max(MAX_COMPLETE + 1) } else { report_goal };
        let size = fewest + below(&mut rng, cohort - fewest + 1);
        let mut attack = everybody(&ctx, size);
        let mut devices: Vec<usize> = (0..size).collect();
        shuffle(&mut devices, &mut rng);
        attack.corrupt = devices.into_iter().take(below(&mut rng, corrupt + 1)).collect();
        Self { rng, cohort, attack }
    }

    fn size(&self) -> usize {
        self.attack.rosters[0].0.len()
    }

    fn some(&mut self, of: usize, most: usize) -> BTreeSet<DeviceIndex> {
        let mut places: Vec<DeviceIndex> = (0..of).map(place).collect();
        shuffle(&mut places, &mut self.rng);
        let count = below(&mut self.rng, most + 1);
        places.into_iter().take(count).collect()
    }

    /// Devices of the first roster vanish, honestly or not.
    fn lose(&mut self) {
        let (size, goal) = (self.size(), self.attack.ctx.report_goal);
        let missing = self.some(size, size - goal);
        let survivors = without(size, missing.iter().copied());
        let stops =
            [Stop::BeforeSharing, Stop::BeforeItsSignature, Stop::BeforeAgreeing, Stop::BeforeAnswering];
        for (member, view) in &mut self.attack.views {
            if view.roster == 0 {
                view.survivors = survivors.clone();
                if missing.contains(&place(member.0)) && below(&mut self.rng, 3) > 0 {
                    view.stop = stops[below(&mut self.rng, 4)];
                }
            }
        }
    }

    /// Tells one to three devices that fewer of their neighbours shared.
    fn tell_fewer(&mut self) {
        let ctx = self.attack.ctx.clone();
        let size = self.size();
        let graph = graph_of(&ctx, size);
        let victim = below(&mut self.rng, size);
        let missing = if graph.is_ring() {
            missing_around(&graph, victim, &mut self.rng)
        } else {
            let goal = ctx.report_goal.max(quorum(size, ctx.corrupt));
            Some(self.some(size, size - goal)).map(|mut missing| {
                missing.remove(&place(victim));
                missing
            })
        };
        let Some(missing) = missing else { return };
        let gone =
            |device: &usize| !missing.contains(&place(*device)) && !self.attack.corrupt.contains(device);
        let mut victims: Vec<usize> = (0..size).filter(gone).collect();
        shuffle(&mut victims, &mut self.rng);
        victims.truncate(1 + below(&mut self.rng, 3));
        two_views(&mut self.attack, &graph, &victims, &missing);
    }

    /// Tells groups of devices other sharers or other survivors.
    fn split(&mut self) {
        let (size, goal) = (self.size(), self.attack.ctx.report_goal);
        let groups = 2 + below(&mut self.rng, 2);
        for group in 0..groups {
            let unshared = self.some(size, size - goal);
            let missing = self.some(size, size - goal);
            let sharers = without(size, unshared.iter().copied());
            let survivors = without(size, missing.union(&unshared).copied());
            let which = below(&mut self.rng, 3);
            for (member, view) in &mut self.attack.views {
                if view.roster == 0 && member.0 % groups == group {
                    if which != 1 {
                        view.sharers = sharers.clone();
                    }
                    if which != 0 {
                        view.survivors = survivors.clone();
                    }
                }
            }
        }
    }

    /// A second roster of the session, with devices of the first one and others.
    fn second(&mut self) {
        let (size, goal) = (self.size(), self.attack.ctx.report_goal);
        let corrupt = self.attack.corrupt.clone();
        let honest: Vec<usize> = (0..size).filter(|device| !corrupt.contains(device)).collect();
        let count = 1 + below(&mut self.rng, (honest.len() / 2).max(1));
        let (mut moved, few) = (honest, below(&mut self.rng, 2) == 0);
        shuffle(&mut moved, &mut self.rng);
        // So few that nobody leaves for shares that do not open, or any number.
        moved.truncate(if few { self.attack.ctx.corrupt.clamp(1, count) } else { count });
        let others =
            (goal.max(size)).saturating_sub(if below(&mut self.rng, 2) == 0 { 0 } else { moved.len() });
        let mut second: Vec<Member> = moved.iter().map(|device| (*device, 0)).collect();
        second.extend((size..size + others).map(|device| (device, 0)));
        second.truncate(self.cohort.max(goal));
        let is_ring = |size: usize| size > MAX_COMPLETE;
        if is_ring(second.len()) && Parameters::search(second.len(), self.attack.ctx.corrupt, 300).is_none()
            || is_ring(size) != is_ring(second.len())
        {
            return;
        }
        let moved = second.iter().map(|member| member.0).filter(|device| *device < size).collect();
        ghosts(&mut self.attack, second, &moved);
    }

    /// Devices are restarted, and come with fresh keys to a second roster of the same round.
    fn restart(&mut self) {
        let size = self.size();
        let corrupt = self.attack.corrupt.clone();
        let restarted: Vec<usize> = self
            .some(size, size)
            .into_iter()
            .map(usize::from)
            .filter(|device| !corrupt.contains(device))
            .collect();
        let stops =
            [Stop::BeforeSharing, Stop::BeforeItsSignature, Stop::BeforeAgreeing, Stop::BeforeAnswering];
        let mut second: Vec<Member> = restarted.iter().map(|device| (*device, 1)).collect();
        let fill = self.attack.ctx.report_goal.saturating_sub(second.len());
        second.extend((size..size + fill).map(|device| (device, 0)));
        second.truncate(self.cohort);
        if self.attack.rosters.len() > 1 || second.len() > MAX_COMPLETE {
            return;
        }
        let all = IndexSet::full(second.len());
        for device in restarted {
            let stop = stops[below(&mut self.rng, 4)];
            self.attack.views.get_mut(&(device, 0)).unwrap().stop = stop;
        }
        for member in &second {
            let view = View { roster: 1, sharers: all.clone(), survivors: all.clone(), stop: Stop::Never };
            self.attack.views.insert(*member, view);
        }
        self.attack.rosters.push((second, 0));
    }

    fn tell(mut self) -> Attack {
        if self.size() > MAX_COMPLETE && below(&mut self.rng, 2) == 0 {
            self.tell_fewer();
        }
        for _ in 0..=below(&mut self.rng, 3) {
            match below(&mut self.rng, 6) {
                0 => self.lose(),
                1 | 2 => self.tell_fewer(),
                3 => self.split(),
                4 => self.second(),
                _ => self.restart(),
            }
        }
        self.attack
    }
}

/// How many lies of each size are told.
fn grid() -> Vec<(usize, u64)> {
    let long =
        [(10, 4000), (20, 2000), (40, 600), (100, 60), (256, 8), (257, 12), (300, 20), (512, 6), (1024, 4)];
    match std::env::var("NIGHTSHIFT_LIARS").as_deref() {
        Err(_) => vec![(10, 120), (20, 15), (40, 2), (260, 2)],
        Ok("long") => long.to_vec(),
        // Only these cohorts, as `300,512`.
        Ok(cohorts) => {
            let wanted: Vec<usize> = cohorts.split(',').map(|cohort| cohort.parse().unwrap()).collect();
            long.into_iter().filter(|(cohort, _)| wanted.contains(cohort)).collect()
        }
    }
}

#[test]
fn whatever_a_server_says_a_sum_has_nearly_as_many_inputs_as_the_goal_and_each_once() {
    let mut counts: BTreeMap<usize, [usize; 4]> = BTreeMap::new();
    for (cohort, lies) in grid() {
        for seed in 0..lies {
            let attack = Lie::new(cohort, seed).tell();
            let now = attack.run(Rule::Evidence);
            if let Some(broken) = now.broken(&attack) {
                panic!("cohort {cohort}, seed {seed}: {broken}, {:?}", attack.ctx);
            }
            let count = counts.entry(cohort).or_default();
            count[0] += 1;
            count[1] += usize::from(!now.opened(&attack).is_empty());
            count[2] += usize::from(!now.refusals.is_empty());
            if !(100..=MAX_COMPLETE).contains(&cohort) {
                count[3] += usize::from(attack.run(Rule::QuorumOnly).broken(&attack).is_some());
            }
        }
        println!("{lies} lies to cohorts of {cohort}");
    }
    println!(
        "cohort: lies, with an open sum, with a refusal, that broke what a quorum alone holds: {counts:?}"
    );
    let all = counts.values().fold([0; 4], |sum, count| [0, 1, 2, 3].map(|i| sum[i] + count[i]));
    let few = counts.len() < 4;
    assert!(few || all.iter().all(|count| *count > 0), "the lies are too tame: {all:?}");
}
