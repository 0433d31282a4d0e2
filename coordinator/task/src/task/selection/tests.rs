use super::*;

const DAWN: Timestamp = Timestamp(1_700_000_000_000);
const MINUTE: u64 = 60_000;

fn device(i: u32) -> DeviceId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&i.to_le_bytes());
    DeviceId(id)
}

fn after(millis: u64) -> Timestamp {
    DAWN.plus_millis(millis)
}

/// Rounds of four, which wait a minute.
fn four() -> Selection {
    Selection::new(4, MINUTE, 0)
}

/// Those of the devices that have a place.
fn placed(selection: &mut Selection, devices: std::ops::Range<u32>, now: Timestamp) -> Vec<u32> {
    devices.filter(|i| selection.ask(device(*i), 0, now) == Verdict::Place).collect()
}

#[test]
fn a_version_has_as_many_places_as_its_round_has_members() {
    let mut selection = four();
    assert_eq!(placed(&mut selection, 0..10, DAWN), [0, 1, 2, 3]);
    // Whoever asks again has what it has.
    assert_eq!(placed(&mut selection, 0..10, after(5_000)), [0, 1, 2, 3]);
    assert_eq!(selection.devices(), 10);
}

#[test]
fn those_that_had_no_place_come_first_in_the_next_version() {
    let mut selection = four();
    placed(&mut selection, 0..6, DAWN);
    (0..4).for_each(|i| selection.came(device(i), after(1_000)));
    let before = selection.openings();
    selection.published((1, 1));
    assert_ne!(selection.openings(), before, "who waits is woken");
    // Two places are kept for those that wait; and who trained first asks first.
    assert_eq!(placed(&mut selection, 0..4, after(2_000)), [0, 1]);
    assert_eq!(placed(&mut selection, 4..6, after(3_000)), [4, 5]);
}

#[test]
fn a_place_is_not_kept_for_those_that_do_not_come_back() {
    let mut selection = four();
    placed(&mut selection, 0..6, DAWN);
    (0..4).for_each(|i| selection.came(device(i), after(1_000)));
    selection.published((1, 1));
    // They were told to come within 68 seconds at most, and have ten more.
    assert_eq!(placed(&mut selection, 0..4, after(66_000)), [0, 1]);
    assert_eq!(placed(&mut selection, 2..4, after(79_000)), [2, 3]);
}

#[test]
fn nobody_is_given_ten_versions_before_another_was_given_one() {
    let mut selection = four();
    let (mut picks, mut now) = ([0_u32; 40], DAWN);
    for _ in 0..50 {
        // The same ones always ask first.
        let placed = placed(&mut selection, 0..40, now);
        assert_eq!(placed.len(), 4);
        for i in placed {
            picks[i as usize] += 1;
            selection.came(device(i), now.plus_millis(1_000));
        }
        selection.published((1, 1));
        now = now.plus_millis(10_000);
    }
    assert!(picks.iter().all(|picks| (4..=6).contains(picks)), "{picks:?}");
}

#[test]
fn how_often_a_device_was_charged_counts_after_a_restart() {
    let mut selection = four();
    assert_eq!(selection.ask(device(9), 3, DAWN), Verdict::Place, "nobody else is there");
    selection.came(device(9), DAWN);
    selection.published((1, 1));
    (0..4).for_each(|i| assert_eq!(selection.ask(device(i), 5, DAWN), Verdict::Place));
    assert!(matches!(selection.ask(device(5), 1, DAWN), Verdict::Wait(_)));
    selection.release(device(0), DAWN);
    assert!(matches!(selection.ask(device(6), 2, DAWN), Verdict::Wait(_)), "kept for the one with fewer");
    assert_eq!(selection.ask(device(5), 1, DAWN), Verdict::Place);
}

#[test]
fn a_place_lapses_and_those_that_wait_are_woken() {
    let mut selection = four();
    placed(&mut selection, 0..5, DAWN);
    (0..3).for_each(|i| selection.came(device(i), after(MINUTE)));
    // Nine of ten took a minute, so the fourth has three.
    assert_eq!(selection.poll_timeout(), Some(after(67_000)), "the fifth is not expected any more");
    selection.ask(device(4), 0, after(2 * MINUTE));
    assert_eq!(selection.poll_timeout(), Some(after(3 * MINUTE)));
    let before = selection.openings();
    selection.pass_time(after(3 * MINUTE - 1));
    assert_eq!(selection.openings(), before);
    selection.pass_time(after(3 * MINUTE));
    assert_ne!(selection.openings(), before);
    assert_eq!(selection.ask(device(4), 0, after(3 * MINUTE)), Verdict::Place);
    // Whoever comes late has trained all the same.
    selection.came(device(3), after(4 * MINUTE));
    assert_eq!(selection.given.len(), 5);
}

#[test]
fn before_anything_is_measured_a_place_is_kept_ten_minutes_or_what_its_plan_says() {
    for (patience, kept) in [(1_000, 10), (10 * MINUTE, 10), (25 * MINUTE, 25), (100_000 * MINUTE, 24 * 60)] {
        let mut selection = Selection::new(4, patience, 0);
        placed(&mut selection, 0..4, DAWN);
        selection.ask(device(4), 0, after(kept * MINUTE - 1_000));
        assert_eq!(selection.poll_timeout(), Some(after(kept * MINUTE)));
    }
}

#[test]
fn who_does_not_train_now_leaves_its_place() {
    let mut selection = four();
    placed(&mut selection, 0..4, DAWN);
    let before = selection.openings();
    selection.release(device(2), after(1));
    assert_ne!(selection.openings(), before);
    assert_eq!(placed(&mut selection, 4..6, after(2)), [4]);
    // One that had none changes nothing.
    let before = selection.openings();
    selection.release(device(9), after(3));
    assert_eq!(selection.openings(), before);
}

#[test]
fn places_follow_what_does_not_come_and_never_exceed_twice_a_cohort() {
    let mut selection = Selection::new(100, MINUTE, 0);
    let (mut now, mut next) = (DAWN, 0);
    let mut places = Vec::new();
    for _ in 0..30 {
        let given: Vec<u32> =
            (next..next + 400).filter(|i| selection.ask(device(*i), 0, now) == Verdict::Place).collect();
        next += 400;
        places.push(given.len());
        // Four of five come.
        for i in given.iter().filter(|i| **i % 5 != 0).take(100) {
            selection.came(device(*i), now.plus_millis(1_000));
        }
        selection.published((1, 1));
        now = now.plus_millis(24 * 60 * MINUTE);
    }
    assert_eq!(places[0], 100);
    let late = &places[10..];
    assert!(late.iter().all(|places| (108..=135).contains(places)), "{places:?}");
    for _ in 0..30 {
        selection.ask(device(next), 0, now);
        selection.published((1, 1));
        next += 1;
    }
    assert!(selection.places() <= 200, "{}", selection.places());
}

#[test]
fn an_aborted_round_has_its_members_back_or_their_places_are_free() {
    let mut selection = four();
    placed(&mut selection, 0..6, DAWN);
    (0..4).for_each(|i| selection.came(device(i), after(1_000)));
    selection.aborted(|_| false, after(2_000));
    (0..3).for_each(|i| selection.came(device(i), after(3_000)));
    assert!(matches!(selection.ask(device(5), 0, after(30_000)), Verdict::Wait(_)));
    assert_eq!(selection.ask(device(5), 0, after(63_000)), Verdict::Place);
}

#[test]
fn after_a_restart_as_many_are_expected_as_were_there() {
    let mut selection = Selection::new(4, MINUTE, 10_000);
    placed(&mut selection, 0..4, DAWN);
    let Verdict::Wait(window) = selection.ask(device(5), 0, DAWN) else { panic!("a place") };
    assert_eq!(window, pacing::window_for(10_001, 4));
    // But not longer than they had time to come.
    selection.release(device(5), DAWN.plus_millis(window.most_millis + 1));
    assert!(selection.devices() < 10);
}

#[test]
fn one_that_is_not_counted_on_has_what_nobody_else_wants() {
    let mut selection = four();
    placed(&mut selection, 0..3, DAWN);
    assert!(selection.has_to_spare(DAWN));
    placed(&mut selection, 3..5, DAWN);
    assert!(!selection.has_to_spare(DAWN));
}

#[test]
fn however_often_rounds_come_to_nothing_a_place_lapses_when_it_would_have() {
    let mut selection = four();
    placed(&mut selection, 0..5, DAWN);
    (0..3).for_each(|i| selection.came(device(i), after(44_000)));
    // The fourth is gone. Each round waits a minute for it, and its members ask again a moment later.
    let mut now = after(104_000);
    for _ in 0..30 {
        selection.aborted(|_| false, now);
        now = now.plus_millis(1_000);
        (0..3).for_each(|i| selection.came(device(i), now));
        if selection.ask(device(4), 0, now) == Verdict::Place {
            break;
        }
        now = now.plus_millis(60_000);
    }
    // Nine of ten took 44 seconds, so it had 132.
    assert_eq!(now, after(166_000));
    assert_eq!(selection.counted.1, 3, "those that came are counted once");
}

/// Eight rounds of four, of which one makes a version: the others are only slower.
#[test]
fn nobody_is_missing_of_rounds_that_were_not_needed() {
    let mut selection = Selection::new(8 * 4, 1000, 0);
    let mut now = Timestamp(1_000_000);
    for version in 0..4 {
        let asks = |device: &u8| selection.ask(DeviceId([*device; 16]), version, now) == Verdict::Place;
        let given: Vec<u8> = (0..200).filter(asks).collect();
        assert_eq!((given.len(), selection.places()), (32, 32));
        now = now.plus_millis(10_000);
        for device in &given[..4] {
            selection.came(DeviceId([*device; 16]), now);
        }
        selection.published((1, 8));
        for device in &given[4..] {
            selection.release(DeviceId([*device; 16]), now);
        }
    }
    assert!(selection.drop_out < f64::EPSILON);
}
