//! Each check notices when the thing that it is for is broken: a disk that lies, a device or a coordinator that does what it
//! must not, told to the same watch in a world in which nothing else goes wrong. Here is what makes such worlds, and what is
//! looked for in sums and in whole runs; what devices do is in `broken/devices.rs`, what the coordinator does in
//! `broken/coordinator.rs`.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use sim::world::{Carriage, Leg, Network};

use super::liar::Lie;
use super::setting::{OneHot, Setting};
use super::tells::{Does, told};
use super::watch::Tally;
use super::weather::Weather;
use super::{Played, Until, play};

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

/// Somebody does something else.
pub(crate) fn does(other: impl FnMut(Does<'_>) + Send + Sync + 'static) {
    told(calm(), other).play();
}

/// The same, in a world in which a version is of two rounds.
pub(crate) fn does_in_two(other: impl FnMut(Does<'_>) + Send + Sync + 'static) {
    told(calm_of(2), other).play();
}

/// What is found in this.
pub(crate) fn found(looks: impl FnOnce()) -> String {
    let text = std::panic::catch_unwind(std::panic::AssertUnwindSafe(looks)).unwrap_err();
    match text.downcast::<String>() {
        Ok(text) => *text,
        Err(text) => (*text.downcast::<&str>().unwrap()).to_owned(),
    }
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

/// A network that says nothing of what it changed: what arrives is not what the world sent.
#[derive(Debug)]
struct Garbles;

impl Network for Garbles {
    fn carry(&mut self, _: usize, _: Leg, _: usize, _: &mut ChaCha20Rng) -> Carriage {
        Carriage::Arrives { later_millis: 0, twice: false }
    }

    fn touches(&mut self, _: usize, leg: Leg, bytes: &mut Vec<u8>, _: &mut ChaCha20Rng) -> bool {
        if matches!(leg, Leg::Reply) {
            *bytes = vec![0xff];
        }
        false
    }
}

#[test]
#[should_panic(expected = "the wire does not carry its own messages")]
fn a_world_that_cannot_read_its_own_words_is_found() {
    Setting { network: Box::new(Garbles), ..calm() }.play();
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

#[test]
#[should_panic(expected = "version 1 has 0.09 of the planned noise")]
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

/// Each device counts twice in the world of seed 12.
fn once_broken(seed: u64) -> Setting {
    let times = if seed == 12 { 2.0 } else { 1.0 };
    Setting { trainer: OneHot { times }, ..Setting::with(seed, Weather::calm()) }
}

const UNTIL: Until = Until { worlds: 3, device_rounds: u64::MAX, longest: Duration::MAX };

#[test]
fn a_run_names_the_seed_of_what_it_found_and_plays_the_others() {
    let Played { tally, found } = play(once_broken, 11, UNTIL);
    assert_eq!((found, tally.worlds), (vec![12], 2));
}

#[test]
fn a_run_begins_no_other_world_when_it_has_its_device_rounds_or_no_time() {
    // Each thread may have begun one.
    let short = play(once_broken, 20, Until { device_rounds: 1, ..UNTIL }).tally;
    assert!(short.device_rounds >= 1 && (1..=2).contains(&short.worlds), "{short}");
    assert_eq!(play(once_broken, 20, Until { longest: Duration::ZERO, ..UNTIL }).tally.worlds, 0);
}

/// As often as all must be there at least.
fn enough() -> Tally {
    let mut enough =
        Tally { worlds: 60, versions: 31, of_several: 2, sums: 33, sums_with_missing: 5, ..Tally::default() };
    for times in faults(&mut enough) {
        *times = 4;
    }
    enough
}

fn faults(tally: &mut Tally) -> [&mut u64; 10] {
    [
        &mut tally.lost,
        &mut tally.repeated,
        &mut tally.copies,
        &mut tally.late,
        &mut tally.device_deaths,
        &mut tally.coordinator_deaths,
        &mut tally.device_disks,
        &mut tally.coordinator_disks,
        &mut tally.clocks_set,
        &mut tally.lies,
    ]
}

#[test]
fn each_fault_that_a_run_hardly_made_is_found() {
    enough().has_reached_all();
    for (number, (name, _)) in enough().faults().into_iter().enumerate() {
        let mut seldom = enough();
        *faults(&mut seldom)[number] = 3;
        let text = found(|| seldom.has_reached_all());
        assert_eq!(text, format!("{name}: 3 in 60 worlds, which is too seldom to be looked at"));
    }
}

#[test]
#[should_panic(expected = "only 30 versions in 60 worlds")]
fn a_run_of_hardly_any_versions_is_found() {
    Tally { versions: 30, ..enough() }.has_reached_all();
}

#[test]
#[should_panic(expected = "only 1 of 31 versions are of several rounds")]
fn a_run_of_hardly_any_versions_of_several_rounds_is_found() {
    Tally { of_several: 1, ..enough() }.has_reached_all();
}

#[test]
#[should_panic(expected = "only 4 of 33 sums lack a device that sent keys")]
fn a_run_of_hardly_any_sums_that_lack_a_device_is_found() {
    Tally { sums_with_missing: 4, ..enough() }.has_reached_all();
}
