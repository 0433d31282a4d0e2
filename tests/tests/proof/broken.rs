//! Each check notices when the thing that it is for is broken: a disk that lies, a device or a coordinator that does what it
//! must not, told to the same watch in a world in which nothing else goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proto::message::{Reply, Request};
use sim::world::{Disk, Fate, Party, Record};
use task::TaskEffect;

use super::liar::Lie;
use super::setting::{OneHot, Setting};
use super::tells::{Does, told};
use super::watch::Tally;
use super::weather::Weather;

/// The first world of so many rounds a version that has some devices and makes some versions.
pub(crate) fn calm_of(rounds: u32) -> Setting {
    let mut all = (0..).map(|seed| Setting::with(seed, Weather::calm()));
    let some = all.find(|setting| {
        let round = &setting.plan.round;
        (round.rounds, round.min_rounds) == (rounds, rounds) && (4..7).contains(&round.cohort)
    });
    some.unwrap()
}

pub(crate) fn calm() -> Setting {
    calm_of(1)
}

#[test]
fn in_good_weather_all_versions_come_and_nothing_is_found() {
    let setting = calm();
    let versions = setting.plan.round.versions;
    let tally = setting.play();
    assert_eq!((tally.versions, tally.sums, tally.whole), (u64::from(versions), u64::from(versions), 1));
    assert!(tally.device_rounds >= tally.counted && tally.counted >= 3 * tally.sums, "{tally:?}");
}

#[test]
fn in_good_weather_all_versions_of_several_rounds_come() {
    let setting = calm_of(2);
    let versions = u64::from(setting.plan.round.versions);
    let tally = setting.play();
    assert_eq!(
        (tally.versions, tally.of_several, tally.sums, tally.whole),
        (versions, versions, 2 * versions, 1)
    );
}

#[test]
fn one_seed_makes_one_world() {
    let [once, again] = [4_711, 4_711].map(|seed| format!("{:?}", Setting::of(seed).play()));
    assert_eq!(once, again);
}

/// Whatever is shown to two devices: sums come, of honest devices and never two.
#[test]
fn each_lie_is_told_and_nothing_comes_of_it() {
    for lie in [Lie::Rosters, Lie::Sharers, Lie::Survivors, Lie::Second] {
        let (mut told, mut sums) = (0, 0);
        for seed in 1..7 {
            let tally = Setting::with(seed, Weather::with(lie)).play();
            (told, sums) = (told + tally.lies, sums + tally.sums);
        }
        assert!(told > 5 && sums > 0, "{lie:?}: {told} lies, {sums} sums");
    }
}

#[test]
#[should_panic(expected = "is 2 times in version 1, and not exactly once")]
fn a_device_that_is_counted_twice_is_found() {
    Setting { trainer: OneHot { times: 2.0 }, ..calm() }.play();
}

#[test]
#[should_panic(expected = "is 0 times in version 1, and not exactly once")]
fn a_device_that_is_lost_from_a_sum_is_found() {
    Setting { trainer: OneHot { times: 0.0 }, ..calm() }.play();
}

#[test]
#[should_panic(expected = "version 1 is no sum of its devices' updates")]
fn half_an_update_in_a_sum_is_found() {
    Setting { trainer: OneHot { times: 0.5 }, ..calm() }.play();
}

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

/// Its inputs are not noticed, and so not that they have no charge: what the sum says is left.
#[test]
#[should_panic(expected = "was charged 0 times and is in 1 sums")]
fn a_device_in_more_sums_than_it_was_charged_for_is_found() {
    let unheard = |what: Does<'_>| {
        if let Does::Asks(_, requests) = what {
            requests.retain(|request| request.session().is_none());
        }
    };
    Setting { disk: Box::new(Loses(Record::Charge)), ..told(calm(), unheard) }.play();
}

/// A coordinator whose disk loses what it decides from some write on, and which dies then.
#[derive(Debug)]
struct Forgets {
    from: u32,
    dies: u32,
}

impl Disk for Forgets {
    fn writes(&self, who: Party, _: Record, number: u32) -> Fate {
        match who {
            Party::Coordinator if number == self.dies => Fate::Dies { kept: false, millis: 1_000 },
            Party::Coordinator if (self.from..self.dies).contains(&number) => Fate::Lies,
            Party::Device(_) | Party::Coordinator => Fate::Kept,
        }
    }
}

/// What was found.
fn found(setting: Setting) -> Option<String> {
    let came = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| setting.play()));
    let text = came.err()?;
    Some(text.downcast::<String>().map_or_else(|_| "no text".to_owned(), |text| *text))
}

#[test]
fn a_coordinator_that_forgets_what_it_said_is_found() {
    // Whichever write is the first that is lost.
    for from in 1..6 {
        let text = found(Setting { disk: Box::new(Forgets { from, dies: from + 6 }), ..calm() });
        assert!(text.is_some(), "nothing was found of a coordinator that forgets from write {from} on");
    }
}

/// It says that it has written whom it counts, and has not.
#[test]
#[should_panic(expected = "the coordinator counts 0 times for device")]
fn a_coordinator_that_does_not_keep_whom_it_counted_is_found() {
    Setting { disk: Box::new(Forgets { from: 1, dies: u32::MAX }), ..calm() }.play();
}

/// A coordinator whose disk loses this write alone.
#[derive(Debug)]
struct LosesOne(u32);

impl Disk for LosesOne {
    fn writes(&self, who: Party, _: Record, number: u32) -> Fate {
        if who == Party::Coordinator && number == self.0 { Fate::Lies } else { Fate::Kept }
    }
}

#[test]
#[should_panic(expected = "a version is lost, or there twice")]
fn a_last_version_that_its_coordinator_does_not_keep_is_found() {
    let (mut writes, last) = (0, Arc::new(AtomicU32::new(0)));
    let newest = Arc::clone(&last);
    does(move |what| {
        if let Does::Decides(effects) = what {
            writes += 1;
            if effects.iter().any(|effect| matches!(effect, TaskEffect::Commit { .. })) {
                newest.store(writes, Ordering::Relaxed);
            }
        }
    });
    Setting { disk: Box::new(LosesOne(last.load(Ordering::Relaxed))), ..calm() }.play();
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

#[test]
#[should_panic(expected = "version 1 has 0.1")]
fn noise_that_is_too_little_is_found() {
    let setting = calm();
    setting.seen.lock().unwrap().device_variance *= 9.0;
    setting.play();
}

#[test]
#[should_panic(expected = "devices add too little noise to 1 sums")]
fn devices_that_add_less_noise_than_is_planned_are_found() {
    let setting = calm();
    setting.seen.lock().unwrap().device_variance /= 9.0;
    setting.play();
}

/// A tenth less, which no version alone shows.
#[test]
#[should_panic(expected = "of the planned noise of all sums")]
fn noise_of_all_sums_that_is_too_little_is_found() {
    let mut all = Tally::default();
    for seed in 1..9 {
        let setting = Setting::with(seed, Weather::calm());
        setting.seen.lock().unwrap().device_variance /= 0.9;
        all.add(&setting.play());
    }
    all.has_its_noise();
}

/// Somebody does something else.
fn does(other: impl FnMut(Does<'_>) + Send + Sync + 'static) {
    told(calm(), other).play();
}

/// The same, in a world in which a version is of two rounds.
fn does_in_two(other: impl FnMut(Does<'_>) + Send + Sync + 'static) {
    told(calm_of(2), other).play();
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
        if let Does::Asks(device, requests) = what {
            match (requests.as_mut_slice(), first) {
                ([Request::Advertise { session, .. }], None) => first = Some((device, *session)),
                ([Request::ShareKeys { session, .. }], Some((other, earlier))) if other == device => {
                    *session = earlier;
                }
                _ => {}
            }
        }
    });
}

#[test]
#[should_panic(expected = "a sum of 1 devices may be opened")]
fn a_sum_of_one_alone_is_found() {
    does(|what| {
        if let Does::Decides(effects) = what {
            for effect in effects {
                if let TaskEffect::FixSurvivors { survivors, .. } = effect {
                    survivors.truncate(1);
                }
            }
        }
    });
}

#[test]
#[should_panic(expected = "a sum of 2 devices may be opened")]
fn a_sum_of_fewer_than_the_report_goal_is_found() {
    does(|what| {
        if let Does::Decides(effects) = what {
            for effect in effects {
                if let TaskEffect::FixSurvivors { survivors, .. } = effect {
                    survivors.truncate(2);
                }
            }
        }
    });
}

#[test]
#[should_panic(expected = "were fixed twice")]
fn two_sums_of_one_round_are_found() {
    does(|what| {
        if let Does::Decides(effects) = what
            && let Some(at) =
                effects.iter().position(|effect| matches!(effect, TaskEffect::FixSurvivors { .. }))
        {
            effects.push(effects[at].clone());
        }
    });
}

#[test]
#[should_panic(expected = "was not charged")]
fn a_survivor_that_the_coordinator_did_not_count_is_found() {
    does(|what| {
        if let Does::Decides(effects) = what {
            for effect in effects {
                if let TaskEffect::Charge { devices, .. } = effect {
                    devices.pop();
                }
            }
        }
    });
}

#[test]
#[should_panic(expected = "are counted wrongly")]
fn a_device_that_the_coordinator_counts_too_seldom_is_found() {
    does(|what| {
        if let Does::Decides(effects) = what {
            for effect in effects {
                if let TaskEffect::Charge { devices, .. } = effect {
                    for (_, times) in devices.iter_mut().filter(|(_, times)| *times > 1) {
                        *times -= 1;
                    }
                }
            }
        }
    });
}

#[test]
#[should_panic(expected = "a version was left out")]
fn a_version_that_is_lost_is_found() {
    does(|what| {
        if let Does::Decides(effects) = what {
            for effect in effects {
                if let TaskEffect::Commit { version, .. } = effect
                    && version.version == 2
                {
                    version.version = 3;
                }
            }
        }
    });
}

#[test]
#[should_panic(expected = "ended twice")]
fn a_version_that_is_there_twice_is_found() {
    does(|what| {
        if let Does::Decides(effects) = what
            && let Some(at) = effects.iter().position(|effect| matches!(effect, TaskEffect::Commit { .. }))
        {
            effects.push(effects[at].clone());
        }
    });
}

#[test]
#[should_panic(expected = "is not durable")]
fn a_version_of_which_a_device_hears_too_early_is_found() {
    does(|what| {
        if let Does::Answers(Ok(Reply::Assignment(assignment))) = what {
            assignment.published.version += 1;
        }
    });
}

#[test]
#[should_panic(expected = "of survivors who are not durably charged")]
fn survivors_of_whom_a_device_hears_too_early_are_found() {
    does(|what| {
        if let Does::Decides(effects) = what {
            effects.retain(|effect| {
                !matches!(effect, TaskEffect::Charge { .. } | TaskEffect::FixSurvivors { .. })
            });
        }
    });
}

#[test]
#[should_panic(expected = "two sessions have the number 1")]
fn a_round_s_number_that_is_given_twice_is_found() {
    does(|what| {
        if let Does::Answers(Ok(Reply::Offer { round, .. })) = what
            && *round == 2
        {
            *round = 1;
        }
    });
}

#[test]
#[should_panic(expected = "a sum of the version was lost")]
fn one_of_several_sums_that_is_lost_is_found() {
    does_in_two(|what| {
        if let Does::Decides(effects) = what {
            effects.retain(|effect| !matches!(effect, TaskEffect::Gathered { .. }));
        }
    });
}

#[test]
#[should_panic(expected = "ended twice")]
fn one_of_several_sums_that_is_there_twice_is_found() {
    does_in_two(|what| {
        if let Does::Decides(effects) = what
            && let Some(at) = effects.iter().position(|effect| matches!(effect, TaskEffect::Gathered { .. }))
        {
            effects.push(effects[at].clone());
        }
    });
}

#[test]
#[should_panic(expected = "is in two sums of one version")]
fn a_device_in_two_sums_of_one_version_is_found() {
    let mut first = None;
    does_in_two(move |what| {
        let Does::Decides(effects) = what else { return };
        for effect in effects {
            match effect {
                TaskEffect::FixSurvivors { survivors, .. } => match first {
                    None => first = Some(survivors[0]),
                    Some(first) => survivors[0] = first,
                },
                // Who is charged is not what this is about.
                TaskEffect::Charge { devices, .. } => {
                    if let Some(first) = first
                        && devices.iter().all(|(device, _)| *device != first)
                    {
                        devices.push((first, 2));
                    }
                }
                TaskEffect::Gathered { .. }
                | TaskEffect::Commit { .. }
                | TaskEffect::Excluded { .. }
                | TaskEffect::Aborted { .. }
                | TaskEffect::Paused { .. }
                | TaskEffect::End(_) => {}
            }
        }
    });
}
