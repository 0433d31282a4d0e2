//! Each check notices when the thing that it is for is broken: a disk that lies, a device or a coordinator that does what it
//! must not, told to the same watch in a world in which nothing else goes wrong.

use proto::message::{Rejection, Reply, Request};
use sim::world::{Disk, Fate, Observer, Party, Record, World};
use task::TaskEffect;

use super::liar::Lie;
use super::setting::{OneHot, Setting};
use super::weather::Weather;

/// The first world of so many rounds a version that has some devices and makes some versions.
fn calm_of(rounds: u32) -> Setting {
    let mut all = (0..).map(|seed| Setting::with(seed, Weather::calm()));
    let some = all.find(|setting| {
        let round = &setting.plan.round;
        (round.rounds, round.min_rounds) == (rounds, rounds) && (4..7).contains(&round.cohort)
    });
    some.unwrap()
}

fn calm() -> Setting {
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
#[should_panic(expected = "before that is in its ledger")]
fn a_signature_that_is_not_in_the_ledger_is_found() {
    loses(Record::Signature);
}

#[test]
#[should_panic(expected = "before that is in its ledger")]
fn an_answer_that_is_not_in_the_ledger_is_found() {
    loses(Record::Answer);
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

#[test]
fn a_coordinator_that_forgets_what_it_said_is_found() {
    // Whichever write is the first that is lost.
    let found = (1..6).filter(|from| {
        let forgets = Forgets { from: *from, dies: from + 6 };
        let play = || Setting { disk: Box::new(forgets), ..calm() }.play();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(play)).is_err()
    });
    assert_eq!(found.collect::<Vec<u32>>(), [1, 2, 3, 4, 5]);
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
#[should_panic(expected = "of the planned noise")]
fn noise_that_is_too_little_is_found() {
    let setting = calm();
    setting.seen.lock().unwrap().device_variance *= 9.0;
    setting.play();
}

/// Tells the watch something else than what was.
struct Tells<F> {
    watch: Box<dyn Observer>,
    other: F,
}

impl<F> std::fmt::Debug for Tells<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tells")
    }
}

/// What a device or the coordinator does, in place of what it should.
enum Does<'a> {
    Asks(&'a mut Request),
    Decides(&'a mut Vec<TaskEffect>),
    Answers(&'a mut Result<Reply, Rejection>),
}

impl<F: FnMut(Does<'_>) + Send + Sync> Observer for Tells<F> {
    fn asks(&mut self, world: &World, device: usize, request: &Request) {
        let mut request = request.clone();
        (self.other)(Does::Asks(&mut request));
        self.watch.asks(world, device, &request);
    }

    fn answers(&mut self, world: &World, device: usize, answer: &Result<Reply, Rejection>) {
        let mut answer = answer.clone();
        (self.other)(Does::Answers(&mut answer));
        self.watch.answers(world, device, &answer);
    }

    fn decides(&mut self, world: &World, effects: &[TaskEffect]) {
        let mut effects = effects.to_vec();
        (self.other)(Does::Decides(&mut effects));
        self.watch.decides(world, &effects);
    }

    fn starts(&mut self, world: &World, device: usize) {
        self.watch.starts(world, device);
    }
}

/// Somebody does something else.
fn does(other: impl FnMut(Does<'_>) + Send + Sync + 'static) {
    does_in(calm(), other);
}

fn does_in(setting: Setting, other: impl FnMut(Does<'_>) + Send + Sync + 'static) {
    Setting { observer: Box::new(Tells { watch: setting.observer, other }), ..setting }.play();
}

#[test]
#[should_panic(expected = "both kinds of share")]
fn both_kinds_of_share_of_one_device_are_found() {
    let mut answers = 0;
    does(move |what| {
        if let Does::Asks(Request::Unmask { shares, .. }) = what {
            answers += 1;
            if answers == 2 {
                let both = shares.self_mask.pop().unwrap();
                shares.key.push(both);
            }
        }
    });
}

/// Says everything that is signed a second time, with another signature.
#[derive(Debug)]
struct SignsTwice(Box<dyn Observer>);

impl Observer for SignsTwice {
    fn asks(&mut self, world: &World, device: usize, request: &Request) {
        self.0.asks(world, device, request);
        if let Request::Agree { session, mut signature } = *request {
            signature.0[0] ^= 1;
            self.0.asks(world, device, &Request::Agree { session, signature });
        }
    }

    fn answers(&mut self, world: &World, device: usize, answer: &Result<Reply, Rejection>) {
        self.0.answers(world, device, answer);
    }

    fn decides(&mut self, world: &World, effects: &[TaskEffect]) {
        self.0.decides(world, effects);
    }

    fn starts(&mut self, world: &World, device: usize) {
        self.0.starts(world, device);
    }
}

#[test]
#[should_panic(expected = "two contents of one `agree`")]
fn a_device_that_signs_two_things_in_one_round_is_found() {
    let setting = calm();
    Setting { observer: Box::new(SignsTwice(setting.observer)), ..setting }.play();
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
    does_in(calm_of(2), |what| {
        if let Does::Decides(effects) = what {
            effects.retain(|effect| !matches!(effect, TaskEffect::Gathered { .. }));
        }
    });
}

#[test]
#[should_panic(expected = "ended twice")]
fn one_of_several_sums_that_is_there_twice_is_found() {
    does_in(calm_of(2), |what| {
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
    does_in(calm_of(2), move |what| {
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
