//! With whom a device masked: what it signs with the end of its input.

use crate::{
    batch::Check,
    context::Context,
    evidence::EvidenceError,
    hash,
    identity::{IdentityKey, Signature},
    index::{DeviceIndex, IndexSet},
    roster::Roster,
};

/// The statement of a device that it masked its input with these sharers, in
/// this roster and no other.
///
/// A device uses the sharers that it is told one step before anybody signs who
/// survived. This statement is what binds them: the role that the signed
/// "included" messages between neighbours have in the malicious variant of
/// [BBG+20], section 4, here for every survivor and by one signature.
///
/// [BBG+20]: https://eprint.iacr.org/2020/704
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    digest: [u8; 32],
    sharers: IndexSet,
}

impl Sharing {
    const DOMAIN: &'static str = "sharing";

    /// The statement for a session with these sharers.
    pub fn new(ctx: &Context, roster: &Roster, sharers: IndexSet) -> Self {
        let digest = hash::digest(
            "sharing",
            &[&ctx.digest(), &roster.root(), &hash::length(roster.len()), &sharers.to_bytes()],
        );
        Self { digest, sharers }
    }

    /// The digest that is signed.
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The devices that shared their seeds.
    pub const fn sharers(&self) -> &IndexSet {
        &self.sharers
    }

    /// Fails unless the device in place `index` is a sharer and signed this.
    ///
    /// A server asks this of one signature at a time. Signatures that hold only
    /// together, which a point of small order brings about, would be taken by
    /// it and end the session on every device.
    pub fn verify(
        &self,
        roster: &Roster,
        index: impl Into<DeviceIndex>,
        signature: &Signature,
    ) -> Result<(), EvidenceError> {
        self.verify_by(roster, index.into(), signature, &mut |key, domain, parts, signature| {
            key.verify(domain, parts, signature)
        })
    }

    /// As [`Sharing::verify`], with the signature left to `check`.
    pub(crate) fn verify_by(
        &self,
        roster: &Roster,
        index: DeviceIndex,
        signature: &Signature,
        check: &mut Check<'_>,
    ) -> Result<(), EvidenceError> {
        let entry = roster.entry(index).filter(|_| self.sharers.contains(index));
        let identity = entry.ok_or(EvidenceError::NotASharer { index })?.credential.identity;
        if check(&identity, Self::DOMAIN, &[&self.digest], signature) {
            Ok(())
        } else {
            Err(EvidenceError::Sharing { index })
        }
    }

    pub(crate) fn sign(&self, identity: &IdentityKey) -> Signature {
        identity.sign(Self::DOMAIN, &[&self.digest])
    }
}
