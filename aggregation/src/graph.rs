//! Who shares masks and seeds with whom, and how many it takes.

use crate::index::DeviceIndex;

/// The largest cohort.
pub const MAX_COHORT: usize = 256;

/// The complete graph over a cohort: everybody is everybody's neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph {
    size: u16,
}

impl Graph {
    /// The complete graph over `size` devices, or nothing unless
    /// 1 ≤ `size` ≤ [`MAX_COHORT`].
    pub fn complete(size: usize) -> Option<Self> {
        match u16::try_from(size) {
            Ok(places) if (1..=MAX_COHORT).contains(&size) => Some(Self { size: places }),
            _ => None,
        }
    }

    /// The devices in the cohort.
    pub const fn size(self) -> u16 {
        self.size
    }

    /// The neighbours of a device, in order of their places.
    pub fn neighbours(self, of: DeviceIndex) -> impl Iterator<Item = DeviceIndex> {
        self.places().filter(move |place| *place != of)
    }

    /// Every place, in order.
    pub fn places(self) -> impl Iterator<Item = DeviceIndex> {
        (0..self.size).map(DeviceIndex::from)
    }

    /// Fewest shares that rebuild a seed: t = ⌊N / 2⌋ + 1.
    pub fn threshold(self) -> usize {
        usize::from(self.size) / 2 + 1
    }

    /// Fewest signatures on one transcript: Q = ⌊(N + ⌊γN⌋) / 2⌋ + 1, with γ in
    /// thousandths. Two quorums have more than γN signers in common, so an
    /// honest one, who signs only once.
    pub fn quorum(self, corrupt_fraction_permille: u16) -> usize {
        let size = usize::from(self.size);
        let corrupt = size * usize::from(corrupt_fraction_permille) / 1000;
        usize::midpoint(size, corrupt) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_to_256_devices_make_a_cohort() {
        assert_eq!(Graph::complete(0), None);
        assert_eq!(Graph::complete(257), None);
        assert!(Graph::complete(1).is_some());
        assert!(Graph::complete(256).is_some());
    }

    #[test]
    fn threshold_and_quorum_follow_their_formulas() {
        let numbers = |size, permille| {
            let graph = Graph::complete(size).unwrap();
            (graph.threshold(), graph.quorum(permille))
        };
        assert_eq!(numbers(1, 50), (1, 1));
        assert_eq!(numbers(2, 50), (2, 2));
        assert_eq!(numbers(20, 50), (11, 11));
        assert_eq!(numbers(100, 50), (51, 53));
        assert_eq!(numbers(101, 50), (51, 54));
        assert_eq!(numbers(256, 100), (129, 141));
    }

    #[test]
    fn two_quorums_share_more_devices_than_may_be_corrupt() {
        for size in 1..=MAX_COHORT {
            for permille in [0, 1, 50, 100, 333, 499] {
                let graph = Graph::complete(size).unwrap();
                let corrupt = size * usize::from(permille) / 1000;
                assert!(graph.quorum(permille) <= size);
                assert!(2 * graph.quorum(permille) > size + corrupt);
                assert!(corrupt < graph.threshold());
            }
        }
    }

    #[test]
    fn a_device_is_not_its_own_neighbour() {
        let graph = Graph::complete(3).unwrap();
        let neighbours: Vec<u16> = graph.neighbours(1.into()).map(DeviceIndex::get).collect();
        assert_eq!(neighbours, [0, 2]);
    }
}
