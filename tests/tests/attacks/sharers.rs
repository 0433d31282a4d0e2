//! Two stories about who shared, and devices of another roster among the survivors: `aggregation/ARGUMENT.md`, steps 2
//! and 4, with the devices of production and a coordinator that answers everything itself from the inputs on.

use std::collections::BTreeMap;

use aggregation::{
    Draw, Evidence, EvidenceError, Graph, IndexSet, Refusal, SEALED_SHARE_BYTES, SealedShare, Signature,
};
use proto::message::{Outcome, Reply, Request};
use proto::plan::Plan;

use super::hand::{Answer, Gathered, Post, unlisted, wait};
use super::setting::{context, plan};
use super::world::World;

/// A device asks no more in a run.
#[expect(clippy::unnecessary_wraps, reason = "it is what a hand answers")]
fn never() -> Answer {
    Some(Ok(Reply::wait(60_000_000)))
}

/// A plan of which each of `devices` has a coordinate of its own.
fn wide_plan(devices: usize, cohort: usize, report_goal: usize) -> Plan {
    let mut plan = plan(cohort, report_goal);
    plan.adapter.modules[0].outputs = u32::try_from(devices).unwrap();
    plan.with_recommended_scale().unwrap()
}

/// All places but these.
fn without(places: usize, gone: &[usize]) -> IndexSet {
    let mut set = IndexSet::full(places);
    for place in gone {
        set.remove(u16::try_from(*place).unwrap());
    }
    set
}

const DEVICES: usize = 300;

/// The device whose input is to be read.
const VICTIM: usize = 17;

/// The graph that the devices drew, from what passed.
fn drawn(plan: &Plan, post: &Post<'_>, gathered: &Gathered, nonces: &[[u8; 32]]) -> Graph {
    let published = post.coordinator.task.published();
    let context = context(plan, &published, post.request.session().unwrap(), 1);
    Draw::new(&context, gathered.roster(), 0).unwrap().finish(nonces).unwrap().graph().clone()
}

/// So many neighbours of the victim, spread over them, that no stretch of the ring becomes thin.
fn missing(graph: &Graph) -> Vec<usize> {
    let mut neighbors: Vec<usize> =
        graph.neighbors(u16::try_from(VICTIM).unwrap().into()).into_iter().map(usize::from).collect();
    // Neighbours come in order of their places, which is no order of the ring.
    neighbors.truncate(neighbors.len() / 2);
    while graph.thin_window(&without(DEVICES, &neighbors)).is_some() {
        neighbors.pop();
    }
    assert!(neighbors.len() >= graph.threshold());
    neighbors
}

#[test]
fn two_views_of_who_shared_unmasked_with_the_others_view_are_refused_by_everybody() {
    let plan = wide_plan(DEVICES, DEVICES, 245);
    let mut world = World::new(&plan, DEVICES);
    let (mut gathered, mut graph, mut gone) = (Gathered::default(), None, Vec::new());
    world.run(|post| {
        gathered.keep(post);
        match post.request.name() {
            "masked chunk" => return Some(Ok(Reply::Received)),
            "masked done" if post.from == VICTIM || gone.contains(&post.from) => return never(),
            "masked done" => return Some(Ok(Reply::Survivors(without(DEVICES, &gone)))),
            "agree" => {
                let signers = gathered.signatures.keys().map(|place| u16::try_from(*place).unwrap());
                let signers: Vec<u16> = signers.collect();
                let all = DEVICES - gone.len() - 1;
                let evidence = || Some(Ok(gathered.evidence(&without(DEVICES, &gone), &signers)));
                return if signers.len() < all { wait() } else { evidence() };
            }
            _ => {}
        }
        let answer = post.pass();
        match answer {
            Some(Ok(Reply::Drawn(ref nonces))) if graph.is_none() => {
                let found = drawn(&plan, post, &gathered, nonces);
                gone = missing(&found);
                graph = Some(found);
            }
            // Of the victim's neighbours only those that are said to be missing shared.
            Some(Ok(Reply::Inbox { sharers, shares })) if post.from == VICTIM => {
                let neighbors = graph.as_ref().unwrap().neighbors(u16::try_from(VICTIM).unwrap().into());
                let others: Vec<usize> =
                    neighbors.into_iter().map(usize::from).filter(|p| !gone.contains(p)).collect();
                let told = sharers.without(&without(DEVICES, &[]).without(&without(DEVICES, &others)));
                let shares = shares.into_iter().filter(|share| told.contains(share.from)).collect();
                return Some(Ok(Reply::Inbox { sharers: told, shares }));
            }
            _ => {}
        }
        answer
    });
    assert_eq!(world.log.left(VICTIM, "masked done"), 1, "the victim was fooled that far");
    for place in (0..DEVICES).filter(|place| *place != VICTIM && !gone.contains(place)) {
        let index = u16::try_from(VICTIM).unwrap().into();
        assert_eq!(world.refusal(place), Refusal::Evidence(EvidenceError::Sharing { index }));
    }
    world.assert_silent(0..DEVICES);
    world.assert_nothing_published();
}

/// A cohort's plan, and more devices than it has places for.
const WILLING: usize = 140;

/// A coordinator that opens two rosters in one session: the first one has `ghosts` devices of the second.
struct TwoRosters {
    ghosts: usize,
    gathered: Gathered,
    /// What was sealed, by roster, sender and receiver.
    sealed: BTreeMap<(usize, u16, u16), SealedShare>,
    shared: usize,
}

impl TwoRosters {
    /// Devices that are really in the first roster.
    fn real(&self) -> usize {
        70 - self.ghosts
    }

    /// The roster that a device is told, and the first device in it.
    fn roster_of(&self, device: usize) -> (usize, usize) {
        if device < self.real() { (0, 0) } else { (1, self.real()) }
    }

    /// Devices that sign who survived. Where ghosts are many, all of the first roster leave before.
    fn signers(&self) -> usize {
        if self.ghosts > 5 { 70 } else { WILLING - self.ghosts }
    }

    fn members(&self, roster: usize) -> std::ops::Range<usize> {
        if roster == 0 { 0..70 } else { self.real()..WILLING }
    }

    fn survivors(&self, roster: usize) -> IndexSet {
        let len = self.members(roster).len();
        if roster == 0 { IndexSet::full(len) } else { without(len, &(0..self.ghosts).collect::<Vec<_>>()) }
    }

    fn answer(&mut self, post: &mut Post<'_>) -> Answer {
        self.gathered.keep(post);
        let (roster, first) = self.roster_of(post.from);
        let own = u16::try_from(post.from - first).unwrap();
        let is_ghost = (self.real()..70).contains(&post.from);
        match &post.request {
            Request::Advertise { .. } if self.gathered.entries.len() < WILLING => wait(),
            Request::Advertise { .. } => {
                let of = |device| self.gathered.entries[&device].clone();
                Some(Ok(unlisted(self.members(roster).map(of).collect())))
            }
            Request::ShareKeys { shares, .. } => {
                let mine = shares.iter().map(|share| ((roster, share.from, share.to), share.clone()));
                let before = self.sealed.len();
                self.sealed.extend(mine);
                self.shared += usize::from(self.sealed.len() > before);
                if self.shared < WILLING { wait() } else { Some(Ok(self.inbox(roster, own))) }
            }
            Request::MaskedChunk { .. } => Some(Ok(Reply::Received)),
            Request::MaskedDone { .. } if is_ghost => never(),
            Request::MaskedDone { .. } => Some(Ok(Reply::Survivors(self.survivors(roster)))),
            Request::Agree { .. } if self.gathered.signatures.len() < self.signers() => wait(),
            Request::Agree { .. } => Some(Ok(self.evidence(roster))),
            Request::Unmask { .. } => Some(Ok(Reply::Over(Outcome::Stopped))),
            Request::CheckIn(_)
            | Request::Fetch { .. }
            | Request::Join { .. }
            | Request::Decline { .. }
            | Request::Draw { .. } => post.pass(),
        }
    }

    /// Everybody shared, as this device is told.
    fn inbox(&self, roster: usize, to: u16) -> Reply {
        let len = u16::try_from(self.members(roster).len()).unwrap();
        let nonsense = |from| SealedShare { from, to, bytes: vec![0; SEALED_SHARE_BYTES] };
        let sealed = |from| self.sealed.get(&(roster, from, to)).cloned().unwrap_or_else(|| nonsense(from));
        let shares = (0..len).filter(|from| *from != to).map(sealed).collect();
        Reply::Inbox { sharers: IndexSet::full(len.into()), shares }
    }

    /// The best that there is.
    fn evidence(&self, roster: usize) -> Reply {
        let (members, survivors) = (self.members(roster), self.survivors(roster));
        let mut agreed = IndexSet::new(members.len());
        let signatures = survivors.iter().map(|place| {
            let device = members.start + usize::from(place);
            if self.roster_of(device).0 == roster {
                agreed.insert(place).unwrap();
                self.gathered.signatures[&device]
            } else {
                // A ghost signed with whom it masked, in the other roster.
                self.gathered.sharing.get(&device).copied().unwrap_or(Signature([0; 64]))
            }
        });
        let signatures = signatures.collect();
        Reply::Evidence(Evidence { agreed, signatures })
    }
}

#[test]
fn a_device_of_another_roster_of_the_session_does_not_count_as_survivor() {
    for ghosts in [5, 30] {
        let mut world = World::new(&wide_plan(WILLING, 100, 70), WILLING);
        let (gathered, sealed) = (Gathered::default(), BTreeMap::new());
        let mut lies = TwoRosters { ghosts, gathered, sealed, shared: 0 };
        world.run(|post| lies.answer(post));
        drop(lies);
        for place in 0..70 - ghosts {
            let index = u16::try_from(70 - ghosts).unwrap().into();
            let refusal = if ghosts == 5 {
                Refusal::Evidence(EvidenceError::Sharing { index })
            } else {
                Refusal::UnopenedShares { got: 30, most: 5 }
            };
            assert_eq!(world.refusal(place), refusal);
        }
        world.assert_silent(0..70 - ghosts);
        // The second roster is a round of its own, in which the ghosts are missing.
        assert!((70..WILLING).all(|place| world.log.left(place, "unmask") == 1));
        world.assert_nothing_published();
    }
}
