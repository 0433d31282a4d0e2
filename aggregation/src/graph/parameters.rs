//! How many neighbours a device of a large cohort needs.
//!
//! [BBG+20], section 3, with exact hypergeometric tails in place of their
//! bounds. Of N devices f are corrupt and ⌈(1 − δ)N⌉ are left at the end;
//! where they are on the ring is chance. A graph fails
//!
//! - if k / 2 consecutive places hold more than x corrupt devices, which could
//!   cut the survivors in two, or if more than a of a device's neighbours are
//!   corrupt, which could rebuild its seeds: each at most once in 2^41;
//! - if k / 2 consecutive places hold at most x survivors, or fewer than
//!   t = a + 1 of a device's neighbours are left: each at most once in 2^20.
//!
//! Every term is a union bound over N places. Probabilities come from the ratio
//! of one to the next by the four basic operations alone, so that all machines
//! find the same parameters.
//!
//! [BBG+20]: https://eprint.iacr.org/2020/704

/// The logarithm of how often the graph may fail to protect, for each of two
/// ways.
const SECURITY_LOG2: i32 = -41;

/// The logarithm of how often honest devices that vanish may end a session,
/// for each of two ways.
const CORRECTNESS_LOG2: i32 = -20;

/// The fewest neighbours that are considered.
const LEAST_NEIGHBORS: usize = 8;

/// What a ring is built and judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Neighbours of each device, k: an even number.
    pub neighbors: usize,
    /// Fewest shares that rebuild a seed, t.
    pub threshold: usize,
    /// Most corrupt devices in k / 2 consecutive places, x.
    pub window_bound: usize,
}

impl Parameters {
    /// The fewest neighbours that do for `size` devices of which so many may be
    /// corrupt (f) and these thousandths may vanish (δ). Nothing if none do.
    pub fn search(size: usize, corrupt: usize, missing_permille: u16) -> Option<Self> {
        let left = (size * 1000_usize.checked_sub(missing_permille.into())?).div_ceil(1000);
        if corrupt > size {
            return None;
        }
        (LEAST_NEIGHBORS..size.saturating_sub(1)).step_by(2).find_map(|neighbors| {
            let within = |marked, drawn| Hypergeometric::new(size, marked, drawn);
            let secure = tail(size, SECURITY_LOG2);
            let window_bound = within(corrupt, neighbors / 2).least_bound(secure);
            let most_corrupt = within(corrupt, neighbors).least_bound(secure);
            let correct = tail(size, CORRECTNESS_LOG2);
            let holds = within(left, neighbors / 2).at_most(window_bound) <= correct
                && within(left, neighbors).at_most(most_corrupt) <= correct;
            holds.then_some(Self { neighbors, threshold: most_corrupt + 1, window_bound })
        })
    }
}

/// What each of `size` places may contribute to a failure at most.
fn tail(size: usize, log2: i32) -> f64 {
    2_f64.powi(log2) / size as f64
}

/// How many of the marked are among those drawn.
struct Hypergeometric {
    /// The least number that is possible.
    low: usize,
    /// Of that number and each above it.
    probabilities: Vec<f64>,
}

impl Hypergeometric {
    /// For `drawn` of `total`, of which `marked` are marked; neither is above
    /// `total`.
    fn new(total: usize, marked: usize, drawn: usize) -> Self {
        let low = (drawn + marked).saturating_sub(total);
        let high = drawn.min(marked);
        // P[X = i + 1] / P[X = i]
        let ratio = |i: usize| {
            let above = (marked - i) as f64 * (drawn - i) as f64;
            above / ((i + 1) as f64 * (total + i + 1 - marked - drawn) as f64)
        };
        // From the likeliest number on, so that nothing overflows.
        let mode = ((drawn + 1) * (marked + 1) / (total + 2)).clamp(low, high);
        let mut probabilities = vec![1.0; high - low + 1];
        for i in mode..high {
            probabilities[i + 1 - low] = probabilities[i - low] * ratio(i);
        }
        for i in (low..mode).rev() {
            probabilities[i - low] = probabilities[i + 1 - low] / ratio(i);
        }
        let sum: f64 = probabilities.iter().sum();
        for probability in &mut probabilities {
            *probability /= sum;
        }
        Self { low, probabilities }
    }

    /// The least x with P[X > x] ≤ `tail`.
    fn least_bound(&self, tail: f64) -> usize {
        let mut above = 0.0;
        for (place, probability) in self.probabilities.iter().enumerate().rev() {
            above += probability;
            if above > tail {
                return self.low + place;
            }
        }
        self.low.saturating_sub(1)
    }

    /// P[X ≤ x].
    fn at_most(&self, x: usize) -> f64 {
        let wanted = (x + 1).saturating_sub(self.low);
        self.probabilities.iter().take(wanted).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::corrupt_devices;

    fn found(size: usize, corrupt: u16, missing: u16) -> (usize, usize, usize) {
        let found = Parameters::search(size, corrupt_devices(size, corrupt), missing).unwrap();
        (found.neighbors, found.threshold, found.window_bound)
    }

    /// The table of the design notes, from an implementation by logarithms of
    /// the gamma function.
    #[test]
    fn parameters_agree_with_an_independent_search() {
        for (size, usual, more_corrupt, fewer_missing) in [
            (300, (96, 16, 15), (130, 31, 25), (56, 16, 13)),
            (500, (114, 25, 19), (152, 42, 30), (62, 21, 15)),
            (1000, (130, 31, 22), (176, 51, 35), (70, 24, 17)),
            (2000, (140, 34, 24), (194, 58, 39), (76, 26, 19)),
            (5000, (152, 38, 26), (206, 63, 41), (80, 28, 20)),
            (10000, (158, 39, 27), (216, 66, 43), (82, 29, 20)),
        ] {
            assert_eq!(found(size, 50, 300), usual, "{size}");
            assert_eq!(found(size, 100, 300), more_corrupt, "{size}");
            assert_eq!(found(size, 50, 100), fewer_missing, "{size}");
        }
    }

    /// The logarithms of 0!, 1!, … as sums, to work a tail out another way.
    fn log_factorials(most: usize) -> Vec<f64> {
        let logs = (1..=most).scan(0.0, |sum, i| {
            *sum += (i as f64).ln();
            Some(*sum)
        });
        std::iter::once(0.0).chain(logs).collect()
    }

    #[test]
    fn parameters_meet_every_tail_and_two_neighbors_fewer_do_not() {
        let logs = log_factorials(10_000);
        for size in (100..1100).step_by(37).chain([1500, 2500, 4000, 7000, 10_000]) {
            for (gamma, delta) in [(0, 300), (50, 300), (50, 100), (100, 300), (20, 500)] {
                let bad = size * gamma / 1000;
                let Some(parameters) = Parameters::search(size, bad, delta) else { continue };
                let alive = (size * (1000 - usize::from(delta))).div_ceil(1000);
                let choose = |n: usize, k: usize| logs[n] - logs[k] - logs[n - k];
                let chance = |marked: usize, drawn: usize, i: usize| {
                    let possible = i <= marked && i <= drawn && drawn - i <= size - marked;
                    let log = |i| choose(marked, i) + choose(size - marked, drawn - i) - choose(size, drawn);
                    if possible { log(i).exp() } else { 0.0 }
                };
                let all = size as f64;
                let above = |marked, drawn, x: usize| -> f64 {
                    all * (x + 1..=drawn).map(|i| chance(marked, drawn, i)).sum::<f64>()
                };
                let upto = |marked, drawn, x: usize| -> f64 {
                    all * (0..=x.min(drawn)).map(|i| chance(marked, drawn, i)).sum::<f64>()
                };
                let least = |drawn| (0..=drawn).find(|x| above(bad, drawn, *x) <= 2_f64.powi(-41)).unwrap();
                let correct = |k: usize| {
                    let (x, a) = (least(k / 2), least(k));
                    upto(alive, k / 2, x) <= 2_f64.powi(-20) && upto(alive, k, a) <= 2_f64.powi(-20)
                };
                let k = parameters.neighbors;
                assert_eq!(parameters.window_bound, least(k / 2), "{size} {gamma} {delta}");
                assert_eq!(parameters.threshold, least(k) + 1, "{size} {gamma} {delta}");
                assert!(correct(k), "{size} {gamma} {delta}");
                assert!(k == LEAST_NEIGHBORS || !correct(k - 2), "{size} {gamma} {delta}");
            }
        }
    }

    #[test]
    fn every_cohort_above_the_complete_graph_has_parameters() {
        for size in crate::MAX_COMPLETE + 1..=crate::MAX_COHORT {
            assert!(Parameters::search(size, corrupt_devices(size, 50), 300).is_some(), "{size}");
        }
    }

    #[test]
    fn every_smaller_roster_of_a_cohort_has_parameters_for_all_that_may_be_corrupt_in_it() {
        for cohort in (crate::MAX_COMPLETE + 1..=crate::MAX_COHORT).step_by(41) {
            let corrupt = corrupt_devices(cohort, 50);
            let least = crate::quorum(cohort, corrupt).max(crate::MAX_COMPLETE + 1);
            for size in (least..=cohort).step_by(7) {
                let found = Parameters::search(size, corrupt, 300);
                let whole = Parameters::search(cohort, corrupt, 300);
                assert!(found.is_some() && whole.is_some(), "{size} of {cohort}");
            }
        }
    }

    #[test]
    fn half_of_a_cohort_corrupt_and_half_missing_has_none() {
        assert_eq!(Parameters::search(1000, 499, 500), None);
        assert_eq!(Parameters::search(1000, 50, 1001), None);
        assert_eq!(Parameters::search(1000, 1001, 0), None);
        assert_eq!(Parameters::search(3, 0, 0), None);
    }
}
