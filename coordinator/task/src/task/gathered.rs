//! The sums of the version that is being made, added up while further rounds of it are under way.
//!
//! Each round's sum is decoded by itself, since each is rotated by its own session, and each has noise of its own: as much as
//! its report goal promises. What is kept is the mean of all survivors so far. The noise of K sums adds up to √K times that of
//! one, what their devices teach to K times: a version of K rounds has √K times the signal to noise of one.

use std::collections::{BTreeMap, BTreeSet};

use proto::adapter::Class;
use proto::ids::{DeviceId, Digest};
use proto::plan::{vector_from_bytes, vector_to_bytes};
use serde::{Deserialize, Serialize};

/// What stands for the rosters of several rounds begins with it.
const ROSTERS: &[u8] = b"nightshift rosters of a version v1";

/// The sums of one version so far, as a mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered {
    facts: Facts,
    /// The mean update of all survivors.
    mean: Vec<f32>,
    /// The survivors: each is in one of the sums.
    devices: BTreeSet<DeviceId>,
}

/// What is known of the sums beside the mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    /// The version that the devices trained from.
    from: u32,
    /// The rounds, and what stands for their rosters.
    rounds: Vec<(u64, Digest)>,
    survivors: u32,
    cohort: u32,
    /// The mean of each metric in its share of the range, and the standard deviation of the noise in it, by their bits.
    metrics: Vec<u64>,
    metric_deviation: u64,
    /// How many survivors trained so much of the adapter, where not all train all of it.
    classes: Vec<(Class, u32)>,
}

/// One round's sum, decoded.
pub(super) struct Sum {
    pub(super) round: u64,
    pub(super) roster: Digest,
    pub(super) cohort: usize,
    pub(super) mean: Vec<f32>,
    pub(super) metrics: Vec<f64>,
    pub(super) metric_deviation: f64,
    pub(super) devices: Vec<DeviceId>,
    pub(super) classes: BTreeMap<Class, u32>,
}

impl Gathered {
    /// The first sum of a version that is trained from this one.
    pub(super) fn new(from: u32, sum: Sum) -> Self {
        let Sum { round, roster, cohort, mean, metrics, metric_deviation, devices, classes } = sum;
        let facts = Facts {
            from,
            rounds: vec![(round, roster)],
            survivors: count(devices.len()),
            cohort: count(cohort),
            metrics: metrics.into_iter().map(f64::to_bits).collect(),
            metric_deviation: metric_deviation.to_bits(),
            classes: classes.into_iter().collect(),
        };
        Self { facts, mean, devices: devices.into_iter().collect() }
    }

    /// Takes a further sum.
    pub(super) fn add(&mut self, sum: Sum) {
        let Sum { round, roster, cohort, mean, metrics, metric_deviation, devices, classes } = sum;
        let facts = &mut self.facts;
        let (before, more) = (f64::from(facts.survivors), f64::from(count(devices.len())));
        let part = more / (before + more);
        for (x, y) in self.mean.iter_mut().zip(mean) {
            *x = narrow(f64::from(*x) + (f64::from(y) - f64::from(*x)) * part);
        }
        for (bits, metric) in facts.metrics.iter_mut().zip(metrics) {
            let mean = f64::from_bits(*bits);
            *bits = (mean + (metric - mean) * part).to_bits();
        }
        let deviation = (f64::from_bits(facts.metric_deviation) * before).hypot(metric_deviation * more);
        facts.metric_deviation = (deviation / (before + more)).to_bits();
        let mut sizes: BTreeMap<Class, u32> = facts.classes.iter().copied().collect();
        for (class, devices) in classes {
            *sizes.entry(class).or_default() += devices;
        }
        facts.classes = sizes.into_iter().collect();
        facts.rounds.push((round, roster));
        facts.survivors = facts.survivors.saturating_add(count(devices.len()));
        facts.cohort = facts.cohort.saturating_add(count(cohort));
        self.devices.extend(devices);
    }

    /// How many sums.
    pub fn rounds(&self) -> u32 {
        count(self.facts.rounds.len())
    }

    /// The numbers of their rounds.
    pub fn round_numbers(&self) -> impl Iterator<Item = u64> {
        self.facts.rounds.iter().map(|(round, _)| *round)
    }

    /// The newest of their rounds.
    pub(super) fn last_round(&self) -> u64 {
        self.round_numbers().max().unwrap_or(0)
    }

    /// Devices in the sums.
    pub fn survivors(&self) -> u32 {
        self.facts.survivors
    }

    /// Devices in the rosters.
    pub fn cohort(&self) -> u32 {
        self.facts.cohort
    }

    /// Whether a device is in one of them.
    pub fn has(&self, device: DeviceId) -> bool {
        self.devices.contains(&device)
    }

    /// The mean update.
    pub(super) fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The mean of each metric, in its share of the range.
    pub(super) fn metrics(&self) -> Vec<f64> {
        self.facts.metrics.iter().copied().map(f64::from_bits).collect()
    }

    /// The standard deviation of the noise in them.
    pub(super) fn metric_deviation(&self) -> f64 {
        f64::from_bits(self.facts.metric_deviation)
    }

    /// How many survivors trained so much of the adapter.
    pub(super) fn classes(&self) -> BTreeMap<Class, u32> {
        self.facts.classes.iter().copied().collect()
    }

    /// What stands for the roster of its round, or for those of all its rounds in the order of their sums.
    pub(super) fn roster(&self) -> Digest {
        match self.facts.rounds.as_slice() {
            [(_, roster)] => *roster,
            several => {
                let mut bytes = ROSTERS.to_vec();
                for (round, roster) in several {
                    bytes.extend(round.to_be_bytes());
                    bytes.extend(roster.0);
                }
                Digest::of(&bytes)
            }
        }
    }

    /// Whether it is of devices that trained `len` numbers from this version and measured so many metrics.
    pub(super) fn fits(&self, from: u32, len: usize, metrics: usize) -> bool {
        self.facts.from == from && self.mean.len() == len && self.facts.metrics.len() == metrics
    }

    /// As bytes: the length of what is known of the sums, that as JSON, the mean. Devices are not in them: the shell knows the
    /// survivors of each round.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let facts = serde_json::to_vec(&self.facts)?;
        let mut bytes = count(facts.len()).to_be_bytes().to_vec();
        bytes.extend(facts);
        bytes.extend(vector_to_bytes(&self.mean));
        Ok(bytes)
    }

    /// From such bytes; `survivors` gives those of a round. None where the bytes are none such.
    pub fn from_bytes<E>(
        bytes: &[u8],
        survivors: impl FnMut(u64) -> Result<Vec<DeviceId>, E>,
    ) -> Result<Option<Self>, E> {
        let read = || {
            let (len, rest) = bytes.split_first_chunk()?;
            let (facts, mean) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            Some((serde_json::from_slice::<Facts>(facts).ok()?, vector_from_bytes(mean)?))
        };
        let Some((facts, mean)) = read() else { return Ok(None) };
        let devices = facts.rounds.iter().map(|(round, _)| *round).map(survivors);
        let devices: Vec<Vec<DeviceId>> = devices.collect::<Result<_, E>>()?;
        Ok(Some(Self { facts, mean, devices: devices.into_iter().flatten().collect() }))
    }
}

fn count(devices: usize) -> u32 {
    u32::try_from(devices).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn device(id: u8) -> DeviceId {
        DeviceId([id; 16])
    }

    fn sum(round: u64, mean: [f32; 2], metric: f64, devices: &[u8]) -> Sum {
        Sum {
            round,
            roster: Digest([u8::try_from(round).unwrap(); 32]),
            cohort: devices.len() + 1,
            mean: mean.to_vec(),
            metrics: vec![metric],
            metric_deviation: 0.3 / devices.len() as f64,
            devices: devices.iter().copied().map(device).collect(),
            classes: BTreeMap::new(),
        }
    }

    #[test]
    fn one_sum_is_what_it_was() {
        let gathered = Gathered::new(4, sum(7, [0.1, 0.7], 0.6, &[1, 2, 3]));
        assert_eq!((gathered.mean(), gathered.metrics()), ([0.1, 0.7].as_slice(), vec![0.6]));
        assert_eq!(gathered.metric_deviation().to_bits(), (0.3_f64 / 3.0).to_bits());
        assert_eq!(gathered.roster(), Digest([7; 32]));
        assert!(gathered.fits(4, 2, 1) && !gathered.fits(5, 2, 1) && !gathered.fits(4, 3, 1));
    }

    #[test]
    fn sums_of_unlike_size_count_by_their_devices_and_their_noise_adds_up() {
        let mut gathered = Gathered::new(0, sum(7, [1.0, 0.0], 0.5, &[1, 2, 3]));
        gathered.add(sum(9, [5.0, 4.0], 0.9, &[4]));
        assert_eq!((gathered.rounds(), gathered.survivors(), gathered.cohort()), (2, 4, 6));
        assert_eq!(gathered.mean(), [2.0, 1.0]);
        assert!((gathered.metrics()[0] - 0.6).abs() < 1e-12);
        // Each sum has a deviation of 0.3; of the mean over four devices that is √2 · 0.3 / 4.
        assert!((gathered.metric_deviation() - 2_f64.sqrt() * 0.3 / 4.0).abs() < 1e-12);
        assert!(gathered.has(device(4)) && !gathered.has(device(5)));
        assert_eq!((gathered.last_round(), gathered.round_numbers().count()), (9, 2));
        assert_ne!(gathered.roster(), Digest([7; 32]));
    }

    #[test]
    fn it_comes_back_from_its_bytes_with_the_survivors_of_its_rounds() {
        let mut gathered = Gathered::new(2, sum(7, [0.1, -0.0], 1.0 / 3.0, &[1, 2]));
        gathered.add(sum(8, [f32::MIN_POSITIVE, 3.0], 0.25, &[3]));
        let bytes = gathered.to_bytes().unwrap();
        let survivors = |round| -> Result<_, Infallible> {
            Ok(if round == 7 { vec![device(1), device(2)] } else { vec![device(3)] })
        };
        assert_eq!(Gathered::from_bytes(&bytes, survivors).unwrap().unwrap(), gathered);
        for cut in [0, 3, 10, bytes.len() - 1] {
            assert_eq!(Gathered::from_bytes(&bytes[..cut], survivors).unwrap(), None, "{cut}");
        }
        assert_eq!(Gathered::from_bytes(&[0xff; 64], survivors).unwrap(), None);
    }
}
