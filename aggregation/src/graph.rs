//! Who shares masks and seeds with whom, and how many it takes.
//!
//! Up to [`MAX_COMPLETE`] devices everybody is everybody's neighbour. Above,
//! each device has an even number k of neighbours: those at a distance of at
//! most k / 2 on a ring in random order, the Harary graph of [BBG+20], section
//! 3. How large k must be is worked out in `parameters.rs`; how the order is
//! drawn so that nobody chooses it, in `draw.rs`.
//!
//! [BBG+20]: https://eprint.iacr.org/2020/704

mod draw;
mod parameters;

use std::sync::Arc;

pub use self::{
    draw::{Draw, MAX_DRAWS},
    parameters::Parameters,
};
pub(crate) use draw::NonceChain;

use crate::{
    index::{DeviceIndex, IndexSet},
    prg::Mask,
    seed::Seed,
};

/// The largest cohort.
pub const MAX_COHORT: usize = 1024;

/// The largest cohort in which everybody is everybody's neighbour.
pub const MAX_COMPLETE: usize = 256;

/// Who is whose neighbour in a cohort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    size: u16,
    /// Nothing for the complete graph.
    ring: Option<Arc<Ring>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Ring {
    parameters: Parameters,
    /// The places in the order of the ring.
    order: Vec<DeviceIndex>,
    /// Where on the ring each place is.
    position: Vec<usize>,
}

impl Graph {
    /// The complete graph over `size` devices, or nothing unless
    /// 1 ≤ `size` ≤ [`MAX_COMPLETE`].
    pub fn complete(size: usize) -> Option<Self> {
        match u16::try_from(size) {
            Ok(places) if (1..=MAX_COMPLETE).contains(&size) => Some(Self { size: places, ring: None }),
            _ => None,
        }
    }

    /// The ring over `size` devices whose order follows from `seed`, or
    /// nothing if it has no place for so many neighbours or more than
    /// [`MAX_COHORT`] devices.
    pub fn ring(size: usize, parameters: Parameters, seed: &[u8; 32]) -> Option<Self> {
        let places = u16::try_from(size).ok().filter(|_| size <= MAX_COHORT)?;
        let fits = parameters.neighbors.is_multiple_of(2) && (2..size).contains(&parameters.neighbors);
        let order = fits.then(|| shuffled(places, seed))?;
        let mut position = vec![0; size];
        for (at, place) in order.iter().enumerate() {
            position[usize::from(*place)] = at;
        }
        Some(Self { size: places, ring: Some(Arc::new(Ring { parameters, order, position })) })
    }

    /// The devices in the cohort.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Whether it is a ring, and not complete.
    pub const fn is_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Every place, in order.
    pub fn places(&self) -> impl Iterator<Item = DeviceIndex> + use<> {
        (0..self.size).map(DeviceIndex::from)
    }

    /// Whether two places are neighbours; a device is not its own.
    pub fn are_neighbors(&self, one: DeviceIndex, other: DeviceIndex) -> bool {
        let size = usize::from(self.size);
        let exist = usize::from(one) < size && usize::from(other) < size;
        exist
            && one != other
            && self.ring.as_ref().is_none_or(|ring| {
                let apart = ring.position[usize::from(one)].abs_diff(ring.position[usize::from(other)]);
                apart.min(size - apart) <= ring.parameters.neighbors / 2
            })
    }

    /// The neighbours of a device, in order of their places.
    pub fn neighbors(&self, of: DeviceIndex) -> Vec<DeviceIndex> {
        let Some(ring) = &self.ring else {
            return self.places().filter(|place| *place != of).collect();
        };
        let Some(at) = ring.position.get(usize::from(of)) else { return Vec::new() };
        let (size, half) = (ring.order.len(), ring.parameters.neighbors / 2);
        let around = (1..=half).flat_map(|step| [(at + step) % size, (at + size - step) % size]);
        let mut neighbors: Vec<DeviceIndex> = around.map(|at| ring.order[at]).collect();
        neighbors.sort_unstable();
        neighbors
    }

    /// Who holds shares of a device's seeds, in order of their places: its
    /// neighbours, and in the complete graph it as well.
    pub fn holders(&self, of: DeviceIndex) -> Vec<DeviceIndex> {
        match self.ring {
            None => self.places().collect(),
            Some(_) => self.neighbors(of),
        }
    }

    /// Whether `holder` holds shares of the seeds of `owner`.
    pub fn holds(&self, holder: DeviceIndex, owner: DeviceIndex) -> bool {
        self.are_neighbors(holder, owner)
            || (self.ring.is_none() && holder == owner && usize::from(owner) < usize::from(self.size))
    }

    /// Fewest shares that rebuild a seed: t = ⌊N / 2⌋ + 1 in the complete
    /// graph, the parameters' t on a ring.
    pub fn threshold(&self) -> usize {
        match &self.ring {
            None => usize::from(self.size) / 2 + 1,
            Some(ring) => ring.parameters.threshold,
        }
    }

    /// Where on the ring too few of `survivors` are among k / 2 consecutive
    /// places, so that the corrupt among them could cut the others in two;
    /// with how many there are and how many it takes. Nothing if there is no
    /// such place, and for the complete graph, which cannot be cut.
    pub fn thin_window(&self, survivors: &IndexSet) -> Option<(DeviceIndex, usize, usize)> {
        let ring = self.ring.as_ref()?;
        let (size, half) = (ring.order.len(), ring.parameters.neighbors / 2);
        let need = ring.parameters.window_bound + 1;
        let lives: Vec<usize> =
            ring.order.iter().map(|place| usize::from(survivors.contains(*place))).collect();
        let mut got: usize = lives[..half].iter().sum();
        for start in 0..size {
            if got < need {
                return Some((ring.order[start], got, need));
            }
            got = got + lives[(start + half) % size] - lives[start];
        }
        None
    }
}

/// Most devices of a plan's cohort that may be corrupt: f = ⌊γ · cohort⌋, with
/// γ in thousandths. Whatever is sized by the corrupt is sized by this number,
/// in every roster of the plan, and by no fraction of that roster: a server may
/// put all of the corrupt into a small one.
pub const fn corrupt_devices(cohort: usize, permille: u16) -> usize {
    cohort * permille as usize / 1000
}

/// Fewest signatures on one transcript of a roster of `size` devices of which f
/// may be corrupt: Q = ⌊(N + f) / 2⌋ + 1. Two quorums have more than f signers
/// in common, so an honest one, who signs only once.
pub const fn quorum(size: usize, corrupt: usize) -> usize {
    usize::midpoint(size, corrupt) + 1
}

/// The places in an order that follows from `seed`, each order as likely as
/// any other: Durstenfeld's shuffle ([1964](https://doi.org/10.1145/364520.364540)).
fn shuffled(size: u16, seed: &[u8; 32]) -> Vec<DeviceIndex> {
    let mut words = Words { mask: Mask::new(&Seed::from_bytes(*seed), &[0; 32], "ring"), offset: 0 };
    let mut order: Vec<DeviceIndex> = (0..size).map(DeviceIndex::from).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, words.below(last + 1));
    }
    order
}

/// Numbers from a key stream.
struct Words {
    mask: Mask,
    offset: usize,
}

impl Words {
    /// A number in `0..bound`, each as likely as any other, for a bound of at
    /// most 2^16: a word is drawn again if it is in the last, incomplete
    /// stretch of `bound` words.
    fn below(&mut self, bound: usize) -> usize {
        let stretches = (1 << 32) / bound as u64;
        loop {
            let mut word = [0];
            self.mask.add(self.offset, &mut word);
            self.offset += 1;
            let word = u64::from(word[0]);
            if word < stretches * bound as u64 {
                return usize::try_from(word % bound as u64).unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
