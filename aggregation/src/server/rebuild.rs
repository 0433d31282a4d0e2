//! Rebuilds seeds although some shares are wrong.

use std::collections::BTreeMap;

use crate::{
    index::DeviceIndex,
    seed::Seed,
    shamir::{self, Rebuilder, Share},
};

/// How many further subsets are tried for one seed when neither the first
/// subset nor decoding gives it.
const MOST_SUBSETS: usize = 2048;

/// The shares that one device revealed, by the device whose seed they are of.
pub(super) type Revealed = BTreeMap<DeviceIndex, Share>;

/// Rebuilds seeds from one set of responders, those that gave a wrong share
/// last.
pub(super) struct SeedRebuilder<'a> {
    responders: Vec<(DeviceIndex, &'a Revealed)>,
    threshold: usize,
    /// For the first `threshold` responders.
    first: Option<Rebuilder>,
}

impl<'a> SeedRebuilder<'a> {
    pub(super) fn new(responders: Vec<(DeviceIndex, &'a Revealed)>, threshold: usize) -> Self {
        let mut rebuilder = Self { responders, threshold, first: None };
        rebuilder.prepare();
        rebuilder
    }

    /// The seed of `owner` that `accept` takes, or nothing if too many shares
    /// are wrong: first from the responders that never gave a wrong share, then
    /// by decoding, which corrects up to ⌊(n − t) / 2⌋ wrong shares, then from
    /// other subsets.
    pub(super) fn rebuild(&mut self, owner: DeviceIndex, accept: impl Fn(&Seed) -> bool) -> Option<Seed> {
        let shares: Vec<(DeviceIndex, &Share)> = self
            .responders
            .iter()
            .filter_map(|(place, revealed)| Some((*place, revealed.get(&owner)?)))
            .collect();
        let used = shares.iter().take(self.threshold).map(|(_, share)| *share);
        let first = self.first.as_ref().and_then(|first| first.rebuild(used));
        if let Some(seed) = first.filter(&accept) {
            return Some(seed);
        }
        let decoded = shamir::decode(&shares, self.threshold);
        let (seed, wrong) =
            decoded.filter(|(seed, _)| accept(seed)).or_else(|| search(&shares, self.threshold, &accept))?;
        self.distrust(&wrong);
        Some(seed)
    }

    fn distrust(&mut self, wrong: &[DeviceIndex]) {
        self.responders.sort_by_key(|(place, _)| wrong.contains(place));
        self.prepare();
    }

    fn prepare(&mut self) {
        let trusted = self.responders.iter().take(self.threshold);
        let places: Vec<DeviceIndex> = trusted.map(|(place, _)| *place).collect();
        self.first = Rebuilder::new(&places);
    }
}

/// Leaves out ever more shares until the rest give a seed that `accept` takes;
/// says also which were left out.
fn search(
    shares: &[(DeviceIndex, &Share)],
    threshold: usize,
    accept: impl Fn(&Seed) -> bool,
) -> Option<(Seed, Vec<DeviceIndex>)> {
    let spare = shares.len().checked_sub(threshold)?;
    let ways = (1..=spare).flat_map(|omitted| Combinations::new(shares.len(), omitted));
    for omitted in ways.take(MOST_SUBSETS) {
        let rest = shares.iter().enumerate().filter(|(place, _)| !omitted.contains(place));
        let subset: Vec<_> = rest.map(|(_, share)| share).take(threshold).collect();
        let places: Vec<DeviceIndex> = subset.iter().map(|(place, _)| *place).collect();
        let seed = Rebuilder::new(&places)
            .and_then(|rebuilder| rebuilder.rebuild(subset.iter().map(|(_, share)| *share)));
        if let Some(seed) = seed.filter(&accept) {
            return Some((seed, omitted.iter().map(|place| shares[*place].0).collect()));
        }
    }
    None
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

    fn revealed(threshold: usize, count: u16, wrong: &[u16]) -> Vec<(DeviceIndex, Revealed)> {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let shares = shamir::split(&Seed::from_bytes(SEED), threshold, count, &mut rng);
        let bad = Share::from_bytes(&[0; shamir::SHARE_BYTES]).unwrap();
        (0..count)
            .zip(shares)
            .map(|(place, share)| {
                let share = if wrong.contains(&place) { bad.clone() } else { share };
                (place.into(), Revealed::from([(0.into(), share)]))
            })
            .collect()
    }

    fn rebuilds(threshold: usize, count: u16, wrong: &[u16]) -> bool {
        let revealed = revealed(threshold, count, wrong);
        let responders = revealed.iter().map(|(place, shares)| (*place, shares)).collect();
        let mut rebuilder = SeedRebuilder::new(responders, threshold);
        let found = rebuilder.rebuild(0.into(), |seed| *seed.as_bytes() == SEED);
        if found.is_some() {
            // The liars are at the end now, so the first subset is right.
            let used = rebuilder.responders.iter().take(threshold);
            assert!(used.clone().all(|(place, _)| !wrong.contains(&place.get())));
        }
        found.is_some()
    }

    #[test]
    fn combinations_come_once_and_in_order() {
        let all: Vec<_> = Combinations::new(4, 2).collect();
        assert_eq!(all, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(Combinations::new(3, 3).count(), 1);
        assert_eq!(Combinations::new(2, 3).count(), 0);
    }

    #[test]
    fn one_wrong_share_with_one_to_spare_is_left_out() {
        for wrong in 0..5 {
            assert!(rebuilds(4, 5, &[wrong]));
        }
    }

    #[test]
    fn as_many_wrong_shares_as_are_to_spare_are_left_out_of_a_small_cohort() {
        assert!(rebuilds(6, 10, &[0, 3, 4, 9]));
    }

    #[test]
    fn wrong_shares_within_the_radius_are_decoded_away_in_a_large_cohort() {
        let wrong: Vec<u16> = (0..20).map(|i| 3 * i).collect();
        assert!(rebuilds(129, 172, &wrong));
    }

    #[test]
    fn one_wrong_share_more_than_to_spare_gives_nothing() {
        assert!(!rebuilds(4, 5, &[0, 1]));
        assert!(!rebuilds(4, 4, &[2]));
    }
}
