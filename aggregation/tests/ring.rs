//! Sessions above the complete graph: over a ring whose order is drawn.
#![expect(clippy::unwrap_used, reason = "helpers of tests; only their bodies are exempt by configuration")]

#[path = "support/world.rs"]
mod world;

use std::sync::LazyLock;

use nightshift_aggregation::{
    Advertised, Advertisement, Context, Credential, CredentialError, DeviceIndex, Draw, Evidence, IndexSet,
    MAX_DRAWS, Refusal, Roster, RosterError, SessionId,
};
use world::{Fate, NOW, World, advertise, context_of, device_id, identity, rng, sealed_for, sealed_in};

const DEVICES: usize = 300;

fn context() -> Context {
    context_of(DEVICES)
}

static WORLD: LazyLock<World> = LazyLock::new(|| World::new(DEVICES, &context()));

fn entries() -> Vec<Advertisement> {
    WORLD.roster.entries().to_vec()
}

fn draw(entries: Vec<Advertisement>, attempt: u8) -> Draw {
    Draw::new(&WORLD.ctx, entries, attempt).unwrap()
}

fn device(number: usize) -> Advertised {
    advertise(&WORLD.ctx, number).0
}

/// What every device but those from `first` on says to a draw.
fn nonces(draw: &Draw, first: usize) -> Vec<[u8; 32]> {
    (0..first).map(|number| device(number).reveal(draw).unwrap()).collect()
}

fn neighborhood(of: DeviceIndex) -> Vec<DeviceIndex> {
    WORLD.roster.graph().neighbors(of)
}

#[test]
fn one_hot_inputs_of_a_large_cohort_show_every_survivor_exactly_once() {
    let ctx = Context { len: DEVICES, ring_bits: 9, ..context() };
    let fates: Vec<Fate> = (0..DEVICES)
        .map(|device| match device % 10 {
            1 => Fate::BeforeSharing,
            4 | 7 => Fate::BeforeSubmitting,
            _ => Fate::Stays,
        })
        .collect();
    let one_hot: Vec<Vec<u32>> =
        (0..DEVICES).map(|device| (0..DEVICES).map(|place| u32::from(place == device)).collect()).collect();
    let run = World::new(DEVICES, &ctx).run(&fates, &one_hot);
    assert_eq!(run.error, None);
    let expected = fates.iter().map(|fate| u32::from(*fate == Fate::Stays)).collect();
    assert_eq!(run.sum, Some(expected));
}

#[test]
fn the_order_depends_on_the_nonce_of_every_device() {
    let drawn = draw(entries(), 0);
    let roster = drawn.clone().finish(&nonces(&drawn, DEVICES)).unwrap();
    assert_eq!(roster, WORLD.roster);
    for changed in [0, DEVICES - 1] {
        let mut entries = entries();
        let credential = entries[changed].credential.clone();
        let (mut state, entry) =
            Advertised::new(context(), &identity(changed), credential, &mut rng(changed + 1000));
        entries[changed] = entry;
        let other = draw(entries, 0);
        let mut said = nonces(&drawn, DEVICES);
        said[changed] = state.reveal(&other).unwrap();
        let other = other.finish(&said).unwrap();
        assert_ne!(other.graph(), roster.graph());
        assert_ne!(other.root(), roster.root());
    }
}

#[test]
fn a_server_cannot_put_in_a_nonce_of_its_own_or_leave_one_out() {
    let drawn = draw(entries(), 0);
    let mut chosen = nonces(&drawn, DEVICES);
    chosen[7] = [7; 32];
    assert_eq!(drawn.clone().finish(&chosen), Err(RosterError::Nonce { index: 7.into() }));
    let fewer = nonces(&drawn, DEVICES - 1);
    let expected = RosterError::Nonces { got: DEVICES - 1, expected: DEVICES };
    assert_eq!(drawn.finish(&fewer), Err(expected));
}

#[test]
fn a_device_opens_its_commitment_once_for_each_draw() {
    let mut state = device(0);
    let first = draw(entries(), 0);
    let nonce = state.reveal(&first).unwrap();
    assert!(first.opens(0, &nonce) && !first.opens(1, &nonce));
    assert_eq!(state.reveal(&first), Ok(nonce));

    // The server has seen the nonce and would choose another roster for it.
    let smaller = draw(entries()[..DEVICES - 1].to_vec(), 0);
    assert_eq!(state.reveal(&smaller), Err(Refusal::EarlierDraw { last: 0, attempt: 0 }));
    let roster = smaller.clone().finish(&nonces(&smaller, DEVICES - 1)).unwrap();
    let authority = WORLD.authority.public();
    let refused = state.share(roster, &authority, NOW, 1, &mut rng(0));
    assert_eq!(refused.unwrap_err(), Refusal::OtherDraw);
}

#[test]
fn a_further_draw_takes_fresh_nonces_and_cannot_go_back() {
    let mut state = device(0);
    let first = draw(entries(), 0);
    let second = draw(entries()[..DEVICES - 3].to_vec(), 1);
    let known = state.reveal(&first).unwrap();
    let fresh = state.reveal(&second).unwrap();
    assert!(second.opens(0, &fresh) && !second.opens(0, &known) && !first.opens(0, &fresh));
    assert_eq!(state.reveal(&first), Err(Refusal::EarlierDraw { last: 1, attempt: 0 }));

    let roster = second.clone().finish(&nonces(&second, DEVICES - 3)).unwrap();
    assert_ne!(roster.root(), draw(entries()[..DEVICES - 3].to_vec(), 0).root());
    assert!(state.share(roster, &WORLD.authority.public(), NOW, 1, &mut rng(0)).is_ok());
}

#[test]
fn a_session_has_few_draws() {
    assert_eq!(Draw::new(&WORLD.ctx, entries(), MAX_DRAWS), Err(RosterError::DrawsSpent));
    assert!(Draw::new(&WORLD.ctx, entries(), MAX_DRAWS - 1).is_ok());
}

#[test]
fn a_graph_that_was_not_drawn_with_this_device_is_refused() {
    let refused = device(0).share(WORLD.roster.clone(), &WORLD.authority.public(), NOW, 1, &mut rng(0));
    assert_eq!(refused.unwrap_err(), Refusal::OtherDraw);
    let mut changed = entries();
    changed[0] = advertise(&Context { session: SessionId([7; 32]), ..context() }, 0).1;
    assert_eq!(device(0).reveal(&draw(changed, 0)), Err(Refusal::OwnEntryChanged));
    assert_eq!(device(DEVICES).reveal(&draw(entries(), 0)), Err(Refusal::NotInRoster));
}

#[test]
fn only_large_cohorts_are_drawn_and_only_small_ones_are_complete() {
    let size = RosterError::Size { got: DEVICES, least: 1, most: 256 };
    assert_eq!(Roster::new(entries()), Err(size));
    let size = RosterError::Size { got: 256, least: 257, most: 1024 };
    assert_eq!(Draw::new(&WORLD.ctx, entries()[..256].to_vec(), 0), Err(size));
    let unsafe_fractions = Context { corrupt: DEVICES / 2 - 1, missing_fraction_permille: 500, ..context() };
    assert_eq!(Draw::new(&unsafe_fractions, entries(), 0), Err(RosterError::NoGraph { got: DEVICES }));
}

#[test]
fn drop_outs_that_cut_the_graph_are_refused() {
    // The neighbours of one device are lost, by a server that knows the order.
    let lost = neighborhood(0.into());
    let mut survivors = IndexSet::full(DEVICES);
    for place in lost.iter().filter(|place| **place != 1_u16) {
        survivors.remove(*place);
    }
    let state = submitted_alone(1);
    let refusal = state.agree(survivors.clone(), &WORLD.identities[1]).unwrap_err();
    let Refusal::ThinWindow { got, need, .. } = refusal else { panic!("{refusal}") };
    assert!(got < need);
    assert_eq!(need, 16);

    // As many drop-outs that are not chosen leave every stretch thick.
    let mut spread = IndexSet::full(DEVICES);
    for place in (0..lost.len()).map(|step| u16::try_from(3 * step + 2).unwrap()) {
        spread.remove(place);
    }
    assert!(spread.len() <= survivors.len());
    assert!(submitted_alone(1).agree(spread, &WORLD.identities[1]).is_ok());
}

/// A device after it submitted.
fn submitted_alone(number: usize) -> nightshift_aggregation::Submitted {
    let (shared, _) = WORLD.share(number, WORLD.roster.clone()).unwrap();
    let inbox = sealed_for(&WORLD, shared.index());
    let masking = shared.receive(WORLD.all(), inbox).unwrap();
    WORLD.submit(masking, &mut [0; 4]).0
}

#[test]
fn more_shares_that_do_not_open_than_may_be_corrupt_are_a_reason_to_leave() {
    let inbox = sealed_for(&WORLD, 0.into());
    for (spoilt, refused) in [(15, false), (16, true)] {
        let (shared, _) = WORLD.share(0, WORLD.roster.clone()).unwrap();
        let mut inbox = inbox.clone();
        for share in inbox.iter_mut().take(spoilt) {
            share.bytes[7] ^= 1;
        }
        let refusal = shared.receive(WORLD.all(), inbox).err();
        assert_eq!(refusal, refused.then_some(Refusal::UnopenedShares { got: 16, most: 15 }));
    }
}

#[test]
fn a_device_with_too_few_neighbors_left_refuses() {
    let (shared, _) = WORLD.share(0, WORLD.roster.clone()).unwrap();
    let mut sharers = IndexSet::full(DEVICES);
    for place in neighborhood(0.into()).into_iter().skip(15) {
        sharers.remove(place);
    }
    let refusal = shared.receive(sharers, Vec::new()).unwrap_err();
    assert_eq!(refusal, Refusal::FewNeighbors { got: 15, need: 16 });
}

#[test]
fn a_share_from_a_device_that_is_no_neighbor_is_refused() {
    let stranger = WORLD
        .roster
        .graph()
        .places()
        .find(|place| *place != 0_u16 && !WORLD.roster.graph().are_neighbors(0.into(), *place));
    let (shared, _) = WORLD.share(0, WORLD.roster.clone()).unwrap();
    let from = stranger.unwrap();
    let inbox = vec![nightshift_aggregation::SealedShare { from: from.get(), to: 0, bytes: vec![0; 96] }];
    assert_eq!(shared.receive(WORLD.all(), inbox).unwrap_err(), Refusal::UnexpectedShare { from });
}

#[test]
fn a_signer_that_was_never_enrolled_does_not_count() {
    // A device far away on the ring whose credential is the server's work: its
    // neighbours would refuse it, the others see it when it signs.
    let server = identity(5000);
    let mut entries = entries();
    let credential = Credential::issue(&server, device_id(9), server.public(), NOW + 1);
    let (mut invented, entry) = Advertised::new(context(), &server, credential, &mut rng(5000));
    entries[9] = entry;
    let drawn = draw(entries, 0);
    let mut said = nonces(&WORLD.draw.clone().unwrap(), DEVICES);
    said[9] = invented.reveal(&drawn).unwrap();
    let roster = drawn.clone().finish(&said).unwrap();
    let graph = roster.graph();
    // Nor is any of its neighbours one of the invented device's: those leave.
    let far = |place: &DeviceIndex| {
        *place != 9_u16
            && graph.places().all(|other| {
                let near = |place| other == place || graph.are_neighbors(other, place);
                !(near(*place) && near(9.into()))
            })
    };
    let witness = usize::from(graph.places().find(far).unwrap());

    let inbox = sealed_in(&WORLD, &roster, Some(&drawn), roster.index_of(&device_id(witness)).unwrap());
    let agree = || {
        let mut state = device(witness);
        state.reveal(&drawn).unwrap();
        let authority = WORLD.authority.public();
        let (shared, _) = state.share(roster.clone(), &authority, NOW, 1, &mut rng(witness)).unwrap();
        let masking = shared.receive(WORLD.all(), inbox.clone()).unwrap();
        let submitted = WORLD.submit(masking, &mut [0; 4]).0;
        let sharing = submitted.sharing().digest();
        let (agreed, own) = submitted.agree(WORLD.all(), &WORLD.identities[witness]).unwrap();
        (agreed, own, sharing)
    };
    // Whether it is one of the quorum or only one that survived.
    for in_quorum in [true, false] {
        let (agreed, own, sharing) = agree();
        let digest = agreed.transcript().digest();
        let quorum = agreed.transcript().quorum();
        let mut who = IndexSet::new(DEVICES);
        let others = (0..DEVICES).filter(|number| *number != witness && (in_quorum || *number != 9));
        for number in others.take(quorum - 1).chain([witness]) {
            who.insert(u16::try_from(number).unwrap()).unwrap();
        }
        let sign = |number: usize| {
            let key = if number == 9 { &server } else { &WORLD.identities[number] };
            match who.contains(u16::try_from(number).unwrap()) {
                true if number == witness => own,
                true => key.sign("consistency", &[&digest]),
                false => key.sign("sharing", &[&sharing]),
            }
        };
        let signatures = (0..DEVICES).map(sign).collect();
        let refusal = agreed.unmask(&Evidence { agreed: who, signatures }).unwrap_err();
        let source = CredentialError::Signature.into();
        assert_eq!(refusal, Refusal::Advertisement { index: 9.into(), source });
    }
}
