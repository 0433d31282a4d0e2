//! The one place where the order is written: measure → clip → rotate → round → noise → mask → pack.
//!
//! What comes out is the only form of an update that leaves a device.

use aggregation::{Masking, Refusal, Submitted, packing};
use privacy::{EncodeError, Mechanism};
use proto::ids::Digest;
use proto::message::CHUNK_COORDINATES;
use proto::metrics::Metric;
use rand_core::CryptoRng;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use crate::update::Update;

/// A contribution on its way out: one chunk at a time is masked and packed, and nothing else of it can be had.
///
/// The masks of a chunk are worked out when it is its turn, so that beside the integers themselves a
/// contribution of any length takes the memory of one chunk.
pub struct MaskedInput {
    masking: Masking,
    bits: u32,
    /// Wiped when it is dropped, which is as soon as the last chunk has arrived.
    coordinates: Zeroizing<Vec<u32>>,
    arrived: usize,
    /// The next chunk, packed.
    chunk: Option<Vec<u8>>,
    /// Over all chunks up to and with the next one.
    hash: Context,
}

impl std::fmt::Debug for MaskedInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaskedInput").field("arrived", &self.arrived).finish_non_exhaustive()
    }
}

impl MaskedInput {
    fn new(masking: Masking, coordinates: Vec<u32>, bits: u32) -> Result<Self, Refusal> {
        let (coordinates, hash) = (Zeroizing::new(coordinates), Context::new(&SHA256));
        let mut input = Self { masking, bits, coordinates, arrived: 0, chunk: None, hash };
        input.pack()?;
        Ok(input)
    }

    /// The next chunk to send, with the place of its first coordinate; `None` when all have arrived.
    pub fn chunk(&self) -> Option<(u64, &[u8])> {
        self.chunk.as_deref().map(|chunk| (self.arrived as u64, chunk))
    }

    /// Goes on to the chunk after the one that has arrived.
    pub fn advance(&mut self) -> Result<(), Refusal> {
        self.arrived = (self.arrived + CHUNK_COORDINATES).min(self.coordinates.len());
        self.pack()
    }

    /// SHA-256 over all chunks in order, once all have arrived.
    pub fn digest(&self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.hash.clone().finish().as_ref());
        Digest(digest)
    }

    /// The device after its input has arrived.
    pub fn submit(self) -> Submitted {
        self.masking.submit()
    }

    fn pack(&mut self) -> Result<(), Refusal> {
        let offset = self.arrived;
        let Some(rest) = self.coordinates.get_mut(offset..).filter(|rest| !rest.is_empty()) else {
            self.chunk = None;
            self.coordinates = Zeroizing::new(Vec::new());
            return Ok(());
        };
        let len = rest.len().min(CHUNK_COORDINATES);
        let chunk = &mut rest[..len];
        // In place: each coordinate is masked once and its integer is gone.
        self.masking.mask_chunk(offset, chunk)?;
        let packed = packing::pack(chunk, self.bits);
        self.hash.update(&packed);
        self.chunk = Some(packed);
        Ok(())
    }
}

/// An update that cannot be contributed.
#[derive(Debug, thiserror::Error)]
pub enum ContributionError {
    /// The mechanism refuses it.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The masks refuse it.
    #[error(transparent)]
    Mask(#[from] Refusal),
}

/// Clips, rotates, rounds and noises `update` with the metrics that the plan asks for; what comes out masks it.
pub fn contribute(
    mechanism: &Mechanism,
    metrics: &[Metric],
    update: &Update,
    rotation_seed: &[u8; 32],
    masking: Masking,
    rng: &mut impl CryptoRng,
) -> Result<MaskedInput, ContributionError> {
    let local = update.metrics(mechanism.params().clip_norm);
    let metrics: Vec<f64> = metrics.iter().map(|metric| metric.share(&local)).collect();
    let contribution = mechanism.encode(update.as_slice(), &metrics, rotation_seed, rng)?;
    Ok(MaskedInput::new(masking, contribution.into_ring(), mechanism.ring_bits())?)
}
