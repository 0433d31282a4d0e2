use std::collections::BTreeSet;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

type Places = BTreeSet<u16>;

/// The shares of some owners, as their holders tell them.
struct Cohort {
    threshold: usize,
    told: BTreeMap<DeviceIndex, Vec<(DeviceIndex, Share)>>,
}

impl Cohort {
    /// Every owner's shares from those that hold them, `wrong` ones of each owner apart.
    fn new(
        threshold: usize,
        owners: u16,
        holders: impl Fn(u16) -> Places,
        wrong: impl Fn(u16) -> Places,
    ) -> Self {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let told = (0..owners)
            .map(|owner| {
                let (holders, wrong) = (holders(owner), wrong(owner));
                let places: Vec<DeviceIndex> = holders.iter().copied().map(DeviceIndex::from).collect();
                let shares = shamir::split(&seed(owner.into()), threshold, &places, &mut rng);
                let told = places.into_iter().zip(shares).map(|(place, share)| {
                    let lies = wrong.contains(&place.get());
                    (
                        place,
                        if lies {
                            shamir::split(&seed(place), 1, &[place], &mut rng).remove(0)
                        } else {
                            share
                        },
                    )
                });
                (owner.into(), told.collect())
            })
            .collect();
        Self { threshold, told }
    }

    /// One owner, whose shares everybody holds.
    fn one(threshold: usize, count: u16, wrong: &[u16]) -> Self {
        Self::new(threshold, 1, |_| (0..count).collect(), |_| wrong.iter().copied().collect())
    }

    fn first(mut self, count: usize) -> Self {
        self.told.values_mut().for_each(|told| told.truncate(count));
        self
    }

    fn run(&self, found: &mut Found, further: Further) -> Result<(), DeviceIndex> {
        let shares = self
            .told
            .iter()
            .map(|(owner, told)| (*owner, told.iter().map(|(holder, share)| (*holder, share)).collect()));
        let accept = |owner, found: &Seed| found.as_bytes() == seed(owner).as_bytes();
        Rebuilding { threshold: self.threshold, shares: shares.collect(), accept }.run(found, further)
    }

    fn is_found(&self, further: Further) -> bool {
        self.run(&mut Found::default(), further).is_ok()
    }

    /// What finding all seeds takes when no further answer will come.
    fn work(&self) -> Work {
        let mut found = Found::default();
        assert_eq!(self.run(&mut found, Further::WontCome), Ok(()));
        assert_eq!(found.seeds.len(), self.told.len());
        found.work
    }
}

fn seed(owner: DeviceIndex) -> Seed {
    let [high, low] = owner.get().to_be_bytes();
    let mut bytes = [6; 32];
    (bytes[0], bytes[1]) = (high, low);
    Seed::from_bytes(bytes)
}

#[test]
fn combinations_come_once_and_in_order() {
    let all: Vec<_> = Combinations::new(4, 2).collect();
    assert_eq!(all, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
    assert_eq!(Combinations::new(3, 3).count(), 1);
    assert_eq!(Combinations::new(2, 3).count(), 0);
}

#[test]
fn right_shares_are_enough_at_the_threshold() {
    assert!(Cohort::one(4, 4, &[]).is_found(Further::MayCome));
    assert!(!Cohort::one(4, 3, &[]).is_found(Further::WontCome));
}

#[test]
fn a_wrong_share_costs_at_most_two_further_ones() {
    for wrong in 0..4 {
        let found = (4..9).find(|count| Cohort::one(4, *count, &[wrong]).is_found(Further::MayCome));
        assert_eq!(found, Some(6), "wrong: {wrong}");
    }
}

#[test]
fn one_wrong_share_with_one_to_spare_is_searched_for() {
    for wrong in 0..5 {
        assert!(Cohort::one(4, 5, &[wrong]).is_found(Further::WontCome));
    }
    assert!(!Cohort::one(4, 5, &[0]).is_found(Further::MayCome));
}

#[test]
fn as_many_wrong_shares_as_are_to_spare_are_left_out_of_a_small_cohort() {
    for wrong in [[0, 3, 4, 9], [0, 1, 2, 3], [6, 7, 8, 9], [5, 7, 8, 9], [0, 7, 8, 9]] {
        assert!(Cohort::one(6, 10, &wrong).is_found(Further::WontCome), "{wrong:?}");
    }
}

#[test]
fn what_a_search_leaves_out_is_wrong_and_used_last_afterwards() {
    let wrong = Places::from([1, 4]);
    let cohort = Cohort::new(4, 5, |_| (0..6).collect(), |_| wrong.clone());
    let mut found = Found::default();
    assert_eq!(cohort.run(&mut found, Further::WontCome), Ok(()));
    let blamed: Places = (0..6).filter(|place| found.blame.of((*place).into()) > 0).collect();
    assert_eq!(blamed, wrong);
    // One seed is decoded or searched for; the others are interpolated once more.
    assert_eq!(found.work.interpolated, 5 + 4);
}

#[test]
fn wrong_shares_within_the_radius_are_decoded_away_in_a_large_cohort() {
    let wrong = |count: u16| (0..count).map(|i| 3 * i).collect::<Vec<_>>();
    // At 161 there are 32 to spare.
    assert!(!Cohort::one(129, 172, &wrong(16)).first(160).is_found(Further::MayCome));
    assert!(Cohort::one(129, 172, &wrong(16)).first(161).is_found(Further::MayCome));
    assert!(Cohort::one(129, 172, &wrong(21)).is_found(Further::MayCome));
}

#[test]
fn the_shares_of_the_blamed_are_left_out_where_all_of_them_do_not_decode() {
    // 8 to spare, so at most 4 wrong: 4 of one seed, and these 4 and 2 others of the next.
    let wrong = |owner: u16| if owner == 0 { Places::from([0, 1, 2, 3]) } else { (0..6).collect() };
    let work = Cohort::new(20, 2, |_| (0..28).collect(), wrong).work();
    assert_eq!(work, Work { interpolated: 3, decoded: 3, subsets: 0 });
}

#[test]
fn one_wrong_share_more_than_to_spare_gives_nothing() {
    for (count, wrong) in [(5, &[0, 1][..]), (4, &[2])] {
        assert!(!Cohort::one(4, count, wrong).is_found(Further::MayCome));
        assert!(!Cohort::one(4, count, wrong).is_found(Further::WontCome));
    }
}

#[test]
fn what_an_attempt_found_is_not_looked_for_again() {
    let wrong = |owner: u16| if owner < 8 { Places::new() } else { Places::from([2, 3]) };
    let cohort = |count| Cohort::new(4, 10, |_| (0..count).collect(), wrong);
    let mut found = Found::default();
    assert_eq!(cohort(6).run(&mut found, Further::MayCome), Err(8.into()));
    assert_eq!(found.work, Work { interpolated: 10, decoded: 1, subsets: 0 });
    assert_eq!(cohort(8).run(&mut found, Further::MayCome), Ok(()));
    assert_eq!(found.work, Work { interpolated: 10 + 2 + 1, decoded: 2, subsets: 0 });
}

#[test]
fn the_subsets_are_counted_for_the_round_and_not_for_each_seed() {
    let mut found = Found::default();
    let cohort = Cohort::new(129, 4, |_| (0..140).collect(), |_| (0..11).collect());
    for _ in 0..3 {
        assert_eq!(cohort.run(&mut found, Further::WontCome), Err(0.into()));
    }
    assert_eq!(found.work, Work { interpolated: 3 * 4, decoded: 3, subsets: MOST_SUBSETS });
}

/// The decodings that the module promises not to exceed, where all succeed.
fn promised(corrupt: usize, honest: usize, threshold: usize) -> usize {
    corrupt * ((corrupt * corrupt).div_ceil(honest - threshold) + 1)
}

/// The worst that 12 corrupt of 256 are known to do when `answers` of them answer. As owners they deal wrong
/// shares to `slandered` honest holders, as many each as `each` and in turn, so that all but one of the first
/// t places are others' and whoever has less blame takes that one. As holders the first lies alone until it
/// comes last, then the second with the first, who lessens its blame, and so on; whoever does not lie yet says
/// that it has no share.
fn twelve_of_256(answers: u16, slandered: u16, each: u16) -> Work {
    const CORRUPT: u16 = 12;
    let mut liars: Vec<u16> = (1..=CORRUPT).flat_map(|liars| (0..=liars).map(move |_| liars)).collect();
    liars.resize(256, CORRUPT);
    let liars = |owner: u16| owner.checked_sub(CORRUPT).map(|honest| 0..liars[usize::from(honest)]);
    let wrong = |owner: u16| match liars(owner) {
        None => (0..each).map(|i| CORRUPT + (owner * each + i) % slandered).collect(),
        Some(liars) => liars.collect(),
    };
    let holders = |owner: u16| liars(owner).unwrap_or(0..0).chain(CORRUPT..answers).collect();
    Cohort::new(129, 256, holders, wrong).work()
}

#[test]
fn the_work_of_a_round_is_bounded_when_all_of_256_answer() {
    let work = twelve_of_256(256, 116, 10);
    println!("{work:?}");
    assert_eq!(promised(12, 244, 129), 36);
    assert!((20..=36).contains(&work.decoded), "{work:?}");
    assert!(work.interpolated <= 2 * 256 && work.subsets == 0, "{work:?}");
}

#[test]
fn the_work_of_a_round_is_bounded_when_as_few_of_256_answer_as_suffice() {
    let work = twelve_of_256(129 + 24, 13, 6);
    println!("{work:?}");
    assert_eq!(promised(12, 141, 129), 156);
    assert!((60..=156).contains(&work.decoded), "{work:?}");
    assert!(work.interpolated <= 2 * 256 && work.subsets == 0, "{work:?}");
}

#[test]
fn liars_about_everybody_are_found_at_once() {
    let liars = |owner: u16| if owner < 12 { Places::new() } else { (0..12).collect() };
    let work = Cohort::new(129, 256, |_| (0..256).collect(), liars).work();
    assert_eq!(work, Work { interpolated: 256 + 243, decoded: 1, subsets: 0 });
}

#[test]
fn the_work_of_a_round_is_bounded_on_a_ring_of_1000() {
    const DEVICES: u16 = 1000;
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let mut draw = |count: usize| {
        let mut drawn = Places::new();
        while drawn.len() < count {
            drawn.insert(u16::try_from(rng.next_u32() % u32::from(DEVICES)).unwrap());
        }
        drawn
    };
    let (corrupt, missing) = (draw(50), draw(300));
    let near = |owner: u16, far: u16| -> Places {
        (1..=far).flat_map(|step| [(owner + step) % DEVICES, (owner + DEVICES - step) % DEVICES]).collect()
    };
    // The corrupt answer whatever else happens.
    let answers = |place: &u16| corrupt.contains(place) || !missing.contains(place);
    let holders = |owner: u16| -> Places { near(owner, 65).into_iter().filter(answers).collect() };
    let wrong = |owner: u16| -> Places {
        let (liars, honest): (Vec<u16>, Vec<u16>) =
            holders(owner).into_iter().partition(|holder| corrupt.contains(holder));
        if corrupt.contains(&owner) {
            honest.into_iter().take(20).collect()
        } else {
            liars.into_iter().filter(|liar| !(liar * 7 + owner).is_multiple_of(3)).collect()
        }
    };
    let work = Cohort::new(31, DEVICES, holders, wrong).work();
    let liars = |owner: u16| holders(owner).intersection(&corrupt).count();
    let honest = (0..DEVICES).map(|owner| holders(owner).len() - liars(owner)).min().unwrap();
    let of_a_seed = (0..DEVICES).map(liars).max().unwrap();
    let owners = |owner: u16| near(owner, 130).intersection(&corrupt).count() + 1;
    let of_its_owners = (0..DEVICES).map(owners).max().unwrap();
    let promised = 50 * ((of_a_seed * of_its_owners).div_ceil(honest - 31) + 1);
    println!("{work:?}, promised {promised}");
    assert!(work.decoded <= promised && work.subsets == 0, "{work:?}, promised {promised}");
    assert!(work.interpolated <= 2 * usize::from(DEVICES), "{work:?}");
}
