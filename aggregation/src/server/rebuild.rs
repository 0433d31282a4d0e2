//! Rebuilds the seeds of a round although some shares of them are wrong, in
//! work that is bounded for the round.
//!
//! First each seed is interpolated from t of its shares, on all threads, those
//! of the holders before the others that are least to [`Blame`]. A seed that
//! does not fit its commitment then is decoded: with all of its shares, and
//! with those of the blamed left out, which are erasures and need half the
//! redundancy of errors. Where that fails too and no further share will come,
//! subsets of the shares are tried, of which a round has [`MOST_SUBSETS`]. The
//! first seed that is not found ends the attempt, since without it there is no
//! sum.
//!
//! # How much that is
//!
//! Say f devices are corrupt, as owners and as holders, and h of the honest
//! revealed what they hold. Whenever a seed is found by more than
//! interpolation, at least one holder among the t that came first is found
//! wrong, and blamed for it. Take an honest owner, so that this holder is
//! corrupt, and is given at least 1/f. The corrupt owners spread f units among
//! the honest, of whom then at most f / b have a blame of b or more; so once the
//! holder has b ≥ f / (h − t), t honest ones come before it and nobody asks it
//! again. That takes ⌈f² / (h − t)⌉ such seeds for each corrupt holder, and f
//! seeds are the corrupt owners' own:
//!
//! - at most f · (⌈f² / (h − t)⌉ + 1) seeds are found by more than
//!   interpolation (36 for N = 256, t = 129, f = 12 when all answer), and never
//!   more than there are seeds;
//! - each of them costs at most two decodings, and so does the seed that ends an
//!   attempt;
//! - beside the subsets, each seed is interpolated at most twice an attempt.
//!
//! In a ring the same holds for each neighbourhood: f are then the corrupt among
//! the holders of a seed, and the units those of the corrupt among all owners
//! with such a holder. `the_work_of_a_round_is_bounded_*` below count.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::blame::Blame;
use crate::{
    index::DeviceIndex,
    seed::Seed,
    shamir::{self, Rebuilder, Share},
};

/// How many subsets of shares are tried in a round as a last resort.
const MOST_SUBSETS: usize = 2048;

/// A holder, and its share of somebody's seed.
pub(super) type Held<'a> = (DeviceIndex, &'a Share);

/// Whether further answers may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Further {
    /// They may: what takes long is left for when they did not help.
    MayCome,
    /// None will be waited for.
    WontCome,
}

/// What the attempts of a round found so far.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Of the survivors the own mask's seed, of the missing the key's.
    pub(super) seeds: BTreeMap<DeviceIndex, Seed>,
    blame: Blame,
    work: Work,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    /// Seeds interpolated from t shares, the subsets aside.
    interpolated: usize,
    decoded: usize,
    subsets: usize,
}

/// The seeds of a round, and the shares of each that there are.
pub(super) struct Rebuilding<'a, A> {
    pub(super) threshold: usize,
    /// By owner, each holder once.
    pub(super) shares: BTreeMap<DeviceIndex, Vec<Held<'a>>>,
    /// Whether a seed is the one that its owner committed to.
    pub(super) accept: A,
}

/// Rebuilds what exactly these shares give. The coefficients of the last set of
/// holders are kept: often it is the next one's too.
#[derive(Default)]
struct Interpolator(Option<(Vec<DeviceIndex>, Rebuilder)>);

impl<A: Fn(DeviceIndex, &Seed) -> bool + Sync> Rebuilding<'_, A> {
    /// Rebuilds every seed that is not found yet. Fails with the first owner
    /// whose seed cannot be rebuilt; the others' may be missing then too.
    pub(super) fn run(&self, found: &mut Found, further: Further) -> Result<(), DeviceIndex> {
        let wanted = || self.shares.iter().filter(|(owner, _)| !found.seeds.contains_key(owner));
        if let Some((owner, _)) = wanted().find(|(_, shares)| shares.len() < self.threshold) {
            return Err(*owner);
        }
        let wanted: Vec<(DeviceIndex, &[Held<'_>])> =
            wanted().map(|(owner, shares)| (*owner, shares.as_slice())).collect();
        let blame = &found.blame;
        let interpolated: Vec<Option<Seed>> = wanted
            .par_iter()
            .map_init(Interpolator::default, |interpolator, (owner, shares)| {
                self.interpolate(*owner, &ordered(shares, blame), interpolator)
            })
            .collect();
        found.work.interpolated += wanted.len();
        let mut left = Vec::new();
        for ((owner, shares), seed) in wanted.into_iter().zip(interpolated) {
            match seed {
                Some(seed) => drop(found.seeds.insert(owner, seed)),
                None => left.push((owner, shares)),
            }
        }
        // One after the other: what one seed tells of the holders saves work for the next.
        let (mut interpolator, mut news) = (Interpolator::default(), false);
        for (owner, shares) in left {
            let ordered = ordered(shares, &found.blame);
            if news {
                found.work.interpolated += 1;
                if let Some(seed) = self.interpolate(owner, &ordered, &mut interpolator) {
                    found.seeds.insert(owner, seed);
                    continue;
                }
            }
            let seed = self.decode(owner, &ordered, found);
            let seed = seed.or_else(|| match further {
                Further::MayCome => None,
                Further::WontCome => self.search(owner, &ordered, found, &mut interpolator),
            });
            let (seed, wrong) = seed.ok_or(owner)?;
            found.blame.put_on(&wrong);
            found.seeds.insert(owner, seed);
            news = true;
        }
        Ok(())
    }

    /// From the first t shares.
    fn interpolate(
        &self,
        owner: DeviceIndex,
        ordered: &[Held<'_>],
        interpolator: &mut Interpolator,
    ) -> Option<Seed> {
        let first = ordered.get(..self.threshold)?;
        interpolator.combine(first).filter(|seed| (self.accept)(owner, seed))
    }

    /// What the shares give if few enough are wrong, and whose are.
    fn decode(
        &self,
        owner: DeviceIndex,
        ordered: &[Held<'_>],
        found: &mut Found,
    ) -> Option<(Seed, Vec<DeviceIndex>)> {
        let least = self.threshold + 2;
        let blameless = ordered.partition_point(|(holder, _)| found.blame.of(*holder) == 0);
        let kept = blameless.max(least);
        let mut words = vec![ordered];
        words.extend(ordered.get(..kept).filter(|kept| kept.len() < ordered.len()));
        words.into_iter().filter(|word| word.len() >= least).find_map(|word| {
            found.work.decoded += 1;
            shamir::decode(word, self.threshold).filter(|(seed, _)| (self.accept)(owner, seed))
        })
    }

    /// By leaving out ever more of the shares, those of the most blamed first;
    /// and whose had to be left out.
    fn search(
        &self,
        owner: DeviceIndex,
        ordered: &[Held<'_>],
        found: &mut Found,
        interpolator: &mut Interpolator,
    ) -> Option<(Seed, Vec<DeviceIndex>)> {
        let spare = ordered.len().checked_sub(self.threshold)?;
        for omitted in 1..=spare {
            // Leaving out what comes after these was tried with fewer left out.
            let tried = ordered.get(..self.threshold + omitted)?;
            for places in Combinations::new(tried.len() - 1, omitted) {
                if found.work.subsets == MOST_SUBSETS {
                    return None;
                }
                found.work.subsets += 1;
                // From the back, where the most blamed are.
                let is_out = |place: usize| {
                    (tried.len() - 2)
                        .checked_sub(place)
                        .is_some_and(|back| places.binary_search(&back).is_ok())
                };
                let (out, rest): (Vec<_>, Vec<_>) =
                    tried.iter().enumerate().partition(|(place, _)| is_out(*place));
                let rest: Vec<Held<'_>> = rest.into_iter().map(|(_, held)| *held).collect();
                if let Some(seed) = self.interpolate(owner, &rest, interpolator) {
                    // Each is wrong: with fewer left out it did not fit.
                    return Some((seed, out.into_iter().map(|(_, (holder, _))| *holder).collect()));
                }
            }
        }
        None
    }
}

impl Interpolator {
    fn combine(&mut self, shares: &[Held<'_>]) -> Option<Seed> {
        let places: Vec<DeviceIndex> = shares.iter().map(|(holder, _)| *holder).collect();
        if self.0.as_ref().is_none_or(|(known, _)| *known != places) {
            let rebuilder = Rebuilder::new(&places)?;
            self.0 = Some((places, rebuilder));
        }
        let (_, rebuilder) = self.0.as_ref()?;
        rebuilder.rebuild(shares.iter().map(|(_, share)| *share))
    }
}

/// The least blamed first, else by their places.
fn ordered<'a>(shares: &[Held<'a>], blame: &Blame) -> Vec<Held<'a>> {
    let mut ordered = shares.to_vec();
    ordered.sort_by_key(|(holder, _)| (blame.of(*holder), *holder));
    ordered
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
mod tests;
