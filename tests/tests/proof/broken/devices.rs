//! Devices that do what they must not, or whose disks lose what they wrote.

use std::collections::BTreeMap;

use proto::message::{Reply, Request};
use sim::world::{Disk, Fate, Party, Record};

use super::broken::{calm, does};
use super::setting::Setting;
use super::tells::{Does, tells_no_survivors, told};

/// A disk that says that it has kept this.
#[derive(Debug)]
struct Loses(Record);

impl Disk for Loses {
    fn writes(&self, _: Party, what: Record, _: u32) -> Fate {
        if what == self.0 { Fate::Lies } else { Fate::Kept }
    }
}

fn loses(what: Record) {
    Setting { disk: Box::new(Loses(what)), ..calm() }.play();
}

#[test]
#[should_panic(expected = "before its charge is in its ledger")]
fn an_input_without_a_charge_is_found() {
    loses(Record::Charge);
}

#[test]
#[should_panic(expected = "says with whom it masked in round 1 before that is in its ledger")]
fn a_signature_over_the_sharers_that_is_not_in_the_ledger_is_found() {
    loses(Record::Signature);
}

/// The same where the whole of the input was not noticed.
#[test]
#[should_panic(expected = "signs in round 1 before that is in its ledger")]
fn a_signature_over_the_transcript_that_is_not_in_the_ledger_is_found() {
    let unheard = |what: Does<'_>| {
        if let Does::Asks(_, requests) = what {
            requests.retain(|request| !matches!(request, Request::MaskedDone { .. }));
        }
    };
    Setting { disk: Box::new(Loses(Record::Signature)), ..told(calm(), unheard) }.play();
}

#[test]
#[should_panic(expected = "answers in round 1 before that is in its ledger")]
fn an_answer_that_is_not_in_the_ledger_is_found() {
    loses(Record::Answer);
}

/// Its requests are not noticed, and so not that its input has no charge: what the sum says is left.
#[test]
#[should_panic(expected = "was charged 0 times and is in 1 sums")]
fn a_device_in_more_sums_than_it_was_charged_for_is_found() {
    let unheard = |what: Does<'_>| match what {
        Does::Asks(_, requests) => requests.retain(|request| request.session().is_none()),
        Does::Answers(answer) => tells_no_survivors(answer),
        Does::Decides(_) => {}
    };
    Setting { disk: Box::new(Loses(Record::Charge)), ..told(calm(), unheard) }.play();
}

#[test]
#[should_panic(expected = "lost a charge of its ledger")]
fn a_ledger_that_forgets_is_found() {
    calm().play_and(|world| world.nodes[0].charges.clear());
}

#[test]
#[should_panic(expected = "was charged less than the plan costs")]
fn a_charge_that_is_too_small_is_found() {
    let setting = calm();
    let mut dearer = setting.plan.clone();
    dearer.privacy.noise_multiplier /= 2.0;
    setting.seen.lock().unwrap().cost = dearer.mechanism().unwrap().curve();
    setting.play();
}

/// What the ledger's two lists are for: that there is one of each in a round.
#[test]
#[should_panic(expected = "a device signed or answered twice in a round")]
fn a_second_signature_in_the_ledger_is_found() {
    calm().play_and(|world| world.nodes[0].signatures.extend_from_within(..1));
}

#[test]
#[should_panic(expected = "a device signed or answered twice in a round")]
fn a_second_answer_in_the_ledger_is_found() {
    calm().play_and(|world| world.nodes[0].answers.extend_from_within(..1));
}

/// A device answers with the other kind of share than a device before it.
#[test]
#[should_panic(expected = "both kinds of share of place")]
fn both_kinds_of_share_of_one_device_are_found() {
    let mut answers = 0;
    does(move |what| {
        if let Does::Asks(_, requests) = what
            && let [Request::Unmask { shares, .. }] = requests.as_mut_slice()
        {
            answers += 1;
            if answers == 2 {
                let both = shares.self_mask.pop().unwrap();
                shares.key.push(both);
            }
        }
    });
}

/// Everything that is signed is said a second time, with another signature.
#[test]
#[should_panic(expected = "two contents of one `agree`")]
fn a_device_that_signs_two_things_in_one_round_is_found() {
    does(|what| {
        if let Does::Asks(_, requests) = what
            && let [Request::Agree { session, mut signature }] = *requests.as_slice()
        {
            signature.0[0] ^= 1;
            requests.push(Request::Agree { session, signature });
        }
    });
}

#[test]
#[should_panic(expected = "speaks of a round that it was not offered")]
fn a_round_of_which_a_device_was_not_offered_a_place_is_found() {
    does(|what| {
        if let Does::Answers(Ok(Reply::Offer { session, .. })) = what {
            session.0[0] ^= 1;
        }
    });
}

/// A device speaks in a round of its own, with the keys of another.
#[test]
#[should_panic(expected = "goes to another session than the keys")]
fn keys_that_are_used_in_two_rounds_are_found() {
    let mut first = None;
    does(move |what| {
        let Does::Asks(device, requests) = what else { return };
        if let [Request::Advertise { session, .. }] = requests.as_slice() {
            first.get_or_insert((device, *session));
        } else if let ([Request::ShareKeys { session, .. }], Some((of, earlier))) =
            (requests.as_mut_slice(), first)
            && of == device
        {
            *session = earlier;
        }
    });
}

/// Of what a device sends in a round only this is noticed.
fn hears(only: fn(&Request) -> bool) {
    does(move |what| {
        if let Does::Asks(_, requests) = what {
            requests.retain(|request| request.session().is_none() || only(request));
        }
    });
}

#[test]
#[should_panic(expected = "`share keys` without keys")]
fn a_device_that_speaks_before_it_has_sent_its_keys_is_found() {
    hears(|request| !matches!(request, Request::Advertise { .. }));
}

#[test]
#[should_panic(expected = "charged without keys")]
fn an_input_without_keys_is_found() {
    hears(|request| matches!(request, Request::MaskedChunk { .. }));
}

#[test]
#[should_panic(expected = "signatures before the signature was recorded")]
fn a_signature_over_the_transcript_before_that_over_the_sharers_is_found() {
    hears(|request| !matches!(request, Request::MaskedDone { .. }));
}

#[test]
#[should_panic(expected = "shares before the signature over the transcript")]
fn an_answer_before_the_signature_is_found() {
    hears(|request| !matches!(request, Request::Agree { .. }));
}

/// When a device has come so far in a round, it begins that again with other keys, says the same, and then something else.
fn begins_again(when: fn(&Request) -> bool, other: fn(&mut Request)) {
    let mut said: BTreeMap<usize, Vec<Request>> = BTreeMap::new();
    does(move |what| {
        let Does::Asks(device, requests) = what else { return };
        let said = said.entry(device).or_default();
        for request in requests.iter().filter(|request| request.session().is_some()) {
            if matches!(request, Request::Advertise { .. }) {
                said.clear();
            }
            said.push(request.clone());
        }
        if requests.iter().any(when) {
            for mut again in said.iter().cloned() {
                if when(&again) {
                    other(&mut again);
                } else if let Request::Advertise { advertisement, .. } = &mut again {
                    advertisement.key_commitment[0] ^= 1;
                }
                requests.push(again);
            }
        }
    });
}

#[test]
#[should_panic(expected = "two signatures in round")]
fn a_device_that_signs_again_with_other_keys_is_found() {
    let other = |request: &mut Request| {
        if let Request::Agree { signature, .. } = request {
            signature.0[0] ^= 1;
        }
    };
    begins_again(|request| matches!(request, Request::Agree { .. }), other);
}

#[test]
#[should_panic(expected = "two sets of shares in round")]
fn a_device_that_answers_again_with_other_keys_is_found() {
    let other = |request: &mut Request| {
        if let Request::Unmask { shares, .. } = request {
            shares.self_mask.pop();
        }
    };
    begins_again(|request| matches!(request, Request::Unmask { .. }), other);
}
