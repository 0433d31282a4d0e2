//! What a device checks: the rules that are compared.

use crate::setting::{Roster, Set, size};

/// For whom a device wants to see that they masked with the same sharers
/// before it reveals a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// For nobody.
    Nothing,
    /// For the owner of a share of an own mask, else that one share is held
    /// back.
    Owner,
    /// For each of its neighbors that survived, else it reveals nothing.
    Neighbors,
    /// For each survivor, else it reveals nothing.
    Everybody,
}

/// What a device checks.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a check that a mutant lacks")]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) evidence: Evidence,
    /// A device that sent its masked input stays out of the round for good,
    /// and not only one that signed a transcript.
    pub(crate) sharing_is_durable: bool,
    /// A device that signed a transcript stays out of the round for good.
    pub(crate) signing_is_durable: bool,
    /// It signs one transcript, and answers once.
    pub(crate) signs_once: bool,
    /// It reveals nothing without a quorum of signatures on its transcript.
    pub(crate) quorum: bool,
    /// How many are corrupt is taken from the plan's cohort, not the roster's
    /// size.
    pub(crate) corrupt_of_plan: bool,
    /// It shares under no roster larger than the plan's cohort.
    pub(crate) cohort_bounds_roster: bool,
    /// In the complete graph as many as the quorum must share and survive, and
    /// not only as many as rebuild a seed.
    pub(crate) sets_hold_quorum: bool,
    /// As many as the report goal must share.
    pub(crate) goal_of_sharers: bool,
    /// As many as the report goal must survive.
    pub(crate) goal_of_survivors: bool,
    /// On a ring, no stretch may have too few survivors.
    pub(crate) windows: bool,
    /// On a ring, as many of its neighbors as rebuild a seed must share.
    pub(crate) enough_neighbors: bool,
    /// Few of the shares for it may fail to open.
    pub(crate) few_unopened: bool,
    /// Once it revealed a nonce it shares under no complete roster.
    pub(crate) nonce_binds_complete: bool,
    /// The masks of a pair depend on the roster.
    pub(crate) masks_bound_to_roster: bool,
}

/// The rule of the first version: nothing says with whom a device masked.
pub(crate) const FIRST: Rule = Rule {
    name: "first",
    evidence: Evidence::Nothing,
    sharing_is_durable: false,
    signing_is_durable: true,
    signs_once: true,
    quorum: true,
    corrupt_of_plan: false,
    cohort_bounds_roster: true,
    sets_hold_quorum: false,
    goal_of_sharers: true,
    goal_of_survivors: true,
    windows: true,
    enough_neighbors: true,
    few_unopened: false,
    nonce_binds_complete: false,
    masks_bound_to_roster: false,
};

/// The obvious mend: a share of an own mask only if its owner signed the same
/// sharers.
pub(crate) const OWNER: Rule = Rule { name: "owner", evidence: Evidence::Owner, ..FIRST };

/// Its stricter variant: nothing at all if a surviving neighbor did not.
pub(crate) const NEIGHBORS: Rule = Rule { name: "neighbors", evidence: Evidence::Neighbors, ..FIRST };

/// The rule that is meant to hold.
pub(crate) const FULL: Rule = Rule {
    name: "full",
    evidence: Evidence::Everybody,
    sharing_is_durable: true,
    signing_is_durable: true,
    signs_once: true,
    quorum: true,
    corrupt_of_plan: true,
    cohort_bounds_roster: true,
    sets_hold_quorum: true,
    goal_of_sharers: true,
    goal_of_survivors: true,
    windows: true,
    enough_neighbors: true,
    few_unopened: true,
    nonce_binds_complete: true,
    masks_bound_to_roster: true,
};

/// The full rule less one check each, and whether a sum of too few or an input
/// opened twice is then found.
pub(crate) const MUTANTS: [(Rule, bool); 16] = [
    (Rule { name: "evidence of nobody", evidence: Evidence::Nothing, ..FULL }, true),
    (Rule { name: "evidence of the owner", evidence: Evidence::Owner, ..FULL }, true),
    (Rule { name: "evidence of neighbors", evidence: Evidence::Neighbors, ..FULL }, true),
    // What is left is the record of the transcript, as in the first version.
    (Rule { name: "sharing not durable", sharing_is_durable: false, ..FULL }, true),
    (Rule { name: "two transcripts signed", signs_once: false, ..FULL }, true),
    (Rule { name: "no quorum of signatures", quorum: false, ..FULL }, true),
    (Rule { name: "corrupt of the roster", corrupt_of_plan: false, ..FULL }, true),
    (Rule { name: "rosters above the cohort", cohort_bounds_roster: false, ..FULL }, true),
    (Rule { name: "no goal of survivors", goal_of_survivors: false, ..FULL }, true),
    (Rule { name: "no windows", windows: false, ..FULL }, true),
    (Rule { name: "sets below the quorum", sets_hold_quorum: false, ..FULL }, false),
    (Rule { name: "no goal of sharers", goal_of_sharers: false, ..FULL }, false),
    (Rule { name: "few neighbors", enough_neighbors: false, ..FULL }, false),
    (Rule { name: "any number unopened", few_unopened: false, ..FULL }, false),
    (Rule { name: "complete after a nonce", nonce_binds_complete: false, ..FULL }, false),
    (Rule { name: "masks of any roster", masks_bound_to_roster: false, ..FULL }, false),
];

/// The full rule less all the checks whose lack alone is not found to break it.
pub(crate) const LEAST: Rule = Rule {
    name: "least",
    sets_hold_quorum: false,
    goal_of_sharers: false,
    enough_neighbors: false,
    few_unopened: false,
    nonce_binds_complete: false,
    masks_bound_to_roster: false,
    ..FULL
};

/// What every honest device knows of the round, and the rule it keeps to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rule: Rule,
    /// The report goal.
    pub(crate) goal: usize,
    /// The devices of the cohort.
    pub(crate) cohort: usize,
    /// How many of them may be corrupt.
    pub(crate) corrupt: usize,
}

impl Plan {
    /// The corrupt that a device reckons with in a roster.
    fn reckoned(&self, roster: &Roster) -> usize {
        let share = self.corrupt * size(roster.members) / self.cohort;
        if self.rule.corrupt_of_plan { self.corrupt } else { share }
    }

    /// Whether a device shares under a roster that it is in.
    pub(crate) fn admits(&self, roster: &Roster) -> bool {
        let places = size(roster.members);
        places >= self.goal && (!self.rule.cohort_bounds_roster || places <= self.cohort)
    }

    /// Fewest signatures on a transcript.
    pub(crate) fn quorum(&self, roster: &Roster) -> usize {
        usize::midpoint(size(roster.members), self.reckoned(roster)) + 1
    }

    /// Fewest devices that must have shared, or survived.
    fn fewest(&self, roster: &Roster, goal: bool) -> usize {
        let goal = if goal { self.goal } else { 1 };
        let in_graph = match &roster.ring {
            Some(_) => 1,
            None if self.rule.sets_hold_quorum => self.quorum(roster),
            None => roster.threshold(),
        };
        goal.max(in_graph)
    }

    /// Whether so many may have shared.
    pub(crate) fn bears_sharers(&self, roster: &Roster, sharers: Set) -> bool {
        size(sharers) >= self.fewest(roster, self.rule.goal_of_sharers)
    }

    /// Whether a device goes on when it is told that `sharers` shared, of
    /// which the shares of those in `opened` open.
    pub(crate) fn receives(&self, roster: &Roster, device: usize, sharers: Set, opened: Set) -> bool {
        let near = sharers & roster.neighbors(device);
        let (threshold, corrupt) = (roster.threshold(), self.reckoned(roster));
        let bound = if roster.ring.is_some() { corrupt.min(threshold - 1) } else { corrupt };
        self.bears_sharers(roster, sharers)
            && (roster.ring.is_none() || !self.rule.enough_neighbors || size(near) >= threshold)
            && (!self.rule.few_unopened || size(near & !opened) <= bound.max(1))
    }

    /// Whether a survivor signs that these survived.
    pub(crate) fn agrees(&self, roster: &Roster, survivors: Set) -> bool {
        size(survivors) >= self.fewest(roster, self.rule.goal_of_survivors)
            && (!self.rule.windows || roster.has_no_thin_window(survivors))
    }

    /// Whether a device answers, given who signed its transcript and who is
    /// shown to have masked with its sharers.
    pub(crate) fn answers(
        &self,
        roster: &Roster,
        device: usize,
        survivors: Set,
        signed: Set,
        shown: Set,
    ) -> bool {
        let wanted = match self.rule.evidence {
            Evidence::Nothing | Evidence::Owner => 0,
            Evidence::Neighbors => survivors & roster.neighbors(device),
            Evidence::Everybody => survivors,
        };
        (!self.rule.quorum || size(signed & survivors) >= self.quorum(roster)) && wanted & !shown == 0
    }

    /// Whose shares of the own mask it then reveals.
    pub(crate) fn unmasks(&self, survivors: Set, shown: Set) -> Set {
        if self.rule.evidence == Evidence::Owner { survivors & shown } else { survivors }
    }
}
