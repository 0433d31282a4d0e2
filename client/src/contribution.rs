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

use crate::update::Update;

/// The packed chunks of a masked input, and the hash over all of them.
#[derive(Clone, Debug)]
pub struct MaskedInput {
    /// Packed chunks in order, each of [`CHUNK_COORDINATES`] but the last.
    pub chunks: Vec<Vec<u8>>,
    /// SHA-256 over all chunks in order.
    pub digest: Digest,
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

/// Clips, rotates, rounds and noises `update` with the metrics that the plan asks for, then masks it.
pub fn contribute(
    mechanism: &Mechanism,
    metrics: &[Metric],
    update: &Update,
    rotation_seed: &[u8; 32],
    masking: Masking,
    rng: &mut impl CryptoRng,
) -> Result<(Submitted, MaskedInput), ContributionError> {
    let local = update.metrics(mechanism.params().clip_norm);
    let metrics: Vec<f64> = metrics.iter().map(|metric| metric.share(&local)).collect();
    let contribution = mechanism.encode(update.as_slice(), &metrics, rotation_seed, rng)?;
    let (submitted, masked) = masking.mask(contribution.into_ring())?;
    let mut hash = Context::new(&SHA256);
    let chunks: Vec<Vec<u8>> =
        masked.chunks(CHUNK_COORDINATES).map(|chunk| packing::pack(chunk, mechanism.ring_bits())).collect();
    for chunk in &chunks {
        hash.update(chunk);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Ok((submitted, MaskedInput { chunks, digest: Digest(digest) }))
}
