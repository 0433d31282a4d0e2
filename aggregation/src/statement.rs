//! What a device signs in a session, once each: with whom it masked, and who
//! survived.

use crate::{
    batch::Check,
    evidence::EvidenceError,
    identity::{IdentityKey, Signature},
    index::{DeviceIndex, IndexSet},
    roster::Roster,
};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The sharers with whom a device masked.
    Sharing,
    /// The survivors too.
    Transcript,
}

/// A digest, and whose signatures over it count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) kind: Kind,
    pub(crate) digest: [u8; 32],
    pub(crate) signers: IndexSet,
}

impl Statement {
    const fn domain(&self) -> &'static str {
        match self.kind {
            Kind::Sharing => "sharing",
            Kind::Transcript => "consistency",
        }
    }

    /// Fails unless the device in place `index` may sign this and did.
    pub(crate) fn verify(
        &self,
        roster: &Roster,
        index: DeviceIndex,
        signature: &Signature,
    ) -> Result<(), EvidenceError> {
        self.verify_by(roster, index, signature, &mut |key, domain, parts, signature| {
            key.verify(domain, parts, signature)
        })
    }

    /// As [`Statement::verify`], with the signature left to `check`.
    pub(crate) fn verify_by(
        &self,
        roster: &Roster,
        index: DeviceIndex,
        signature: &Signature,
        check: &mut Check<'_>,
    ) -> Result<(), EvidenceError> {
        let Some(entry) = roster.entry(index).filter(|_| self.signers.contains(index)) else {
            return Err(match self.kind {
                Kind::Sharing => EvidenceError::NotASharer { index },
                Kind::Transcript => EvidenceError::NotASurvivor { index },
            });
        };
        if check(&entry.credential.identity, self.domain(), &[&self.digest], signature) {
            return Ok(());
        }
        Err(match self.kind {
            Kind::Sharing => EvidenceError::Sharing { index },
            Kind::Transcript => EvidenceError::Transcript { index },
        })
    }

    pub(crate) fn sign(&self, identity: &IdentityKey) -> Signature {
        identity.sign(self.domain(), &[&self.digest])
    }
}
