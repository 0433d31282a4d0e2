//! One test for each attack on a session over the complete graph, up to the agreement; on the sum: `unmasking.rs`.

#[path = "support/world.rs"]
mod world;

use nightshift_aggregation::{
    AdvertisementError, Context, Credential, CredentialError, DeviceIndex, Evidence, EvidenceError, IndexSet,
    ModelDigest, PlanDigest, Recovery, RecoveryError, Refusal, Roster, RosterError, SessionId, Signature,
};
use world::{NOW, World, advertise, context, device_id, identity, inbox, rng, set};

fn place(index: u16) -> DeviceIndex {
    DeviceIndex::from(index)
}

#[test]
fn split_survivor_views_get_no_quorum_on_either() {
    let world = World::new(6, &context());
    let views = [set(6, &[0, 1, 2, 3, 4]), set(6, &[0, 1, 2, 3, 5])];
    let signed = world.submitted(&world.all()).into_iter().map(|state| {
        let index = state.index();
        let view = usize::from(index.get() % 2 == 1);
        let identity = &world.identities[usize::from(index)];
        let (state, signature) = state.agree(views[view].clone(), identity).unwrap();
        (view, state, signature)
    });
    let signed: Vec<_> = signed.collect();
    // Neither the signatures of one view nor of both together convince anyone.
    let all: Vec<Signature> = signed.iter().map(|(_, _, signature)| *signature).collect();
    for (view, state, _) in signed {
        let survivors = views[view].iter();
        let signatures: Vec<Signature> = survivors.map(|place| all[usize::from(place)]).collect();
        let own = views[view].clone().without(&views[1 - view]);
        let agreed = if state.index() == 0 { own } else { views[view].clone() };
        let refusal = state.unmask(&Evidence { agreed, signatures }).unwrap_err();
        assert!(matches!(refusal, Refusal::Evidence(_)), "{refusal}");
    }
}

#[test]
fn a_quorum_needs_its_last_signature() {
    let world = World::new(6, &context());
    let (mut agreed, evidence) = world.agreed(&world.all());
    let sharing: Vec<Signature> =
        world.masking(&world.all()).into_iter().map(|state| world.submit(state, &mut [0; 4]).1).collect();
    let first = |count: u16| {
        let of = |place: usize| if place < usize::from(count) { &evidence.signatures } else { &sharing };
        let signatures = (0..6).map(|place| of(place)[place]).collect();
        Evidence { agreed: set(6, &(0..count).collect::<Vec<_>>()), signatures }
    };
    let too_few = Refusal::Evidence(EvidenceError::TooFew { got: 3, need: 4 });
    assert_eq!(agreed.remove(0).unmask(&first(3)), Err(too_few));
    assert!(agreed.remove(0).unmask(&first(4)).is_ok());
}

#[test]
fn forged_foreign_and_missing_signatures_are_no_evidence() {
    let world = World::new(6, &context());
    let survivors = set(6, &[0, 1, 2, 3, 4]);
    let (mut agreed, evidence) = world.agreed(&survivors);
    let mut refused = |change: &dyn Fn(&mut Evidence)| {
        let mut shown = evidence.clone();
        change(&mut shown);
        agreed.remove(0).unmask(&shown).unwrap_err()
    };
    let repeated = refused(&|shown| shown.signatures[1] = shown.signatures[0]);
    assert_eq!(repeated, EvidenceError::Transcript { index: place(1) }.into());
    let forged = refused(&|shown| shown.signatures[1].0[7] ^= 1);
    assert_eq!(forged, EvidenceError::Transcript { index: place(1) }.into());
    let missing = refused(&|shown| shown.agreed = world.all());
    assert_eq!(missing, EvidenceError::NotASurvivor { index: place(5) }.into());
    let of_another_kind = refused(&|shown| shown.agreed = set(6, &[0, 1, 2, 3]));
    assert_eq!(of_another_kind, EvidenceError::Sharing { index: place(4) }.into());
    let fewer = refused(&|shown| shown.signatures.truncate(4));
    assert_eq!(fewer, EvidenceError::NotEverySurvivor { got: 4, survivors: 5 }.into());
}

#[test]
fn a_roster_larger_than_the_cohort_or_with_a_corrupt_half_is_refused() {
    // In twice the cohort there may be twice as many corrupt devices: all that two quorums have in common.
    let world = World::new(8, &Context { cohort: 4, corrupt: 1, ..context() });
    let refused = world.share(0, world.roster.clone()).unwrap_err();
    assert_eq!(refused, Refusal::LargeCohort { got: 8, most: 4 });
    for (devices, refused) in [(4, Some(Refusal::SmallCohort { got: 4, need: 5 })), (5, None)] {
        let world = World::new(devices, &Context { cohort: 100, corrupt: 2, ..context() });
        assert_eq!(world.share(0, world.roster.clone()).err(), refused);
    }
}

#[test]
fn a_device_that_submitted_refuses_to_be_listed_missing() {
    let world = World::new(5, &context());
    let state = world.submitted(&world.all()).remove(1);
    let refusal = state.agree(set(5, &[0, 2, 3, 4]), &world.identities[1]).unwrap_err();
    assert_eq!(refusal, Refusal::ListedMissing);
}

#[test]
fn a_survivor_that_never_shared_is_refused() {
    let world = World::new(5, &context());
    let state = world.submitted(&set(5, &[0, 1, 2, 3])).remove(0);
    let refusal = state.agree(set(5, &[0, 1, 2, 4]), &world.identities[0]).unwrap_err();
    assert_eq!(refusal, Refusal::UnknownSurvivor { index: place(4) });
}

#[test]
fn survivors_below_the_report_goal_are_refused() {
    let world = World::new(6, &Context { report_goal: 5, ..context() });
    let survivors = set(6, &[0, 1, 2, 3]);
    let state = world.submitted(&world.all()).remove(0);
    let refusal = state.agree(survivors.clone(), &world.identities[0]).unwrap_err();
    assert_eq!(refusal, Refusal::FewSurvivors { got: 4, need: 5 });
    let (ctx, roster) = (world.ctx.clone(), world.roster.clone());
    let error = Recovery::new(ctx, roster, world.all(), survivors).unwrap_err();
    assert_eq!(error, RecoveryError::FewSurvivors { got: 4, need: 5 });
}

#[test]
fn survivors_below_the_threshold_are_refused() {
    let world = World::new(6, &context());
    let state = world.submitted(&world.all()).remove(0);
    let refusal = state.agree(set(6, &[0, 1, 2]), &world.identities[0]).unwrap_err();
    assert_eq!(refusal, Refusal::FewSurvivors { got: 3, need: 4 });
}

#[test]
fn survivors_over_another_roster_are_refused() {
    let world = World::new(3, &context());
    let state = world.submitted(&world.all()).remove(0);
    let refusal = state.agree(IndexSet::full(4), &world.identities[0]).unwrap_err();
    assert_eq!(refusal, Refusal::Places { got: 4, expected: 3 });
}

#[test]
fn another_devices_identity_cannot_sign() {
    let world = World::new(3, &context());
    let state = world.submitted(&world.all()).remove(0);
    let refusal = state.agree(world.all(), &world.identities[1]).unwrap_err();
    assert_eq!(refusal, Refusal::OtherIdentity);
}

#[test]
fn a_tiny_cohort_is_refused() {
    let world = World::new(3, &context());
    let (state, _, mut rng) = advertise(&world.ctx, 0);
    let authority = world.authority.public();
    let refused = state.share(world.roster.clone(), &authority, NOW, 4, &mut rng);
    assert_eq!(refused.unwrap_err(), Refusal::SmallCohort { got: 3, need: 4 });
}

#[test]
fn a_cohort_below_the_report_goal_is_refused() {
    let world = World::new(3, &Context { report_goal: 4, ..context() });
    let refused = world.share(0, world.roster.clone());
    assert_eq!(refused.unwrap_err(), Refusal::SmallCohort { got: 3, need: 4 });
}

#[test]
fn a_substituted_key_of_another_device_is_refused() {
    let world = World::new(3, &context());
    for change in [
        (|entry| entry.masking_key[0] ^= 1) as fn(&mut nightshift_aggregation::Advertisement),
        |entry| entry.sealing_key[0] ^= 1,
        |entry| entry.key_commitment[0] ^= 1,
        |entry| entry.self_commitment[0] ^= 1,
        |entry| entry.draw_commitment[0] ^= 1,
    ] {
        let mut entries = world.roster.entries().to_vec();
        change(&mut entries[2]);
        let refused = world.share(0, Roster::new(entries).unwrap());
        let expected = Refusal::Advertisement { index: place(2), source: AdvertisementError::Signature };
        assert_eq!(refused.unwrap_err(), expected);
    }
}

#[test]
fn a_substituted_own_entry_is_refused() {
    let world = World::new(3, &context());
    let mut entries = world.roster.entries().to_vec();
    let second = World::new(3, &Context { session: SessionId([7; 32]), ..context() });
    entries[0] = second.roster.entries()[0].clone();
    let refused = world.share(0, Roster::new(entries.clone()).unwrap());
    assert_eq!(refused.unwrap_err(), Refusal::OwnEntryChanged);
    entries.remove(0);
    let refused = world.share(0, Roster::new(entries).unwrap());
    assert_eq!(refused.unwrap_err(), Refusal::NotInRoster);
}

#[test]
fn an_invented_device_is_refused() {
    let world = World::new(3, &context());
    let server = identity(99);
    let credential = Credential::issue(&server, device_id(9), server.public(), NOW + 1);
    let drawn = &mut rng(9);
    let (_, invented) =
        nightshift_aggregation::Advertised::new(world.ctx.clone(), &server, credential, drawn);
    let mut entries = world.roster.entries().to_vec();
    entries.push(invented);
    let refused = world.share(0, Roster::new(entries).unwrap());
    let expected = Refusal::Advertisement { index: place(3), source: CredentialError::Signature.into() };
    assert_eq!(refused.unwrap_err(), expected);
}

#[test]
fn an_expired_credential_is_refused() {
    let world = World::new(3, &context());
    let (state, _, mut rng) = advertise(&world.ctx, 0);
    let authority = world.authority.public();
    let refused = state.share(world.roster.clone(), &authority, NOW + 1, 1, &mut rng);
    assert!(matches!(refused, Err(Refusal::Advertisement { .. })));
}

#[test]
fn a_replayed_advertisement_from_another_session_is_refused() {
    let world = World::new(3, &context());
    let earlier = World::new(3, &Context { session: SessionId([9; 32]), ..context() });
    let mut entries = world.roster.entries().to_vec();
    entries[1] = earlier.roster.entries()[1].clone();
    let refused = world.share(0, Roster::new(entries).unwrap());
    let expected = Refusal::Advertisement { index: place(1), source: AdvertisementError::Signature };
    assert_eq!(refused.unwrap_err(), expected);
}

#[test]
fn two_devices_with_two_models_or_plans_refuse_each_other() {
    for other in [
        Context { model_digest: ModelDigest([8; 32]), ..context() },
        Context { plan_digest: PlanDigest([8; 32]), ..context() },
        Context { report_goal: 2, ..context() },
        Context { corrupt: 1, ..context() },
        Context { cohort: 7, ..context() },
        Context { missing_fraction_permille: 0, ..context() },
    ] {
        let entries = vec![advertise(&context(), 0).1, advertise(&other, 1).1, advertise(&context(), 2).1];
        let roster = Roster::new(entries).unwrap();
        for device in [0, 1] {
            let ctx = if device == 0 { context() } else { other.clone() };
            let refused = World::new(3, &ctx).share(device, roster.clone());
            assert!(matches!(refused, Err(Refusal::Advertisement { .. })));
        }
    }
}

#[test]
fn a_point_of_low_order_is_refused_although_it_is_signed() {
    let world = World::new(3, &context());
    for low_order_key in 0..2 {
        let mut entry = world.roster.entries()[2].clone();
        match low_order_key {
            0 => entry.masking_key = [0; 32],
            _ => entry.sealing_key = [0; 32],
        }
        let digest = world.ctx.digest();
        let parts: [&[u8]; 7] = [
            &digest,
            &entry.credential.device,
            &entry.masking_key,
            &entry.sealing_key,
            &entry.key_commitment,
            &entry.self_commitment,
            &entry.draw_commitment,
        ];
        entry.signature = world.identities[2].sign("advertisement", &parts);
        let mut entries = world.roster.entries().to_vec();
        entries[2] = entry;
        let refused = world.share(0, Roster::new(entries).unwrap());
        assert_eq!(refused.unwrap_err(), Refusal::LowOrderKey { index: place(2) });
    }
}

#[test]
fn a_device_cannot_be_in_the_roster_twice() {
    let world = World::new(2, &context());
    let mut entries = world.roster.entries().to_vec();
    entries.push(entries[0].clone());
    assert_eq!(Roster::new(entries), Err(RosterError::RepeatedDevice));
}

#[test]
fn sharers_without_this_device_or_too_few_are_refused() {
    let world = World::new(5, &context());
    let refused = |sharers: IndexSet| {
        let (mut states, sealed) = world.shared(&world.all());
        states.remove(0).receive(sharers, inbox(&sealed, 0)).unwrap_err()
    };
    assert_eq!(refused(set(5, &[1, 2, 3])), Refusal::NotASharer);
    assert_eq!(refused(set(5, &[0, 1])), Refusal::FewSharers { got: 2, need: 3 });
    assert_eq!(refused(IndexSet::full(6)), Refusal::Places { got: 6, expected: 5 });
}

#[test]
fn an_inbox_that_is_not_one_share_from_each_sharer_is_refused() {
    let world = World::new(4, &context());
    let sharers = set(4, &[0, 1, 2]);
    let refused = |change: &dyn Fn(&mut Vec<nightshift_aggregation::SealedShare>)| {
        let (mut states, sealed) = world.shared(&world.all());
        let mut received = inbox(&sealed, 0);
        received.retain(|share| share.from != 3);
        change(&mut received);
        states.remove(0).receive(sharers.clone(), received).unwrap_err()
    };
    let missing = refused(&|inbox| drop(inbox.pop()));
    assert_eq!(missing, Refusal::MissingShare { from: place(2) });
    let repeated = refused(&|inbox| inbox.push(inbox[0].clone()));
    assert_eq!(repeated, Refusal::RepeatedShare { from: place(1) });
    let unknown = refused(&|inbox| inbox[0].from = 3);
    assert_eq!(unknown, Refusal::UnexpectedShare { from: place(3) });
    let own = refused(&|inbox| inbox[0].from = 0);
    assert_eq!(own, Refusal::UnexpectedShare { from: place(0) });
    let other = refused(&|inbox| inbox[0].to = 2);
    assert_eq!(other, Refusal::Misdelivered { to: place(2), own: place(0) });
}

#[test]
fn the_transcript_changes_with_everything_that_it_states() {
    let world = World::new(3, &context());
    let all = world.all();
    let fewer = set(3, &[0, 1]);
    let digest = |ctx: &Context, sharers: &IndexSet, survivors: &IndexSet| {
        nightshift_aggregation::Transcript::new(ctx, &world.roster, sharers, survivors).digest()
    };
    let base = digest(&world.ctx, &all, &all);
    assert_eq!(base, world.transcript(&all).digest());
    assert_ne!(base, digest(&world.ctx, &all, &fewer));
    assert_ne!(base, digest(&world.ctx, &fewer, &all));
    for ctx in [
        Context { session: SessionId([9; 32]), ..context() },
        Context { round: 9, ..context() },
        Context { model_digest: ModelDigest([9; 32]), ..context() },
        Context { plan_digest: PlanDigest([9; 32]), ..context() },
    ] {
        assert_ne!(base, digest(&ctx, &all, &all));
    }
    let other = World::new(4, &context());
    let roster = Roster::new(other.roster.entries()[1..].to_vec()).unwrap();
    let moved = nightshift_aggregation::Transcript::new(&world.ctx, &roster, &all, &all);
    assert_ne!(base, moved.digest());
}

#[test]
fn no_state_prints_a_secret() {
    let world = World::new(2, &context());
    let (state, _, _) = advertise(&world.ctx, 0);
    let printed = format!("{state:?}");
    assert!(printed.contains("key_seed: Seed(..)"), "{printed}");
    let printed = format!("{:?}", world.revealed(&world.all()));
    assert!(printed.contains("Share(..)"), "{printed}");
    assert_eq!(format!("{:?}", world.authority), "IdentityKey(..)");
}
