//! With whom a device masked: what it signs with the end of its input.

use crate::{
    context::Context,
    evidence::EvidenceError,
    hash,
    identity::Signature,
    index::{DeviceIndex, IndexSet},
    roster::Roster,
    statement::{Kind, Statement},
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
pub struct Sharing(pub(crate) Statement);

impl Sharing {
    /// The statement for a session with these sharers.
    pub fn new(ctx: &Context, roster: &Roster, sharers: IndexSet) -> Self {
        let digest = hash::digest(
            "sharing",
            &[&ctx.digest(), &roster.root(), &hash::length(roster.len()), &sharers.to_bytes()],
        );
        Self(Statement { kind: Kind::Sharing, digest, signers: sharers })
    }

    /// The digest that is signed.
    pub const fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// The devices that shared their seeds.
    pub const fn sharers(&self) -> &IndexSet {
        &self.0.signers
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
        self.0.verify(roster, index.into(), signature)
    }
}
