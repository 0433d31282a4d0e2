//! The worlds that are looked through.

use crate::{
    choices::{Aim, World},
    rule::{Plan, Rule},
    setting::{Complete, Ring, Roster, Set, Setting, devices, has, size, subsets},
    steps::Steps,
};

/// How many neighbors on a ring, of how many a seed is rebuilt, how many in a
/// stretch may be corrupt.
const PARAMETERS: [(usize, usize, usize); 4] = [(2, 1, 0), (4, 1, 0), (4, 2, 0), (4, 2, 1)];

/// All worlds. The larger ones only if `long`.
pub(crate) fn all(rule: Rule, long: bool) -> Vec<World> {
    let mut worlds = complete(rule, if long { 8 } else { 7 });
    worlds.push(large_roster(rule));
    worlds.extend(two_complete(rule, long));
    worlds.extend(ring(rule, if long { 8 } else { 7 }));
    worlds.extend(two_rings(rule, long));
    worlds.extend(ring_and_complete(rule, long));
    for threshold in if long { 1..=2 } else { 1..=1 } {
        worlds.push(World { given: Vec::new(), ..ghosts_on_a_ring(rule, threshold) });
    }
    worlds
}

/// One roster of at most `most` devices over the complete graph, with one or
/// two transcripts; for each number of corrupt devices and each goal.
fn complete(rule: Rule, most: usize) -> Vec<World> {
    let mut worlds = Vec::new();
    for corrupt in 0..=2 {
        for cohort in corrupt + 2..=most {
            for goal in corrupt + 1..=cohort {
                let plan = Plan { rule, goal, cohort, corrupt };
                let honest = cohort - corrupt;
                let rosters = Complete {
                    honest,
                    corrupt,
                    corrupt_of_roster: corrupt,
                    smallest: goal,
                    largest: cohort,
                    rosters: 1,
                    restarts: 0,
                };
                for aims in [vec![0], vec![0, 0]] {
                    let settings = rosters.settings();
                    worlds.push(World { name: "a roster", plan, settings, aims, given: Vec::new() });
                }
            }
        }
    }
    worlds
}

/// A roster of twice the plan's cohort, with twice as many corrupt.
fn large_roster(rule: Rule) -> World {
    let rosters = Complete {
        honest: 6,
        corrupt: 2,
        corrupt_of_roster: 2,
        smallest: 8,
        largest: 8,
        rosters: 1,
        restarts: 0,
    };
    let plan = Plan { rule, goal: 4, cohort: 4, corrupt: 1 };
    World { name: "a roster", plan, settings: rosters.settings(), aims: vec![0, 0], given: Vec::new() }
}

/// Two rosters over the complete graph, with more devices than the cohort of
/// the plan, some of which restart.
fn two_complete(rule: Rule, long: bool) -> Vec<World> {
    let mut worlds = Vec::new();
    // The corrupt in a roster, in all, the cohort, the honest in all.
    let mut sizes = vec![(0, 0, 4, 6), (0, 0, 5, 6), (1, 1, 4, 5), (1, 1, 5, 6), (1, 2, 5, 5), (2, 2, 6, 6)];
    if long {
        sizes.extend([(0, 0, 6, 8), (1, 1, 6, 7), (1, 2, 6, 7), (2, 2, 7, 7), (2, 4, 7, 7)]);
    }
    for (corrupt, corrupt_in_all, cohort, honest) in sizes {
        for goal in corrupt + 2..=cohort {
            let plan = Plan { rule, goal, cohort, corrupt };
            let rosters = Complete {
                honest,
                corrupt: corrupt_in_all,
                corrupt_of_roster: corrupt,
                smallest: goal,
                largest: cohort,
                rosters: 2,
                restarts: 2,
            };
            for aims in [vec![0, 1], vec![0, 0, 1]] {
                if aims.len() == 2 || cohort <= if long { 5 } else { 4 } {
                    let settings = rosters.settings();
                    worlds.push(World { name: "two rosters", plan, settings, aims, given: Vec::new() });
                }
            }
        }
    }
    worlds
}

fn ring_of(order: Vec<usize>, parameters: (usize, usize, usize), restarted: Set) -> Roster {
    let (neighbors, threshold, window_bound) = parameters;
    Roster::ring(Ring { order, neighbors, threshold, window_bound }, restarted)
}

/// One ring of at most `most` devices with one or two transcripts; for each of
/// some parameters, all places of the corrupt that they allow, and each goal.
fn ring(rule: Rule, most: usize) -> Vec<World> {
    let mut worlds = Vec::new();
    for parameters in PARAMETERS {
        for places in parameters.0 + 1..=most {
            let roster = ring_of((0..places).collect(), parameters, 0);
            // The ring can be turned so that the first corrupt device is in the first place.
            let corrupt_sets = (0..1 << places).filter(|set| *set == 0 || has(*set, 0));
            for corrupt in corrupt_sets.filter(|set| size(*set) <= 2 && roster.bears(*set)) {
                for goal in size(corrupt) + 1..=places {
                    let plan = Plan { rule, goal, cohort: places, corrupt: size(corrupt) };
                    let settings = vec![Setting::new(corrupt, vec![roster.clone()])];
                    let aims = vec![0];
                    worlds.push(World { name: "a ring", plan, settings, aims, given: Vec::new() });
                    if places < most {
                        let settings = vec![Setting::new(corrupt, vec![roster.clone()])];
                        let aims = vec![0, 0];
                        worlds.push(World { name: "a ring", plan, settings, aims, given: Vec::new() });
                    }
                }
            }
        }
    }
    worlds
}

/// The places of `common` devices of a ring, the first of which is in the
/// first place, on another ring: in any places there.
fn arrangements(places: usize, common: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut both = Vec::new();
    let others: Set = ((1 << places) - 1) & !1;
    for rest in subsets(others).filter(|set| size(*set) + 1 == common) {
        let shared: Vec<usize> = std::iter::once(0).chain(devices(rest)).collect();
        for there in subsets(others).filter(|set| size(*set) + 1 == common) {
            let at: Vec<usize> = std::iter::once(0).chain(devices(there)).collect();
            both.push((shared.clone(), at));
        }
    }
    both
}

/// Another roster's places: `shared` are in places `at`, new devices elsewhere.
fn order_with(shared: &[usize], at: &[usize], places: usize, new: usize) -> Vec<usize> {
    let mut next = new..;
    let place = |place: usize| match at.iter().position(|taken| *taken == place) {
        Some(index) => shared[index],
        None => next.next().unwrap(),
    };
    (0..places).map(place).collect()
}

/// Two rings, drawn in two attempts, with devices in common that may have
/// restarted in between, or be corrupt.
fn two_rings(rule: Rule, long: bool) -> Vec<World> {
    let mut worlds = Vec::new();
    let mut sizes = vec![((2, 1, 0), 5, 1), ((2, 1, 0), 5, 2), ((4, 2, 0), 6, 1)];
    if long {
        sizes.extend([((2, 1, 0), 6, 2), ((2, 1, 0), 5, 3), ((4, 2, 0), 6, 2), ((4, 2, 1), 6, 2)]);
    }
    for (parameters, places, common) in sizes {
        for corrupt in [0, 1] {
            let settings: Vec<Setting> = arrangements(places, common)
                .into_iter()
                .flat_map(|(shared, at)| {
                    let one = ring_of((0..places).collect(), parameters, 0);
                    let order = order_with(&shared, &at, places, places);
                    let honest = shared.iter().fold(0, |set: Set, device| set | 1 << device) & !corrupt;
                    subsets(honest).map(move |restarted| {
                        let other = ring_of(order.clone(), parameters, restarted);
                        Setting::new(corrupt, vec![one.clone(), other])
                    })
                })
                .filter(|setting| setting.rosters.iter().all(|roster| roster.bears(corrupt)))
                .collect();
            for goal in places - 1..=places {
                let plan = Plan { rule, goal, cohort: places, corrupt: size(corrupt) };
                let (settings, aims) = (settings.clone(), vec![0, 1]);
                worlds.push(World { name: "two rings", plan, settings, aims, given: Vec::new() });
            }
        }
    }
    worlds
}

/// A ring and a smaller roster over the complete graph, with devices in common.
fn ring_and_complete(rule: Rule, long: bool) -> Vec<World> {
    let mut worlds = Vec::new();
    let (places, few) = if long { (6, 5) } else { (6, 4) };
    for parameters in [(2, 1, 0), (4, 2, 0)] {
        for corrupt in [0, 1] {
            let mut settings = Vec::new();
            for common in subsets((1 << places) - 1) {
                if !(1..=2).contains(&size(common)) || !has(common, 0) {
                    continue;
                }
                let new = ((1 << (few - size(common))) - 1) << places;
                for restarted in subsets(common & !corrupt) {
                    let one = ring_of((0..places).collect(), parameters, 0);
                    let other = Roster::complete(common | new, restarted);
                    if one.bears(corrupt) {
                        settings.push(Setting::new(corrupt, vec![one, other]));
                    }
                }
            }
            for goal in few - 1..=few {
                let plan = Plan { rule, goal, cohort: places, corrupt: size(corrupt) };
                let (settings, aims) = (settings.clone(), vec![0, 1]);
                worlds.push(World { name: "a ring and a roster", plan, settings, aims, given: Vec::new() });
            }
        }
    }
    worlds
}

/// Two rings of which the other is run by the book but for one device that is
/// called missing there, and called a survivor in the first. On the first its
/// neighbor to the one side is to be missing, so that the others that survive
/// are a stretch between two gaps, with the ghost in both of them.
pub(crate) fn ghosts_on_a_ring(rule: Rule, threshold: usize) -> World {
    let (places, parameters) = (threshold + 6, (4, threshold, 0));
    let order = order_with(&[0, 1, places - 1], &[0, 1, places - 2], places - 1, places);
    let one = ring_of((0..places).collect(), parameters, 0);
    let other = ring_of(order, parameters, 0);
    let sharers = other.members;
    World {
        name: "two rings with a ghost",
        plan: Plan { rule, goal: places - 2, cohort: places, corrupt: 0 },
        settings: vec![Setting::new(0, vec![one, other])],
        aims: vec![0, 1],
        given: vec![Aim { roster: 1, sharers, survivors: sharers & !1 }],
    }
}

/// Seven devices, two of them corrupt, in one roster.
pub(crate) fn one_roster(rule: Rule) -> World {
    let rosters = Complete {
        honest: 5,
        corrupt: 2,
        corrupt_of_roster: 2,
        smallest: 7,
        largest: 7,
        rosters: 1,
        restarts: 0,
    };
    let plan = Plan { rule, goal: 4, cohort: 7, corrupt: 2 };
    World { name: "a roster", plan, settings: rosters.settings(), aims: vec![0], given: Vec::new() }
}

/// Seven honest devices on a ring.
pub(crate) fn one_ring(rule: Rule) -> World {
    let plan = Plan { rule, goal: 5, cohort: 7, corrupt: 0 };
    let settings = vec![Setting::new(0, vec![ring_of((0..7).collect(), (4, 2, 0), 0)])];
    World { name: "a ring", plan, settings, aims: vec![0], given: Vec::new() }
}

const TWO: Complete = Complete {
    honest: 6,
    corrupt: 0,
    corrupt_of_roster: 0,
    smallest: 3,
    largest: 4,
    rosters: 2,
    restarts: 0,
};

/// Six honest devices for a cohort of four, in two rosters.
pub(crate) fn ghosts(rule: Rule) -> World {
    let plan = Plan { rule, goal: 3, cohort: 4, corrupt: 0 };
    World { name: "two rosters", plan, settings: TWO.settings(), aims: vec![0, 1], given: Vec::new() }
}

/// The same with five devices of which one restarts.
pub(crate) fn restarts(rule: Rule) -> World {
    World { settings: Complete { honest: 5, restarts: 1, ..TWO }.settings(), ..ghosts(rule) }
}

/// What the coordinator could do in a world that is looked through step by
/// step, with all rosters or the one of everybody: with one roster and one or two transcripts, or with two rosters.
pub(crate) fn like(steps: &Steps) -> Vec<World> {
    let kinds = [(1, vec![0]), (1, vec![0, 0]), (2, vec![0, 1])];
    let all = steps.honest + steps.corrupt;
    let world = |(rosters, aims)| {
        let settings = Complete {
            honest: steps.honest,
            corrupt: steps.corrupt,
            corrupt_of_roster: steps.corrupt,
            smallest: if steps.shown.is_empty() { steps.plan.goal } else { all },
            largest: all,
            rosters,
            restarts: steps.restarts,
        };
        let settings = settings.settings();
        World { name: "as step by step", plan: steps.plan, settings, aims, given: Vec::new() }
    };
    kinds.map(world).into()
}
