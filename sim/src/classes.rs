//! Federations in which some devices train less than all of the adapter: how many, how much, and which.

use std::collections::BTreeMap;
use std::str::FromStr;

use proto::adapter::{AdapterSpec, Class, Method};
use proto::ids::Digest;
use proto::plan::{Mode, Plan};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use session::policy::Policy;

use crate::world::{Seen, World};

/// By how much shares may be more than 1 together: what adding them up may be off by.
const ROUNDING: f64 = 1e-9;

/// A share of the devices, and how much of the adapter each of them trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassShare {
    /// Of all devices, above 0 and at most 1.
    pub share: f64,
    /// Columns of `B`.
    pub rank: u32,
    /// Layers, those nearest to the output; all where it is left out.
    pub layers: Option<u32>,
}

/// What the devices that train the same part of the adapter did, for one version or in a whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassSummary {
    /// Columns of `B` that they train.
    pub rank: u32,
    /// Layers that they train, those nearest to the output.
    pub layers: u32,
    /// Devices of the class.
    pub devices: u32,
    /// Those of them whose update is in the version's sum; of a run, in any of its sums.
    pub took_part: u32,
    /// Bytes that one of them sent for a version, on average.
    pub bytes_up_per_device: u64,
}

/// Classes that a run cannot have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClassError {
    /// It is not written as a class is.
    #[error("`{0}` is no SHARE:RANK or SHARE:RANK:LAYERS, such as 0.5:2:3")]
    Words(String),
    /// A share that is none.
    #[error("a share of {0} is none; give a number above 0 and at most 1")]
    Share(f64),
    /// Together the classes have more devices than there are.
    #[error(
        "the shares of all --class add up to {0}; they may be 1 at most, and the rest trains all of the adapter"
    )]
    Shares(f64),
    /// A class of none, or of more than there is.
    #[error(
        "--class {share} trains rank {} in {} layers; the adapter has rank 1 to {} and 1 to {} layers",
        found.rank, found.layers, whole.rank, whole.layers
    )]
    Size {
        /// The class, as it was asked for.
        share: ClassShare,
        /// What it trains.
        found: Class,
        /// What there is.
        whole: Class,
    },
    /// A class that no device is of.
    #[error("--class {share} is not one of {devices} devices; give it a larger share, or leave it out")]
    Nobody {
        /// The class, as it was asked for.
        share: ClassShare,
        /// How many there are.
        devices: usize,
    },
    /// The plan cannot let devices train less than all.
    #[error(
        "--class needs --method frozen_a and --privacy distributed, found {method} and {mode}: what few devices train \
         is averaged and hidden only with these"
    )]
    Plan {
        /// The plan's.
        method: String,
        /// The plan's.
        mode: String,
    },
}

impl std::fmt::Display for ClassShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.share, self.rank)?;
        self.layers.map_or(Ok(()), |layers| write!(f, ":{layers}"))
    }
}

impl FromStr for ClassShare {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Self, ClassError> {
        let words = || ClassError::Words(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        let (share, rank, layers) = match parts.as_slice() {
            [share, rank] => (share, rank, None),
            [share, rank, layers] => (share, rank, Some(layers)),
            _ => return Err(words()),
        };
        let share: f64 = share.parse().map_err(|_| words())?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(ClassError::Share(share));
        }
        let rank = rank.parse().map_err(|_| words())?;
        let layers = layers.map(|layers| layers.parse()).transpose().map_err(|_| words())?;
        Ok(Self { share, rank, layers })
    }
}

/// The class of each device: how many are of a class follows from the shares, which they are from the seed. Fails
/// where there is no such class, or nobody is of it.
pub(crate) fn deal(
    shares: &[ClassShare],
    (spec, mode): (&AdapterSpec, Mode),
    devices: usize,
    seed: &Digest,
) -> Result<Vec<Class>, ClassError> {
    let whole = Class::whole(spec);
    let mut dealt = vec![whole; devices];
    if shares.is_empty() {
        return Ok(dealt);
    }
    if spec.method != Method::FrozenA || mode != Mode::Distributed {
        return Err(ClassError::Plan { method: word(&spec.method), mode: word(&mode) });
    }
    let sum: f64 = shares.iter().map(|share| share.share).sum();
    if sum > 1.0 + ROUNDING {
        return Err(ClassError::Shares(sum));
    }
    let order = shuffled(devices, seed);
    let (mut begin, mut next) = (0.0, 0);
    for share in shares {
        let class = Class { rank: share.rank, layers: share.layers.unwrap_or(whole.layers) };
        if class.check(spec).is_err() {
            return Err(ClassError::Size { share: *share, found: class, whole });
        }
        let end = begin + share.share;
        // A device is of the class in whose part of the line its middle is.
        let of_it = order[next..].iter().zip(next..);
        let of_it = of_it.take_while(|(_, at)| (*at as f64 + 0.5) / (devices as f64) < end);
        let of_it: Vec<usize> = of_it.map(|(device, _)| *device).collect();
        if of_it.is_empty() {
            return Err(ClassError::Nobody { share: *share, devices });
        }
        next += of_it.len();
        for device in of_it {
            dealt[device] = class;
        }
        begin = end;
    }
    Ok(dealt)
}

/// The limits of a device that trains no more than its class.
pub fn policy(class: Class, others: &Policy) -> Policy {
    Policy { largest_rank: Some(class.rank), top_layers: Some(class.layers), ..others.clone() }
}

/// What the devices of each class did for one version; nothing where the plan has no classes.
pub(crate) fn of_version(plan: &Plan, dealt: &[Class], world: &World, seen: &Seen) -> Vec<ClassSummary> {
    if plan.classes.is_none() {
        return Vec::new();
    }
    let survivors = world.survivors(seen.status.round);
    summaries(dealt, &survivors, |device| seen.traffic.get(device).map_or(0, |traffic| traffic.up))
}

/// What the devices of each class did in a whole run: took part in any sum, and sent for a version on average.
pub(crate) fn of_run(plan: &Plan, dealt: &[Class], world: &World) -> Vec<ClassSummary> {
    if plan.classes.is_none() {
        return Vec::new();
    }
    let mut survivors: Vec<usize> =
        world.seen().iter().flat_map(|seen| world.survivors(seen.status.round)).collect();
    survivors.sort_unstable();
    survivors.dedup();
    let versions = world.seen().len().max(1) as u64;
    let up =
        |device: usize| world.seen().iter().filter_map(move |seen| seen.traffic.get(device)).map(|t| t.up);
    summaries(dealt, &survivors, |device| up(device).sum::<u64>() / versions)
}

fn summaries(dealt: &[Class], survivors: &[usize], up: impl Fn(usize) -> u64) -> Vec<ClassSummary> {
    let mut devices = BTreeMap::<Class, Vec<usize>>::new();
    for (device, class) in dealt.iter().enumerate() {
        devices.entry(*class).or_default().push(device);
    }
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let summary = |(class, devices): (Class, Vec<usize>)| ClassSummary {
        rank: class.rank,
        layers: class.layers,
        devices: small(devices.len()),
        took_part: small(devices.iter().filter(|device| survivors.contains(device)).count()),
        bytes_up_per_device: devices.iter().map(|device| up(*device)).sum::<u64>() / devices.len() as u64,
    };
    devices.into_iter().rev().map(summary).collect()
}

/// What a reader should know of what few devices train.
pub(crate) fn remarks(plan: &Plan, dealt: &[Class]) -> Vec<String> {
    let Some(classes) = plan.classes else { return Vec::new() };
    let mut trainers = vec![0_u32; plan.adapter.trained_len()];
    for place in dealt.iter().flat_map(|class| class.places(&plan.adapter)).flatten() {
        trainers[place] += 1;
    }
    let (all, least) = (trainers.len(), classes.least_trainers);
    let still = trainers.iter().filter(|count| **count < least).count();
    let mut remarks = Vec::new();
    if still > 0 {
        remarks.push(format!(
            "{still} of the adapter's {all} trained numbers never move: fewer than {least} devices train them. Let \
             more devices train all of it, or lower the rank"
        ));
    }
    if let Some(fewest) = trainers.iter().filter(|count| **count >= least).min()
        && (*fewest as usize) < dealt.len()
    {
        remarks.push(format!(
            "what only {fewest} of {} devices train is their mean alone, with {:.1} times the noise of a mean over \
             all; the signal to noise is that of what all train",
            dealt.len(),
            dealt.len() as f64 / f64::from(*fewest)
        ));
    }
    remarks
}

fn shuffled(devices: usize, seed: &Digest) -> Vec<usize> {
    let mut rng = ChaCha8Rng::from_seed(seed.0);
    let mut keyed: Vec<(u64, usize)> = (0..devices).map(|device| (rng.next_u64(), device)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, device)| device).collect()
}

/// As a plan names it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
