//! Removes what is left of the masks in the sum.

use thiserror::Error;

use super::{Recovery, RunningSum, rebuild::SeedRebuilder};
use crate::{
    advertisement::Advertisement,
    agreement::{AgreementKey, SeedKind, commitment, self_mask},
    context::Context,
    index::DeviceIndex,
    modular::{Ring, Sign},
    prg::{CHUNK_COORDINATES, Mask},
    roster::Roster,
    seed::Seed,
};

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
    /// Too few survivors revealed their shares.
    #[error("{got} survivors revealed their shares, expected at least {need}")]
    TooFewShares {
        /// The survivors that did.
        got: usize,
        /// The threshold.
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

impl Unmasking {
    pub(super) fn new(recovery: Recovery) -> Result<Self, UnmaskError> {
        let Recovery { ctx, ring, roster, survivors, missing, responses } = recovery;
        let (got, need) = (responses.len(), roster.threshold());
        if got < need {
            return Err(UnmaskError::TooFewShares { got, need });
        }
        let responders = responses.iter().map(|(place, shares)| (*place, shares)).collect();
        let mut seeds = SeedRebuilder::new(responders, need);
        let digest = ctx.digest();
        let mut rebuild = |kind, owner, entry: &Advertisement| {
            let committed = match kind {
                SeedKind::Key => entry.key_commitment,
                SeedKind::SelfMask => entry.self_commitment,
            };
            let device = &entry.credential.device;
            let accept = |seed: &Seed| commitment(kind, &digest, device, seed) == committed;
            let bad = UnmaskError::TooManyBadShares { owner, got, need };
            seeds.rebuild(owner, accept).ok_or(bad)
        };

        let mut masks = Vec::with_capacity(survivors.len() * (1 + missing.len()));
        for (owner, entry) in members(&roster, |place| survivors.contains(place)) {
            let seed = rebuild(SeedKind::SelfMask, owner, entry)?;
            masks.push((Sign::Minus, self_mask(&seed, &ctx)));
        }
        for (owner, entry) in members(&roster, |place| missing.contains(place)) {
            let seed = rebuild(SeedKind::Key, owner, entry)?;
            let key = masking_key(&seed, &ctx, owner, entry)?;
            for (peer, entry) in members(&roster, |place| survivors.contains(place)) {
                // The missing device would have added what its peer left.
                let pair = key.pair_mask(&ctx, owner, (peer, &entry.masking_key));
                masks.push(pair.ok_or(UnmaskError::LowOrderKey { owner: peer })?);
            }
        }
        Ok(Self { len: ctx.len, ring, inputs: survivors.len(), masks })
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
        for (sign, mask) in &self.masks {
            mask.apply(*sign, offset, chunk);
        }
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
        if sum.inputs() != self.inputs {
            return Err(UnmaskError::Inputs { got: sum.inputs(), expected: self.inputs });
        }
        let mut coordinates = sum.into_vec();
        let mut offset = 0;
        for chunk in coordinates.chunks_mut(CHUNK_COORDINATES) {
            self.unmask_chunk(offset, chunk)?;
            offset += chunk.len();
        }
        Ok(coordinates)
    }
}

fn members(
    roster: &Roster,
    wanted: impl Fn(DeviceIndex) -> bool,
) -> impl Iterator<Item = (DeviceIndex, &Advertisement)> {
    let all = roster.graph().places().zip(roster.entries());
    all.filter(move |(place, _)| wanted(*place))
}

/// The masking key of a missing device, if its seed gives the advertised one.
fn masking_key(
    seed: &Seed,
    ctx: &Context,
    owner: DeviceIndex,
    entry: &Advertisement,
) -> Result<AgreementKey, UnmaskError> {
    let key = AgreementKey::masking(seed, ctx, &entry.credential.device);
    if key.public() == entry.masking_key { Ok(key) } else { Err(UnmaskError::OtherKey { owner }) }
}
