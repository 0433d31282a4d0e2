//! A coordinator that decides or answers what it must not, or whose disk loses what it wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proto::admin::VersionStatus;
use proto::message::{Outcome, Reply};
use sim::world::{Disk, Fate, Party, Record};
use task::TaskEffect;

use super::broken::{calm, does, does_in_two, found};
use super::setting::Setting;
use super::tells::{Does, tells_no_survivors};

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

/// A round's writes are its number, then its survivors with their charges, then the version.
#[test]
fn a_coordinator_that_forgets_what_it_said_is_found() {
    let lost = [
        // All from this write on, until it dies two rounds later.
        (1, 7, "the coordinator counts 0 times for device 1, in 1 sums"),
        (2, 8, "the coordinator counts 0 times for device 1, in 1 sums"),
        (3, 9, "a version is lost, or there twice"),
        (4, 10, "the coordinator counts 1 times for device 1, in 2 sums"),
        (5, 11, "the coordinator counts 1 times for device 1, in 2 sums"),
        // One write of the second round, and it dies before the next.
        (4, 5, "two sessions have the number 2"),
        (5, 6, "are counted wrongly"),
        (6, 7, "a version is lost, or there twice"),
    ];
    for (from, dies, wanted) in lost {
        let setting = Setting { disk: Box::new(Forgets { from, dies }), ..calm() };
        let text = found(|| drop(setting.play()));
        assert!(text.contains(wanted), "lost from write {from} until {dies}: {text}");
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

/// It decides something else.
fn decides(mut other: impl FnMut(&mut Vec<TaskEffect>) + Send + Sync + 'static) {
    does(move |what| {
        if let Does::Decides(effects) = what {
            other(effects);
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
    writes(|version| version.version += u32::from(version.version == 2));
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

#[test]
#[should_panic(expected = "a survivor of round 1 stands there twice")]
fn a_device_that_is_fixed_twice_for_one_sum_is_found() {
    decides(|effects| {
        for effect in effects {
            if let TaskEffect::FixSurvivors { survivors, .. } = effect {
                survivors.push(survivors[0]);
            }
        }
    });
}

#[test]
#[should_panic(expected = "round 1 charges a device twice")]
fn a_device_that_is_charged_twice_in_a_round_is_found() {
    decides(|effects| {
        for effect in effects {
            if let TaskEffect::Charge { devices, .. } = effect {
                devices.push(devices[0]);
            }
        }
    });
}

#[test]
#[should_panic(expected = "round 1 was charged twice")]
fn a_round_that_is_charged_twice_is_found() {
    decides(|effects| {
        if let Some(at) = effects.iter().position(|effect| matches!(effect, TaskEffect::Charge { .. })) {
            effects.push(effects[at].clone());
        }
    });
}

/// It decides nothing of this kind, and its devices' last steps are not noticed.
fn decides_no(kind: fn(&TaskEffect) -> bool) {
    does(move |what| match what {
        Does::Decides(effects) => effects.retain(|effect| !kind(effect)),
        Does::Answers(answer) => tells_no_survivors(answer),
        Does::Asks(..) => {}
    });
}

#[test]
#[should_panic(expected = "round 1 opened a sum before it was charged")]
fn a_sum_that_nobody_was_charged_for_is_found() {
    decides_no(|effect| matches!(effect, TaskEffect::Charge { .. } | TaskEffect::FixSurvivors { .. }));
}

#[test]
#[should_panic(expected = "round 1 opened a sum of nobody")]
fn a_sum_for_which_nobody_was_fixed_is_found() {
    decides_no(|effect| matches!(effect, TaskEffect::FixSurvivors { .. }));
}

/// The version that a round completes, and the number of that round.
fn completed(effects: &[TaskEffect]) -> Option<u64> {
    let of = |effect: &TaskEffect| {
        if let TaskEffect::Commit { completed_by, .. } = effect { *completed_by } else { None }
    };
    effects.iter().find_map(of)
}

#[test]
#[should_panic(expected = "round 1 ended twice")]
fn a_round_that_comes_to_nothing_after_its_sum_is_found() {
    decides(|effects| {
        if let Some(round) = completed(effects) {
            effects.push(TaskEffect::Aborted { round, outcome: Outcome::Stopped });
        }
    });
}

#[test]
#[should_panic(expected = "round 2 was opened again")]
fn a_round_that_is_opened_after_its_end_is_found() {
    let mut is_over = false;
    decides(move |effects| {
        if !std::mem::replace(&mut is_over, true) {
            effects.push(TaskEffect::Aborted { round: 2, outcome: Outcome::Stopped });
        }
    });
}

#[test]
#[should_panic(expected = "one session has two numbers")]
fn a_session_of_which_two_devices_hear_two_numbers_is_found() {
    let mut offers = 0;
    does(move |what| {
        if let Does::Answers(Ok(Reply::Offer { round, .. })) = what {
            offers += 1;
            *round += if offers == 2 { 100 } else { 0 };
        }
    });
}

/// It writes something else of its versions.
fn writes(other: fn(&mut VersionStatus)) {
    decides(move |effects| {
        for effect in effects {
            if let TaskEffect::Commit { version, .. } = effect {
                other(version);
            }
        }
    });
}

#[test]
#[should_panic(expected = "other sums than its were opened")]
fn a_version_that_counts_more_devices_than_its_sums_have_is_found() {
    writes(|version| version.survivors += 1);
}

#[test]
#[should_panic(expected = "a version's digest is not that of its numbers")]
fn a_version_with_another_s_digest_is_found() {
    writes(|version| version.adapter.0[0] ^= 1);
}
