use std::collections::{BTreeMap, BTreeSet};

use aggregation::IdentityKey;
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;
const TERMS: Terms =
    Terms { credential_secs: 30 * DAY_SECS, renewal_grace_secs: 10 * DAY_SECS, most_enrolled_a_day: 2 };

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

fn asked(token: u8, identity: u8) -> Enrollment {
    Enrollment::new(&key(100 + token), format!("request of {identity}"), &key(identity))
}

fn device(identity: u8, issued_unix_secs: u64) -> Device {
    Device {
        label: "anna".into(),
        identity: Digest(key(identity).public().0),
        enrolled_unix_secs: issued_unix_secs,
        stated: Statement {
            issued_unix_secs,
            expires_unix_secs: issued_unix_secs + TERMS.credential_secs,
            place: 0,
            signature: String::new(),
        },
        attested: None,
        revoked_unix_secs: None,
    }
}

#[test]
fn a_proof_enrolls_nobody_else() {
    let token = Token::new("anna", NOW, NOW + 60);
    let known = Known { token: Some(&token), device: None, enrolled_today: 0 };
    let seen = asked(1, 1);
    assert_eq!(enroll(&TERMS, known, &seen, NOW), Ok(Enrolling::New));
    let own = asked(2, 2);
    let stolen = Enrollment { token: seen.token, token_proof: seen.token_proof, ..own.clone() };
    assert_eq!(enroll(&TERMS, known, &stolen, NOW), Err(Refusal::Unproved));
    // Signed by the liar's own identity over the token that was seen: the token's key is what is missing.
    let request = own.certificate_request_pem;
    let mut redirected = Enrollment::new(&key(2), request, &key(2));
    redirected.token = seen.token;
    let parts: [&[u8]; 4] =
        [&seen.token.0, &redirected.identity.0, redirected.certificate_request_pem.as_bytes(), &[]];
    redirected.proof = key(2).sign("nightshift v2 enrolment", &parts);
    redirected.token_proof = seen.token_proof;
    assert!(redirected.is_proved());
    assert_eq!(enroll(&TERMS, known, &redirected, NOW), Err(Refusal::NotByToken));
}

#[test]
fn a_device_that_comes_again_is_the_one_that_it_was_and_a_revoked_one_is_none() {
    let (token, id) = (Token::new("anna", NOW, NOW + 60), DeviceId([7; 16]));
    let before = device(1, NOW - DAY_SECS);
    let known = Known { token: Some(&token), device: Some((id, &before)), enrolled_today: 2 };
    assert_eq!(
        enroll(&TERMS, known, &asked(1, 1), NOW),
        Ok(Enrolling::Again(id)),
        "no day is too full for it"
    );
    let revoked = Device { revoked_unix_secs: Some(NOW - 5), ..before.clone() };
    let known = Known { device: Some((id, &revoked)), ..known };
    assert_eq!(enroll(&TERMS, known, &asked(1, 1), NOW), Err(Refusal::Revoked));
}

#[test]
fn a_lost_answer_is_given_again_as_long_as_it_holds() {
    let id = DeviceId([7; 16]);
    let token = Token::new("anna", NOW, NOW + 90 * DAY_SECS).redeemed(key(1).public(), NOW);
    let stated = device(1, NOW);
    let known = Known { token: Some(&token), device: Some((id, &stated)), enrolled_today: 2 };
    assert_eq!(enroll(&TERMS, known, &asked(1, 1), NOW + 1), Ok(Enrolling::Repeats(id)));
    let redeemed = Err(TokenRefusal::Redeemed.into());
    assert_eq!(enroll(&TERMS, known, &asked(1, 1), NOW + 30 * DAY_SECS), redeemed);
    assert_eq!(enroll(&TERMS, Known { device: None, ..known }, &asked(1, 2), NOW + 1), redeemed);
}

#[test]
fn a_full_day_is_over_at_midnight() {
    let token = Token::new("anna", NOW, NOW + 60);
    let known = |enrolled_today| Known { token: Some(&token), device: None, enrolled_today };
    assert_eq!(enroll(&TERMS, known(1), &asked(1, 1), NOW), Ok(Enrolling::New));
    let full = enroll(&TERMS, known(2), &asked(1, 1), NOW).unwrap_err();
    assert!(full.to_string().contains("2 new devices a day") && full.to_string().contains("tomorrow"));
    assert_eq!((day(86_399), day(86_400)), (0, 1));
}

#[test]
fn a_device_is_renewed_by_its_key_within_its_grace_and_answered_the_same_while_it_is_early() {
    let (id, known) = (DeviceId([7; 16]), device(1, NOW));
    let asked = |seed| Renewal::new(id, "request".into(), &key(seed));
    let renewed = |seed, at| renew(&TERMS, Some(&known), &asked(seed), at);
    let third = known.stated.expires_unix_secs.abs_diff(NOW) / 3;
    assert_eq!(renewed(1, NOW + third), Ok(Renewing::States));
    assert_eq!(renewed(1, NOW + third - 1), Ok(Renewing::Repeats));
    assert_eq!(renewed(1, NOW), Ok(Renewing::Repeats));
    assert_eq!(renewed(1, NOW - 1000), Ok(Renewing::States), "the clock was mended");
    assert_eq!(renewed(2, NOW + 60), Err(Refusal::NotEnrolled));
    assert_eq!(renewed(1, NOW + 40 * DAY_SECS), Ok(Renewing::States));
    let late = renewed(1, NOW + 40 * DAY_SECS + 1);
    assert_eq!(late, Err(Refusal::EndedLongAgo { days: 10 }));
    assert_eq!(renew(&TERMS, None, &asked(1), NOW + 60), Err(Refusal::NotEnrolled));
    let revoked = Device { revoked_unix_secs: Some(NOW), ..known.clone() };
    assert_eq!(renew(&TERMS, Some(&revoked), &asked(1), NOW + 60), Err(Refusal::NotEnrolled));
}

/// One step of somebody: who shows which token, as of how much later; or a revocation.
#[derive(Clone, Debug)]
enum Step {
    Enroll { token: u8, identity: u8, secs: u64 },
    RevokeToken(u8),
    RevokeDevice(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6_u8, 0..5_u8, prop_oneof![Just(1), Just(3600), Just(DAY_SECS)])
            .prop_map(|(token, identity, secs)| Step::Enroll { token, identity, secs }),
        1 => (0..6_u8).prop_map(Step::RevokeToken),
        1 => (0..5_u8).prop_map(Step::RevokeDevice),
    ]
}

proptest! {
    /// Whatever comes in whatever order: no token makes two devices, no key two devices, no day more than its limit.
    #[test]
    fn no_token_counts_twice_and_no_day_is_fuller_than_it_may_be(steps in prop::collection::vec(step(), 1..60)) {
        let mut tokens: BTreeMap<u8, Token> =
            (0..6).map(|token| (token, Token::new("l", NOW, NOW + 5 * DAY_SECS))).collect();
        let mut devices: BTreeMap<u8, Device> = BTreeMap::new();
        let mut made_by: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        let mut new_on: BTreeMap<u64, u32> = BTreeMap::new();
        let mut now = NOW;
        for step in steps {
            match step {
                Step::RevokeToken(token) => {
                    let token = tokens.get_mut(&token).unwrap();
                    if token.redeemed_unix_secs.is_none() {
                        token.revoked_unix_secs = Some(now);
                    }
                }
                Step::RevokeDevice(identity) => {
                    if let Some(device) = devices.get_mut(&identity) {
                        device.revoked_unix_secs = Some(now);
                    }
                }
                Step::Enroll { token, identity, secs } => {
                    now += secs;
                    let id = DeviceId([identity; 16]);
                    let enrolled_today = new_on.get(&day(now)).copied().unwrap_or(0);
                    let known = Known {
                        token: tokens.get(&token),
                        device: devices.get(&identity).map(|device| (id, device)),
                        enrolled_today,
                    };
                    let was_revoked = known.device.is_some_and(|(_, known)| known.revoked_unix_secs.is_some());
                    let came = enroll(&TERMS, known, &asked(token, identity), now);
                    prop_assert!(!(was_revoked && came.is_ok()));
                    match came {
                        Err(_) => {}
                        Ok(Enrolling::Repeats(repeats)) => prop_assert_eq!(repeats, id),
                        Ok(who @ (Enrolling::New | Enrolling::Again(_))) => {
                            let before = &tokens[&token];
                            prop_assert!(before.redeemed_unix_secs.is_none() && before.revoked_unix_secs.is_none());
                            prop_assert!(now < before.expires_unix_secs);
                            let redeemed = before.redeemed(key(identity).public(), now);
                            tokens.insert(token, redeemed);
                            prop_assert_eq!(who == Enrolling::New, !devices.contains_key(&identity));
                            if who == Enrolling::New {
                                *new_on.entry(day(now)).or_default() += 1;
                            }
                            devices.insert(identity, device(identity, now));
                            made_by.entry(token).or_default().insert(identity);
                        }
                    }
                }
            }
        }
        prop_assert!(made_by.values().all(|made| made.len() == 1));
        prop_assert!(new_on.values().all(|count| *count <= TERMS.most_enrolled_a_day));
    }
}
