//! What a quorum of survivors must agree on before anything is revealed.

use crate::{
    context::Context,
    evidence::{Evidence, EvidenceError},
    graph::quorum,
    hash,
    identity::Signature,
    index::{DeviceIndex, IndexSet},
    roster::Roster,
    statement::{Kind, Statement},
};

/// The consistency step's statement T: who is in the session, who shared, who
/// survived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub(crate) statement: Statement,
    quorum: usize,
}

impl Transcript {
    /// The transcript of a session with these sharers and survivors.
    pub fn new(ctx: &Context, roster: &Roster, sharers: &IndexSet, survivors: &IndexSet) -> Self {
        Self::over(ctx, roster, sharers, survivors.clone())
    }

    /// As [`Transcript::new`], and keeps the survivors.
    pub(crate) fn over(ctx: &Context, roster: &Roster, sharers: &IndexSet, survivors: IndexSet) -> Self {
        let digest = hash::digest(
            "transcript",
            &[
                &ctx.session.0,
                &ctx.digest(),
                &roster.root(),
                &hash::length(roster.len()),
                &sharers.to_bytes(),
                &survivors.to_bytes(),
                &ctx.model_digest.0,
                &ctx.plan_digest.0,
            ],
        );
        let statement = Statement { kind: Kind::Transcript, digest, signers: survivors };
        Self { statement, quorum: quorum(roster.len(), ctx.corrupt) }
    }

    /// The digest that is signed.
    pub const fn digest(&self) -> [u8; 32] {
        self.statement.digest
    }

    /// The devices whose inputs are in the sum.
    pub const fn survivors(&self) -> &IndexSet {
        &self.statement.signers
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
    ) -> Result<(), EvidenceError> {
        self.statement.verify(roster, index.into(), signature)
    }

    /// Fails unless there is said to be a signature of every survivor, and of a
    /// quorum of them over this transcript.
    pub(crate) fn check_signers(&self, evidence: &Evidence) -> Result<(), EvidenceError> {
        let Evidence { agreed, signatures } = evidence;
        let (got, expected) = (agreed.places(), self.survivors().places());
        if got != expected {
            return Err(EvidenceError::Places { got, expected });
        }
        if let Some(index) = agreed.clone().without(self.survivors()).iter().next() {
            return Err(EvidenceError::NotASurvivor { index });
        }
        let (got, need) = (agreed.len(), self.quorum);
        if got < need {
            return Err(EvidenceError::TooFew { got, need });
        }
        let (got, survivors) = (signatures.len(), self.survivors().len());
        if got != survivors {
            return Err(EvidenceError::NotEverySurvivor { got, survivors });
        }
        Ok(())
    }
}
