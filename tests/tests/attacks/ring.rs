//! Cohorts above the complete graph: who chooses who is whose neighbour, and who must not be missing at once.

use aggregation::{
    Advertised, Advertisement, Context, Credential, DeviceIndex, Draw, IndexSet, MAX_DRAWS, Refusal, Roster,
    RosterError, SealedShare,
};
use proto::message::{Reply, Request};
use proto::plan::Plan;
use session::Ended;

use super::hand::{Answer, DAWN, Post, unlisted};
use super::setting::{authority, context, id, identity, plan, rng};
use super::world::World;

const DEVICES: usize = 300;

/// A plan for [`DEVICES`] devices, each with a coordinate of its own.
fn large_plan(report_goal: usize) -> Plan {
    let mut plan = plan(DEVICES, report_goal);
    plan.adapter.modules[0].outputs = u32::try_from(DEVICES).unwrap();
    plan.with_recommended_scale().unwrap()
}

/// Device 0, and a coordinator that plays all others: they work with it, or it made up what they do.
struct Alone {
    world: World,
    plan: Plan,
}

/// What the coordinator knows in a round: the context, and the others' states.
struct Crowd {
    context: Context,
    states: Vec<Advertised>,
    entries: Vec<Advertisement>,
}

impl Alone {
    fn new() -> Self {
        let plan = large_plan(200);
        Self { world: World::new(&plan, 1), plan }
    }

    /// Lets device 0 join; from then on `answer` says what it hears.
    fn run(&mut self, mut answer: impl FnMut(&mut Crowd, &Request) -> Reply) {
        let plan = self.plan.clone();
        let mut crowd = None;
        self.world.run(|post| {
            let Some(session) = post.request.session() else { return post.pass() };
            let published = post.coordinator.task.published();
            let context = || context(&plan, &published, session, 1);
            let crowd = crowd.get_or_insert_with(|| Crowd::new(context()));
            if let Request::Advertise { advertisement, .. } = &post.request {
                crowd.entries.truncate(DEVICES - 1);
                crowd.entries.push((**advertisement).clone());
                crowd.entries.rotate_right(1);
                return Some(Ok(unlisted(crowd.entries.clone())));
            }
            Some(Ok(answer(crowd, &post.request)))
        });
    }

    /// Panics unless device 0 gave away nothing of its seeds.
    fn assert_shared_nothing(&self) {
        assert_eq!(self.world.log.left(0, "share keys"), 0);
        self.world.assert_silent([0]);
    }

    fn roster_error(&self) -> RosterError {
        let ended = self.world.ended(0);
        let Ended::Roster(error) = ended else { panic!("{ended:?}") };
        *error
    }
}

impl Crowd {
    fn new(context: Context) -> Self {
        let (states, entries) = (1..DEVICES)
            .map(|place| {
                let identity = identity(place);
                let credential = Credential::issue(&authority(), id(place).0, identity.public(), u64::MAX);
                Advertised::new(context.clone(), &identity, credential, &mut rng(place as u64))
            })
            .unzip();
        Self { context, states, entries }
    }

    /// The nonces of a draw over the first `cohort` devices, with that of device 0.
    fn nonces(&mut self, draw: &Draw, own: [u8; 32]) -> Vec<[u8; 32]> {
        let others = self.states.iter_mut().take(draw.entries().len() - 1);
        std::iter::once(own).chain(others.map(|state| state.reveal(draw).unwrap())).collect()
    }

    fn draw(&self, cohort: usize, attempt: u8) -> Draw {
        Draw::new(&self.context, self.entries[..cohort].to_vec(), attempt).unwrap()
    }

    /// What these neighbours of device 0 seal for it.
    fn shares_for_zero(&mut self, roster: &Roster, sharers: &IndexSet) -> Vec<SealedShare> {
        let neighbors = roster.graph().neighbors(0.into());
        let (mut left, mut shares) = (Vec::new(), Vec::new());
        for (place, state) in (1..).zip(self.states.drain(..)) {
            if !neighbors.contains(&DeviceIndex::from(place)) || !sharers.contains(place) {
                left.push(state);
                continue;
            }
            let rng = &mut rng(u64::from(place) + 7000);
            let sealed = state.share(roster.clone(), &authority().public(), 0, 1, rng).unwrap().1;
            shares.extend(sealed.into_iter().filter(|share| share.to == 0));
        }
        self.states = left;
        shares
    }

    fn roster(&mut self, own: [u8; 32]) -> Roster {
        let draw = self.draw(DEVICES, 0);
        let nonces = self.nonces(&draw, own);
        draw.finish(&nonces).unwrap()
    }
}

fn nonce(request: &Request) -> [u8; 32] {
    let Request::Draw { nonce, .. } = request else { panic!("{request:?}") };
    *nonce
}

#[test]
fn a_nonce_that_was_chosen_after_the_others_is_refused() {
    let mut alone = Alone::new();
    alone.run(|crowd, request| {
        let draw = crowd.draw(DEVICES, 0);
        let mut nonces = crowd.nonces(&draw, nonce(request));
        nonces[7] = [7; 32];
        Reply::Drawn(nonces)
    });
    assert_eq!(alone.roster_error(), RosterError::Nonce { index: 7.into() });
    alone.assert_shared_nothing();
}

#[test]
fn a_draw_with_nonces_left_out_is_refused() {
    let mut alone = Alone::new();
    alone.run(|crowd, request| {
        let draw = crowd.draw(DEVICES, 0);
        Reply::Drawn(crowd.nonces(&draw, nonce(request))[..DEVICES - 1].to_vec())
    });
    let expected = RosterError::Nonces { got: DEVICES - 1, expected: DEVICES };
    assert_eq!(alone.roster_error(), expected);
    alone.assert_shared_nothing();
}

#[test]
fn an_order_that_does_not_please_costs_fresh_nonces_and_a_session_has_few_draws() {
    // The coordinator, which knows every nonce, leaves out one device after the other until it likes the order.
    let mut alone = Alone::new();
    let mut seen = Vec::new();
    alone.run(|crowd, request| {
        seen.push(nonce(request));
        unlisted(crowd.entries[..DEVICES - seen.len()].to_vec())
    });
    assert_eq!(alone.roster_error(), RosterError::DrawsSpent);
    assert_eq!(seen.len(), usize::from(MAX_DRAWS));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), usize::from(MAX_DRAWS), "a nonce was told twice");
    alone.assert_shared_nothing();
}

#[test]
fn an_order_from_an_earlier_draw_is_refused() {
    // It liked the first order better, but has asked for a second one.
    let mut alone = Alone::new();
    let mut first = None;
    alone.run(|crowd, request| match first.take() {
        None => {
            first = Some(nonce(request));
            unlisted(crowd.entries.clone())
        }
        Some(own) => {
            let draw = crowd.draw(DEVICES, 0);
            Reply::Drawn(crowd.nonces(&draw, own))
        }
    });
    assert_eq!(alone.roster_error(), RosterError::Nonce { index: 0.into() });
    alone.assert_shared_nothing();
}

#[test]
fn a_device_helps_to_draw_few_graphs_a_day_and_remembers_them_when_it_is_restarted() {
    for (before, helps) in [(49, true), (50, false)] {
        let mut alone = Alone::new();
        alone.world.nodes[0].drawn = vec![DAWN; before];
        alone.world.restart(0);
        alone.run(|_, _| Reply::wait(60_000_000));
        assert_eq!(alone.world.log.left(0, "draw"), usize::from(helps));
        if helps {
            assert_eq!(alone.world.nodes[0].drawn.len(), 50, "written down before the nonce left");
        } else {
            assert!(matches!(alone.world.ended(0), Ended::Draws(50)), "{:?}", alone.world.ended(0));
        }
    }
}

/// Plays an honest round for device 0, up to who shared and who survived.
fn until_survivors(sharers: impl Fn(&Roster) -> IndexSet, survivors: impl Fn(&Roster) -> IndexSet) -> Alone {
    let mut alone = Alone::new();
    let mut roster = None;
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing comes of what it sends later")]
    alone.run(|crowd, request| match request {
        Request::Draw { nonce, .. } => {
            roster = Some(crowd.roster(*nonce));
            let draw = crowd.draw(DEVICES, 0);
            Reply::Drawn(crowd.nonces(&draw, *nonce))
        }
        Request::ShareKeys { .. } => {
            let roster = roster.as_ref().unwrap();
            let sharers = sharers(roster);
            Reply::Inbox { shares: crowd.shares_for_zero(roster, &sharers), sharers }
        }
        Request::MaskedChunk { .. } => Reply::Received,
        Request::MaskedDone { .. } => Reply::Survivors(survivors(roster.as_ref().unwrap())),
        _ => Reply::wait(60_000_000),
    });
    alone
}

fn all_but(places: impl IntoIterator<Item = DeviceIndex>) -> IndexSet {
    let mut set = IndexSet::full(DEVICES);
    for place in places {
        set.remove(place);
    }
    set
}

#[test]
fn drop_outs_that_are_chosen_to_cut_the_graph_are_refused() {
    let around = |roster: &Roster| all_but(roster.graph().neighbors(0.into()));
    let alone = until_survivors(|_| IndexSet::full(DEVICES), around);
    let refusal = alone.world.refusal(0);
    assert!(matches!(refusal, Refusal::ThinWindow { got: 0..16, need: 16, .. }), "{refusal}");
    assert_eq!(alone.world.log.left(0, "agree"), 0);
    alone.world.assert_silent([0]);
}

#[test]
fn as_many_drop_outs_that_are_not_chosen_are_signed() {
    // The control: every third device is missing, more than a device has neighbours.
    let spread = |_: &Roster| all_but((1..100).map(|step| DeviceIndex::from(3 * step)));
    let alone = until_survivors(|_| IndexSet::full(DEVICES), spread);
    assert!(alone.world.nodes[0].ended.is_empty());
    assert_eq!(alone.world.log.left(0, "agree"), 1);
}

#[test]
fn a_device_whose_neighbors_are_said_to_be_gone_does_not_submit() {
    let lonely = |roster: &Roster| all_but(roster.graph().neighbors(0.into()).into_iter().skip(15));
    let alone = until_survivors(lonely, |_| unreachable_set());
    assert_eq!(alone.world.refusal(0), Refusal::FewNeighbors { got: 15, need: 16 });
    assert_eq!(alone.world.log.left(0, "masked chunk"), 0);
    alone.world.assert_silent([0]);
}

fn unreachable_set() -> IndexSet {
    panic!("the device submitted")
}

#[test]
fn three_hundred_devices_draw_twice_and_publish_the_sum_of_those_that_stay() {
    let mut world = World::new(&large_plan(200), DEVICES);
    // Device 7 vanishes in the first draw; every tenth other one after it shared.
    let vanishes = |post: &Post<'_>| {
        (post.from == 7 && post.is("draw")) || (post.from % 10 == 3 && post.is("masked chunk"))
    };
    let mut draws = std::collections::BTreeSet::new();
    world.run(|post| -> Answer {
        if vanishes(post) {
            return None;
        }
        if let (0, Request::Draw { nonce, .. }) = (post.from, &post.request) {
            draws.insert(*nonce);
        }
        post.pass()
    });
    assert_eq!(draws.len(), 2, "the first draw was given up");
    let stayed: Vec<usize> = (0..DEVICES).filter(|place| *place != 7 && place % 10 != 3).collect();
    world.assert_sum_of(&stayed);
    assert_eq!(world.coordinator.record.versions[0].cohort, 299);
}
