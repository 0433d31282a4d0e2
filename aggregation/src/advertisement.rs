//! The one-time keys of a device, signed for one session.

use thiserror::Error;

use crate::{
    agreement::{is_canonical, is_of_low_order},
    batch::Check,
    context::Context,
    credential::{Credential, CredentialError},
    hash,
    identity::{IdentityKey, IdentityPublic, Signature},
};

/// A device's one-time keys and commitments for one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Who the device is.
    pub credential: Credential,
    /// The X25519 key from which the pairwise masks come.
    pub masking_key: [u8; 32],
    /// The X25519 key to which shares are sealed.
    pub sealing_key: [u8; 32],
    /// The commitment to the seed of the masking key.
    pub key_commitment: [u8; 32],
    /// The commitment to the seed of the device's own mask.
    pub self_commitment: [u8; 32],
    /// The commitment to the device's nonces for drawing a graph.
    pub draw_commitment: [u8; 32],
    /// The device's signature over the context, the keys and the commitments.
    pub signature: Signature,
}

/// Why an advertisement does not hold in a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AdvertisementError {
    /// The device is not, or no longer, enrolled.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The device did not sign these keys for this context.
    #[error("advertisement is not signed by its device for this context")]
    Signature,
    /// A key is a point of low order, which leaves no secret.
    #[error("advertisement has a key of low order")]
    LowOrderKey,
    /// A key is written in a way in which no honest device writes it.
    #[error("advertisement has a key that is not below 2^255 - 19 or has its last bit set")]
    KeyEncoding,
    /// One key is for both purposes.
    #[error("advertisement has one key for masking and for sealing")]
    OneKey,
}

impl Advertisement {
    const DOMAIN: &'static str = "advertisement";

    /// Fails unless the device is enrolled and signed exactly this in `ctx`,
    /// and its keys are ones that its neighbours can use. A server that lets
    /// others in lets one device end everybody's session.
    pub fn verify(
        &self,
        ctx: &Context,
        authority: &IdentityPublic,
        now_unix_secs: u64,
    ) -> Result<(), AdvertisementError> {
        self.verify_by(&ctx.digest(), authority, now_unix_secs, &mut |key, domain, parts, signature| {
            key.verify(domain, parts, signature)
        })?;
        if self.masking_key == self.sealing_key {
            return Err(AdvertisementError::OneKey);
        }
        if [&self.masking_key, &self.sealing_key].into_iter().any(is_of_low_order) {
            return Err(AdvertisementError::LowOrderKey);
        }
        Ok(())
    }

    /// Whether this and another device's advertisement cannot be in one roster,
    /// because they have an identity or a key in common.
    pub fn clashes_with(&self, other: &Self) -> bool {
        let keys = [other.masking_key, other.sealing_key];
        self.credential.identity == other.credential.identity
            || keys.contains(&self.masking_key)
            || keys.contains(&self.sealing_key)
    }

    /// The part of [`Advertisement::verify`] that devices do: all but what the
    /// agreement itself says of low order, with signatures left to `check`.
    pub(crate) fn verify_by(
        &self,
        context_digest: &[u8; 32],
        authority: &IdentityPublic,
        now_unix_secs: u64,
        check: &mut Check<'_>,
    ) -> Result<(), AdvertisementError> {
        if ![&self.masking_key, &self.sealing_key].into_iter().all(is_canonical) {
            return Err(AdvertisementError::KeyEncoding);
        }
        self.credential.verify_by(authority, now_unix_secs, check)?;
        let identity = &self.credential.identity;
        if check(identity, Self::DOMAIN, &self.parts(context_digest), &self.signature) {
            Ok(())
        } else {
            Err(AdvertisementError::Signature)
        }
    }

    /// The same advertisement with the device's signature.
    pub(crate) fn signed(mut self, context_digest: &[u8; 32], identity: &IdentityKey) -> Self {
        self.signature = identity.sign(Self::DOMAIN, &self.parts(context_digest));
        self
    }

    /// All of it as bytes, for the roster's tree. What the credential says of a log is in its leaf there.
    pub(crate) fn to_leaf(&self) -> Vec<u8> {
        let logged = self.credential.leaf().map_or_else(Vec::new, |(place, leaf)| {
            [place.to_be_bytes().as_slice(), &leaf.to_bytes()].concat()
        });
        hash::encode(
            "roster entry",
            &[
                &self.credential.device,
                &self.credential.identity.0,
                &self.credential.expires_unix_secs.to_be_bytes(),
                &logged,
                &self.credential.signature.0,
                &self.masking_key,
                &self.sealing_key,
                &self.key_commitment,
                &self.self_commitment,
                &self.draw_commitment,
                &self.signature.0,
            ],
        )
    }

    fn parts<'a>(&'a self, context_digest: &'a [u8; 32]) -> [&'a [u8]; 7] {
        [
            context_digest,
            &self.credential.device,
            &self.masking_key,
            &self.sealing_key,
            &self.key_commitment,
            &self.self_commitment,
            &self.draw_commitment,
        ]
    }
}
