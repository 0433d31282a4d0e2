//! What a quorum of survivors must agree on before anything is revealed.

use thiserror::Error;

use crate::{
    batch::Check,
    context::Context,
    graph::quorum,
    hash,
    identity::{IdentityKey, Signature},
    index::{DeviceIndex, IndexSet},
    roster::Roster,
};

/// The consistency step's statement T: who is in the session, who shared, who
/// survived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    digest: [u8; 32],
    quorum: usize,
    survivors: IndexSet,
}

/// Why signatures are not a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuorumError {
    /// A signer is not a survivor, so it cannot have signed honestly.
    #[error("a signature of device {index}, which is not a survivor")]
    NotASurvivor {
        /// The place of the signer.
        index: DeviceIndex,
    },
    /// A signer is listed twice.
    #[error("two signatures of device {index}")]
    Repeated {
        /// The place of the signer.
        index: DeviceIndex,
    },
    /// A signature is not the signer's over this transcript.
    #[error("device {index} did not sign this transcript")]
    Signature {
        /// The place of the signer.
        index: DeviceIndex,
    },
    /// There are too few signatures.
    #[error("{got} signatures, expected at least {need}")]
    TooFew {
        /// The signatures there are.
        got: usize,
        /// The quorum.
        need: usize,
    },
}

impl Transcript {
    const DOMAIN: &'static str = "consistency";

    /// The transcript of a session with these sharers and survivors.
    pub fn new(ctx: &Context, roster: &Roster, sharers: &IndexSet, survivors: &IndexSet) -> Self {
        Self::over(ctx, roster, sharers, survivors.clone())
    }

    /// As [`Transcript::new`], and keeps the survivors.
    pub(crate) fn over(ctx: &Context, roster: &Roster, sharers: &IndexSet, survivors: IndexSet) -> Self {
        let digest = hash::digest(
            "transcript",
            &[
                &ctx.session,
                &ctx.digest(),
                &roster.root(),
                &hash::length(roster.len()),
                &sharers.to_bytes(),
                &survivors.to_bytes(),
                &ctx.model_hash,
                &ctx.plan_hash,
            ],
        );
        Self { digest, quorum: quorum(roster.len(), ctx.corrupt), survivors }
    }

    /// The digest that is signed.
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Fewest signatures for which anything may be revealed.
    pub const fn quorum(&self) -> usize {
        self.quorum
    }

    /// Fails unless the device in place `index` survived and signed this
    /// transcript.
    pub fn verify(
        &self,
        roster: &Roster,
        index: impl Into<DeviceIndex>,
        signature: &Signature,
    ) -> Result<(), QuorumError> {
        self.verify_by(roster, index.into(), signature, &mut |key, domain, parts, signature| {
            key.verify(domain, parts, signature)
        })
    }

    /// As [`Transcript::verify`], with the signature left to `check`.
    pub(crate) fn verify_by(
        &self,
        roster: &Roster,
        index: DeviceIndex,
        signature: &Signature,
        check: &mut Check<'_>,
    ) -> Result<(), QuorumError> {
        let entry = roster.entry(index).filter(|_| self.survivors.contains(index));
        let identity = entry.ok_or(QuorumError::NotASurvivor { index })?.credential.identity;
        if check(&identity, Self::DOMAIN, &[&self.digest], signature) {
            Ok(())
        } else {
            Err(QuorumError::Signature { index })
        }
    }

    /// Fails unless the signatures are said to be of a quorum of different
    /// devices.
    pub(crate) fn check_signers(&self, signatures: &[(u16, Signature)]) -> Result<(), QuorumError> {
        let (got, need) = (signatures.len(), self.quorum);
        if got < need {
            return Err(QuorumError::TooFew { got, need });
        }
        let mut unseen = self.survivors.clone();
        for (signer, _) in signatures {
            let index = DeviceIndex::from(*signer);
            if self.survivors.contains(index) && !unseen.remove(index) {
                return Err(QuorumError::Repeated { index });
            }
        }
        Ok(())
    }

    pub(crate) fn sign(&self, identity: &IdentityKey) -> Signature {
        identity.sign(Self::DOMAIN, &[&self.digest])
    }
}
