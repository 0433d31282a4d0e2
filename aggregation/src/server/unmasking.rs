//! Removes what is left of the masks in the sum.

use std::collections::BTreeMap;

use rayon::prelude::*;
use thiserror::Error;

use super::{RunningSum, session::Session};
use crate::{
    agreement::{AgreementKey, PeerKey, self_mask},
    context::{Context, RosterContext},
    index::DeviceIndex,
    modular::{Ring, Sign},
    prg::{Mask, apply_all},
    roster::Roster,
    seed::Seed,
};

/// Coordinates that one thread unmasks at a time: few, so that many threads
/// have something to do; enough that setting up a mask does not show.
const PARALLEL_COORDINATES: usize = 1 << 13;

/// The masks that are left in the sum: the survivors' own, and those that
/// survivors share with missing devices.
#[derive(Debug)]
pub struct Unmasking {
    len: usize,
    ring: Ring,
    inputs: usize,
    /// With the sign that removes them.
    masks: Vec<(Sign, Mask)>,
}

/// Why a sum cannot be unmasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnmaskError {
    /// Too few of those that hold shares of a seed revealed theirs to rebuild
    /// it in spite of those that are wrong or lack.
    #[error("{got} holders of shares of device {owner} answered, {need} would have been sure to do")]
    TooFewAnswers {
        /// The place of the device whose seed it is.
        owner: DeviceIndex,
        /// The holders that did.
        got: usize,
        /// The threshold, and twice as many as may be corrupt.
        need: usize,
    },
    /// So many shares of a seed are wrong, or its owner shared another seed
    /// than it committed to, that it cannot be rebuilt.
    #[error("too many of {got} shares of device {owner} are wrong, {need} right ones are needed")]
    TooManyBadShares {
        /// The place of the device whose seed it is.
        owner: DeviceIndex,
        /// The shares there are.
        got: usize,
        /// The threshold.
        need: usize,
    },
    /// A missing device committed to a seed that is not the one of its key.
    #[error("the seed of device {owner} does not give the masking key that it advertised")]
    OtherKey {
        /// The place of the device.
        owner: DeviceIndex,
    },
    /// A masking key has low order; no honest device took part with it.
    #[error("the masking key of device {owner} has low order")]
    LowOrderKey {
        /// The place of the device.
        owner: DeviceIndex,
    },
    /// The sum has another length or width than the session.
    #[error("a sum of {got} coordinates of {got_bits} bits, expected {expected} of {bits} bits")]
    OtherSum {
        /// The coordinates of the sum.
        got: usize,
        /// Its width.
        got_bits: u32,
        /// The coordinates of the session.
        expected: usize,
        /// The width of the session.
        bits: u32,
    },
    /// The sum is not of as many inputs as there are survivors.
    #[error("a sum of {got} inputs, expected one of each of {expected} survivors")]
    Inputs {
        /// The inputs in the sum.
        got: usize,
        /// The survivors.
        expected: usize,
    },
    /// A chunk ends behind the last coordinate.
    #[error("a chunk of {chunk} coordinates at {offset}, of {len}")]
    ChunkOutOfRange {
        /// Where the chunk starts.
        offset: usize,
        /// Its coordinates.
        chunk: usize,
        /// The coordinates of the session.
        len: usize,
    },
}

impl UnmaskError {
    /// The device that made it so, where the fault can only be its own, or that
    /// of more others than may be corrupt.
    pub const fn culprit(&self) -> Option<DeviceIndex> {
        match self {
            Self::TooManyBadShares { owner, .. } | Self::OtherKey { owner } | Self::LowOrderKey { owner } => {
                Some(*owner)
            }
            Self::TooFewAnswers { .. }
            | Self::OtherSum { .. }
            | Self::Inputs { .. }
            | Self::ChunkOutOfRange { .. } => None,
        }
    }
}

impl Unmasking {
    /// For a session of which every seed is rebuilt.
    pub(super) fn new(session: &Session, seeds: &BTreeMap<DeviceIndex, Seed>) -> Result<Self, UnmaskError> {
        let Session { ctx, ring, roster, survivors, missing, .. } = session;
        let own = |(owner, seed): (&DeviceIndex, &Seed)| {
            survivors.contains(*owner).then(|| (Sign::Minus, self_mask(seed, ctx)))
        };
        let mut masks: Vec<(Sign, Mask)> = seeds.iter().filter_map(own).collect();
        let lost: Vec<(&DeviceIndex, &Seed)> =
            seeds.iter().filter(|(owner, _)| missing.contains(**owner)).collect();
        // Each survivor's key is met by many of the missing.
        let places: Vec<DeviceIndex> = if lost.is_empty() { Vec::new() } else { survivors.iter().collect() };
        let met = |place| Some((place, PeerKey::new(&roster.entry(place)?.masking_key)));
        let peers: BTreeMap<DeviceIndex, PeerKey> = places.into_par_iter().filter_map(met).collect();
        let pairs: Vec<Vec<(Sign, Mask)>> = lost
            .into_par_iter()
            .map(|(owner, seed)| left_by(*owner, seed, ctx, roster, &peers))
            .collect::<Result<_, _>>()?;
        masks.extend(pairs.into_iter().flatten());
        Ok(Self { len: ctx.len, ring: *ring, inputs: survivors.len(), masks })
    }

    /// Removes the masks from the coordinates from `offset` on, in place.
    /// Fails on a chunk that ends behind the last coordinate.
    ///
    /// Threads may share the work, [`prg::CHUNK_COORDINATES`] at a time.
    ///
    /// [`prg::CHUNK_COORDINATES`]: crate::prg::CHUNK_COORDINATES
    pub fn unmask_chunk(&self, offset: usize, chunk: &mut [u32]) -> Result<(), UnmaskError> {
        if offset.checked_add(chunk.len()).is_none_or(|end| end > self.len) {
            return Err(UnmaskError::ChunkOutOfRange { offset, chunk: chunk.len(), len: self.len });
        }
        apply_all(&self.masks, offset, chunk);
        self.ring.reduce(chunk);
        Ok(())
    }

    /// Removes the masks from the whole sum. Fails if it is of another length,
    /// width, or number of inputs.
    pub fn unmask(&self, sum: RunningSum) -> Result<Vec<u32>, UnmaskError> {
        if sum.len() != self.len || sum.bits() != self.ring.bits() {
            return Err(UnmaskError::OtherSum {
                got: sum.len(),
                got_bits: sum.bits(),
                expected: self.len,
                bits: self.ring.bits(),
            });
        }
        let got = sum.inputs() + usize::from(sum.is_torn());
        if got != self.inputs {
            return Err(UnmaskError::Inputs { got, expected: self.inputs });
        }
        let mut coordinates = sum.into_vec();
        coordinates.par_chunks_mut(PARALLEL_COORDINATES).enumerate().try_for_each(
            |(chunk, coordinates)| self.unmask_chunk(chunk * PARALLEL_COORDINATES, coordinates),
        )?;
        Ok(coordinates)
    }
}

/// The pairwise masks that the survivors among a missing device's neighbours
/// left in the sum.
fn left_by(
    owner: DeviceIndex,
    seed: &Seed,
    ctx: &Context,
    roster: &Roster,
    survivors: &BTreeMap<DeviceIndex, PeerKey>,
) -> Result<Vec<(Sign, Mask)>, UnmaskError> {
    let other = UnmaskError::OtherKey { owner };
    let entry = roster.entry(owner).ok_or(other)?;
    let key = AgreementKey::masking(seed, ctx, &entry.credential.device);
    if key.public() != entry.masking_key {
        return Err(other);
    }
    let bound = RosterContext::new(ctx, roster.root());
    let neighbors = roster.graph().neighbors(owner).into_iter();
    let peers: Vec<(DeviceIndex, &PeerKey)> =
        neighbors.filter_map(|peer| Some((peer, survivors.get(&peer)?))).collect();
    // The missing device would have added what its peer left.
    let masks = key.pair_masks(&bound, owner, &peers);
    masks.map_err(|peer| UnmaskError::LowOrderKey { owner: peer })
}
