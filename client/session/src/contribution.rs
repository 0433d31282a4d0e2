//! The one place where the order is written: measure → clip → rotate → round → noise → mask → pack.
//!
//! What comes out is the only form of an update that leaves a device.

use aggregation::{IdentityKey, Masking, Refusal, Signature, Submitted, packing};
use privacy::{EncodeError, Mechanism};
use proto::ids::Digest;
use proto::message::{CHUNK_COORDINATES, input_digest};
use proto::metrics::Metric;
use rand_core::CryptoRng;
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
    chunk: Vec<u8>,
    /// Of all chunks up to and with the next one.
    digests: Vec<Digest>,
}

/// What is left to do of a masked input after a chunk has arrived.
#[derive(Debug)]
pub enum Sent {
    /// There is a further chunk.
    Partly(MaskedInput),
    /// All have arrived.
    Whole {
        /// The device after its input.
        submitted: Submitted,
        /// What its chunks were, by [`input_digest`].
        digest: Digest,
        /// The device's signature over the sharers with whom it masked. The input counts only with it, and it must be
        /// in the ledger before it leaves.
        sharing: Signature,
    },
}

impl std::fmt::Debug for MaskedInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaskedInput").field("arrived", &self.arrived).finish_non_exhaustive()
    }
}

impl MaskedInput {
    fn new(masking: Masking, coordinates: Vec<u32>, bits: u32) -> Result<Self, Refusal> {
        let (coordinates, digests) = (Zeroizing::new(coordinates), Vec::new());
        let mut input = Self { masking, bits, coordinates, arrived: 0, chunk: Vec::new(), digests };
        input.pack()?;
        Ok(input)
    }

    /// The next chunk to send, with the place of its first coordinate.
    pub fn chunk(&self) -> (u64, &[u8]) {
        (self.arrived as u64, &self.chunk)
    }

    /// Goes on to what comes after the chunk that has arrived: the next one, or, after the last, the signature over
    /// the sharers. Fails where `identity` is not the key that the device advertised with.
    pub fn advance(mut self, identity: &IdentityKey) -> Result<Sent, Refusal> {
        self.arrived = (self.arrived + CHUNK_COORDINATES).min(self.coordinates.len());
        if self.arrived < self.coordinates.len() {
            self.pack()?;
            return Ok(Sent::Partly(self));
        }
        let digest = input_digest(&self.digests);
        let (submitted, sharing) = self.masking.submit(identity)?;
        Ok(Sent::Whole { submitted, digest, sharing })
    }

    fn pack(&mut self) -> Result<(), Refusal> {
        let offset = self.arrived;
        let len = (self.coordinates.len() - offset).min(CHUNK_COORDINATES);
        let chunk = &mut self.coordinates[offset..offset + len];
        // In place: each coordinate is masked once and its integer is gone.
        self.masking.mask_chunk(offset, chunk)?;
        self.chunk = packing::pack(chunk, self.bits);
        self.digests.push(Digest::of(&self.chunk));
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
