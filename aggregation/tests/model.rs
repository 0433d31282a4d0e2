//! A model of the protocol in which every lie of the coordinator is tried.
//!
//! It shares no code with the library. Cryptography is perfect: a seed is known
//! from as many shares as its threshold or not at all, a mask from the key seed
//! of either side, nobody but a device signs for it, and what is sealed for a
//! device under one roster is opened by no other. The corrupt devices are the
//! coordinator's: it knows all their secrets and signs anything for them. It
//! tells each honest device what it likes, whenever it likes, and may restart
//! it; a device does what its rule ([`rule::Rule`]) lets it do. Whether a sum
//! can be read is decided by its unknown masks ([`sums::opened`]). Then:
//!
//! - every sum that can be read has the honest inputs of at least the report
//!   goal less the corrupt, and
//! - no input of a device, whatever its advertisement, is read twice.
//!
//! At most as many devices of a roster are corrupt as the plan says of its
//! cohort, which holds only as long as no roster is larger than that.
//!
//! The rules that are compared are the first version's, two mends of it that
//! are not enough, the one that is meant to hold, and that one less each of its
//! checks.
//!
//! # Two models
//!
//! [`steps::Steps`] is the protocol message by message, in every order, with
//! any number of rosters. Only the names of the honest are taken to be without
//! meaning. It is feasible for up to five devices over the complete graph.
//!
//! [`choices::World`] is what is left of that when steps that commute are put
//! into one order and steps that give the coordinator less than others are left
//! out. It reaches ten devices, rings, and both attacks on the first version.
//! Its coordinator chooses the transcripts that it aims at, then how far each
//! advertisement comes, then what the devices outside the transcripts were told.
//! Why that is enough:
//!
//! 1. What the coordinator knows only grows, and more knowledge opens more: a
//!    further seed only makes masks known, which cuts a sum into smaller ones
//!    that are all opened, and a further masked input has no unknown mask in
//!    common with an opened sum, in which all of them cancel. So a break stays
//!    one whatever else happens, and only states where all is done are judged.
//! 2. What a device does depends on what it is told, which the coordinator
//!    chooses, on the shares for it and on the signatures it is shown. All
//!    devices may therefore share before any is told who shared, and all sign
//!    before any answers: more shares open and more signatures exist, and no
//!    check asks for fewer. Nor does it matter which device is first.
//! 3. Shares are given away in every state, and a device that can go on goes
//!    on, for the same reason. It stops where a restart, that is a second
//!    advertisement of it in a roster, needs that its ledger is still empty:
//!    the masked input may have left in pieces by then, and where the sharing
//!    signature is no durable record, with that signature. Two devices whose
//!    restarts each come before the other's are not excluded; that is more than
//!    a coordinator can do.
//! 4. A transcript that nobody answers gives nothing, so aims that cannot reach
//!    a quorum any more are not followed up, and a roster without an aim gives
//!    nothing either. There are at most two rosters, with one aim each or with
//!    two for the first: with the full rule each opened sum is of one aim.
//! 5. A device that was told other sharers than any aim has sends a masked input
//!    and answers nothing. What exactly it was told is in nobody else's way,
//!    and it matters only if its own mask becomes known; so it is chosen last,
//!    for such devices. Neighbors whose masks are known are told to it, and
//!    all that are not its neighbors: they make no difference but to counts that
//!    want more.
//! 6. Devices that are in the same rosters and the same sets of all aims so far
//!    may exchange names. On rings all places differ.
//! 7. On a ring the order is any for which the parameters' bounds on the corrupt
//!    hold, instead of a random one. A nonce is not bound to a roster, so an
//!    advertisement may be in several rings and share under any one of them.
//!    That, too, is more than can be done.
//!
//! That these lose nothing is checked where both models are feasible: they
//! agree for every rule. That the choices do not lose attacks in larger worlds
//! is shown by the attacks that they find.
//!
//! Not modeled: chances (that a drawn ring violates its parameters), what
//! shares that do not verify cost, devices that are told different contexts,
//! and whether an honest round ends.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test program whose traces are to be read"
)]

#[path = "model/choices.rs"]
mod choices;
#[path = "model/knowledge.rs"]
mod knowledge;
#[path = "model/rule.rs"]
mod rule;
#[path = "model/setting.rs"]
mod setting;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/sums.rs"]
mod sums;
#[path = "model/words.rs"]
mod words;
#[path = "model/worlds.rs"]
mod worlds;

use std::collections::BTreeMap;

use choices::World;
use rule::{FIRST, FULL, LEAST, MUTANTS, NEIGHBORS, OWNER, Plan, Rule};
use stateright::{Checker, HasDiscoveries, Model, Path};
use steps::Steps;
use sums::{FEW, OPENED, TWICE};

/// What was found in some worlds.
#[derive(Debug, Default)]
struct Found {
    worlds: usize,
    states: usize,
    opened: bool,
    /// The first sum of too few, and the first input opened twice, in words.
    few: Option<String>,
    twice: Option<String>,
}

impl Found {
    fn is_broken(&self) -> bool {
        self.few.is_some() || self.twice.is_some()
    }

    fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.states += other.states;
        self.opened |= other.opened;
        self.few = self.few.take().or(other.few);
        self.twice = self.twice.take().or(other.twice);
    }

    fn print(&self, rule: &str, name: &str) {
        let (worlds, states) = (self.worlds, self.states);
        let (few, twice) = (self.few.is_some(), self.twice.is_some());
        println!("{rule:25} | {name:22} | {worlds:4} worlds | {states:8} states | few {few} | twice {twice}");
    }
}

fn look(world: &World) -> Found {
    let checker = world.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    found(&checker, |path| words::story(world, path.last_state()))
}

fn look_step_by_step(world: Steps) -> Found {
    let checker = world
        .checker()
        .symmetry_fn(steps::State::representative)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    found(&checker, |path| words::steps(&path.into_actions()))
}

fn found<M: Model<State: Clone + PartialEq, Action: Clone + PartialEq>>(
    checker: &impl Checker<M>,
    words: impl Fn(Path<M::State, M::Action>) -> String,
) -> Found {
    Found {
        worlds: 1,
        states: checker.unique_state_count(),
        opened: checker.discovery(OPENED).is_some(),
        few: checker.discovery(FEW).map(&words),
        twice: checker.discovery(TWICE).map(&words),
    }
}

/// Whether the larger worlds are wanted too.
fn is_long() -> bool {
    std::env::var("NIGHTSHIFT_MODEL").is_ok_and(|which| which == "long")
}

/// What is found in each kind of world.
fn by_kind(rule: Rule, long: bool) -> BTreeMap<&'static str, Found> {
    let mut kinds: BTreeMap<&str, Found> = BTreeMap::new();
    for world in worlds::all(rule, long) {
        kinds.entry(world.name).or_default().add(look(&world));
    }
    for (name, found) in &kinds {
        found.print(rule.name, name);
    }
    kinds
}

/// Prints and returns the first sum of too few that is found in a world.
fn few_in(world: &World) -> Option<String> {
    let (rule, name) = (world.plan.rule.name, world.name);
    let found = look(world);
    found.print(rule, name);
    for story in found.few.iter().chain(&found.twice) {
        println!("{story}");
    }
    found.few
}

#[test]
fn a_coordinator_that_lies_finds_the_two_views_under_the_first_rule() {
    assert!(few_in(&worlds::one_roster(FIRST)).is_some());
    assert!(few_in(&worlds::one_ring(FIRST)).is_some());
}

#[test]
fn in_one_roster_the_obvious_mends_are_enough() {
    for rule in [OWNER, NEIGHBORS] {
        assert!(few_in(&worlds::one_roster(rule)).is_none());
        assert!(few_in(&worlds::one_ring(rule)).is_none());
    }
}

#[test]
fn a_coordinator_that_lies_finds_the_ghosts_under_the_obvious_mend() {
    assert!(few_in(&worlds::ghosts(OWNER)).is_some());
    assert!(few_in(&worlds::ghosts_on_a_ring(OWNER, 1)).is_some());
}

#[test]
fn a_coordinator_that_lies_finds_the_ghosts_under_the_stricter_mend_on_a_ring() {
    assert!(few_in(&worlds::ghosts(NEIGHBORS)).is_none(), "in the complete graph neighbors are everybody");
    for threshold in [1, 2] {
        assert!(few_in(&worlds::ghosts_on_a_ring(NEIGHBORS, threshold)).is_some());
        assert!(few_in(&worlds::ghosts_on_a_ring(FULL, threshold)).is_none());
    }
}

#[test]
fn a_restart_opens_an_input_twice_unless_sharing_is_durable() {
    for rule in [FIRST, OWNER, NEIGHBORS] {
        let found = look(&worlds::restarts(rule));
        found.print(rule.name, "two rosters, restarts");
        println!("{}", found.twice.unwrap());
    }
    let found = look(&worlds::restarts(FULL));
    assert!(found.opened && !found.is_broken());
}

#[test]
fn under_the_full_rule_nothing_is_found() {
    for (name, found) in by_kind(FULL, is_long()) {
        assert!(!found.is_broken(), "{name}: {found:?}");
        assert!(found.opened, "{name}: nothing is ever opened");
    }
}

#[test]
fn the_full_rule_less_a_check_is_broken_or_is_not_as_the_table_says() {
    for (rule, is_broken) in MUTANTS {
        let mut all = Found::default();
        for world in worlds::all(rule, is_long() && !is_broken) {
            let name = world.name;
            all.add(look(&world));
            if all.is_broken() {
                all.print(rule.name, name);
                break;
            }
        }
        if !all.is_broken() {
            all.print(rule.name, "all kinds");
        }
        assert_eq!(all.is_broken(), is_broken, "{}: {all:?}", rule.name);
    }
}

#[test]
fn without_all_checks_that_are_only_a_second_defense_nothing_is_found() {
    for (name, found) in by_kind(LEAST, is_long()) {
        assert!(!found.is_broken(), "{name}: {found:?}");
    }
}

/// A world of so many honest, corrupt, and restarts.
fn steps(rule: Rule, (honest, corrupt, restarts, goal): (usize, usize, usize, usize)) -> Steps {
    Steps {
        plan: Plan { rule, goal, cohort: honest + corrupt, corrupt },
        honest,
        corrupt,
        restarts,
        shown: Vec::new(),
    }
}

#[test]
fn step_by_step_nothing_is_found_under_the_full_rule() {
    let mut sizes = vec![(3, 0, 1, 2), (3, 1, 1, 3), (4, 0, 0, 3), (4, 0, 2, 4), (4, 1, 0, 4)];
    if is_long() {
        sizes.extend([(4, 0, 1, 3), (3, 1, 1, 2)]);
    }
    for size in sizes {
        let found = look_step_by_step(steps(FULL, size));
        found.print(FULL.name, &format!("steps {size:?}"));
        assert!(found.opened && !found.is_broken(), "{size:?}: {found:?}");
    }
}

#[test]
fn step_by_step_and_by_choices_the_same_is_found() {
    let sizes = [(3, 0, 0, 2), (3, 0, 0, 3), (3, 1, 0, 3), (2, 1, 2, 3)];
    let rules = [FIRST, OWNER, NEIGHBORS, FULL, LEAST].into_iter().chain(MUTANTS.map(|(rule, _)| rule));
    for rule in rules {
        let mut worlds: Vec<Steps> = sizes.iter().map(|size| steps(rule, *size)).collect();
        // Where a quorum that is too small is first found; for rules that leave few choices.
        let is_full_but_for_quorum = rule.sets_hold_quorum && (is_long() || !rule.quorum);
        for cohort in 5..if is_full_but_for_quorum { 7 } else { 5 } {
            let larger = steps(rule, (4, 1, 0, 3));
            worlds.push(Steps { plan: Plan { cohort, ..larger.plan }, shown: vec![0b1_1111], ..larger });
        }
        for world in worlds {
            let (name, like) = (format!("{} + {}", world.honest, world.corrupt), worlds::like(&world));
            let found = look_step_by_step(world);
            let mut other = Found::default();
            for world in like {
                other.add(look(&world));
            }
            found.print(rule.name, &format!("{name}, steps"));
            other.print(rule.name, &format!("{name}, choices"));
            assert_eq!(found.is_broken(), other.is_broken(), "{}: {found:?} {other:?}", rule.name);
            assert!(found.opened && other.opened);
        }
    }
}

#[test]
fn step_by_step_too_a_restart_opens_an_input_twice_unless_sharing_is_durable() {
    let rule = Rule { sharing_is_durable: false, ..FULL };
    // Everybody, and then the first device with the corrupt one.
    let found = look_step_by_step(Steps { shown: vec![0b1111, 0b1001], ..steps(rule, (3, 1, 1, 2)) });
    found.print("sharing not durable", "steps, two rosters");
    println!("{}", found.twice.unwrap());
}
