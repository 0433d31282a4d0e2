//! Rebuilds a seed although some shares of it are wrong.

use crate::{
    index::DeviceIndex,
    seed::Seed,
    shamir::{self, Rebuilder, Share},
};

/// How many subsets are tried for one seed as a last resort.
const MOST_SUBSETS: usize = 2048;

/// A share and the place of its holder.
pub(super) type Held = (DeviceIndex, Share);

/// Rebuilds seeds from at least `threshold` shares each.
#[derive(Clone, Debug)]
pub(super) struct SeedRebuilder {
    threshold: usize,
    /// The coefficients of the last set of holders: often it is the next one's
    /// too.
    last: Option<(Vec<DeviceIndex>, Rebuilder)>,
}

impl SeedRebuilder {
    pub(super) const fn new(threshold: usize) -> Self {
        Self { threshold, last: None }
    }

    /// The seed that `accept` takes, once there are enough shares. To be asked
    /// again with every further share: the latest shares are tried, and, each
    /// time that those to spare have doubled, decoding, which is dearer.
    pub(super) fn rebuild(&mut self, shares: &[Held], accept: impl Fn(&Seed) -> bool) -> Option<Seed> {
        let spare = shares.len().checked_sub(self.threshold)?;
        let latest = self.combine(&shares[spare..]).filter(&accept);
        let doubled = spare >= 2 && spare.is_power_of_two();
        latest.or_else(|| if doubled { self.decode(shares, accept) } else { None })
    }

    /// The seed that `accept` takes, when no further share will come: by
    /// decoding, or by leaving out ever more of them until the rest give it.
    pub(super) fn search(&mut self, shares: &[Held], accept: impl Fn(&Seed) -> bool) -> Option<Seed> {
        if let Some(seed) = self.decode(shares, &accept) {
            return Some(seed);
        }
        let spare = shares.len().checked_sub(self.threshold)?;
        let ways = (1..=spare).flat_map(|omitted| Combinations::new(shares.len(), omitted));
        ways.take(MOST_SUBSETS).find_map(|omitted| {
            let rest = shares.iter().enumerate().filter(|(place, _)| !omitted.contains(place));
            let subset: Vec<Held> = rest.map(|(_, held)| held.clone()).take(self.threshold).collect();
            self.combine(&subset).filter(&accept)
        })
    }

    /// What the shares rebuild if up to ⌊(n − t) / 2⌋ of them are wrong.
    fn decode(&self, shares: &[Held], accept: impl Fn(&Seed) -> bool) -> Option<Seed> {
        let borrowed: Vec<_> = shares.iter().map(|(holder, share)| (*holder, share)).collect();
        shamir::decode(&borrowed, self.threshold).map(|(seed, _)| seed).filter(accept)
    }

    /// What exactly these shares rebuild.
    fn combine(&mut self, shares: &[Held]) -> Option<Seed> {
        let places: Vec<DeviceIndex> = shares.iter().map(|(holder, _)| *holder).collect();
        if self.last.as_ref().is_none_or(|(known, _)| *known != places) {
            let rebuilder = Rebuilder::new(&places)?;
            self.last = Some((places, rebuilder));
        }
        let (_, rebuilder) = self.last.as_ref()?;
        rebuilder.rebuild(shares.iter().map(|(_, share)| share))
    }
}

/// The ways to choose some of `from` places, in lexicographic order.
struct Combinations {
    from: usize,
    next: Option<Vec<usize>>,
}

impl Combinations {
    fn new(from: usize, choose: usize) -> Self {
        Self { from, next: (choose <= from).then(|| (0..choose).collect()) }
    }
}

impl Iterator for Combinations {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let current = self.next.take()?;
        let choose = current.len();
        // The last place that can still move up.
        let movable = (0..choose).rev().find(|i| current[*i] < self.from - choose + i);
        self.next = movable.map(|i| {
            let fixed = current[..i].iter().copied();
            fixed.chain((current[i] + 1..).take(choose - i)).collect()
        });
        Some(current)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const SEED: [u8; 32] = [6; 32];

    /// Shares of every place, of which those of `wrong` are.
    fn shares(threshold: usize, count: u16, wrong: &[u16]) -> Vec<Held> {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let places: Vec<DeviceIndex> = (0..count).map(DeviceIndex::from).collect();
        let shares = shamir::split(&Seed::from_bytes(SEED), threshold, &places, &mut rng);
        let bad = Share::from_bytes(&[0; shamir::SHARE_BYTES]).unwrap();
        let turned = |place: &DeviceIndex| wrong.contains(&place.get());
        let pairs = places.into_iter().zip(shares);
        pairs
            .map(|(place, share)| if turned(&place) { (place, bad.clone()) } else { (place, share) })
            .collect()
    }

    /// With how many of the shares, taken in order, the seed is there; nothing
    /// if only a search finds it, or if none does.
    fn enough(threshold: usize, count: u16, wrong: &[u16]) -> Option<usize> {
        let shares = shares(threshold, count, wrong);
        let mut rebuilder = SeedRebuilder::new(threshold);
        let right = |seed: &Seed| *seed.as_bytes() == SEED;
        (0..=shares.len()).find(|got| rebuilder.rebuild(&shares[..*got], right).is_some())
    }

    fn search_finds(threshold: usize, count: u16, wrong: &[u16]) -> bool {
        let right = |seed: &Seed| *seed.as_bytes() == SEED;
        SeedRebuilder::new(threshold).search(&shares(threshold, count, wrong), right).is_some()
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
        assert_eq!(enough(4, 9, &[]), Some(4));
    }

    #[test]
    fn a_wrong_share_costs_at_most_two_further_ones() {
        assert_eq!(enough(4, 9, &[0]), Some(5));
        assert_eq!(enough(4, 9, &[3]), Some(6));
    }

    #[test]
    fn one_wrong_share_with_one_to_spare_is_searched_for() {
        for wrong in 0..5 {
            assert!(search_finds(4, 5, &[wrong]));
        }
    }

    #[test]
    fn as_many_wrong_shares_as_are_to_spare_are_left_out_of_a_small_cohort() {
        assert!(search_finds(6, 10, &[0, 3, 4, 9]));
    }

    #[test]
    fn wrong_shares_within_the_radius_are_decoded_away_in_a_large_cohort() {
        let wrong = |count: u16| (0..count).map(|i| 3 * i).collect::<Vec<_>>();
        // At 161 there are 32 to spare.
        assert_eq!(enough(129, 172, &wrong(16)), Some(161));
        assert!(search_finds(129, 172, &wrong(21)));
    }

    #[test]
    fn one_wrong_share_more_than_to_spare_gives_nothing() {
        for (count, wrong) in [(5, &[0, 1][..]), (4, &[2])] {
            assert_eq!(enough(4, count, wrong), None);
            assert!(!search_finds(4, count, wrong));
        }
    }
}
